"""The two-layer linear network: its parameters, and the three numbers of its weights that its learning depends on.

f(x) = γ Σ_i u_i w_i x on inputs x and targets y that are numbers, with the loss (κ/2) E[(f − y)²], A = E[x²] and
B = E[x y]. (Of inputs on a line in more dimensions, w_i is the component along it; the others never move.) With the
learning rates η_u and η_w of the two layers, η̄ = √(η_u η_w), and

    p_i = √η_w u_i + √η_u w_i,   q_i = √η_w u_i − √η_u w_i,

gradient flow is p_i' = η̄ g p_i and q_i' = −η̄ g q_i with one g = κγ(B − Aγ u·w) for all units. So P = Σ p_i² and
Q = Σ q_i² determine everything, together with R = Σ p_i q_i = η_w|u|² − η_u|w|², which is conserved, as PQ is.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np

from phasescope.theory.arrays import Array, Numbers, broadcast, floats, require

#: By how much rounding may bring R² above PQ, as a share of it.
ROUNDING = 1e-9


@dataclass(frozen=True, eq=False)
class LinearNetwork:
    """One setting with its initial weights, or many: every field may be an array, and they broadcast.

    Time is counted in steps: a step of gradient descent, which has these learning rates, is a time of 1.

    Attributes:
        plus: P at the start, Σ (√η_w u_i + √η_u w_i)².
        minus: Q at the start, Σ (√η_w u_i − √η_u w_i)².
        balance: R = η_w|u|² − η_u|w|², between −√(PQ) and √(PQ); 0 for balanced layers.
        output_scale: γ > 0, by which the output is multiplied.
        output_rate: η_u > 0, learning rate of the output layer u.
        input_rate: η_w > 0, learning rate of the input layer w.
        loss_factor: κ > 0; 1 for half the mean squared error, 2 for the mean squared error.
        input_moment: A = E[x²] > 0.
        target_moment: B = E[x y]; the best slope is b = B/A.

    Raises:
        UserError: for a value that is not allowed, or arrays that do not broadcast.
    """

    plus: Numbers
    minus: Numbers
    balance: Numbers
    output_scale: Numbers = 1.0
    output_rate: Numbers = 1.0
    input_rate: Numbers = 1.0
    loss_factor: Numbers = 1.0
    input_moment: Numbers = 1.0
    target_moment: Numbers = 1.0

    def __post_init__(self) -> None:
        given = broadcast(vars(self))
        for name in ("plus", "minus"):
            require(name, given[name], given[name] >= 0, "a finite number of at least 0")
        for name in ("output_scale", "output_rate", "input_rate", "loss_factor", "input_moment"):
            require(name, given[name], given[name] > 0, "a finite number above 0")
        require("target_moment", given["target_moment"], np.isfinite(given["target_moment"]), "a finite number")
        most = np.sqrt(given["plus"]) * np.sqrt(given["minus"])
        within = np.abs(given["balance"]) <= most + ROUNDING * (given["plus"] + given["minus"])
        require("balance", given["balance"], within, "between −√(plus · minus) and √(plus · minus)")
        for name, values in vars(self).items():
            object.__setattr__(self, name, np.asarray(values, dtype=np.float64)[()])

    @classmethod
    def of_weights(cls, output_weights: Array, input_weights: Array, **setting: Numbers) -> Self:
        """The network with the weights u and w, (…, unit) each; the arrays of the setting broadcast with (…).

        Raises:
            UserError: as the class.
        """
        plus, minus = rotated(output_weights, input_weights, **setting)
        return cls((plus**2).sum(-1), (minus**2).sum(-1), (plus * minus).sum(-1), **setting)

    @classmethod
    def of_norms(cls, output_square: Numbers, input_square: Numbers, overlap: Numbers, **setting: Numbers) -> Self:
        """The network with |u|², |w|² and u·w; where |u·w| is close to |u||w| digits are lost that `of_weights` keeps.

        Raises:
            UserError: as the class, and where |u·w| is above |u||w|.
        """
        output_square, input_square, overlap = floats(output_square, input_square, overlap)
        most = np.sqrt(output_square) * np.sqrt(input_square)
        require("overlap", overlap, np.abs(overlap) <= most * (1 + ROUNDING), "at most |u||w| in size")
        output_rate, input_rate = _rates(setting)
        first, second = input_rate * output_square, output_rate * input_square
        cross = 2 * np.sqrt(output_rate * input_rate) * overlap
        squares = np.maximum(first + second + cross, 0), np.maximum(first + second - cross, 0)
        return cls(*squares, first - second, **setting)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the settings: () for a single one."""
        return np.broadcast_shapes(*(np.shape(value) for value in vars(self).values()))

    @property
    def rate(self) -> Array:
        """η̄ = √(η_u η_w), (*shape)."""
        return np.sqrt(self.output_rate * self.input_rate)

    @property
    def slope(self) -> Array:
        """B = B/A, the slope that the output tends to."""
        return np.asarray(self.target_moment / self.input_moment)

    @property
    def lazy_scale(self) -> Array:
        """ρ = γ√(PQ)/(2η̄), conserved; in units of the output's slope.

        Learning is lazy, with a constant kernel, as far as f and b are small beside it.
        """
        return self.output_scale * np.sqrt(self.plus) * np.sqrt(self.minus) / (2 * self.rate)


def rotated(output_weights: Array, input_weights: Array, **setting: Numbers) -> tuple[Array, Array]:
    """The p and q of the weights u and w, all (…, unit)."""
    of_output, of_input = (np.sqrt(rate)[..., None] for rate in reversed(_rates(setting)))
    first, second = of_output * np.asarray(output_weights), of_input * np.asarray(input_weights)
    return first + second, first - second


def _rates(setting: Mapping[str, Numbers]) -> tuple[Array, ...]:
    return floats(*(setting.get(name, 1.0) for name in ("output_rate", "input_rate")))
