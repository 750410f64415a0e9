"""Which checkpoint and layer to transfer from: the ranking, how sure it is, and what the last checkpoint would cost.

Accuracies are means over seeds and samples, and their errors x̄* − x̄ are bootstrapped over both (and over the draws of
few labels): each is drawn by itself with the others as they are, for all candidates alike, and the errors add up. Of n
seeds drawn with replacement the mean has (n − 1)/n of its variance; with two or three of them that matters, so that
their share is scaled by √(n/(n − 1)). A single seed says nothing about others.

Who names the best of many reports the luckiest too. The best is therefore chosen again in every replicate: by as much
as the error of the replicate's choice is above zero, the best is worth less than was measured (on the mean) and may be
(at the quantiles). Candidates are tied with the best if they are not behind it by more than the largest error among the
tied, which is found by striking out those that are, until none is (multiple comparisons with the best, Hsu 1981; the
model confidence set of Hansen, Lunde & Nason 2011). That many are tied says that the labels are few, not that any
will do: what is cheaper to train is named by the rule of one standard error (Breiman et al. 1984).
"""

from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
from scipy.stats import spearmanr
from xarray import DataArray, Dataset

from phasescope.errors import UserError, unknown
from phasescope.phases import resampled_means

Array = np.ndarray
Interval = tuple[float, float]

#: Of all intervals.
CONFIDENCE = 0.95
RESAMPLES = 1000
_TAIL = (1 - CONFIDENCE) / 2
#: As few samples as can be cut into the folds of a cross-validation.
LEAST = 10


@dataclass(frozen=True)
class Candidate:
    """A checkpoint and layer, and what is known of it: shares from 0 to 1, costs in the same units."""

    step: int
    layer: str
    measured: float  #: held-out accuracy, mean over seeds
    #: What to expect of the networks that were trained, mean over seeds, and its interval: of the best as measured,
    #: less the luck of having been chosen; of others as measured. Samples are bootstrapped, and draws of few labels.
    accuracy: float
    interval: Interval
    #: The same of networks that are trained anew: seeds are bootstrapped too. None if there is only one.
    anew: float | None
    anew_interval: Interval | None
    #: By how much the best is to be expected to be better, of networks trained anew (of one seed: of these); 0 where
    #: luck explains all of it. The lower end of its interval holds for all candidates at once.
    cost: float
    cost_interval: Interval
    tied: bool  #: it cannot be told from the best


@dataclass(frozen=True)
class Minimum:
    """Where the layer of the best candidate keeps most of its input: its lowest test reconstruction loss."""

    candidate: Candidate
    correlation: float | None  #: Spearman's, over steps, of accuracy and −loss of that layer; None if one is constant


@dataclass(frozen=True)
class Advice:
    """Which checkpoint and layer to transfer from."""

    label: str
    per_class: int | None  #: labels of each class that classifiers were fitted to; None: all but those of a fold
    labels: int  #: of the target, that were used
    classes: dict[str, int]  #: how many of each
    seeds: int
    tie: bool  #: the last checkpoint cannot be told from the best
    best: Candidate
    earliest: Candidate  #: of the earliest step that has one no further from the best than a standard error
    last: Candidate  #: the last checkpoint's best layer
    last_same_layer: Candidate  #: the last checkpoint's layer of that name
    minimum: Minimum | None  #: None: no loss is known
    ranking: list[Candidate]  #: all, best first

    def plain(self) -> dict[str, Any]:
        """As JSON has it."""
        return {**asdict(self), "confidence": CONFIDENCE}


