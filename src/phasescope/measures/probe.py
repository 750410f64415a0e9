"""Linear probes (Alain & Bengio 2016): classes read off activations by a linear classifier."""

import numpy as np
import xarray as xr

from phasescope.compute import Compute
from phasescope.measures.classifiers import Task, classify, ridge
from phasescope.measures.ridge import factors_of, fit
from phasescope.measures.samples import Samples, Variable, chosen, over_cells
from phasescope.params.probe import ProbeSettings

VARIABLES = {
    "accuracy": Variable("probe accuracy on test samples"),
    "train_accuracy": Variable("probe accuracy on training samples"),
    "correct": Variable("test sample is classified correctly", dims=("sample",)),
}
RIDGE = {
    "shuffled_accuracy": Variable("test accuracy of a probe fitted to shuffled labels"),
    "ridge": Variable("ridge chosen on training samples", "activation^2"),
}
PIXELS = Variable("test accuracy of the same probe on raw pixels")
MAJORITY = Variable("test accuracy of naming the most frequent class")
LOGISTIC = {"gradient": Variable("largest derivative of the loss where logistic regression stopped")}


def probe(activations: xr.DataArray, samples: Samples, settings: ProbeSettings, compute: Compute) -> xr.Dataset:
    """Accuracy of the first of `settings.classifiers` on the activations of one layer.

    Args:
        activations: (seed, step, sample, feature), finite.
        samples: labels and split of the same samples.
        settings: the classifier and its own settings.
        compute: where one that is trained by SGD is trained.

    Returns:
        On (seed, step): `accuracy` (test), `train_accuracy`; with the test `sample`: `correct`, int8, its mean is
        `accuracy`; of ridge regression `ridge` and `shuffled_accuracy` (the same fit to training labels permuted among
        the training samples, judged by the true test labels, mean over `settings.shuffles` permutations: what chance
        and class priors alone give); of logistic regression `gradient`, which says how well it converged.

    Raises:
        UserError: activations hold NaN or infinite values.
    """
    classifier = settings.classifiers[0]
    labels, truth = samples.labels[samples.train], samples.labels[samples.test]
    task = Task(labels, samples.classes)

    def measure(cell: np.ndarray) -> dict[str, np.ndarray | float]:
        train, test = chosen(cell, samples.train), chosen(cell, samples.test)
        found: dict[str, np.ndarray | float] = {}
        if classifier == "ridge":
            factors = factors_of(train, settings)
            fitted = ridge(factors, test, task, settings)
            # All permutations side by side, with one ridge for all: GCV alone is as cheap for many targets as for few.
            shuffled = np.random.default_rng(0).permuted(np.tile(labels, (settings.shuffles, 1)), axis=1)
            one_hot = np.concatenate(np.eye(samples.classes)[shuffled], axis=1)
            guesses = fit(factors, one_hot, "gcv").predict(test)
            guesses = guesses.reshape(len(test), settings.shuffles, samples.classes).argmax(axis=2)
            found["shuffled_accuracy"] = np.mean(guesses == truth[:, None])
        else:
            (fitted,) = classify(classifier, train, test, [task], settings, compute)
        correct = fitted.test == truth
        return {
            **found,
            "accuracy": np.mean(correct),
            "train_accuracy": np.mean(fitted.train == labels),
            "correct": correct.astype(np.int8),
            "ridge": fitted.ridge,
            "gradient": fitted.gradient,
        }

    variables = VARIABLES | {"ridge": RIDGE, "logistic": LOGISTIC, "sgd": {}}[classifier]
    return over_cells(activations, measure, variables, {"sample": activations["sample"].values[samples.test]})


def majority_accuracy(samples: Samples) -> float:
    """Test accuracy of always naming the most frequent class of the training samples."""
    majority = np.bincount(samples.labels[samples.train], minlength=samples.classes).argmax()
    return float(np.mean(samples.labels[samples.test] == majority))
