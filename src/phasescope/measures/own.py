"""Measures of the user's own, whose function takes one cell."""

from collections.abc import Mapping

import numpy as np
import xarray as xr

from phasescope import own
from phasescope.errors import UserError
from phasescope.measures.samples import Samples, Variable, over_cells
from phasescope.params.measures import OwnMeasureJob


def measure(activations: xr.DataArray, samples: Samples, settings: OwnMeasureJob) -> xr.Dataset:
    """What the user's function says of each cell of a layer.

    It is called with those of these that it takes by name, and with all of the settings' `arguments`: `activations`
    (sample, feature), of the dtype that they are stored in; `labels` (sample,) int64; `train` (sample,) bool, whether a
    sample is one of those trained on; `inputs` (sample, pixel), standardised; `classes`, how many there are; `shape`,
    that of a sample's features in the network, such as (channels, rows, columns). It returns a number, or a mapping
    with a number for each of the settings' `values`.

    Args:
        activations: (seed, step, sample, feature), finite.
        samples: labels and split of the same samples.
        settings: the function, and its arguments.

    Returns:
        On (seed, step) a variable for each of `settings.names`.

    Raises:
        UserError: the function cannot be loaded, is not the one of the settings, fails, or gives something else.
    """
    own.require_unchanged(settings.code, settings.function)
    known = {
        "labels": _to_read(samples.labels),
        "train": _to_read(samples.train),
        "inputs": _to_read(samples.inputs),
        "classes": samples.classes,
        "shape": tuple(activations.attrs["feature_shape"]),
    }

    def of_cell(cell: np.ndarray) -> dict[str, np.ndarray | float]:
        given = own.call(settings.function, {"activations": _to_read(cell), **known}, settings.arguments)
        if not settings.values:
            return {settings.names[0]: _number(settings, given)}
        if not isinstance(given, Mapping) or set(given) != set(settings.values):
            got = ", ".join(map(str, given)) if isinstance(given, Mapping) else type(given).__name__
            expected = ", ".join(settings.values)
            raise UserError(f"{settings.function}: a mapping with the `values` {expected} is expected; got {got:.100}")
        return {name: _number(settings, given[name]) for name in settings.values}

    return over_cells(activations, of_cell, {name: Variable(name) for name in settings.names})


def _to_read(values: np.ndarray) -> np.ndarray:
    """The same, not to be written to: other cells see it too."""
    view = values.view()
    view.flags.writeable = False
    return view


def _number(settings: OwnMeasureJob, value: object) -> float:
    found = np.asarray(value)
    if found.shape != () or found.dtype.kind not in "biuf":
        told = f"an array {found.shape}" if found.shape else type(value).__name__
        raise UserError(f"{settings.function}: a number is expected, or names in `values` and a mapping; got {told}")
    return float(found)
