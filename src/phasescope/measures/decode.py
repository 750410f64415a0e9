"""Reconstruction of inputs from activations: the test error of a decoder (Rec, learning-phases paper)."""

from collections.abc import Callable, Set

import numpy as np
import xarray as xr

from phasescope.compute import Compute
from phasescope.measures.ridge import factors_of, fit_centred
from phasescope.measures.samples import Samples, Variable, chosen, over_cells
from phasescope.params.decode import Decoder, DecodeSettings
from phasescope.params.ridge import RidgeSettings

SQUARED = "standardised pixel^2"
VARIABLES = {
    "test_mse": Variable("reconstruction error of test samples", SQUARED),
    "train_mse": Variable("reconstruction error of training samples", SQUARED),
    "error": Variable("reconstruction error of a test sample", SQUARED, ("sample",)),
}
EXACT = {
    "rank": Variable("directions of the layer that were decoded from"),
    "ridge": Variable("ridge chosen on training samples", "activation^2"),
}
TRAINED = {"epoch_mse": Variable("reconstruction error of training samples during an epoch", SQUARED, ("epoch",))}
OPTIMUM = {
    "optimum_mse": Variable("least reconstruction error of training samples of any linear decoder", SQUARED),
    "excess": Variable("reconstruction error of training samples above the least, as a share of it"),
}
FRACTION = Variable("fraction of variance unexplained")
BASELINE = Variable("error of the mean training image", SQUARED)
#: Filled in where the exact linear decoder is asked for as well.
TEST_EXCESS = Variable("reconstruction error of test samples above that of the exact decoder, as a share of it")


def decode(activations: xr.DataArray, samples: Samples, settings: DecodeSettings) -> xr.Dataset:
    """Mean squared reconstruction error per standardised pixel from one layer, by the exact linear decoder.

    That is ridge regression with bias, the ridge chosen on the training samples.

    Args:
        activations: (seed, step, sample, feature), finite.
        samples: inputs and split of the same samples.
        settings: choice of ridge, solver.

    Returns:
        On (seed, step): `test_mse`, `train_mse`, `fvu` (the fraction of variance unexplained, test_mse /
        baseline_mse: comparable across datasets), `ridge`, `rank`; with the test `sample`: `error`, its mean is
        `test_mse`; and of the mean training image as reconstruction, `baseline_error` (sample) and
        `baseline_mse`.

    Raises:
        UserError: activations hold NaN or infinite values.
    """
    return _decode(activations, samples, lambda cell: _linear(cell, samples, settings), EXACT)


def decode_trained(
    activations: xr.DataArray, samples: Samples, settings: DecodeSettings, compute: Compute
) -> xr.Dataset:
    """The same by the first of `settings.decoders`, which is trained.

    Returns:
        What `decode` gives but for `ridge` and `rank`; on (seed, step, epoch) `epoch_mse`, the loss while the decoder
        was trained; and for linear-adam `optimum_mse` and `excess`, see `decoders.trained`.

    Raises:
        UserError: activations hold NaN or infinite values, or the decoder does not fit their shape.
    """
    from phasescope.measures.decoders import trained  # with torch, which takes seconds

    shape = tuple(activations.attrs["feature_shape"])
    variables = TRAINED | (OPTIMUM if settings.decoders[0] == "linear-adam" else {})

    def measure(cell: np.ndarray) -> dict[str, np.ndarray | float]:
        missing = dict.fromkeys(OPTIMUM, np.nan)
        return missing | trained(cell, shape, samples, settings, compute)

    epochs = {"epoch": np.arange(1, settings.epochs + 1)}
    return _decode(activations, samples, measure, variables, epochs)


def with_distance(result: xr.Dataset) -> xr.Dataset:
    """Add `test_excess` to results with a dimension `decoder`: how far a trained linear decoder is from the exact one.

    It may be below zero, for what was not trained to the end may suit new samples better; it is NaN where the exact
    decoder was not asked for.
    """
    present = result["decoder"].values.tolist()
    if "linear-adam" in present:
        exact = result["test_mse"].sel(decoder="linear") if "linear" in present else np.nan
        result["test_excess"] = (result["test_mse"] / exact - 1).where(result["decoder"] == "linear-adam")
        result["test_excess"].attrs = TEST_EXCESS.attributes
    return result


def settings_of(decoder: Decoder, settings: DecodeSettings) -> DecodeSettings:
    """The settings with those of all other decoders at their defaults, so that these do not tell cells apart."""
    fields = DecodeSettings.model_fields
    mine: Set[str] = {
        "linear": RidgeSettings.model_fields.keys(),
        "linear-adam": fields.keys() - {"selection", "solver", "rank", "width"},
        "deconvolution": fields.keys() - RidgeSettings.model_fields.keys(),
    }[decoder]
    return settings.only(mine, decoders=[decoder], trained_taps=None)


def _decode(
    activations: xr.DataArray,
    samples: Samples,
    decoder: Callable[[np.ndarray], dict[str, np.ndarray | float]],
    variables: dict[str, Variable],
    coords: dict[str, np.ndarray] | None = None,
) -> xr.Dataset:
    baseline = samples.baseline

    def measure(cell: np.ndarray) -> dict[str, np.ndarray | float]:
        result = decoder(cell)
        error = np.asarray(result["error"])
        return {**result, "error": error.astype(np.float32), "test_mse": error.mean()}

    positions = activations["sample"].values[samples.test]
    result = over_cells(activations, measure, VARIABLES | variables, {"sample": positions, **(coords or {})})
    result["fvu"] = result["test_mse"] / baseline.mean()
    result["fvu"].attrs = FRACTION.attributes
    result["baseline_error"] = ("sample", baseline.astype(np.float32), BASELINE.attributes)
    result["baseline_mse"] = ((), baseline.mean(), BASELINE.attributes)
    return result


def _linear(cell: np.ndarray, samples: Samples, settings: RidgeSettings) -> dict[str, np.ndarray | float]:
    """Decode one cell (sample, feature) by ridge regression on the axes of the training inputs."""
    targets = samples.targets
    regression = fit_centred(factors_of(chosen(cell, samples.train), settings), targets.train, settings.selection)
    difference = targets.test - regression.predict(chosen(cell, samples.test))
    pixels = samples.inputs.shape[1]
    return {
        "error": (np.square(difference).sum(axis=1) + targets.outside) / pixels,
        "train_mse": regression.train_mse * difference.shape[1] / pixels,
        "ridge": regression.ridge,
        "rank": float(len(regression.factors.values)),
    }
