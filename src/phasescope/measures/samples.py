"""What the measures share: the stored samples, and the walk over cells."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import xarray as xr

from phasescope.errors import UserError
from phasescope.measures.ridge import Centred, centre, factorise

#: Largest order of a matrix that is factored to rotate the pixels; beyond it they are decoded as they are.
ROTATION_LIMIT = 2048


class Variable(NamedTuple):
    """What a measure says of one of its results."""

    long_name: str
    units: str = "1"  #: "1" where it has none
    dims: tuple[str, ...] = ()  #: dimensions after (seed, step)

    @property
    def attributes(self) -> dict[str, str]:
        """As they are written beside the array."""
        return {"long_name": self.long_name, "units": self.units}


@dataclass(frozen=True, eq=False)
class Targets:
    """The inputs, centred on the mean training input, along the principal axes of the training inputs.

    What a linear decoder predicts lies in the span of the training inputs. So the axes outside it are not
    decoded: their part of a test input is an error that no decoder changes. Digits at 32×32 pixels have 61
    axes.
    """

    train: Centred  #: (training sample, axis) float64; or, of many pixels, (training sample, pixel) as the inputs are
    test: np.ndarray  #: (test sample, axis) likewise
    outside: np.ndarray  #: (test sample,) squared length outside the axes, summed over pixels


@dataclass(frozen=True, eq=False)
class Samples:
    """What is known of the stored samples, the same for every cell."""

    inputs: np.ndarray  #: (sample, pixel) float32 or float64, standardised pixel values
    labels: np.ndarray  #: (sample,) int64
    train: np.ndarray  #: (sample,) bool
    classes: int
    image: tuple[int, int, int]  #: channels, rows, columns of an input

    @cached_property
    def test(self) -> np.ndarray:
        """The other samples, (sample,) bool."""
        return ~self.train

    @cached_property
    def mean(self) -> np.ndarray:
        """The mean training input, (pixel,)."""
        return np.asarray(chosen(self.inputs, self.train).mean(axis=0, dtype=np.float64))

    @cached_property
    def baseline(self) -> np.ndarray:
        """Squared distance of the test inputs from the mean training input, mean over pixels, (test sample,)."""
        return np.asarray(np.square(chosen(self.inputs, self.test) - self.mean).mean(axis=1))

    @cached_property
    def targets(self) -> Targets:
        """What decoders predict: exact to the rounding of the inputs, and made once."""
        train, test = chosen(self.inputs, self.train), chosen(self.inputs, self.test)
        if min(train.shape) <= ROTATION_LIMIT:
            axes = factorise(train, exact_limit=ROTATION_LIMIT)
            rotated = axes.project(test)
            outside = np.maximum(self.baseline * self.inputs.shape[1] - np.square(rotated).sum(axis=1), 0.0)
            return Targets(centre(axes.project(train)), rotated, outside)
        return Targets(centre(train, self.mean), test, np.zeros(len(test)))


def chosen(values: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """`values[mask]`, without a copy where neighbours are chosen, as training and test samples of a dataset are."""
    first, count = int(np.argmax(mask)), int(np.count_nonzero(mask))
    return values[first : first + count] if mask[first : first + count].all() else values[mask]


def over_cells(
    activations: xr.DataArray,
    measure: Callable[[np.ndarray], dict[str, np.ndarray | float]],
    variables: Mapping[str, Variable],
    coords: Mapping[str, np.ndarray] | None = None,
) -> xr.Dataset:
    """Apply a measure of one cell, (sample, feature) → named arrays, to all of (seed, step, sample, feature).

    Each cell is measured by itself, so that a result does not depend on what else is in memory.

    Returns:
        The variables on (seed, step) and their own dimensions, with `coords` for the latter.

    Raises:
        UserError: a cell holds NaN or infinite values.
    """
    ordered = activations.transpose("seed", "step", "sample", "feature")
    seeds, steps = ordered["seed"].values, ordered["step"].values
    cells = []
    for seed, of_seed in zip(seeds, ordered.values, strict=True):
        for step, values in zip(steps, of_seed, strict=True):
            cell = np.ascontiguousarray(values)
            require_finite(cell, f"at seed {seed}, step {step}")
            cells.append(measure(cell))
    result = xr.Dataset(coords={"seed": seeds, "step": steps, **(coords or {})})
    for name, variable in variables.items():
        values = np.stack([np.asarray(cell[name]) for cell in cells])
        values = values.reshape(len(seeds), len(steps), *values.shape[1:])
        result[name] = (("seed", "step", *variable.dims), values, variable.attributes)
    return result


def require_finite(values: np.ndarray, where: str) -> None:
    """Raise a UserError if activations hold NaN or infinity."""
    # The exponent of a float16 that is none has all bits set; numpy would take seven times as long.
    half = values.dtype == np.float16
    if (values.view(np.uint16) & 0x7C00).max() == 0x7C00 if half else not np.isfinite(values).all():
        raise UserError(
            f"the activations {where} hold NaN or infinite values, and measures need finite ones: "
            "lower train.learning_rate if training diverged, "
            "or set activations.dtype to float32 if float16 overflowed (above 65504)"
        )
