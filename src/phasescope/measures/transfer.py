"""Transfer: what linear classifiers read off frozen activations that the network was never trained to tell."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import xarray as xr

from phasescope.compute import Compute
from phasescope.data.dataset import Dataset
from phasescope.data.properties import label
from phasescope.measures.classifiers import Task, classify
from phasescope.measures.samples import Variable, over_cells
from phasescope.params.transfer import Label, ReadingSettings

VARIABLES = {
    "accuracy": Variable("transfer accuracy on test samples", dims=("label",)),
    "train_accuracy": Variable("transfer accuracy on training samples", dims=("label",)),
    "correct": Variable("test sample is classified correctly", dims=("label", "sample")),
}
PIXELS = Variable("test accuracy of the same classifier on standardised pixels")
MAJORITY = Variable("test accuracy of naming the most frequent class", dims=("label",))
PRIOR = Variable("share of a class among the training samples", dims=("label", "class"))
CLASSES = Variable("name of the class", dims=("label", "class"))


@dataclass(frozen=True, eq=False)
class Target:
    """What is known of the samples of a target, the same for every cell."""

    train: np.ndarray  #: (sample,) bool
    labels: np.ndarray  #: (label, sample) int64
    names: Sequence[str]  #: of the labels
    classes: Sequence[list[str]]  #: of each label, by name

    @classmethod
    def of(cls, dataset: Dataset, kept: np.ndarray, names: Sequence[Label]) -> Self:
        """The samples at the indices `kept` (sample,); what a label compares is still the whole dataset's."""
        found = [label(dataset, name) for name in names]
        return cls(dataset.train[kept], np.stack([values[kept] for values, _ in found]), names, [c for _, c in found])


def transfer(activations: xr.DataArray, target: Target, settings: ReadingSettings, compute: Compute) -> xr.Dataset:
    """Accuracy of the first of `settings.classifiers`, for each label, on the activations of one layer.

    Args:
        activations: (seed, step, sample, feature), finite, of the target's samples.
        target: labels and split of the same samples.
        settings: the classifier, and how it is fitted.
        compute: where it is trained, if it has no closed form.

    Returns:
        On (seed, step, label): `accuracy` (test), `train_accuracy`; with the test `sample`: `correct`, int8, its mean
        is `accuracy`.

    Raises:
        UserError: activations hold NaN or infinite values.
    """
    training, truth = target.labels[:, target.train], target.labels[:, ~target.train]
    tasks = [Task(labels, len(classes)) for labels, classes in zip(training, target.classes, strict=True)]

    def measure(cell: np.ndarray) -> dict[str, np.ndarray | float]:
        fits = classify(settings.classifiers[0], cell[target.train], cell[~target.train], tasks, settings, compute)
        correct = np.stack([fit.test for fit in fits]) == truth
        return {
            "accuracy": correct.mean(axis=1),
            "train_accuracy": np.mean(np.stack([fit.train for fit in fits]) == training, axis=1),
            "correct": correct.astype(np.int8),
        }

    names = np.array(target.names, dtype=object)
    positions = activations["sample"].values[~target.train]
    return over_cells(activations, measure, VARIABLES, {"label": names, "sample": positions})


def baselines(target: Target) -> xr.Dataset:
    """What is needed to judge the accuracies.

    Returns:
        `majority_accuracy` (label): of naming the most frequent class of the training samples; `prior` (label, class):
        shares of the classes among the training samples, NaN beyond a label's number of classes; and as a coordinate
        their names, `class_name`.
    """
    training, truth = target.labels[:, target.train], target.labels[:, ~target.train]
    most = max(map(len, target.classes))
    counts = np.stack([np.bincount(values, minlength=most) for values in training])
    exists = np.arange(most) < np.array([[len(classes)] for classes in target.classes])
    values = {
        "majority_accuracy": (MAJORITY, np.mean(truth == counts.argmax(axis=1)[:, None], axis=1)),
        "prior": (PRIOR, np.where(exists, counts / target.train.sum(), np.nan)),
        "class_name": (CLASSES, np.array([[*c, *[""] * (most - len(c))] for c in target.classes], dtype=object)),
    }
    named = {name: (variable.dims, value, variable.attributes) for name, (variable, value) in values.items()}
    return xr.Dataset(named).set_coords("class_name")
