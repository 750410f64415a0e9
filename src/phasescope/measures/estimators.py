"""Mutual information between a layer T, its input X and the class Y, from the layer's value for each of n inputs.

X is one of the n inputs, each as likely, and a network makes T of it without noise. So as soon as all values differ,
I(T;X) is ln n whatever the network has learned (Goldfeld et al. 2019): what can be measured is how the values cluster
at a resolution, which is that of added noise or of bins. Everything is in nats, in float64.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.linalg
from scipy.special import entr

#: Numbers held at once for a block of inputs against all others, 8 bytes each; four such blocks are alive at a time.
BLOCK = 2**20


@dataclass(frozen=True, eq=False)
class Classes:
    """The classes of n inputs, of which those of one class stand together."""

    labels: np.ndarray  #: (sample,) ascending

    @cached_property
    def counts(self) -> np.ndarray:
        """Inputs of each class, (class,)."""
        return np.asarray(np.unique(self.labels, return_counts=True)[1])

    @cached_property
    def starts(self) -> np.ndarray:
        """The first input of each class, (class,)."""
        return np.cumsum(self.counts) - self.counts

    @cached_property
    def own(self) -> np.ndarray:
        """The class of each input as a position among the classes, (sample,)."""
        return np.repeat(np.arange(len(self.counts)), self.counts)

    @property
    def inputs(self) -> float:
        """H(X) = ln n."""
        return float(np.log(len(self.labels)))

    @property
    def entropy(self) -> float:
        """H(Y)."""
        return float(entr(self.counts / len(self.labels)).sum())


def through_noise(
    points: np.ndarray, classes: Classes, variance: float, rng: np.random.Generator, block: int = BLOCK
) -> dict[str, float]:
    """Information about X and Y of T = t_X + ε, ε ~ N(0, σ²I): a mixture of n Gaussians with known centres.

    With k(u, v) = exp(−|u − v|²/2σ²), classes C(i) of n_C inputs, and one draw ε_i for each input:

        I(T;X) = (1/n) Σ_i { −ln[(1/n) Σ_j k(t_i + ε_i, t_j)] − |ε_i|²/2σ² }       by Monte Carlo (Goldfeld et al. 2019)
        I(T;X) ≤ −(1/n) Σ_i ln[(1/n) Σ_j k(t_i, t_j)],   ≥ the same with 4σ² for σ²    (Kolchinsky & Tracey 2017)
        I(T;X|Y): the same sums over j in C(i), with n_C(i) for n;   I(T;Y) = I(T;X) − I(T;X|Y)

    The difference of two upper bounds bounds nothing. What does is that of an upper and a lower one: I(T;Y) is at least
    the lower bound of I(T;X) less the upper one of I(T;X|Y), and 0; at most the reverse, and H(Y).

    Distances are |u|² + |v|² − 2uv, off by rounding errors of the largest |t|², which points around 0 keep small beside
    σ². |ε_i|² cancels. Each sum has its own term, which is 1, so none vanishes; and a term is infinite only where the
    noise is 37σ along one line.

    Args:
        points: t less their mean, (sample, feature) float64, in the order of the classes.
        classes: of the same samples.
        variance: σ², above 0.
        rng: of ε.
        block: numbers held at once. Without effect on the result but for rounding.

    Returns:
        `i_x`, `i_x_lower`, `i_x_upper`, and the same of `i_y`.
    """
    count = len(points)
    squares = np.einsum("ij,ij->i", points, points)
    rows = max(1, block // count)
    # Mean logarithm of the sums over all inputs, and over those of the same class.
    everyone, alike = dict.fromkeys(("value", "lower", "upper"), 0.0), dict.fromkeys(("value", "lower", "upper"), 0.0)
    for first in range(0, count, rows):
        centres, places = points[first : first + rows], np.arange(first, min(first + rows, count))
        itself = (places - first, places)
        exponents = centres @ points.T
        exponents *= 2
        exponents -= squares
        exponents -= squares[places, None]
        np.minimum(exponents, 0, out=exponents)
        exponents /= 2 * variance
        exponents[itself] = 0
        noise = rng.standard_normal(centres.shape)
        noise /= np.sqrt(variance)
        noisy = noise @ points.T
        noisy -= noisy[itself][:, None]
        noisy += exponents
        for name, terms in (("value", noisy), ("upper", exponents), ("lower", exponents / 4)):
            np.exp(terms, out=noisy)
            sums = np.add.reduceat(noisy, classes.starts, axis=1)
            everyone[name] += np.log(sums.sum(axis=1)).sum() / count
            alike[name] += np.log(sums[itself[0], classes.own[places]]).sum() / count
    about = {name: classes.inputs - mean for name, mean in everyone.items()}
    within = {name: classes.inputs - classes.entropy - mean for name, mean in alike.items()}
    return {
        "i_x": about["value"],
        "i_x_lower": about["lower"],
        "i_x_upper": about["upper"],
        "i_y": about["value"] - within["value"],
        "i_y_lower": max(about["lower"] - within["upper"], 0.0),
        "i_y_upper": min(about["upper"] - within["lower"], classes.entropy),
    }


def of_symbols(symbols: np.ndarray, classes: Classes) -> dict[str, float]:
    """Information about X and Y of T as a symbol: I(T;X) = H(T), I(T;Y) = H(T) − H(T|Y).

    Args:
        symbols: (sample, column) from 0, int64, in the order of the classes. Each column is a T by itself: what comes
            out is their mean.
        classes: of the same samples.

    Returns:
        `i_x` and `i_y`.
    """
    number, columns = int(symbols.max()) + 1, symbols.shape[1]
    shifted = symbols + number * np.arange(columns)

    def entropy(part: np.ndarray) -> float:
        counts = np.bincount(part.ravel(), minlength=number * columns)
        return float(entr(counts / len(part)).sum() / columns)

    of_classes = [entropy(part) for part in np.split(shifted, classes.starts[1:])]
    about = entropy(shifted)
    return {"i_x": about, "i_y": about - float(classes.counts @ of_classes) / len(symbols)}


def whole(codes: np.ndarray) -> np.ndarray:
    """Each distinct row of codes (sample, feature) as one symbol, (sample, 1)."""
    codes = np.ascontiguousarray(codes + 0.0)  # −0 is 0
    rows = codes.view(np.dtype((np.void, codes.itemsize * codes.shape[1])))
    return np.unique(rows, return_inverse=True)[1].reshape(-1, 1)


def equal_bins(values: np.ndarray, bins: int) -> np.ndarray:
    """Bin of each value of a column between its smallest and largest, (sample, column) int64; one if they coincide."""
    low, span = values.min(axis=0), np.ptp(values, axis=0)
    scaled = (values - low) / np.where(span > 0, span, 1) * bins
    return np.minimum(scaled.astype(np.int64), bins - 1)


def levels(points: np.ndarray, bits: int) -> np.ndarray:
    """The nearest of 2^bits levels between the smallest and the largest value of all, (sample, feature)."""
    low, span = points.min(), np.ptp(points)
    return np.rint((points - low) / (span if span > 0 else 1) * (2**bits - 1))


def principal_components(points: np.ndarray, smallest: float, number: int) -> np.ndarray:
    """Coordinates (sample, component) along the axes of largest variance, 0 where that is at most `smallest`.

    Bins over the range of a direction without variance would be bins of rounding errors.

    Args:
        points: less their mean, (sample, feature) float64.
        smallest: variance that counts.
        number: of axes, if there are as many.
    """
    count, width = points.shape
    order = min(count, width)
    gram = points.T @ points if width <= count else points @ points.T
    squares, vectors = scipy.linalg.eigh(gram, subset_by_index=(max(0, order - number), order - 1))
    coordinates = points @ vectors if width <= count else vectors * np.sqrt(np.maximum(squares, 0))
    # The sign of an axis is arbitrary, but bins are counted from one of its ends: the longer half is positive.
    signs = np.where(-coordinates.min(axis=0) > coordinates.max(axis=0), -1, 1)
    return np.where(squares > smallest * count, coordinates * signs, 0.0)
