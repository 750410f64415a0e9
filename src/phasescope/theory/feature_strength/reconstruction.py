"""Reconstruction error R of one attribute in closed form, from softmax and from logits.

With A_v = l q_v − 1 and ρ = A_k / A_1, the softmax probability q_y determines all that linear decoders can use, and

    R = (k − 1)² / (4 l²) + (l − 1) / (2 l²) · (ρ − k)² / (1 + ρ²)        best linear decoder (`optimal`)
    R = (k − 1)² / (2 l²) + (l − 1) / (2 l²) · (ρ − k)² / ρ²              the paper's line g_j (`paper`)

for every gap Δ > 0, exactly. R depends on (l, k, Δ) alone: one universal curve, along which d and λ only set the clock.
All functions take numbers or arrays that broadcast, and give float64 arrays of that shape. Nothing cancels as Δ → 0,
where the regression on the four groups of samples loses its digits.
"""

import numpy as np

from phasescope.theory.arrays import Array, Numbers, floats


def advantage(gap: Numbers, outputs: Numbers, strength: Numbers) -> Array:
    """A_v = l q_v − 1 for samples of the strength v: 0 at the start, l − 1 when they are certain."""
    gap, outputs, strength = floats(gap, outputs, strength)
    return -(outputs - 1) * np.expm1(-strength * gap) / (1 + (outputs - 1) * np.exp(-strength * gap))


def contrast(gap: Numbers, outputs: Numbers, strength: Numbers) -> Array:
    """ρ = A_k / A_1, by how much a strong sample stands out more than a weak one: from k as Δ → 0+ to 1.

    At Δ = 0 both are zero, and the limit k is given.
    """
    gap, strength = floats(gap, strength)
    begun = np.where(gap > 0, gap, 1.0)
    return np.where(gap > 0, advantage(begun, outputs, strength) / advantage(begun, outputs, 1.0), strength)


def initial(outputs: Numbers, strength: Numbers) -> Array:
    """R at step 0, where a constant is the best decoder: the variance (1 + k²)/(2l) − (1 + k)²/(4l²) of the attribute.

    The paper's Eq. 15 prints the constant (1 + k)/l, for (1 + k)/(2l); with it R(0) is (1 + k²)/(2l), as of zero.
    """
    outputs, strength = floats(outputs, strength)
    return (1 + strength**2) / (2 * outputs) - (1 + strength) ** 2 / (4 * outputs**2)


def floor(outputs: Numbers, strength: Numbers) -> Array:
    """(k − 1)²/(4l²), the least R there is: as Δ → 0+, and again where ρ = k."""
    outputs, strength = floats(outputs, strength)
    return (strength - 1) ** 2 / (4 * outputs**2)


def final(outputs: Numbers, strength: Numbers) -> Array:
    """(k − 1)²/(4l), R as t → ∞, where weak and strong samples have the same probabilities.

    Below l/(2l − 1) of R(0), for every k: R never ends above its start.
    """
    outputs, strength = floats(outputs, strength)
    return (strength - 1) ** 2 / (4 * outputs)


def optimal(gap: Numbers, outputs: Numbers, strength: Numbers, noise: float = 0.0) -> Array:
    """R of the best linear decoder of the softmax probabilities, at the gap Δ ≥ 0.

    With noise of standard deviation σ on the probability q_y that the decoder reads, R is
    Var x − Cov² / (Var q + σ²), here written as R_σ = R + (R(0) − R) σ² / (Var q + σ²).
    Independent noise on all l probabilities has the same effect where it is √(l / (l − 1)) times as large.
    """
    gap, outputs, strength = floats(gap, outputs, strength)
    rho, start = contrast(gap, outputs, strength), initial(outputs, strength)
    spread = (outputs - 1) / (2 * outputs**2) * (rho - strength) ** 2 / (1 + rho**2)
    found = np.where(gap > 0, floor(outputs, strength) + spread, start)
    if noise == 0:
        return found
    squares = advantage(gap, outputs, 1.0) ** 2 + advantage(gap, outputs, strength) ** 2
    variance = squares / (2 * outputs**2 * (outputs - 1))
    return found + (start - found) * noise**2 / (variance + noise**2)


def paper(gap: Numbers, outputs: Numbers, strength: Numbers) -> Array:
    """R of the paper's decoder g_j, the line through (p_k, 0) and (q_k, k), with the weights of Eq. 13 corrected.

    At Δ = 0 it is the constant (1 + k)/(2l) (Eq. 15 corrected), hence `initial`. `lines` has the
    weights that are printed.
    """
    gap, outputs, strength = floats(gap, outputs, strength)
    spread = (outputs - 1) / (2 * outputs**2) * (1 - strength / contrast(gap, outputs, strength)) ** 2
    return np.where(gap > 0, 2 * floor(outputs, strength) + spread, initial(outputs, strength))


def from_logits(gap: Numbers, outputs: Numbers, strength: Numbers) -> Array:
    """R of the best linear decoder of the logits, which is Definition 3 literally: zero from the first step on.

    The logits of a sample of class y are v (Δ 1_y + (1 − Δ)/l), invertible as soon as Δ > 0. At Δ = 0 they tell the
    strength but not the class, and R is `initial` less the part (k − 1)²/(4l²) that the strength explains.
    """
    (gap,) = floats(gap)
    return np.where(gap > 0, 0.0, initial(outputs, strength) - floor(outputs, strength))
