"""Settings of the stage `decode`."""

from typing import Annotated, Literal

from pydantic import Field

from phasescope.params.base import EACH_ONCE
from phasescope.params.ridge import RidgeSettings

Decoder = Literal["linear", "linear-adam", "deconvolution"]


class DecodeSettings(RidgeSettings):
    """How inputs are reconstructed from activations; the settings of a ridge are those of the exact linear decoder."""

    #: linear: the exact least-squares decoder; linear-adam: a linear one that is trained, as in the paper's released
    #: code; deconvolution: the decoder of an auto-encoder, as in the paper's text. Phases and figures are those of the
    #: first.
    decoders: Annotated[list[Decoder], Field(min_length=1), EACH_ONCE] = ["linear"]
    #: Those that are trained (linear-adam, deconvolution): passes over the training samples.
    epochs: Annotated[int, Field(ge=1, le=10_000)] = 30
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 0.0003
    batch_size: Annotated[int, Field(ge=1, le=10**6)] = 128
    #: The paper does not mention it; its released code has 1e-5.
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 0.0
    #: deconvolution: factor on the channels of the decoder's maps, for small machines; 1 is the paper's.
    width: Annotated[float, Field(gt=0, le=16)] = 1.0
    #: Taps that those that are trained decode from (none: all of the run).
    trained_taps: Annotated[list[str], Field(min_length=1), EACH_ONCE] | None = None
