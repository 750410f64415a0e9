"""The feature-strength model: its parameters, and the samples that it is trained on.

A dense layer with softmax learns classes whose attributes are active weakly (1) or strongly (k), Eq. 1 to 5 of
Schneider & Prabhushankar (2024). Class y has the attributes A_y = {y m, …, (y + 1) m − 1} with m = d/l; the paper
prints a closed interval, in which neighbouring classes would share an attribute.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from phasescope.errors import UserError
from phasescope.theory.arrays import Array, Numbers, broadcast, require


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
        given = broadcast(vars(self))
        outputs, strength, inputs, learning_rate = given.values()
        require("outputs", outputs, (outputs == np.floor(outputs)) & (outputs >= 2), "a whole number of at least 2")
        require("strength", strength, strength > 1, "a finite number above 1")
        require("inputs", inputs, (inputs >= outputs) & (inputs % outputs == 0), "a multiple of outputs")
        require("learning_rate", learning_rate, learning_rate > 0, "a finite number above 0")
        for name, values in vars(self).items():
            object.__setattr__(self, name, np.asarray(values, dtype=np.float64)[()])

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