def advise(measured: Dataset, label: str, per_class: int | None = None, losses: DataArray | None = None) -> Advice:
    """Rank all checkpoints and layers for one label.

    Args:
        measured: what `phasescope.measures.advise` gives.
        label: one of those measured.
        per_class: as many labels of each class, one of those measured; all if none are given.
        losses: test reconstruction losses (seed, step, layer), which may be NaN.

    Raises:
        UserError: there is no such label, or there are too few samples, classes, or samples of a class.
    """
    if label not in measured.label.values:
        raise UserError(unknown(label, [str(each) for each in measured.label.values], "label"))
    of_label = measured.sel(label=label)
    classes = _classes(of_label, per_class)
    steps, layers = measured.step.values.tolist(), [str(layer) for layer in measured.layer.values]
    evidence = _Evidence.of(of_label, per_class)
    candidates = [
        Candidate(step, layer, *evidence.about(place * len(layers) + index))
        for place, step in enumerate(steps)
        for index, layer in enumerate(layers)
    ]
    ranking = sorted(candidates, key=lambda candidate: -candidate.measured)
    best = ranking[0]
    of_last = [candidate for candidate in ranking if candidate.step == steps[-1]]
    return Advice(
        label=label,
        per_class=per_class,
        labels=of_label.sizes["sample"],
        classes=classes,
        seeds=measured.sizes["seed"],
        tie=of_last[0].tied,
        best=best,
        earliest=min((candidates[place] for place in evidence.near), key=lambda near: (near.step, -near.measured)),
        last=of_last[0],
        last_same_layer=next(candidate for candidate in of_last if candidate.layer == best.layer),
        minimum=_minimum([candidate for candidate in candidates if candidate.layer == best.layer], losses),
        ranking=ranking,
    )


def _minimum(candidates: list[Candidate], losses: DataArray | None) -> Minimum | None:
    """Where the reconstruction loss is lowest, of the candidates of one layer, by step."""
    if losses is None or candidates[0].layer not in losses.layer.values:
        return None
    curve = losses.sel(layer=candidates[0].layer).mean("seed")
    known = [candidate for candidate in candidates if candidate.step in curve.step.values]
    curve = curve.sel(step=[candidate.step for candidate in known])
    if not known or not np.isfinite(curve).all():
        return None
    accuracies = [candidate.measured for candidate in known]
    varied = min(np.ptp(accuracies), np.ptp(curve.values)) > 0
    correlation = float(spearmanr(accuracies, -curve.values).statistic) if varied else None
    return Minimum(known[int(curve.values.argmin())], correlation)


@dataclass(frozen=True, eq=False)
class _Evidence:
    """What was measured of all candidates, (candidate,), and replicates of its errors, (resample, candidate)."""

    means: Array
    of_samples: Array  #: errors that are due to the samples, and to the draws of few labels
    of_seeds: Array | None  #: errors that are due to the seeds; None of a single one

    @classmethod
    def of(cls, measured: Dataset, per_class: int | None) -> "_Evidence":
        """Of one label; candidates by step, and those of a step by layer."""
        by_draw = None
        if per_class is None:
            right, held_out = measured.correct, np.ones(measured.sizes["sample"])
        else:
            few = measured.sel(per_class=per_class)
            right, held_out = few.few_correct, few.held_out.values.astype(np.float64)
            by_draw = _by(few.few_accuracy.mean("seed").dropna("draw"), "draw")
        by_sample, by_seed = _by(right.mean("seed"), "sample"), _by(right.sum("sample") / held_out.sum(), "seed")
        means = by_seed.mean(axis=0)
        resampled = resampled_means(np.column_stack([by_sample, held_out]), RESAMPLES)
        of_samples = resampled[:, :-1] / resampled[:, -1:] - means
        if by_draw is not None and len(by_draw) > 1:
            of_samples += _drawn(by_draw, 1)
        return cls(means, of_samples, _drawn(by_seed, 2) if len(by_seed) > 1 else None)

    def about(self, place: int) -> tuple[float, float, Interval, float | None, Interval | None, float, Interval, bool]:
        """All that a `Candidate` says besides where it is."""
        mean = float(self.means[place])
        here = self._worth(place, self.of_samples)
        anew = (None, None) if self.of_seeds is None else self._worth(place, self.errors)
        if place == self.best:
            return mean, *here, *anew, 0.0, (0.0, 0.0), True
        behind = self.means[self.best] - mean
        cost, (_, upper) = _less(behind, self._luck(self.errors) - self.errors[:, place], (0.0, 1.0))
        lower = min(float(behind - self._lead(place, self.tied)), cost)
        return mean, *here, *anew, cost, (lower, upper), bool(self.tied[place])

    @cached_property
    def errors(self) -> Array:
        """All errors."""
        return self.of_samples if self.of_seeds is None else self.of_samples + self.of_seeds

    @cached_property
    def best(self) -> int:
        """The place of the best candidate; the earliest of equal ones."""
        return int(self.means.argmax())

    def _worth(self, place: int, errors: Array) -> tuple[float, Interval]:
        """What accuracy to expect of a candidate, and between which values, for errors of some kind."""
        of_one = errors[:, place] - errors[:, place].mean()
        return _less(self.means[place], self._luck(errors) if place == self.best else of_one, (0.0, 1.0))

    def _luck(self, errors: Array) -> Array:
        """The error, in each replicate, of the candidate that is the best there, (resample,)."""
        highest = np.argmax(self.means + errors, axis=1)
        return np.asarray(np.take_along_axis(errors, highest[:, None], axis=1)[:, 0])

    @cached_property
    def tied(self) -> Array:
        """Which candidates cannot be told from the best, (candidate,) bool."""
        behind, tied = self.means.max() - self.means, np.full(len(self.means), True)
        while True:
            kept = tied.copy()
            for place in np.flatnonzero(tied):
                # The same guesses in every replicate, but for the rounding of sums, differ in nothing.
                kept[place] = behind[place] <= self._lead(int(place), tied) + 1e-9
            if (kept == tied).all():
                return kept
            tied = kept

    @cached_property
    def near(self) -> list[int]:
        """The places of candidates that are tied, and no further behind the best than a standard error of that."""
        scale = (self.errors - self.errors[:, [self.best]]).std(axis=0)
        near: list[int] = np.flatnonzero(self.tied & (self.means.max() - self.means <= scale + 1e-9)).tolist()
        return near

    def _lead(self, place: int, among: Array) -> float:
        """How far the best of some equal candidates may seem to be ahead of one of them."""
        return float(np.quantile(self.errors[:, among].max(axis=1) - self.errors[:, place], 1 - _TAIL))


