"""What the models of the theory share: numbers for many parameter sets at once, how they are checked and labelled."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from xarray import Dataset

from phasescope.errors import UserError

Array = NDArray[Any]
#: One number, or an array with one for every parameter set.
Numbers = float | Array


def floats(*values: Numbers) -> tuple[Array, ...]:
    """As float64 arrays, whatever integers they were: products such as l³ overflow small ones."""
    return tuple(np.asarray(value, dtype=np.float64) for value in values)


def broadcast(given: Mapping[str, Numbers]) -> dict[str, Array]:
    """Numbers by name as arrays of one shape.

    Raises:
        UserError: for what is no number, or arrays that do not broadcast.
    """
    arrays = {name: np.asarray(values) for name, values in given.items()}
    for name, values in arrays.items():
        if values.dtype.kind not in "iuf":
            raise UserError(f"theory: {name} is {values.tolist()!r}; give a number, or an array of numbers")
    try:
        return dict(zip(arrays, np.broadcast_arrays(*arrays.values()), strict=True))
    except ValueError:
        shapes = ", ".join(f"{name} {values.shape}" for name, values in arrays.items())
        raise UserError(f"theory: shapes {shapes} do not go together; give arrays that broadcast") from None


def require(name: str, values: Array, fit: Array, allowed: str) -> None:
    """Raise a `UserError` with the first value that does not fit or is not finite."""
    fit = fit & np.isfinite(values)
    if not fit.all():
        raise UserError(f"theory: {name} is {values[~fit][0]}; it must be {allowed}")


def increasing_steps(steps: ArrayLike) -> Array:
    """Steps as int64 (step,), for instance those of `phasescope.schedule.checkpoint_steps`.

    Raises:
        UserError: unless they are whole, not negative and increasing.
    """
    numbers = np.asarray(steps)
    fit = numbers.ndim == 1 and numbers.size > 0 and numbers.dtype.kind in "iu"
    if not fit or numbers[0] < 0 or (np.diff(numbers) <= 0).any():
        shown = np.array2string(numbers.ravel(), threshold=8)
        raise UserError(f"theory: steps are {shown}; give whole numbers, increasing, none below 0")
    return numbers.astype(np.int64)


def labelled(dataset: Dataset, names: Mapping[str, tuple[str, ...]], prefix: str = "") -> Dataset:
    """The same, each variable and coordinate with its ``long_name`` and ``units``; that of a variable has a prefix.

    Args:
        dataset: of a model of the theory.
        names: what each is, and its unit where it has one.
        prefix: of the variables' names there.
    """
    for name in map(str, dataset.variables):
        what, *unit = names[name if name in dataset.coords else prefix + name]
        dataset[name].attrs = {"long_name": what, "units": unit[0] if unit else "1"}
    return dataset
