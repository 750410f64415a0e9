"""Networks with Gaussian weights: one that is drawn, and what such networks tend to with many units.

For u_i from N(0, σ_u²) and w_i from N(0, σ_w²), independent, and d units, with

    v = η_wσ_u² + η_uσ_w²   and   S = (η_wσ_u² − η_uσ_w²)/v,

P and Q are d v, and R is d v S, each up to a share of 1/√d. So ρ = γ d v/(2η̄), and where f(0) is small beside b

    K(∞)/K(0) = √(1 + (b/ρ)²),   ζ(∞) = (b/ρ)/√(1 + (b/ρ)² − S²).

For given σ_uσ_w, v/η̄ is least where η_wσ_u² = η_uσ_w²: unequal learning rates make learning more of a kernel method.
"""

from typing import NamedTuple

import numpy as np

from phasescope.theory.arrays import Array, Numbers, floats, require
from phasescope.theory.linear_network.model import LinearNetwork


class Draw(NamedTuple):
    """|z_u|², |z_w|² and z_u·z_w of vectors of standard normal numbers: all that a network takes of its draw."""

    output_square: Array
    input_square: Array
    overlap: Array


def draw(width: Numbers, seed: int, count: int = 1) -> Draw:
    """Of so many pairs of vectors of d numbers, (count, …) of the widths (…).

    The three numbers are drawn, not the vectors: |z_u|² is chi-squared with d degrees of freedom, z_u·z_w is |z_u|
    times a normal number g, and |z_w|² is g² and a chi-squared number with d − 1.

    Raises:
        UserError: for a width that is no whole number of at least 1.
    """
    (width,) = floats(width)
    require("width", width, (width >= 1) & (width == np.floor(width)), "a whole number of at least 1")
    rng = np.random.default_rng(seed)
    shape = (count, *width.shape)
    output_square, rest = (2 * rng.standard_gamma(freedom / 2, shape) for freedom in (width, width - 1))
    along = rng.standard_normal(shape)
    return Draw(output_square, along**2 + rest, np.sqrt(output_square) * along)


def limit(width: Numbers) -> Draw:
    """What draws tend to: d, d and 0."""
    (width,) = floats(width)
    return Draw(width, width, np.zeros_like(width))


def network(drawn: Draw, output_variance: Numbers, input_variance: Numbers, **setting: Numbers) -> LinearNetwork:
    """The network with weights σ_u z_u and σ_w z_w.

    Args:
        drawn: from `draw` or `limit`; its arrays broadcast with the others.
        output_variance: σ_u² of the output layer.
        input_variance: σ_w² of the input layer.
        setting: of `LinearNetwork`.

    Raises:
        UserError: for a value that is not allowed.
    """
    of_output, of_input = floats(output_variance, input_variance)
    squares = of_output * drawn.output_square, of_input * drawn.input_square
    return LinearNetwork.of_norms(*squares, np.sqrt(of_output * of_input) * drawn.overlap, **setting)