def _drawn(values: Array, seed: int) -> Array:
    """Errors (resample, candidate) of the mean of some values (seed or draw, candidate), with their full variance."""
    count = len(values)
    drawn = values[np.random.default_rng(seed).integers(count, size=(RESAMPLES, count))].mean(axis=1)
    return np.asarray(np.sqrt(count / (count - 1)) * (drawn - values.mean(axis=0)))


def _by(values: DataArray, dim: str) -> Array:
    """Values (`dim`, candidate)."""
    ordered = values.transpose(dim, "step", "layer").values.astype(np.float64)
    return ordered.reshape(len(ordered), -1)


def _less(measured: float, errors: Array, limits: Interval) -> tuple[float, Interval]:
    """What was measured less its mean error, and between which values it is by the quantiles of the errors."""
    low, high = np.quantile(errors, [_TAIL, 1 - _TAIL])
    value, lower, upper = np.clip(measured - np.array([errors.mean(), high, low]), *limits).tolist()
    return value, (lower, upper)


def _classes(measured: Dataset, per_class: int | None) -> dict[str, int]:
    """How many samples there are of each class that there is.

    Raises:
        UserError: there are too few samples, classes, or samples of a class.
    """
    counts = zip(measured.class_name.values.tolist(), measured["count"].values.tolist(), strict=True)
    classes = {str(name): int(count) for name, count in counts if count}
    label, samples = measured.label.item(), measured.sizes["sample"]
    if samples < LEAST:
        raise UserError(f"the target has {samples} samples, and {LEAST} are the least for cross-validation; add some")
    if len(classes) == 1:
        raise UserError(f"all samples have one class of {label!r}, {next(iter(classes))!r}; choose another label")
    if per_class is not None:
        known, rarest = measured.per_class.values.tolist(), min(classes, key=classes.__getitem__)
        if per_class not in known:
            raise UserError(f"{per_class} labels per class: expected {', '.join(map(str, known))}, or none for all")
        if classes[rarest] <= per_class:
            raise UserError(
                f"{per_class} labels per class: {label!r} has {classes[rarest]} samples of {rarest!r}, and some must "
                "be left to test with; ask for fewer"
            )
    return classes
