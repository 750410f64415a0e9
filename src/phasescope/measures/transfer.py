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
from phasescope.params.classifiers import Classifier, ClassifierSettings
from phasescope.params.transfer import Label, ReadingSettings

VARIABLES = {
    "accuracy": Variable("transfer accuracy on test samples", dims=("label", "classifier")),
    "train_accuracy": Variable("transfer accuracy on training samples", dims=("label", "classifier")),
    "correct": Variable("test sample is classified correctly", dims=("label", "classifier", "sample")),
}
PIXELS = Variable("test accuracy of the same classifier on standardised pixels", dims=("label", "classifier"))
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
    """Accuracy of linear classifiers of each label on the activations of one layer.

    Args:
        activations: (seed, step, sample, feature), finite, of the target's samples.
        target: labels and split of the same samples.
        settings: which classifiers, and how they are fitted.
        compute: where classifiers are trained that have no closed form.

    Returns:
        On (seed, step) and (label, classifier): `accuracy` (test), `train_accuracy`; with the test `sample`: `correct`,
        int8, its mean is `accuracy`.

    Raises:
        UserError: activations hold NaN or infinite values.
    """
    coords = {
        "label": np.array(target.names, dtype=object),
        "classifier": np.array(settings.classifiers, dtype=object),
        "sample": activations["sample"].values[~target.train],
    }
    return over_cells(activations, lambda cell: _read(cell, target, settings, compute), VARIABLES, coords)


def baselines(inputs: np.ndarray, target: Target, settings: ReadingSettings, compute: Compute) -> xr.Dataset:
    """What is needed to judge the accuracies, from standardised inputs (sample, pixel) of the target.

    Returns:
        `pixel_accuracy` (label, classifier): of the same classifiers on the pixels; `majority_accuracy` (label): of
        naming the most frequent class of the training samples; `prior` (label, class): shares of the classes among the
        training samples, NaN beyond a label's number of classes; and as a coordinate their names, `class_name`.
    """
    training, truth = target.labels[:, target.train], target.labels[:, ~target.train]
    most = max(map(len, target.classes))
    counts = np.stack([np.bincount(values, minlength=most) for values in training])
    exists = np.arange(most) < np.array([[len(classes)] for classes in target.classes])
    values = {
        "pixel_accuracy": (PIXELS, _read(inputs, target, settings, compute)["accuracy"]),
        "majority_accuracy": (MAJORITY, np.mean(truth == counts.argmax(axis=1)[:, None], axis=1)),
        "prior": (PRIOR, np.where(exists, counts / target.train.sum(), np.nan)),
        "class_name": (CLASSES, np.array([[*c, *[""] * (most - len(c))] for c in target.classes], dtype=object)),
    }
    named = {name: (variable.dims, value, variable.attributes) for name, (variable, value) in values.items()}
    return xr.Dataset(named).set_coords("class_name")


def _read(
    cell: np.ndarray, target: Target, settings: ReadingSettings, compute: Compute
) -> dict[str, np.ndarray | float]:
    """Read all labels off one cell, (sample, feature), with all classifiers."""
    training, truth = target.labels[:, target.train], target.labels[:, ~target.train]
    counts = [len(classes) for classes in target.classes]
    both = [
        predictions(cell, target.train, training, counts, settings, classifier, compute)
        for classifier in settings.classifiers
    ]
    correct = np.stack([guesses == truth for _, guesses in both], axis=1)
    return {
        "accuracy": correct.mean(axis=2),
        "train_accuracy": np.stack([np.mean(guesses == training, axis=1) for guesses, _ in both], axis=1),
        "correct": correct.astype(np.int8),
    }


def predictions(
    cell: np.ndarray,
    train: np.ndarray,
    labels: np.ndarray,
    classes: Sequence[int],
    settings: ClassifierSettings,
    classifier: Classifier,
    compute: Compute,
) -> tuple[np.ndarray, np.ndarray]:
    """What a classifier says of the training samples, (label, training sample), and of the test samples.

    Args:
        cell: activations (sample, feature) of both.
        train: (sample,) bool, which are training samples.
        labels: (label, training sample) int64; all that it is fitted to.
        classes: number of classes of each label.
        settings: how it is fitted.
        classifier: which one.
        compute: where it is trained, if it has no closed form.
    """
    tasks = [Task(of, count) for of, count in zip(labels, classes, strict=True)]
    fits = classify(classifier, cell[train], cell[~train], tasks, settings, compute)
    return np.stack([one.train for one in fits]), np.stack([one.test for one in fits])
