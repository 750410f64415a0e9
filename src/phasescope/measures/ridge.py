"""Ridge regression with its whole path of ridges from one factorisation.

With centred features H = U S Vᵀ (n × p), centred targets Y (n × q) and A = Uᵀ Y:

    prediction on training samples    Ŷ(λ) = U F A,   F = diag(s² / (s² + λ))
    residual sum of squares           RSS(λ) = ‖Y − U A‖² + ‖(1 − F) A‖²
    degrees of freedom left           ν(λ) = (n − 1 − rank) + Σ λ / (s² + λ)
    generalised cross-validation      GCV(λ) = n RSS(λ) / ν(λ)²                  (Golub, Heath & Wahba 1979)
    leave-one-out residual            (y_i − ŷ_i) / (1 − h_ii),   h_ii = 1/n + Σ U_ik² s_k² / (s_k² + λ)
    leave-fold-out residuals          (I − H_BB)⁻¹ (Y − Ŷ)_B,   H_BB that part of the hat matrix 1/n + U F Uᵀ

Many targets (images of 2,048 pixels and more) come in single precision, and what is multiplied with them is brought to
it only then: U has orthonormal columns and V has too, so that nothing amplifies the rounding, 6e-8 of a target. The
factorisation itself is always one in double precision.

The mean of the targets is not penalised: it is the one degree of freedom, and the 1/n. At full rank, n − 1,
the first terms of RSS and ν are zero, and so are those of the leave-one-out residuals; they are then left
out, lest small ridges drown in their rounding.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from phasescope.params.ridge import RidgeSettings

Selection = Literal["gcv", "loo", "none"]
Solver = Literal["auto", "primal", "dual", "randomised"]

EPSILON = float(np.finfo(np.float64).eps)

#: Ridges tried, as multiples of the mean eigenvalue ‖H‖² / min(n, p), four to a decade: sixteen change the
#: test error by less than 1 % (digits, random ReLU features, p = 2 … 4096). The path begins near the rounding
#: error at which eigenvalues are dropped, and ends where even the largest possible eigenvalue, min(n, p) times
#: the mean, is shrunk tenfold for orders up to 1000: there nearly the mean is predicted.
RIDGES = np.logspace(-10, 4, 57)

#: Leave-one-out residuals held at once, 8 bytes each: a product for each ridge by itself takes 1.6 to 2.2 times
#: as long (512 features, 10 targets, 1,297 and 10,000 samples).
BLOCK = 2**21

#: Samples that are brought to float64 at once.
ROWS = 1024


@dataclass(frozen=True, eq=False)
class Factors:
    """Singular value decomposition H = U diag(s) Vᵀ of centred training features, in primal or dual form.

    Primal: V = `basis`, (feature, rank). Dual: V = Hᵀ `basis`, (sample, rank) `basis`, and V is never made.
    """

    features: np.ndarray  #: H, (sample, feature) float64
    mean: np.ndarray  #: (feature,) what was subtracted
    energy: float  #: ‖H‖²
    values: np.ndarray  #: s, (rank,), ascending
    basis: np.ndarray
    dual: bool

    @cached_property
    def left(self) -> np.ndarray:
        """U, (sample, rank)."""
        return self.basis * self.values if self.dual else self.features @ (self.basis / self.values)

    @property
    def spare(self) -> int:
        """Degrees of freedom that neither the mean nor the features take up: n − 1 − rank."""
        return len(self.features) - 1 - len(self.values)

    def coordinates(self, targets: np.ndarray) -> np.ndarray:
        """A = UᵀY, (rank, target), of targets (sample, target), in their precision."""
        if self.dual:
            return self.left.T.astype(targets.dtype, copy=False) @ targets
        if targets.dtype == np.float32:
            # U in blocks: all of it in float64 takes 1.6 times as long, mostly for new memory (10,000 × 512).
            left = np.empty((len(self.features), len(self.values)), np.float32)
            along = self.basis / self.values
            for first in range(0, len(left), ROWS):
                left[first : first + ROWS] = self.features[first : first + ROWS] @ along
            return left.T @ targets
        return self.basis.T @ (self.features.T @ targets) / self.values[:, None]

    def project(self, features: np.ndarray) -> np.ndarray:
        """Coordinates (sample, rank) of features (sample, feature) along the principal axes V."""
        return self._in_blocks(features, self.basis)

    def combine(self, features: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """`project(features) @ weights` for weights (rank, target), multiplied in the cheaper order if it is exact."""
        if weights.dtype == np.float32:
            return self.project(features).astype(np.float32) @ weights
        return self._in_blocks(features, self.basis @ weights)

    def fitted(self, weights: np.ndarray) -> np.ndarray:
        """`combine` of the training features, which are here already."""
        if self.dual:
            return self.left @ (self.values[:, None] * weights)
        return self.features @ (self.basis @ weights)

    def _in_blocks(self, features: np.ndarray, matrix: np.ndarray) -> np.ndarray:
        """Centred features, in the dual form times Hᵀ, times a matrix; never all of them in float64 at once."""
        products = []
        for first in range(0, len(features), ROWS):
            centred = widened(features[first : first + ROWS]) - self.mean  # float64, as the mean is
            products.append((centred @ self.features.T if self.dual else centred) @ matrix)
        return np.concatenate(products)


def factorise(features: np.ndarray, *, solver: Solver = "auto", exact_limit: int = 4096, rank: int = 1024) -> Factors:
    """Factor training features (sample, feature): finite, of any float type, two samples or more.

    Primal factors the Gram matrix of features, dual that of samples, and `auto` the smaller of them. Where
    that is larger than `exact_limit`, or if randomised, a `rank`-dimensional subspace of the features is
    sought (Halko, Martinsson & Tropp 2011), and the regression is exact within it.

    Directions with s² ≤ ε · max(n, p) · max s² are dropped: that is the rounding error of the eigenvalues
    of a Gram matrix in float64, so what lies below holds no information. So are those with s ≤ ε · max(n, p) · ‖F‖
    for the features F before they were centred, which is the rounding of the features themselves: equal probabilities
    that were summed in different orders differ by it, and must not be told apart.
    """
    samples, width = features.shape
    # Differences from the first sample make a constant feature exactly zero, whatever its value.
    start = features[0].astype(np.float64)
    centred = np.empty(features.shape)
    for first in range(0, samples, ROWS):
        np.subtract(widened(features[first : first + ROWS]), start, out=centred[first : first + ROWS])
    shift = centred.mean(axis=0)
    centred -= shift
    mean = start + shift
    energy = float(np.vdot(centred, centred))
    least = (EPSILON * max(samples, width)) ** 2 * (energy + samples * float(np.square(mean).sum()))

    if solver == "auto":
        exact = min(samples, width) <= exact_limit
        solver = "randomised" if not exact else "primal" if width <= samples else "dual"
    if solver == "dual":
        values, basis = _spectrum(centred @ centred.T, samples, width, least)
        return Factors(centred, mean, energy, values, basis / values, dual=True)
    if solver == "primal":
        values, basis = _spectrum(centred.T @ centred, samples, width, least)
        return Factors(centred, mean, energy, values, basis, dual=False)
    from sklearn.utils.extmath import randomized_svd  # seconds to import, and seldom needed

    subspace = randomized_svd(centred, min(rank, samples - 1, width), random_state=0)[2].T
    reduced = centred @ subspace
    values, basis = _spectrum(reduced.T @ reduced, samples, width, least)
    return Factors(centred, mean, energy, values, subspace @ basis, dual=False)


def widened(values: np.ndarray) -> np.ndarray:
    """Finite float16 as float32, others as they are.

    Exact: the bits move to their place in a float32, and the exponent is moved from its old offset to the new one. What
    numpy does takes three to ten times as long where half of the values are zero, as behind a ReLU.
    """
    if values.dtype != np.float16:
        return values
    bits = values.view(np.int16).astype(np.int32)
    bits <<= 13
    bits &= np.int32(-0x70002000)  # the sign, which filled the upper bits, at its place alone
    single: np.ndarray = bits.view(np.float32)
    single *= np.float32(2.0**112)
    return single


def _spectrum(gram: np.ndarray, samples: int, width: int, least: float) -> tuple[np.ndarray, np.ndarray]:
    """Singular values from a Gram matrix, ascending, without the numerically zero ones, and their vectors."""
    squares, vectors = np.linalg.eigh(gram)
    rank = int(np.count_nonzero(squares > max(EPSILON * max(samples, width) * squares[-1], least)))
    first = len(squares) - min(rank, samples - 1)
    return np.sqrt(squares[first:]), vectors[:, first:]


@dataclass(frozen=True, eq=False)
class Centred:
    """Targets less their mean, which the regressions of all cells share."""

    values: np.ndarray  #: Y, (sample, target), float64 or float32
    mean: np.ndarray  #: (target,) what was subtracted
    energy: float  #: ‖Y‖²


def centre(targets: np.ndarray, mean: np.ndarray | None = None) -> Centred:
    """Targets (sample, target), float64 or float32, as regressions take them; `mean` (target,) is known or computed."""
    if mean is None:
        mean = targets.mean(axis=0, dtype=np.float64)
    mean = mean.astype(targets.dtype)
    centred = targets - mean
    # Within a sample in the targets' own precision, which is that of UᵀY: 5 instead of 26 ms (10,000 × 3,072).
    return Centred(centred, mean, float(np.einsum("ij,ij->i", centred, centred).sum(dtype=np.float64)))


@dataclass(frozen=True, eq=False)
class Ridge:
    """A ridge regression with the ridge that the training samples choose."""

    ridges: np.ndarray  #: (path,) what was tried, ascending
    scores: np.ndarray  #: (path,) squared error per target to expect of a new sample; 0 without a ridge
    ridge: float  #: λ of the lowest score; 0 if no feature varies
    train_mse: float  #: squared error, mean over training samples and targets
    factors: Factors
    weights: np.ndarray  #: (rank, target)
    mean: np.ndarray  #: (target,) mean training target

    def predict(self, features: np.ndarray) -> np.ndarray:
        """Targets (sample, target) from features (sample, feature): their mean if no feature varied."""
        predicted = self.factors.combine(features, self.weights)
        predicted += self.mean
        return predicted

    def fitted(self) -> np.ndarray:
        """Targets predicted of the training samples (sample, target)."""
        return self.mean + self.factors.fitted(self.weights)

    def coefficients(self) -> tuple[np.ndarray, np.ndarray]:
        """W (feature, target) and b (target,) of what is predicted, `features @ W + b`."""
        weights = self.factors.basis @ self.weights
        if self.factors.dual:
            weights = self.factors.features.T @ weights
        return weights, self.mean - self.factors.mean @ weights


def factors_of(features: np.ndarray, settings: RidgeSettings) -> Factors:
    """`factorise` training features (sample, feature) as the settings ask for."""
    return factorise(features, solver=settings.solver, exact_limit=settings.exact_limit, rank=settings.rank)


def least_squares_mse(factors: Factors, targets: Centred) -> float:
    """Mean squared error that least squares without a ridge leaves of the training targets (sample, target)."""
    if not factors.spare:
        return 0.0
    left = targets.energy - float(np.square(factors.coordinates(targets.values)).sum(dtype=np.float64))
    return max(left, 0.0) / targets.values.size


def fit(factors: Factors, targets: np.ndarray, selection: Selection) -> Ridge:
    """Ridge regression on targets (sample, target), float64, with one ridge for all of them; see `fit_centred`."""
    return fit_centred(factors, centre(targets), selection)


def fit_centred(factors: Factors, targets: Centred, selection: Selection) -> Ridge:
    """Ridge regression on centred targets, with one ridge for all of them.

    Leave-one-out costs a product (sample × rank × target) for each ridge of the path, GCV one for all of it.
    """
    samples, number = targets.values.shape
    coordinates = factors.coordinates(targets.values)
    energies = np.square(coordinates).sum(axis=1, dtype=np.float64)
    outside = max(targets.energy - float(energies.sum()), 0.0) if factors.spare else 0.0

    ridges = np.zeros(1) if selection == "none" else _ridges(factors)
    squares = np.square(factors.values)
    shrinkage = ridges[:, None] / (squares + ridges[:, None])  # 1 − F, (path, rank)
    residuals = outside + np.square(shrinkage) @ energies
    if selection == "none":
        scores = np.zeros(1)
    elif selection == "gcv":
        scores = samples * residuals / np.square(factors.spare + shrinkage.sum(axis=1)) / number
    else:
        scores = _leave_one_out(factors, targets.values, coordinates, shrinkage)
    best = int(np.argmin(scores))
    filters = factors.values / (squares + ridges[best])
    weights = filters.astype(coordinates.dtype)[:, None] * coordinates
    train_mse = float(residuals[best]) / (samples * number)
    return Ridge(ridges, scores, float(ridges[best]), train_mse, factors, weights, targets.mean)


def out_of_fold(factors: Factors, targets: Centred, ridge: float, folds: np.ndarray) -> np.ndarray:
    """What is predicted of each sample by the same regression without the samples of its fold, from one factorisation.

    Exact for the ridge given and all features that were factored. Without a ridge, samples that alone have some feature
    leave its weight undetermined in their fold; the least ridge of the path then stands in for 0.

    Args:
        factors: of the features of all samples.
        targets: (sample, target).
        ridge: λ, the same for every fold.
        folds: (sample,) int, of every sample.

    Returns:
        Targets (sample, target).
    """
    squares, left = np.square(factors.values), factors.left
    if len(squares):
        ridge = max(ridge, RIDGES[0] * factors.energy / min(factors.features.shape))
    kept = squares / (squares + ridge)  # F
    coordinates = factors.coordinates(targets.values)
    if factors.spare:
        residuals = targets.values - left @ (kept[:, None] * coordinates)
        # H = Z Zᵀ, and (1 − Z Zᵀ)⁻¹ = 1 + Z (1 − Zᵀ Z)⁻¹ Zᵀ, whichever is smaller.
        hat = np.column_stack([left * np.sqrt(kept), np.full(len(left), len(left) ** -0.5)])
    else:
        residuals = left @ ((1 - kept)[:, None] * coordinates)  # by 1 − 1/n = U Uᵀ, without cancellation
    predicted = targets.values + targets.mean
    for fold in np.unique(folds):
        rows = np.flatnonzero(folds == fold)
        here = residuals[rows]
        if not factors.spare:
            part = left[rows]
            predicted[rows] -= np.linalg.solve((part * (1 - kept)) @ part.T, here)
        elif len(rows) <= hat.shape[1]:
            part = hat[rows]
            predicted[rows] -= np.linalg.solve(np.eye(len(rows)) - part @ part.T, here)
        else:
            part = hat[rows]
            inner = np.linalg.solve(np.eye(part.shape[1]) - part.T @ part, part.T @ here)
            predicted[rows] -= here + part @ inner
    return predicted


def _ridges(factors: Factors) -> np.ndarray:
    """Ridges to try: 0 only where samples are left over to judge it, and 0 alone if no feature varies."""
    if not len(factors.values):
        return np.zeros(1)
    ridges = RIDGES * factors.energy / min(factors.features.shape)
    return np.concatenate([[0.0], ridges]) if factors.spare else ridges


def _leave_one_out(factors: Factors, targets: np.ndarray, coordinates: np.ndarray, shrinkage: np.ndarray) -> np.ndarray:
    """Mean squared leave-one-out residual per target, (path,); infinite where a sample has leverage one.

    Leaving a sample out moves the means of features and targets too: that is the 1/n in h_ii.
    """
    left = factors.left
    leverages = np.square(left)
    if factors.spare:
        outside = targets - left @ coordinates
        slack = 1.0 - 1.0 / len(targets) - leverages.sum(axis=1)
        slack[slack < len(targets) * EPSILON] = 0.0
    else:
        outside = np.zeros_like(targets)
        slack = np.zeros(len(targets))
    remaining = slack[:, None] + leverages @ shrinkage.T  # 1 − h_ii, (sample, path)
    errors = np.empty_like(remaining)
    samples, number = targets.shape
    step = max(1, BLOCK // targets.size)
    for start in range(0, len(shrinkage), step):
        part = shrinkage[start : start + step]
        weights = part.T[:, :, None] * coordinates[:, None, :]  # (rank, ridge, target)
        residuals = left @ weights.reshape(len(coordinates), len(part) * number)
        residuals = residuals.reshape(samples, len(part), number)
        residuals += outside[:, None, :]
        errors[:, start : start + step] = np.einsum("irt,irt->ir", residuals, residuals)
    judged = remaining.min(axis=0) > 0.0
    scores = np.full(len(shrinkage), np.inf)
    scores[judged] = np.mean(errors[:, judged] / np.square(remaining[:, judged]), axis=0) / number
    return scores
