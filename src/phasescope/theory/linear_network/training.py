"""Networks with one hidden layer and any activation, trained by full-batch gradient descent: what theory is held to.

f(x) = γ Σ_i u_i φ(w_i x) on inputs that are numbers, with half the mean squared error. With φ the identity it is the
network that is solved; nothing here uses the solution. All in float64.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import expit

from phasescope.errors import UserError
from phasescope.theory.arrays import Array, increasing_steps

#: The slope of leaky ReLU below zero.
LEAK = 0.1


def _linear(z: Array) -> tuple[Array, Array]:
    return z, np.ones_like(z)


def _relu(z: Array) -> tuple[Array, Array]:
    slope = np.where(z > 0, 1.0, 0.0)
    return slope * z, slope


def _leaky_relu(z: Array) -> tuple[Array, Array]:
    slope = np.where(z > 0, 1.0, LEAK)
    return slope * z, slope


def _swish(z: Array) -> tuple[Array, Array]:
    gate = expit(z)
    return z * gate, gate * (1 + z * (1 - gate))


def _sigmoid(z: Array) -> tuple[Array, Array]:
    value = np.tanh(z / 2)
    return value, (1 - value**2) / 2


#: φ(z) and φ'(z) by name. The sigmoid is centred, 2σ(z) − 1, for units near ½ would make up all of the kernel.
ACTIVATIONS: dict[str, Callable[[Array], tuple[Array, Array]]] = {
    "linear": _linear,
    "relu": _relu,
    "leaky-relu": _leaky_relu,
    "swish": _swish,
    "sigmoid": _sigmoid,
}


def mean_slope(activation: str) -> float:
    """M, the mean of φ' on both sides of zero.

    On inputs as often x as −x, and as far as weights are small where φ bends, the network learns a line as the linear
    one does with γm for γ: a unit sees the errors on both sides of zero, with the slopes of each.
    """
    tiny = np.array([-1.0, 1.0]) * np.finfo(float).tiny
    return float(ACTIVATIONS[activation](tiny)[1].mean())


class Weights(NamedTuple):
    """The weights of both layers."""

    output: Array  #: u, (…, unit)
    input: Array  #: w, (…, unit)

    @property
    def alignment(self) -> Array:
        """ζ = u·w/(|u||w|), (…)."""
        with np.errstate(over="ignore", invalid="ignore"):
            return (self.output * self.input).sum(-1) / self.norm

    @property
    def norm(self) -> Array:
        """N = |u||w|, (…)."""
        with np.errstate(over="ignore", invalid="ignore"):
            return np.linalg.norm(self.output, axis=-1) * np.linalg.norm(self.input, axis=-1)


def gaussian(width: int, deviation: float, alignment: float, seed: int) -> Weights:
    """Weights of a standard deviation, those of the layers with this correlation; (unit,) each."""
    first, second = deviation * np.random.default_rng(seed).standard_normal((2, width))
    return Weights(alignment * second + (1 - alignment**2) ** 0.5 * first, second)


def train(
    activation: str,
    weights: Weights,
    inputs: Array,
    targets: Array,
    learning_rate: float,
    steps: ArrayLike,
    scale: float = 1.0,
) -> Weights:
    """The weights at the given steps, (step, unit) each; infinite or NaN where training diverges.

    Args:
        activation: of `ACTIVATIONS`.
        weights: at the start, (unit,) each; they stay as they are.
        inputs: x, (sample,).
        targets: y, (sample,).
        learning_rate: of both layers.
        steps: whole, increasing, from 0 on.
        scale: γ.

    Raises:
        UserError: for another activation or other steps.
    """
    if activation not in ACTIVATIONS:
        raise UserError(f"theory: activation is {activation!r}; known: {', '.join(ACTIVATIONS)}")
    numbers, apply = increasing_steps(steps), ACTIVATIONS[activation]
    output, input_ = weights
    pull, done = learning_rate * scale / len(inputs), 0
    found = Weights(*(np.empty((len(numbers), len(output))) for _ in weights))
    with np.errstate(over="ignore", invalid="ignore"):
        for place, step in enumerate(numbers.tolist()):
            for _ in range(step - done):
                values, slopes = apply(np.multiply.outer(input_, inputs))
                missing = targets - scale * (output @ values)
                pulled = slopes @ (missing * inputs)
                output, input_ = output + pull * (values @ missing), input_ + pull * output * pulled
            found.output[place], found.input[place], done = output, input_, step
    return found
