"""Scaling exponents: how output scale, variances and learning rates go with the width, and which phase that makes.

With γ ~ d^−cγ, σ_u² ~ d^−cu, σ_w² ~ d^−cw, η_u ~ d^−eu, η_w ~ d^−ew, for d units and Gaussian weights,

    D ~ d^max(δ_F, δ_K),   δ_F = −cγ − (eu + ew)/2,   δ_K = 1 − 2cγ − min(cu + ew, cw + eu),   ρ ~ d^(δ_K − δ_F),

the first exponent from features, the second from the initial kernel. f(0) ~ d^φ with φ = ½ − cγ − (cu + cw)/2.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from phasescope.theory.arrays import Array, Numbers, broadcast, floats, require
from phasescope.theory.linear_network.gaussian import Draw, network
from phasescope.theory.linear_network.model import LinearNetwork

#: Exponents that differ by less are equal.
EQUAL = 1e-9

#: What happens with the width to the rate D: it goes to zero, it stays, or it grows and gradient descent diverges.
TRAINING = ("frozen", "trains", "unstable")
#: What happens to ρ: it grows, and the kernel stays as it is; it stays; it goes to zero, and K(∞)/K(0) grows.
LEARNING = ("kernel", "feature", "rich")


@dataclass(frozen=True, eq=False)
class Exponents:
    """One scaling with the width, or many: every field may be an array, and they broadcast.

    Attributes:
        output_scale: cγ.
        output_variance: cu.
        input_variance: cw.
        output_rate: eu.
        input_rate: ew.

    Raises:
        UserError: for what is no finite number, or arrays that do not broadcast.
    """

    output_scale: Numbers
    output_variance: Numbers
    input_variance: Numbers
    output_rate: Numbers = 0.0
    input_rate: Numbers = 0.0

    def __post_init__(self) -> None:
        for name, values in broadcast(vars(self)).items():
            require(name, values, np.isfinite(values), "a finite number")
        for name, values in vars(self).items():
            object.__setattr__(self, name, np.asarray(values, dtype=np.float64)[()])

    @property
    def feature(self) -> Array:
        """δ_F."""
        return np.asarray(-self.output_scale - (self.output_rate + self.input_rate) / 2)

    @property
    def kernel(self) -> Array:
        """δ_K."""
        of_output, of_input = self.output_variance + self.input_rate, self.input_variance + self.output_rate
        return 1 - 2 * self.output_scale - np.minimum(of_output, of_input)

    @property
    def rate(self) -> Array:
        """Of D."""
        return np.maximum(self.feature, self.kernel)

    @property
    def lazy_scale(self) -> Array:
        """Of ρ, δ_K − δ_F; the learning rates count as their ratio alone."""
        return self.kernel - self.feature

    @property
    def output(self) -> Array:
        """φ, of f(0), which has to be at most 0 for an output that is bounded."""
        return np.asarray(0.5 - self.output_scale - (self.output_variance + self.input_variance) / 2)

    @property
    def training(self) -> Array:
        """Of `TRAINING`, by D."""
        return _by_sign(self.rate, TRAINING)

    @property
    def learning(self) -> Array:
        """Of `LEARNING`, by ρ."""
        return _by_sign(-self.lazy_scale, LEARNING)

    def at(self, width: Numbers, drawn: Draw, rate: Numbers = 1.0, **setting: Numbers) -> LinearNetwork:
        """The network of d units with a draw, all factors being 1.

        Args:
            width: d.
            drawn: of as many units, or their limit.
            rate: factor of both learning rates.
            setting: of `LinearNetwork`, what does not depend on the width.
        """
        (width,) = floats(width)
        scales: dict[str, Any] = {name: width ** -np.asarray(exponent) for name, exponent in vars(self).items()}
        scales |= {name: rate * scales[name] for name in ("output_rate", "input_rate")}
        return network(drawn, **scales, **setting)


#: Parametrisations by the names they go by; SP is the standard one, variances 1 over the inputs of a layer.
PARAMETRISATIONS = {
    "NTK": Exponents(0.5, 0, 0),
    "mean field": Exponents(1, 0, 0, -1, -1),
    "SP, rate 1/d": Exponents(0, 1, 0, 1, 1),
    "Xavier": Exponents(0, 1, 1),
    "μP": Exponents(0, 2, 0, 1, -1),
    "small init": Exponents(0, 1.5, 1.5),
    "large init": Exponents(0, 0.5, 0.5, 0.5, 0.5),
    "unequal rates": Exponents(0, 1, 1, -0.5, 0.5),
}


class Reduced(NamedTuple):
    """The two exponents that phases depend on, of the five: δ_F = −Y, δ_K = 1 − X − Y, and ρ ~ d^(1 − X)."""

    scale: Array  #: X = cγ + min(cu − (eu − ew)/2, cw + (eu − ew)/2)
    rate: Array  #: Y = cγ + (eu + ew)/2


def reduced(exponents: Exponents) -> Reduced:
    """Where a scaling is on the map of all of them."""
    rate = -exponents.feature
    return Reduced(1 - rate - exponents.kernel, rate)


def placed(
    output_variance: Numbers, input_variance: Numbers, rate_difference: Numbers = 0.0, lazy_scale: Numbers = 0.0
) -> Exponents:
    """The scaling with such initial weights that trains, with D ~ d^0, and has ρ ~ d^lazy_scale.

    Any initial weights can so be put in any phase, by output scale and learning rates: in the kernel phase with an
    exponent of ρ above 0, among features with 0, in the rich phase below.

    Args:
        output_variance: cu.
        input_variance: cw.
        rate_difference: eu − ew.
        lazy_scale: the exponent of ρ.
    """
    of_output, of_input, half, wanted = floats(output_variance, input_variance, rate_difference, lazy_scale)
    half = half / 2
    scale = 1 - np.minimum(of_output - half, of_input + half) - wanted
    mean = np.maximum(wanted, 0) - scale
    return Exponents(scale, of_output, of_input, mean + half, mean - half)


def _by_sign(values: Array, names: tuple[str, str, str]) -> Array:
    return np.select([values < -EQUAL, values <= EQUAL], names[:2], names[2])
