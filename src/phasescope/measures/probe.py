"""Linear probes (Alain & Bengio 2016): classes read off activations, by least squares on one-hot labels."""

import numpy as np
import xarray as xr

from phasescope.measures.ridge import factorise, fit
from phasescope.measures.samples import Samples, Variable, over_cells
from phasescope.params.probe import ProbeSettings

VARIABLES = {
    "accuracy": Variable("probe accuracy on test samples"),
    "train_accuracy": Variable("probe accuracy on training samples"),
    "shuffled_accuracy": Variable("test accuracy of a probe fitted to shuffled labels"),
    "ridge": Variable("ridge chosen on training samples", "activation^2"),
    "correct": Variable("test sample is classified correctly", dims=("sample",)),
}


def probe(activations: xr.DataArray, samples: Samples, settings: ProbeSettings) -> xr.Dataset:
    """Accuracy of a linear classifier on the activations of one layer, in closed form with its best ridge.

    Args:
        activations: (seed, step, sample, feature), finite.
        samples: labels and split of the same samples.
        settings: choice of ridge, solver, number of permutations.

    Returns:
        On (seed, step): `accuracy` (test), `train_accuracy`, `ridge`, `shuffled_accuracy` (the same fit to
        training labels permuted among the training samples, judged by the true test labels, mean over
        `settings.shuffles` permutations: what chance and class priors alone give); with the
        test `sample`: `correct`, int8, its mean is `accuracy`.

    Raises:
        UserError: activations hold NaN or infinite values.
    """
    positions = activations["sample"].values[samples.test]
    return over_cells(activations, lambda cell: _classify(cell, samples, settings), VARIABLES, {"sample": positions})


def pixel_accuracy(samples: Samples, settings: ProbeSettings) -> float:
    """Test accuracy of the same probe on the standardised pixels: what a layer adds is above this."""
    correct = _classify(samples.inputs, samples, settings)["correct"]
    return float(np.mean(correct))


def majority_accuracy(samples: Samples) -> float:
    """Test accuracy of always naming the most frequent class of the training samples."""
    majority = np.bincount(samples.labels[samples.train], minlength=samples.classes).argmax()
    return float(np.mean(samples.labels[samples.test] == majority))


def _classify(cell: np.ndarray, samples: Samples, settings: ProbeSettings) -> dict[str, np.ndarray | float]:
    """Probe one cell, (sample, feature); the true and the shuffled labels share its factorisation."""
    train, test = cell[samples.train], cell[samples.test]
    labels, truth = samples.labels[samples.train], samples.labels[samples.test]
    shuffled = np.random.default_rng(0).permuted(np.tile(labels, (settings.shuffles, 1)), axis=1)
    one_hot = np.eye(samples.classes)
    factors = factorise(train, solver=settings.solver, exact_limit=settings.exact_limit, rank=settings.rank)
    regression = fit(factors, one_hot[labels], settings.selection)
    # All permutations side by side, with one ridge for them all; only GCV is as cheap for many targets as for few.
    baseline = fit(factors, np.concatenate(one_hot[shuffled], axis=1), "gcv")
    guesses = baseline.predict(test).reshape(len(test), settings.shuffles, samples.classes).argmax(axis=2)
    correct = regression.predict(test).argmax(axis=1) == truth
    return {
        "accuracy": correct.mean(),
        "train_accuracy": np.mean(regression.predict(train).argmax(axis=1) == labels),
        "shuffled_accuracy": np.mean(guesses == truth[:, None]),
        "ridge": regression.ridge,
        "correct": correct.astype(np.int8),
    }
