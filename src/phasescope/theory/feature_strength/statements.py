"""Corollary 4 and Theorem 5 of the paper in the form that is true, as bounds that exact numbers can be held to.

All are of the best linear decoder of softmax probabilities, from equal initial weights; l ≥ 2, k > 1. The central
inequality is not in the paper: |ρ − k| ≤ (k − 1) Δ ρ, hence

    (k − 1)²/(4l²)  ≤  R  ≤  (k − 1)²/(4l²) · (1 + 2 (l − 1) Δ²)          for every Δ > 0.

For ρ ≥ k: ρ/k ≤ (1 + (l − 1) e^(−Δ)) / (1 + (l − 1) e^(−kΔ)) ≤ e^((k−1)Δ), so that 1 − k/ρ ≤ (k − 1) Δ.
For ρ < k: with g(y) = y/(1 − e^(−y)), for which g ≥ 1 and 0 ≤ g' ≤ 1, k/ρ ≤ g(kΔ)/g(Δ) ≤ 1 + (k − 1) Δ.
No step is longer than the first, so that Δ(t) ≤ t λ d (k + 1)/(2 l²).
"""

from typing import NamedTuple

import numpy as np

from phasescope.theory.arrays import Array, Numbers, floats
from phasescope.theory.feature_strength.model import FeatureStrength
from phasescope.theory.feature_strength.reconstruction import final, floor


class Bounds(NamedTuple):
    """What a number lies between, both included."""

    low: Array
    high: Array


def start(outputs: Numbers, strength: Numbers) -> Bounds:
    """Corollary 4, R(0) = Ω(k²/l): (1 + k²)/(2l) is above R(0), by at most its l-th part, so that R(0) ≥ k²/(4l)."""
    outputs, strength = floats(outputs, strength)
    high = (1 + strength**2) / (2 * outputs)
    return Bounds(high * (1 - 1 / outputs), high)


def universal(gap: Numbers, outputs: Numbers, strength: Numbers) -> Bounds:
    """The central inequality, of R at a gap Δ > 0. R is below twice its minimum up to Δ = 1/sqrt(2 (l − 1))."""
    gap, outputs = floats(gap, outputs)
    low = floor(outputs, strength)
    return Bounds(low, low * (1 + 2 * (outputs - 1) * gap**2))


def early(outputs: Numbers, strength: Numbers, growth: Numbers = 2.0) -> Bounds:
    """Corollary 4, R(t) = O(k²/l²) for 1 ≤ t ≤ `early_end`: at most (k − 1)²/(4l²) · (1 + 2 (c_f − 1)²/l).

    Args:
        outputs: l.
        strength: k.
        growth: c_f > 1, the factor by which the sum f of own weights may have grown.
    """
    growth, outputs = floats(growth, outputs)
    return universal((growth - 1) / outputs, outputs, strength)


def early_end(model: FeatureStrength, growth: Numbers = 2.0) -> Array:
    """Corollary 4, the last step of its interval: floor(2 l (c_f − 1)/(λ d (k + 1))), of the model's shape.

    The paper names no condition, but the interval [1, this] is empty (this is 0) unless λ d (k + 1) ≤ 2 l (c_f − 1).
    Nor is it tight: R stays at that level for about l^(3/2)/(λ d) steps, see `plateau_end`.
    """
    (growth,) = floats(growth)
    steps = 2 * model.outputs * (growth - 1) / (model.learning_rate * model.inputs * (model.strength + 1))
    return np.broadcast_to(np.floor(steps), model.shape)


def plateau_end(model: FeatureStrength) -> Array:
    """The last step, from 1 on, up to which R is proved to be at most twice its minimum; 0 if there is none.

    floor(2 l² / (λ d (k + 1) sqrt(2 (l − 1)))), of the order l^(3/2)/(λ d), from the central inequality.
    """
    first = model.learning_rate * model.inputs * (model.strength + 1) / (2 * model.outputs**2)
    return np.broadcast_to(np.floor(1 / (first * np.sqrt(2 * (model.outputs - 1)))), model.shape)


def end(outputs: Numbers, strength: Numbers) -> Bounds:
    """Corollary 4, R(∞) = Ω(k²/l): exactly (k − 1)²/(4l); for k ≥ 2, as the paper has it, at least k²/(16l)."""
    limit = final(outputs, strength)
    return Bounds(limit, limit)


def theorem_ratio() -> Bounds:
    """Theorem 5 as it is true: for every t ≥ 1, R of the paper's g_j is between 1 and 2 times the best R.

    R_g/R ≤ max(2, (1 + ρ²)/ρ²) ≤ 2 for ρ ≥ 1; 2 is approached as Δ → 0+ and t → ∞, and at the second minimum.
    """
    return Bounds(np.asarray(1.0), np.asarray(2.0))


def theorem_distance(strength: Numbers) -> Array:
    """Theorem 5 as it is printed, ‖g_j − g_j^opt‖ < 2: what the largest distance over samples and steps is at most.

    max((k − 1)/2, 1/(2 (k + sqrt(1 + k²)))): the first as t → ∞, so that the printed 2 holds up to k = 5 alone;
    the second, larger for k < 4/3, is the largest (ρ − k)/(1 + ρ²), which is the distance near the bump as l → ∞. That
    few classes stay below it is checked on a grid (l from 2 to 10⁴, k from 1.001 to 100), not proved.
    """
    (strength,) = floats(strength)
    return np.maximum((strength - 1) / 2, 1 / (2 * (strength + np.sqrt(1 + strength**2))))
