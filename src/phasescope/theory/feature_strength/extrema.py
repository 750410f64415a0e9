"""The shape of R over the gap: a first minimum at Δ → 0+, a bump, a second minimum as deep, and the last rise.

ρ starts at k, has one maximum (the bump of R), falls through k again (the second minimum) and tends to 1. The paper's
stages 2 and 3 have the error rise and settle; the second minimum is not in it. For l = 2 ρ falls from the start, so
that R has neither and rises throughout. Functions take numbers or arrays that broadcast; NaN says that there is none.
"""

from collections.abc import Callable

import numpy as np

from phasescope.theory.arrays import Array, Numbers, floats
from phasescope.theory.feature_strength.reconstruction import contrast, final, floor, optimal
from phasescope.theory.feature_strength.recursion import missing

#: Halvings of an interval, after which a float64 has no more digits to gain from them.
HALVINGS = 80
#: A gap that is above zero and no more.
TINY = 1e-300


def bump(outputs: Numbers, strength: Numbers) -> Array:
    """The gap at which ρ, and with it R between its two minima, is largest: ln(l − 1)/2 exactly for k = 2."""
    outputs, strength = floats(outputs, strength)

    def slope(gap: Array) -> Array:
        # of ln ρ, from v (1/(e^(vΔ) − 1) + 1 − q_v), v = k less v = 1
        parts = [v * (1 / np.expm1(v * gap) + missing(gap, outputs, v)) for v in (strength, 1.0)]
        return parts[0] - parts[1]

    high = _beyond_second_minimum(outputs, strength)
    return np.where(outputs > 2, _crossing(slope, 1e-6 * high, high), np.nan)


def second_minimum(outputs: Numbers, strength: Numbers) -> Array:
    """The gap at which ρ falls through k: R = (k − 1)²/(4l²) again.

    ln(l − 1) exactly for k = 2, where q_1 = 1/2; about ln((l − 1)/(k − 1)) for l far above k.
    """

    def above(gap: Array) -> Array:
        return contrast(gap, outputs, strength) - strength

    top = bump(outputs, strength)
    return _crossing(above, top, _beyond_second_minimum(outputs, strength))


def leaving(outputs: Numbers, strength: Numbers) -> Array:
    """The gap at which R first reaches twice its minimum, before the bump; NaN where the bump is lower than that.

    About sqrt(2 (1 + k²) / (k² l)) for large l: how long the first minimum lasts.
    """

    def below(gap: Array) -> Array:
        return 2 * floor(outputs, strength) - optimal(gap, outputs, strength)

    top = bump(outputs, strength)
    return np.where(below(top) <= 0, _crossing(below, np.full_like(top, TINY), top), np.nan)


def regained(outputs: Numbers, strength: Numbers, share: float = 0.9) -> Array:
    """The gap at which R reaches this share of its final value (k − 1)²/(4l) for the last time."""

    def below(gap: Array) -> Array:
        return share * final(outputs, strength) - optimal(gap, outputs, strength)

    last = second_minimum(outputs, strength)
    return _crossing(below, np.where(np.isnan(last), TINY, last), _beyond_second_minimum(outputs, strength) + 60.0)


def _beyond_second_minimum(outputs: Numbers, strength: Numbers) -> Array:
    """Where ρ is below k for certain, for ρ < (1 + (l − 1) x)/(1 − x) with x = e^(−Δ)."""
    outputs, strength = floats(outputs, strength)
    return np.log((outputs - 1 + strength) / (strength - 1))


def _crossing(function: Callable[[Array], Array], low: Array, high: Array) -> Array:
    """Where a function goes from above zero at `low` to below zero at `high`, by bisection of every element."""
    low, high = np.broadcast_arrays(low, high)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        above = function(middle) > 0
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    return (low + high) / 2
