"""Held-out accuracy of a linear classifier of a target's labels, of which every one is held out once.

The classifier is ridge regression on one-hot labels. It is cross-validated over all samples, and fitted to a few of
each class as well. Folds and draws are the same for every checkpoint and layer, so that these are compared in pairs.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import xarray as xr

from phasescope.compute import Compute
from phasescope.measures.ridge import ROWS, centre, factors_of, fit, fit_centred, out_of_fold, widened
from phasescope.measures.samples import Variable, over_cells
from phasescope.measures.transfer import CLASSES, Target
from phasescope.params.transfer import ReadingSettings

#: Parts that the samples are cut into, each held out once.
FOLDS = 10
#: How many samples of each class are drawn for a fit to few labels, and how often: of few it matters more which.
DRAWS = {5: 20, 10: 20, 100: 5}

VARIABLES = {
    "accuracy": Variable("cross-validated accuracy", dims=("label",)),
    "correct": Variable("sample is classified correctly by a fit without its fold", dims=("label", "sample")),
    "few_accuracy": Variable(
        "accuracy, on all other samples, of a fit to few of each class", dims=("label", "per_class", "draw")
    ),
    "few_correct": Variable(
        "fits to few of each class that classify the sample correctly, of those without it",
        dims=("label", "per_class", "sample"),
    ),
}
HELD_OUT = Variable("fits to few of each class that are without the sample", dims=("label", "per_class", "sample"))
COUNTS = Variable("samples of a class", dims=("label", "class"))


def advise(activations: xr.DataArray, target: Target, settings: ReadingSettings, compute: Compute) -> xr.Dataset:
    """Held-out accuracy for each label on the activations of one layer.

    Args:
        activations: (seed, step, sample, feature), finite, of the target's samples.
        target: labels of the same samples; which are for training does not matter here.
        settings: how the ridge is chosen, on all samples at once, and computed.
        compute: is not needed.

    Returns:
        On (seed, step, label): `accuracy`, cross-validated; with `sample`: `correct`, int8, whose mean it is. With
        `per_class`, the keys of `DRAWS`: `few_accuracy` (…, draw), of a fit to so many samples of each class on all
        others, NaN beyond the number of draws and where a class has no more than so many; `few_correct` (…, sample),
        int8, in how many draws a sample is classified correctly that is not among those drawn.

    Raises:
        UserError: activations hold NaN or infinite values.
    """
    plans = [_Plan.of(labels, len(classes)) for labels, classes in zip(target.labels, target.classes, strict=True)]

    def measure(cell: np.ndarray) -> dict[str, np.ndarray | float]:
        factors = factors_of(cell, settings)
        correct, few_accuracy, few_correct = [], [], []
        for plan in plans:
            one_hot = centre(plan.one_hot)
            ridge = fit_centred(factors, one_hot, settings.selection).ridge
            guesses = out_of_fold(factors, one_hot, ridge, plan.folds).argmax(axis=1)
            correct.append(guesses == plan.labels)
            few = np.stack(list(_few(cell, plan, settings)))
            few_accuracy.append(few.sum(axis=2) / plan.held_out.sum(axis=2).clip(min=1))
            few_accuracy[-1][~plan.made] = np.nan
            few_correct.append(few.sum(axis=1))
        return {
            "accuracy": np.mean(correct, axis=1),
            "correct": np.array(correct, np.int8),
            "few_accuracy": np.array(few_accuracy),
            "few_correct": np.array(few_correct, np.int8),
        }

    coords = {"label": np.array(target.names, dtype=object), "per_class": np.array(list(DRAWS))}
    return over_cells(activations, measure, VARIABLES, {**coords, "sample": activations["sample"].values})


def about(target: Target) -> xr.Dataset:
    """What is known of the labels themselves.

    Returns:
        `held_out` (label, per_class, sample): how many of the fits to few samples are without it; `count` (label,
        class): samples of each class; and as a coordinate the names of the classes, `class_name`.
    """
    most = max(map(len, target.classes))
    plans = [_Plan.of(labels, len(classes)) for labels, classes in zip(target.labels, target.classes, strict=True)]
    values = {
        "held_out": (HELD_OUT, np.stack([plan.held_out.sum(axis=1) for plan in plans])),
        "count": (COUNTS, np.stack([np.bincount(labels, minlength=most) for labels in target.labels])),
        "class_name": (CLASSES, np.array([[*c, *[""] * (most - len(c))] for c in target.classes], dtype=object)),
    }
    named = {name: (variable.dims, value, variable.attributes) for name, (variable, value) in values.items()}
    return xr.Dataset(named).set_coords("class_name")


def stratified_folds(labels: np.ndarray, folds: int) -> np.ndarray:
    """The fold of each sample, (sample,) int: at random, of equal length, with as many of each class in each of them.

    Numbers of samples differ by one at most, and so do those of a class in any two folds; no class is too rare.
    """
    shuffled = np.lexsort((np.random.default_rng(0).random(len(labels)), labels))
    found = np.empty(len(labels), np.int64)
    found[shuffled] = np.arange(len(labels)) % folds
    return found


class _Plan(NamedTuple):
    """Which samples are held out together, and which are drawn: the same for every cell."""

    labels: np.ndarray  #: (sample,)
    one_hot: np.ndarray  #: (sample, class) float64
    folds: np.ndarray  #: (sample,)
    held_out: np.ndarray  #: (per_class, draw, sample) bool; all of a draw that is not made are False

    @classmethod
    def of(cls, labels: np.ndarray, classes: int) -> "_Plan":
        held_out = np.zeros((len(DRAWS), max(DRAWS.values()), len(labels)), bool)
        rng = np.random.default_rng(1)
        _, counts = np.unique(labels, return_counts=True)
        for place, (per_class, draws) in enumerate(DRAWS.items()):
            for draw in range(draws if per_class < counts.min() else 0):
                # Ranks of random numbers within each class.
                order = np.lexsort((rng.random(len(labels)), labels))
                ranks = np.empty(len(labels), np.int64)
                ranks[order] = np.concatenate([np.arange(count) for count in counts])
                held_out[place, draw] = ranks >= per_class
        return cls(labels, np.eye(classes)[labels], stratified_folds(labels, FOLDS), held_out)

    @property
    def made(self) -> np.ndarray:
        """Which draws are made, (per_class, draw) bool."""
        return np.asarray(self.held_out.any(axis=2))


def _few(cell: np.ndarray, plan: _Plan, settings: ReadingSettings) -> Iterator[np.ndarray]:
    """For each number of samples of a class, (draw, sample) bool: held out, and classified correctly."""
    for held_out in plan.held_out:
        found = np.zeros_like(held_out)
        draws = np.flatnonzero(held_out.any(axis=1))
        fits = [
            fit(factors_of(cell[~held_out[draw]], settings), plan.one_hot[~held_out[draw]], settings.selection)
            for draw in draws
        ]
        # All draws side by side: one product with the activations, of which few are brought to float64 at once.
        weights, offsets = zip(*(regression.coefficients() for regression in fits), strict=True) if fits else ((), ())
        for first in range(0, len(cell), ROWS) if fits else ():
            rows = slice(first, first + ROWS)
            outputs = widened(cell[rows]) @ np.concatenate(weights, axis=1) + np.concatenate(offsets)
            guesses = outputs.reshape(len(outputs), len(fits), -1).argmax(axis=2)
            found[draws, rows] = held_out[draws, rows] & (guesses == plan.labels[rows, None]).T
        yield found
