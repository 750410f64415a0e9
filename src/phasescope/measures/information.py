"""The information plane (Tishby & Zaslavsky 2015): what a layer T tells of the input X and of the class Y."""

from collections.abc import Callable, Set

import numpy as np
import xarray as xr

from phasescope.measures import estimators
from phasescope.measures.estimators import Classes
from phasescope.measures.samples import Samples, Variable, over_cells
from phasescope.params.information import NOISY, Estimator, InformationSettings

UNITS = "nat"
VARIABLES = {
    "i_x": Variable("information of the layer about the input, I(T;X)", UNITS),
    "i_y": Variable("information of the layer about the class, I(T;Y)", UNITS),
}
BOUNDED = {
    "i_x_lower": Variable("lower bound of I(T;X)", UNITS),
    "i_x_upper": Variable("upper bound of I(T;X)", UNITS),
    "i_y_lower": Variable("lower bound of I(T;Y)", UNITS),
    "i_y_upper": Variable("upper bound of I(T;Y)", UNITS),
    "noise_variance": Variable("variance of the noise in each direction", "activation^2"),
    "total_variance": Variable("variance of the layer in all directions together", "activation^2"),
}
INPUTS = Variable("entropy of the input, ln n: the most that I(T;X) can be", UNITS)
LABELS = Variable("entropy of the class: the most that I(T;Y) can be", UNITS)

#: Least variance that is told from rounding errors, as a share of the mean square: of float32 through a network, and of
#: what is stored in float16, whose rounding is coarser than that.
FLOOR = 1e-8

Found = dict[str, np.ndarray | float]


def information(activations: xr.DataArray, samples: Samples, settings: InformationSettings) -> xr.Dataset:
    """Mutual information of one layer with the input and the class, by the first of `settings.estimators`, in nats.

    X is one of n samples, each as likely. They are the same for every cell, and so is the noise, so that curves over
    steps do not jump by either.

    `gaussian` is what a Gaussian channel lets through: T = t_X + N(0, σ²I), σ² = `noise` · Tr Cov(t). Noise in
    proportion to the layer makes the value independent of the scale of the weights. σ² is never below the rounding
    errors of the activations, taken as 1e-8 of their mean square (of float16 2⁻²⁰), so that a layer that has collapsed
    tells nothing. `gaussian-absolute` has σ² = `variance`. `measures.estimators` has the formulas.

    Where I(T;X) is near ln n, I(T;Y) is near H(Y) whatever the classes are: each sample is then told by itself (normal
    features, n = 1,392, d = 128, 59 classes at random: 7.15 of 7.24 and 3.97 of 4.06). Over draws of the noise the
    Monte-Carlo values have a standard deviation of 0.005 to 0.042 (24 cells of networks that learn addition modulo 59,
    n = 1,740, 12 draws each); storing those layers in float16 instead of float32 changes no value by more than 5e-4.

    The others put T into bins. `binned-pca`: `bins` along each of `components` principal components, from the smallest
    to the largest value there. `binned-full`: floor(t / `bin_width`) along every feature (Saxe et al. 2018).
    `quantised`: the nearest of 2^`bits` levels between the layer's smallest and largest value (Lorenzen et al. 2022).
    Both are ln n as soon as no two samples agree in all features, as in any wide layer. `neuron-mean`: what each
    feature tells by itself, by `bins` over its range, mean over features.

    Args:
        activations: (seed, step, sample, feature), finite.
        samples: labels and split of the same samples.
        settings: the estimator, its resolution, and which samples.

    Returns:
        On (seed, step): `i_x` and `i_y`; through noise these are Monte-Carlo values, and there are bounds as well,
        `i_x_lower`, `i_x_upper`, `i_y_lower`, `i_y_upper`, and `noise_variance` σ², `total_variance` Tr Cov(t). Without
        dimensions `h_x` = ln n and `h_y` = H(Y), the most that there is to tell; their attributes have `samples` n,
        `part` and `draw_seed`.

    Raises:
        UserError: activations hold NaN or infinite values.
    """
    estimator = settings.estimators[0]
    chosen = _chosen(samples, settings)
    classes = Classes(samples.labels[chosen])
    measure = _measure(estimator, classes, settings)
    variables = VARIABLES | (BOUNDED if estimator in NOISY else {})
    result = over_cells(activations, lambda cell: measure(cell[chosen]), variables)
    about = {"samples": len(chosen), "part": settings.part, "draw_seed": settings.draw_seed}
    result["h_x"] = ((), classes.inputs, {**INPUTS.attributes, **about})
    result["h_y"] = ((), classes.entropy, {**LABELS.attributes, **about})
    return result


def settings_of(estimator: Estimator, settings: InformationSettings) -> InformationSettings:
    """The settings with those of all other estimators at their defaults, so that these do not tell cells apart."""
    mine: Set[str] = {
        "gaussian": {"noise"},
        "gaussian-absolute": {"variance"},
        "binned-pca": {"bins", "components"},
        "binned-full": {"bin_width"},
        "neuron-mean": {"bins"},
        "quantised": {"bits"},
    }[estimator]
    return settings.only(mine | {"part", "samples", "draw_seed"}, estimators=[estimator])


def _chosen(samples: Samples, settings: InformationSettings) -> np.ndarray:
    """Positions of the samples that are looked at, (sample,), sorted by class; fewer are among more."""
    positions = np.flatnonzero(samples.train if settings.part == "train" else samples.test)
    positions = np.sort(np.random.default_rng(settings.draw_seed).permutation(positions)[: settings.samples])
    return positions[np.argsort(samples.labels[positions], kind="stable")]


def _measure(estimator: Estimator, classes: Classes, settings: InformationSettings) -> Callable[[np.ndarray], Found]:
    """What an estimator makes of one cell, (sample, feature) in the order of the classes."""

    def noisy(cell: np.ndarray) -> Found:
        points, smallest = _centred(cell)
        total = float(np.einsum("ij,ij->", points, points)) / len(points)
        relative = max(settings.noise * total, smallest) or 1.0  # where all is zero, any will do
        variance = relative if estimator == "gaussian" else settings.variance
        # Another stream than that of the samples.
        rng = np.random.default_rng((settings.draw_seed, 1))
        found = estimators.through_noise(points, classes, variance, rng)
        return {**found, "noise_variance": variance, "total_variance": total}

    def binned(cell: np.ndarray) -> Found:
        if estimator == "binned-pca":
            axes = estimators.principal_components(*_centred(cell), settings.components)
            symbols = estimators.whole(estimators.equal_bins(axes, settings.bins))
        elif estimator == "binned-full":
            symbols = estimators.whole(np.floor(cell.astype(np.float64) / settings.bin_width))
        elif estimator == "quantised":
            symbols = estimators.whole(estimators.levels(cell.astype(np.float64), settings.bits))
        else:
            symbols = estimators.equal_bins(cell.astype(np.float64), settings.bins)
        return {**estimators.of_symbols(symbols, classes)}

    return noisy if estimator in NOISY else binned


def _centred(cell: np.ndarray) -> tuple[np.ndarray, float]:
    """A cell less its mean in float64, and the least variance that is told from rounding errors of the activations."""
    points = cell.astype(np.float64)
    share = max(FLOOR, float(np.finfo(cell.dtype).eps) ** 2)
    smallest = share * float(np.einsum("ij,ij->", points, points)) / len(points)
    points -= points.mean(axis=0)
    return points, smallest
