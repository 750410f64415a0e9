"""Class-conditional distributions of single features (Figure 4 of the learning-phases paper)."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import xarray as xr

from phasescope.measures.samples import Samples, Variable, over_cells, require_finite
from phasescope.params.distributions import DistributionsSettings

#: Numbers held at once for a block of features, 8 bytes each: 32 MiB an array.
BLOCK = 2**22

#: Range of a histogram, as quantiles; zero is its lower end where nothing is negative.
QUANTILES = (0.001, 0.999)

VARIABLES = {
    "zero_fraction": Variable("share of activations that are exactly zero"),
    "zero_fraction_class": Variable("share of activations of a class that are exactly zero", dims=("class",)),
    "selectivity": Variable("class selectivity index, mean over features"),
    "class_variance": Variable("share of variance between classes, mean over features"),
    "selective_classes": Variable("share of features by number of classes preferred", dims=("count",)),
    "strength_ratio": Variable("mean of upper over lower tercile in the top class, median over features"),
    "js_divergence": Variable("Jensen-Shannon divergence between classes, mean over features", "bit"),
    "js_divergence_shuffled": Variable("the same with shuffled labels: what is bias alone", "bit"),
}


def statistics(activations: xr.DataArray, samples: Samples, settings: DistributionsSettings) -> xr.Dataset:
    """How far single features of a layer tell classes apart, in numbers, over the test samples.

    Args:
        activations: (seed, step, sample, feature), finite.
        samples: labels and split of the same samples.
        settings: `bins` of the histograms.

    Returns:
        On (seed, step), over all features:

        - `zero_fraction`, and `zero_fraction_class` with `class` (NaN for a class without test samples).
        - `class_variance`: mean of η², variance between classes over total variance (0 if constant).
        - `js_divergence`: mean of the generalised Jensen–Shannon divergence of the class-conditional
          histograms, all classes weighted alike (Lin 1991), in bits, at most log2 of the number of classes.
          The `bins` bins go from 0 (the 0.1 % quantile if the feature has negative values) to the 99.9 %
          quantile of that feature at that cell; what lies outside counts in the outer ones. Few samples bias
          it upwards: at 60 bins, ten equal normal classes of 50 samples give 0.70, of 1000 samples 0.04.
        - `js_divergence_shuffled`: the same with shuffled labels, which is what that bias amounts to here.

        Only where no activation of the cell is negative, NaN elsewhere:

        - `selectivity`: mean of (μ_max − μ_rest) / (μ_max + μ_rest), the largest class mean against the
          mean of the other class means (Morcos et al. 2018), 0 for a feature that is always zero.
        - `selective_classes` with `count` 0 … classes: share of features with that many classes whose mean
          exceeds twice the overall mean.
        - `strength_ratio`: within the class of the largest mean, the mean of the upper over that of the
          lower third of the samples; median over the features whose lower third is not all zero, NaN if
          there is none. An empirical strength k.

    Raises:
        UserError: activations hold NaN or infinite values.
    """
    groups = _Groups.of(samples)
    coords = {"class": np.arange(samples.classes), "count": np.arange(samples.classes + 1)}
    return over_cells(activations, lambda cell: _statistics(cell, groups, settings.bins), VARIABLES, coords)


def choose_features(activations: xr.DataArray, samples: Samples, settings: DistributionsSettings) -> list[int]:
    """Features to show: the fixed ones that exist, then the most class-selective of the others.

    Args:
        activations: (sample, feature) of one seed at the last step, finite.
        samples: labels and split of the same samples.
        settings: `fixed` features and the number of `selective` ones.

    Returns:
        Indices of features. Most selective by the class selectivity index if no activation is negative, by
        the share of variance between classes otherwise; the lower index first among equals.

    Raises:
        UserError: activations hold NaN or infinite values.
    """
    groups = _Groups.of(samples)
    cell = activations.transpose("sample", "feature").values
    require_finite(cell, "that features are chosen by")
    negative = bool(cell[groups.order].min() < 0)
    scores = np.concatenate(
        [_class_variance(b, groups) if negative else _selectivity(b, groups) for b in _blocks(cell, groups)]
    )
    fixed = list(dict.fromkeys(feature for feature in settings.fixed if feature < len(scores)))
    ranked = np.argsort(-scores, kind="stable").tolist()
    return fixed + [feature for feature in ranked if feature not in fixed][: settings.selective]


def histograms(activations: xr.DataArray, samples: Samples, settings: DistributionsSettings) -> xr.Dataset:
    """Class-conditional histograms of a few features over training, with bins that are common to all steps.

    Args:
        activations: (step, sample, feature) of one seed, finite.
        samples: labels and split of the same samples.
        settings: `bins`.

    Returns:
        `zero` (feature, step, class): share of exact zeros; `density` (feature, step, class, bin): density of
        the other values, so that it integrates to 1 − zero; `edge` (feature, end): the ends of the bins,
        from 0 (from the 0.1 % quantile where there are negative values) to the 99.9 % quantile over all
        steps, what lies outside in the outer bins. NaN for a class without test samples.

    Raises:
        UserError: activations hold NaN or infinite values.
    """
    groups = _Groups.of(samples)
    ordered = activations.transpose("feature", "step", "sample")
    require_finite(ordered.values, "that histograms are made of")
    values = ordered.values[:, :, groups.order].astype(np.float64)  # (feature, step, sample)
    features, steps = values.shape[:2]
    low, high = _range(values.reshape(features, -1))
    bins = _bins(values, low[:, None, None], high[:, None, None], settings.bins)
    bins[values == 0] = settings.bins  # a bin of their own, taken off below
    counts = groups.count(bins.reshape(features * steps, values.shape[-1]), settings.bins + 1)
    shares = np.full((features, steps, samples.classes, settings.bins + 1), np.nan)
    shares[:, :, groups.classes] = (counts / groups.sizes[:, None]).reshape(features, steps, -1, settings.bins + 1)
    width = (high - low) / settings.bins
    cell = ("feature", "step", "class")
    return xr.Dataset(
        {
            "density": (
                (*cell, "bin"),
                shares[..., :-1] / width[:, None, None, None],
                Variable("density of non-zero activations", "1/activation").attributes,
            ),
            "zero": (cell, shares[..., -1], Variable("share of exact zeros").attributes),
            "edge": (
                ("feature", "end"),
                np.linspace(low, high, settings.bins + 1, axis=1),
                Variable("ends of the bins", "activation").attributes,
            ),
        },
        coords={
            "feature": ordered["feature"].values,
            "step": ordered["step"].values,
            "class": np.arange(samples.classes),
        },
    )


@dataclass(frozen=True, eq=False)
class _Groups:
    """The test samples sorted by class, so that a class is a slice."""

    order: np.ndarray  #: (test sample,) positions among all samples
    classes: np.ndarray  #: (group,) classes that have test samples
    slices: list[slice]  #: (group,) of the sorted samples
    all_classes: int

    @classmethod
    def of(cls, samples: Samples) -> "_Groups":
        positions = np.flatnonzero(samples.test)
        labels = samples.labels[positions]
        classes, sizes = np.unique(labels, return_counts=True)
        ends = np.cumsum(sizes)
        slices = [slice(end - size, end) for end, size in zip(ends.tolist(), sizes.tolist(), strict=True)]
        return cls(positions[np.argsort(labels, kind="stable")], classes, slices, samples.classes)

    @property
    def shuffle(self) -> np.ndarray:
        """(test sample,) a fixed random order."""
        return np.random.default_rng(0).permutation(len(self.order))

    @property
    def sizes(self) -> np.ndarray:
        """(group,) number of samples."""
        return np.array([s.stop - s.start for s in self.slices])

    def means(self, values: np.ndarray) -> np.ndarray:
        """(row, sample) → (row, group)."""
        return np.stack([values[:, s].mean(axis=1) for s in self.slices], axis=1)

    def count(self, bins: np.ndarray, number: int) -> np.ndarray:
        """Bin of each sample (row, sample) → samples in each bin (row, group, bin)."""
        rows, groups = len(bins), len(self.slices)
        group = np.repeat(np.arange(groups), self.sizes)
        flat = (np.arange(rows)[:, None] * groups + group) * number + bins
        return np.bincount(flat.ravel(), minlength=rows * groups * number).reshape(rows, groups, number)


def _blocks(cell: np.ndarray, groups: _Groups, bins: int = 1) -> Iterator[np.ndarray]:
    """Test samples of a few features at a time: (feature, sample) float64, sorted by class."""
    step = max(1, BLOCK // max(len(groups.order), len(groups.classes) * bins))
    for start in range(0, cell.shape[1], step):
        yield np.ascontiguousarray(cell[groups.order, start : start + step].T, dtype=np.float64)


def _statistics(cell: np.ndarray, groups: _Groups, bins: int) -> dict[str, np.ndarray | float]:
    """`statistics` of one cell, (sample, feature)."""
    blocks = [_of_features(values, groups, bins) for values in _blocks(cell, groups, bins)]
    features = {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}
    zeros = np.full(groups.all_classes, np.nan)
    zeros[groups.classes] = features["zeros"].mean(axis=0)
    result: dict[str, np.ndarray | float] = {
        "zero_fraction": features["zeros"].mean(axis=0) @ groups.sizes / groups.sizes.sum(),
        "zero_fraction_class": zeros,
        "class_variance": features["class_variance"].mean(),
        "js_divergence": features["js_divergence"].mean(),
        "js_divergence_shuffled": features["js_divergence_shuffled"].mean(),
        "selectivity": np.nan,
        "selective_classes": np.full(groups.all_classes + 1, np.nan),
        "strength_ratio": np.nan,
    }
    if features["lowest"].min() >= 0:
        counts = np.bincount(features["selective"], minlength=groups.all_classes + 1)
        ratios = features["strength_ratio"][np.isfinite(features["strength_ratio"])]
        result["selectivity"] = features["selectivity"].mean()
        result["selective_classes"] = counts / len(features["selective"])
        result["strength_ratio"] = float(np.median(ratios)) if len(ratios) else np.nan
    return result


def _of_features(values: np.ndarray, groups: _Groups, bins: int) -> dict[str, np.ndarray]:
    """Statistics of each feature of a block (feature, sample), some meant for non-negative ones only."""
    overall = values.mean(axis=1, keepdims=True)
    return {
        "lowest": values.min(axis=1),
        "zeros": groups.means(values == 0),
        "class_variance": _class_variance(values, groups),
        "js_divergence": _js_divergence(values, groups, bins),
        # The columns are sorted by class: any other order of them is other labels, classes as large as before.
        "js_divergence_shuffled": _js_divergence(values[:, groups.shuffle], groups, bins),
        "selectivity": _selectivity(values, groups),
        "selective": np.count_nonzero(groups.means(values) > 2 * overall, axis=1),
        "strength_ratio": _strength_ratio(values, groups),
    }


def _class_variance(values: np.ndarray, groups: _Groups) -> np.ndarray:
    """η² of each feature, (feature,): variance between classes over total variance, 0 for a constant one."""
    centred = values - values[:, :1]  # a constant feature becomes exactly zero
    centred -= centred.mean(axis=1, keepdims=True)
    between = np.square(groups.means(centred)) @ groups.sizes
    return _ratio(between, np.square(centred).sum(axis=1))


def _selectivity(values: np.ndarray, groups: _Groups) -> np.ndarray:
    """Class selectivity index of each non-negative feature, (feature,)."""
    means = groups.means(values)
    top = means.max(axis=1)
    rest = (means.sum(axis=1) - top) / max(1, means.shape[1] - 1)
    return _ratio(top - rest, top + rest)


def _strength_ratio(values: np.ndarray, groups: _Groups) -> np.ndarray:
    """Mean of the upper over that of the lower third in the top class, (feature,); NaN if the latter is 0."""
    top = groups.means(values).argmax(axis=1)
    ratios = np.full(len(values), np.nan)
    for group, part in enumerate(groups.slices):
        ascending = np.sort(values[top == group, part], axis=1)
        third = max(1, ascending.shape[1] // 3)
        ratios[top == group] = _ratio(ascending[:, -third:].mean(axis=1), ascending[:, :third].mean(axis=1), np.nan)
    return ratios


def _js_divergence(values: np.ndarray, groups: _Groups, bins: int) -> np.ndarray:
    """Generalised Jensen–Shannon divergence in bits between the histograms of the classes, (feature,)."""
    low, high = _range(values)
    counts = groups.count(_bins(values, low[:, None], high[:, None], bins), bins)
    shares = counts / groups.sizes[:, None]
    return _entropy(shares.mean(axis=1)) - _entropy(shares).mean(axis=1)


def _entropy(shares: np.ndarray) -> np.ndarray:
    """Entropy in bits along the last axis."""
    return -(shares * np.log2(np.where(shares > 0, shares, 1.0))).sum(axis=-1)


def _range(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ends (row,) of the histogram of each row; where they coincide, up to the maximum, or one unit apart."""
    low, high = np.quantile(values, QUANTILES, axis=1)
    low = np.where(values.min(axis=1) < 0, low, 0.0)
    high = np.where(high > low, high, values.max(axis=1))
    return low, np.where(high > low, high, low + 1.0)


def _bins(values: np.ndarray, low: np.ndarray, high: np.ndarray, bins: int) -> np.ndarray:
    """Bin of each value, int64; what lies outside goes into the outer bins."""
    return np.clip((values - low) / (high - low) * bins, 0, bins - 1).astype(np.int64)


def _ratio(numerator: np.ndarray, denominator: np.ndarray, otherwise: float = 0.0) -> np.ndarray:
    """Numerator over denominator, and `otherwise` where the denominator is zero."""
    return np.divide(numerator, denominator, out=np.full(np.shape(numerator), otherwise), where=denominator != 0)
