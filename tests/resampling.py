"""How good advice is: labels are drawn again and again, and what it says is held against the samples left out."""

from typing import NamedTuple

import numpy as np
import xarray as xr

from phasescope.advice import Advice, advise
from phasescope.measures import advise as measure
from phasescope.measures.ridge import factors_of, fit
from phasescope.measures.transfer import Target
from phasescope.params.transfer import ReadingSettings
from phasescope.run import Run
from small import ONE


class Resampled(NamedTuple):
    """Of one drawing of labels."""

    advice: Advice
    truth: xr.DataArray  #: (step, layer) accuracy on the samples left out of a fit to all that were drawn
    error: float  #: standard error of the best one's truth, for there are only so many samples to be left out

    def true(self, candidate) -> float:
        return float(self.truth.sel(step=candidate.step, layer=candidate.layer))

    @property
    def regret(self) -> float:
        return float(self.truth.max()) - self.true(self.advice.best)

    @property
    def covers(self) -> bool:
        low, high = self.advice.best.interval
        return low <= self.true(self.advice.best) <= high

    @property
    def covers_anew(self) -> bool:
        low, high = self.advice.best.anew_interval
        return low <= self.true(self.advice.best) <= high

    @property
    def width(self) -> float:
        low, high = self.advice.best.interval
        return high - low


def resample(
    run: Run, layers: list[str], labels: np.ndarray, classes: list[str], count: int, times: int
) -> list[Resampled]:
    """Draw `count` of a run's stored samples, (sample,) labels known, so many times."""
    settings, found = ReadingSettings(labels=["class"]), []
    for draw in range(times):
        order = np.random.default_rng(draw).permutation(len(labels))
        drawn, rest = np.sort(order[:count]), np.sort(order[count:])
        target = Target(np.full(count, True), labels[None, drawn], ["class"], [classes])
        measured, truths = [], []
        for layer in layers:
            activations = run.activations(layer).load()
            measured.append(measure.advise(activations.isel(sample=drawn), target, settings, ONE))
            correct = np.empty((*activations.shape[:2], len(rest)))
            for cell in np.ndindex(correct.shape[:2]):
                values = activations.values[cell]
                regression = fit(factors_of(values[drawn], settings), np.eye(len(classes))[labels[drawn]], "gcv")
                correct[cell] = regression.predict(values[rest]).argmax(axis=1) == labels[rest]
            truths.append(correct.mean(axis=0))
        names = xr.DataArray(np.array(layers, dtype=object), dims="layer")
        result = xr.concat(measured, names).merge(measure.about(target))
        steps = run.steps
        truth = xr.DataArray(
            np.stack([each.mean(axis=1) for each in truths], axis=1), {"step": steps, "layer": names}, ("step", "layer")
        )
        advice = advise(result, "class")
        told = truths[layers.index(advice.best.layer)][steps.index(advice.best.step)]
        found.append(Resampled(advice, truth, float(told.std() / np.sqrt(len(rest)))))
    return found


def summary(found: list[Resampled]) -> str:
    regrets = 100 * np.array([each.regret for each in found])
    cheaper = 100 * np.array([float(each.truth.max()) - each.true(each.advice.earliest) for each in found])
    costs = [each.advice.last.cost_interval for each in found]
    true_costs = [each.true(each.advice.best) - each.true(each.advice.last) for each in found]
    wide = 100 * np.median([each.width for each in found])
    means = [
        100 * np.mean(values)
        for values in (
            [each.true(each.advice.best) for each in found],
            [each.advice.best.accuracy for each in found],
            [each.advice.best.measured for each in found],
        )
    ]
    covered = sum(low <= true <= high for (low, high), true in zip(costs, true_costs, strict=True))
    return (
        f"{len(found)} drawings of {found[0].advice.labels} labels, {found[0].advice.seeds} seeds: regret ≤ 1 point in "
        f"{np.sum(regrets <= 1)} (mean {regrets.mean():.2f}, largest {regrets.max():.2f}); covered in "
        f"{sum(each.covers for each in found)}, as of networks trained anew in "
        f"{sum(each.covers_anew for each in found)}; the truth has a standard error of {100 * found[0].error:.2f}; "
        f"median width {wide:.2f}; true {means[0]:.2f}, expected {means[1]:.2f}, measured {means[2]:.2f}; best: "
        f"{sorted({(each.advice.best.step, each.advice.best.layer) for each in found})}; last tied in "
        f"{sum(each.advice.tie for each in found)}, true cost {100 * np.mean(true_costs):.2f}, covered in {covered}; "
        f"earliest: regret mean {cheaper.mean():.2f}, largest {cheaper.max():.2f}"
    )


def pooled(found: list[Resampled]) -> xr.DataArray:
    """(step, layer) truth on the samples left out of any drawing, which all are of some: less noisy than of one."""
    return sum(each.truth for each in found) / len(found)
