"""The feature-strength model: its parameters, and the samples that it is trained on.

A dense layer with softmax learns classes whose attributes are active weakly (1) or strongly (k), Eq. 1 to 5 of
Schneider & Prabhushankar (2024). Class y has the attributes A_y = {y m, …, (y + 1) m − 1} with m = d/l; the paper
prints a closed interval, in which neighbouring classes would share an attribute.
"""

from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from phasescope.errors import UserError

Array = NDArray[Any]
#: One number, or an array with one for every parameter set.
Numbers = float | Array


@dataclass(frozen=True, eq=False)
class FeatureStrength:
    """One parameter set, or many: every field may be an array, and they broadcast against each other.

    Only λ·d matters to the dynamics, and the number of samples does not matter at all (it cancels in Eq. 5).

    Attributes:
        outputs: l, the number of classes, at least 2.
        strength: k > 1, what the attributes of a strong sample are; those of a weak one are 1.
        inputs: d, the number of attributes, a multiple of l.
        learning_rate: λ > 0, of full-batch gradient descent on the mean cross-entropy.

    Raises:
        UserError: for a value that is not allowed, or arrays that do not broadcast.
    """

    outputs: Numbers
    strength: Numbers
    inputs: Numbers
    learning_rate: Numbers

    def __post_init__(self) -> None:
        given = {field.name: np.asarray(getattr(self, field.name)) for field in fields(self)}
        for name, values in given.items():
            if values.dtype.kind not in "iuf":
                raise UserError(f"theory: {name} is {values.tolist()!r}; give a number, or an array of numbers")
        try:
            outputs, _, inputs, _ = np.broadcast_arrays(*given.values())
        except ValueError:
            shapes = ", ".join(f"{name} {values.shape}" for name, values in given.items())
            raise UserError(f"theory: shapes {shapes} do not go together; give arrays that broadcast") from None
        _require("outputs", outputs, (outputs == np.floor(outputs)) & (outputs >= 2), "a whole number of at least 2")
        _require("strength", given["strength"], given["strength"] > 1, "a finite number above 1")
        _require("inputs", inputs, (inputs >= outputs) & (inputs % outputs == 0), "a multiple of outputs")
        _require("learning_rate", given["learning_rate"], given["learning_rate"] > 0, "a finite number above 0")
        for name, values in given.items():
            object.__setattr__(self, name, values.astype(np.float64)[()])

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the parameter sets: () for a single one."""
        return np.broadcast_shapes(*(np.shape(value) for value in vars(self).values()))

    def condensed(self) -> "FeatureStrength":
        """The model with one attribute per class and the same λ·d, whose weights are the sums over blocks of this one.

        Exact for any initial weights: a sample is the same on the whole block, so all weights of a block move alike.
        Weights drawn from N(0, 1/d) have sums from N(0, 1/l), which is N(0, 1/d) of the condensed model.
        """
        blocks = self.inputs / self.outputs
        return FeatureStrength(self.outputs, self.strength, self.outputs, blocks * self.learning_rate)


def floats(*values: Numbers) -> tuple[Array, ...]:
    """As float64 arrays, whatever integers they were: products such as l³ overflow small ones."""
    return tuple(np.asarray(value, dtype=np.float64) for value in values)


class Samples(NamedTuple):
    """All samples that differ, n = 2l of them: first the weak one of each class, then the strong ones (Eq. 1).

    More samples in the same proportions change nothing: Eq. 5 averages over them.
    """

    inputs: Array  #: (sample, input) the strength on the attributes of the sample's class, zero elsewhere
    label: Array  #: (sample,) the class
    strength: Array  #: (sample,) 1 or k


def samples(model: FeatureStrength) -> Samples:
    """The samples of one parameter set.

    Raises:
        UserError: if the model holds arrays of parameter sets.
    """
    if model.shape:
        raise UserError(f"theory: full gradient descent takes one parameter set, this model has {model.shape} of them")
    outputs, inputs = int(model.outputs), int(model.inputs)
    label = np.tile(np.arange(outputs), 2)
    strength = np.repeat([1.0, float(model.strength)], outputs)
    own = np.arange(inputs) // (inputs // outputs) == label[:, None]
    return Samples(own * strength[:, None], label, strength)


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


def _require(name: str, values: Array, fit: Array, allowed: str) -> None:
    """Raise, with the first value that does not fit or is not finite."""
    fit = fit & np.isfinite(values)
    if not fit.all():
        raise UserError(f"theory: {name} is {values[~fit][0]}; it must be {allowed}")
