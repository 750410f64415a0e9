"""Reconstruction of inputs from activations: the test error of a decoder (Rec, learning-phases paper)."""

from collections.abc import Callable

import numpy as np
import xarray as xr

from phasescope.measures.ridge import factorise, fit
from phasescope.measures.samples import Samples, Variable, over_cells
from phasescope.params.decode import DecodeSettings

#: A decoder takes the activations of one cell (sample, feature), is fitted to the training samples and
#: returns `error` (test sample,) and `train_mse`, mean squared errors per pixel, and the `ridge` it chose.
Decoder = Callable[[np.ndarray, Samples, DecodeSettings], dict[str, np.ndarray | float]]


def linear(cell: np.ndarray, samples: Samples, settings: DecodeSettings) -> dict[str, np.ndarray | float]:
    """The exact linear decoder: ridge regression with bias, the ridge chosen on the training samples."""
    targets = samples.targets
    factors = factorise(
        cell[samples.train], solver=settings.solver, exact_limit=settings.exact_limit, rank=settings.rank
    )
    regression = fit(factors, targets.train, settings.selection)
    difference = targets.test - regression.predict(cell[samples.test])
    pixels = samples.inputs.shape[1]
    return {
        "error": (np.square(difference).sum(axis=1) + targets.outside) / pixels,
        "train_mse": regression.train_mse * difference.shape[1] / pixels,
        "ridge": regression.ridge,
        "rank": len(regression.factors.values),
    }


DECODERS: dict[str, Decoder] = {"linear": linear}


SQUARED = "standardised pixel^2"
VARIABLES = {
    "test_mse": Variable("reconstruction error of test samples", SQUARED),
    "train_mse": Variable("reconstruction error of training samples", SQUARED),
    "rank": Variable("directions of the layer that were decoded from"),
    "ridge": Variable("ridge chosen on training samples", "activation^2"),
    "error": Variable("reconstruction error of a test sample", SQUARED, ("sample",)),
}
FRACTION = Variable("fraction of variance unexplained")
BASELINE = Variable("error of the mean training image", SQUARED)


def decode(activations: xr.DataArray, samples: Samples, settings: DecodeSettings) -> xr.Dataset:
    """Mean squared reconstruction error per standardised pixel from the activations of one layer.

    Args:
        activations: (seed, step, sample, feature), finite.
        samples: inputs and split of the same samples.
        settings: decoder, choice of ridge, solver.

    Returns:
        On (seed, step): `test_mse`, `train_mse`, `fvu` (the fraction of variance unexplained, test_mse /
        baseline_mse: comparable across datasets), `ridge`; with the test `sample`: `error`, its mean is
        `test_mse`; and of the mean training image as reconstruction, `baseline_error` (sample) and
        `baseline_mse`.

    Raises:
        UserError: activations hold NaN or infinite values.
    """
    decoder = DECODERS[settings.decoder]
    baseline = samples.targets.baseline

    def measure(cell: np.ndarray) -> dict[str, np.ndarray | float]:
        result = decoder(cell, samples, settings)
        error = np.asarray(result["error"])
        return {**result, "error": error.astype(np.float32), "test_mse": error.mean()}

    positions = activations["sample"].values[samples.test]
    result = over_cells(activations, measure, VARIABLES, {"sample": positions})
    result["fvu"] = result["test_mse"] / baseline.mean()
    result["fvu"].attrs = FRACTION.attributes
    result["baseline_error"] = ("sample", baseline.astype(np.float32), BASELINE.attributes)
    result["baseline_mse"] = ((), baseline.mean(), BASELINE.attributes)
    return result
