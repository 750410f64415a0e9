"""Settings of the stage `information`."""

from typing import Annotated, Literal

from pydantic import Field

from phasescope.params.base import EACH_ONCE, Section

Estimator = Literal["gaussian", "gaussian-absolute", "binned-pca", "binned-full", "neuron-mean", "quantised"]

#: Those that add noise.
NOISY: tuple[Estimator, ...] = ("gaussian", "gaussian-absolute")


class InformationSettings(Section):
    """How much a layer tells of the input and of the class, in nats; always at a resolution, which is set here."""

    #: gaussian: through noise in proportion to the layer's variance; gaussian-absolute: through noise of one variance
    #: (the KDE of Saxe et al. 2018); binned-pca: bins along principal components; binned-full: bins of one width along
    #: every feature; neuron-mean: bins of each feature by itself, mean over features; quantised: as many levels for
    #: every feature as so many bits have. Figures show the first.
    estimators: Annotated[list[Estimator], Field(min_length=1), EACH_ONCE] = ["gaussian"]
    #: Of whose samples: the input X is one of them, each as likely.
    part: Literal["train", "test"] = "train"
    #: At most so many of them, drawn at random: the same ones for every cell.
    samples: Annotated[int, Field(ge=2, le=100_000)] = 2000
    #: Seed of that draw, and of the noise.
    draw_seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    #: gaussian: variance of the noise in each direction, as a share of the variance of the layer in all directions.
    noise: Annotated[float, Field(gt=0, le=1000)] = 0.03
    #: gaussian-absolute: variance of the noise in each direction, in squared activations.
    variance: Annotated[float, Field(gt=0, le=10**6)] = 0.1
    #: binned-pca, neuron-mean: bins between the smallest and the largest value.
    bins: Annotated[int, Field(ge=2, le=10_000)] = 30
    #: binned-pca: how many principal components.
    components: Annotated[int, Field(ge=1, le=100)] = 3
    #: binned-full: Saxe et al. 2018 have 0.07; 1/15 is 30 bins between -1 and 1 (Shwartz-Ziv & Tishby 2017).
    bin_width: Annotated[float, Field(gt=0, le=10**6)] = 0.07
    #: quantised: levels are 2^bits, from the layer's smallest value to its largest.
    bits: Annotated[int, Field(ge=1, le=32)] = 8
