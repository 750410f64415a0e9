"""The reduced recursion: gradient descent from equal weights is one number per step.

From w = 1/d for all weights (Assumption 2, deterministic) the weights of a class to its own attributes stay equal,
w = a, and so do all others, w = b, at every step. Since a + (l − 1) b = l/d is conserved, one number is left, the gap
Δ = (d/l)(a − b) between the sums of own and of other weights over a block:

    Δ(0) = 0,   Δ(t+1) = Δ(t) + c [(1 − q_1) + k (1 − q_k)],   c = λ d / (2 l (l − 1)),
    q_v = 1 / (1 + (l − 1) e^(−vΔ)),   p_v = (1 − q_v) / (l − 1),

where q_v is the probability of the right class for a sample of strength v, and p_v that of any other class. The gap
grows at every step, for every λ > 0. The paper does not reduce its Eq. 5 so far; it bounds the weights instead.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from phasescope.theory.arrays import Array, Numbers, floats, increasing_steps
from phasescope.theory.feature_strength.model import FeatureStrength


class Probabilities(NamedTuple):
    """What softmax gives for weak and strong samples, each array of the shape of the gaps."""

    weak: Array  #: q_1 of the right class
    strong: Array  #: q_k of the right class
    weak_other: Array  #: p_1 of each wrong class
    strong_other: Array  #: p_k of each wrong class


class Weights(NamedTuple):
    """The two values that the weights have, each array of the shape of the gaps."""

    own: Array  #: a, from an attribute of a class to its output
    other: Array  #: b, from an attribute of a class to any other output


def missing(gap: Numbers, outputs: Numbers, strength: Numbers) -> Array:
    """1 − q_v without cancellation, for samples of the strength v."""
    gap, outputs, strength = floats(gap, outputs, strength)
    others = (outputs - 1) * np.exp(-strength * gap)
    return others / (1 + others)


def probabilities(gap: Numbers, outputs: Numbers, strength: Numbers) -> Probabilities:
    """The decoder's inputs in the four groups of samples (q_1, q_k, p_1, p_k of Section "Reconstruction")."""
    (outputs,) = floats(outputs)
    weak, strong = missing(gap, outputs, 1.0), missing(gap, outputs, strength)
    return Probabilities(1 - weak, 1 - strong, weak / (outputs - 1), strong / (outputs - 1))


def weights(gap: Numbers, outputs: Numbers, inputs: Numbers) -> Weights:
    """A = (1 + (l − 1) Δ) / d and b = (1 − Δ) / d."""
    gap, outputs, inputs = floats(gap, outputs, inputs)
    return Weights((1 + (outputs - 1) * gap) / inputs, (1 - gap) / inputs)


def own_sum(gap: Numbers, outputs: Numbers) -> Array:
    """Sum f = (1 + (l − 1) Δ) / l of a class's weights over its own attributes.

    The paper cuts its stages at values of "sums of weights f" and does not define them; these give its Corollary 4.
    """
    gap, outputs = floats(gap, outputs)
    return (1 + (outputs - 1) * gap) / outputs


def rate(gap: Numbers, outputs: Numbers, strength: Numbers) -> Array:
    """(1 − q_1) + k (1 − q_k): what the gap grows by in a step, in units of `scale`."""
    return missing(gap, outputs, 1.0) + strength * missing(gap, outputs, strength)


def scale(model: FeatureStrength) -> Array:
    """C = λ d / (2 l (l − 1)), of the model's shape."""
    found = model.learning_rate * model.inputs / (2 * model.outputs * (model.outputs - 1))
    return np.broadcast_to(found, model.shape)


def gaps(model: FeatureStrength, steps: ArrayLike) -> Array:
    """Δ at the given steps by the plain recursion, (*model.shape, step) float64.

    Takes every step up to the last; `leap.gaps` gives the same in far less time where there are many.

    Raises:
        UserError: unless the steps are whole, not negative and increasing.
    """
    numbers, step_size = increasing_steps(steps), scale(model)
    gap, found = np.zeros(model.shape), np.empty((*model.shape, len(numbers)))
    done = 0
    for place, step in enumerate(numbers.tolist()):
        for _ in range(step - done):
            gap = gap + step_size * rate(gap, model.outputs, model.strength)
        found[..., place], done = gap, step
    return found
