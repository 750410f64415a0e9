"""The clock: how many steps it takes to reach a gap.

As long as single steps are small the recursion is the flow dΔ/dt = c F(Δ) with F = (1 − q_1) + k (1 − q_k), and

    λ d t = 2 l (l − 1) ∫ dΔ / F(Δ)   from 0 to the gap.

For the recursion itself, whose steps are h(Δ) = c F(Δ), the number of steps T obeys T(Δ + h(Δ)) = T(Δ) + 1. Expanded in
powers of c, which the derivatives of h measure,

    h T' = 1 + h'/2 − (h h'' + h'²)/12 + (2 h h' h'' + h'³)/24 + …

(for h = −αΔ the expansion of −α / ln(1 − α), as it must be). The paper has no clock; it bounds the growth of weights.
"""

from typing import NamedTuple

import numpy as np

from phasescope.theory.arrays import Array, Numbers, floats
from phasescope.theory.feature_strength import extrema
from phasescope.theory.feature_strength.recursion import missing

#: Gauss-Legendre on [0, 1]. The integrand is analytic within π/k of the real line, and panels are 1/k long: 12 digits.
NODES, SHARES = (np.polynomial.legendre.leggauss(6)[0] + 1) / 2, np.polynomial.legendre.leggauss(6)[1] / 2


def pace(gap: Numbers, outputs: Numbers, strength: Numbers, scale: Numbers = 0.0) -> Array:
    """C dT/dΔ to third order in the scale c; at c = 0 it is 1/F, that of the flow."""
    weak, strong = missing(gap, outputs, 1.0), missing(gap, outputs, strength)
    rate = weak + strength * strong
    if np.ndim(scale) == 0 and scale == 0:
        return 1 / rate
    # h, h' and h'': the derivative of 1 − q_v is −v q_v (1 − q_v)
    weak_slope, strong_slope = weak * (1 - weak), strength * strong * (1 - strong)
    step = scale * rate
    first = -scale * (weak_slope + strength * strong_slope)
    second = scale * (weak_slope * (1 - 2 * weak) + strength**2 * strong_slope * (1 - 2 * strong))
    correction = first / 2 - (step * second + first**2) / 12 + first * (2 * step * second + first**2) / 24
    return (1 + correction) / rate


def panel(gap: Array, length: Array, outputs: Array, strength: Array, scale: Numbers = 0.0) -> Array:
    """∫ `pace` from the gap over a length of at most `panel_length`; all of one shape."""
    total = np.zeros(np.shape(gap))
    for node, share in zip(NODES, SHARES, strict=True):
        total += share * pace(gap + node * length, outputs, strength, scale)
    return total * length


def panel_length(gap: Array, outputs: Array, strength: Array) -> Array:
    """1/k, or 1 from where strong samples no longer count (1 − q_k below e⁻⁴⁰), for the integrand is e^Δ there."""
    return np.where(strength * gap > np.log(outputs - 1) + 40, 1.0, 1 / strength)


def time(gap: Numbers, outputs: Numbers, strength: Numbers) -> Array:
    """λ d t at which the flow reaches the gap, of the shape that the arguments broadcast to; NaN for NaN.

    The recursion's t agrees as long as its first step λ d (k + 1)/(2 l²) is far below 1.
    """
    target, outputs, strength = np.broadcast_arrays(*floats(gap, outputs, strength))
    position, total = np.zeros(target.shape), np.zeros(target.shape)
    while (position < target).any():
        length = np.clip(target - position, 0, panel_length(position, outputs, strength))
        total += panel(position, length, outputs, strength)
        position = np.where(length < target - position, position + length, target)
    return np.where(np.isnan(target), np.nan, 2 * outputs * (outputs - 1) * total)


class Milestones(NamedTuple):
    """λ d t of the flow at what happens to R, in this order; NaN for what does not happen."""

    corollary: Array  #: the end of Corollary 4's interval, 2 l (c_f − 1)/(k + 1)
    leaving: Array  #: R is twice its minimum
    bump: Array
    second_minimum: Array
    regained: Array  #: R is at 90 % of its final value


def milestones(outputs: Numbers, strength: Numbers, growth: float = 2.0) -> Milestones:
    """When R leaves its first minimum, has its bump, its second minimum, and 90 % of its final value.

    Args:
        outputs: l.
        strength: k.
        growth: c_f > 1 of Corollary 4.
    """
    found = (extrema.leaving, extrema.bump, extrema.second_minimum, extrema.regained)
    outputs, strength = floats(outputs, strength)
    corollary = 2 * outputs * (growth - 1) / (strength + 1)
    return Milestones(corollary, *(time(what(outputs, strength), outputs, strength) for what in found))
