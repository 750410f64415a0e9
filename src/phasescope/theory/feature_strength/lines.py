"""Decoders as lines over the probability q_y, their errors in the four groups of samples, and Eq. 13.

For an attribute of class y the samples fall into four groups: those of the class, weak (target 1, decoder input q_1)
and strong (k, q_k), and those of other classes, weak (0, p_1) and strong (0, p_k). A decoder is a line; this is what
Figure 5 of the paper draws.
"""

from typing import NamedTuple

import numpy as np

from phasescope.theory.arrays import Array, Numbers, floats
from phasescope.theory.feature_strength.reconstruction import advantage
from phasescope.theory.feature_strength.recursion import probabilities


class Line(NamedTuple):
    """A decoder g(q) = intercept + slope · q of the probability of the attribute's class."""

    intercept: Array
    slope: Array

    def __call__(self, probability: Numbers) -> Array:
        """The attribute as it is reconstructed."""
        return self.intercept + self.slope * np.asarray(probability)


class GroupErrors(NamedTuple):
    """Squared errors R_1, R_k, R_0,C1, R_0,Ck of the four groups (Eq. 10 to 12, where the target 0 is misprinted)."""

    weak: Array
    strong: Array
    weak_other: Array
    strong_other: Array


def optimal_line(gap: Numbers, outputs: Numbers, strength: Numbers) -> Line:
    """The best decoder: g(q) = (1 + k)/(2l) + (l − 1)(A_1 + k A_k)/(A_1² + A_k²) (q − 1/l); the mean at Δ = 0."""
    outputs, strength = floats(outputs, strength)
    weak, strong, begun = _advantages(gap, outputs, strength)
    slope = np.where(begun, (outputs - 1) * (weak + strength * strong) / (weak**2 + strong**2), 0.0)
    return Line((1 + strength) / (2 * outputs) - slope / outputs, slope)


def paper_line(gap: Numbers, outputs: Numbers, strength: Numbers) -> Line:
    """The paper's g_j through (p_k, 0) and (q_k, k); at Δ = 0 the constant (1 + k)/(2l).

    k (q_y − p_k)/(q_k − p_k): Eq. 14 prints o_j for q_y. The constant is Eq. 15, which prints (1 + k)/l.
    """
    outputs, strength = floats(outputs, strength)
    _, strong, begun = _advantages(gap, outputs, strength)
    slope = np.where(begun, strength * (outputs - 1) / strong, 0.0)
    zero = (1 - strong / (outputs - 1)) / outputs
    return Line(np.where(begun, -slope * zero, (1 + strength) / (2 * outputs)), slope)


def group_errors(line: Line, gap: Numbers, outputs: Numbers, strength: Numbers) -> GroupErrors:
    """Squared errors of a decoder; loses digits to cancellation below gaps of 1e-5, unlike the closed forms."""
    given = probabilities(gap, outputs, strength)
    targets = floats(1.0, strength, 0.0, 0.0)
    return GroupErrors(*((line(one) - target) ** 2 for one, target in zip(given, targets, strict=True)))


def error(errors: GroupErrors, outputs: Numbers) -> Array:
    """R = (R_1 + R_k)/(2l) + (l − 1)/(2l) (R_0,C1 + R_0,Ck): Eq. 13 with weights that add up to 1."""
    (outputs,) = floats(outputs)
    own, other = errors.weak + errors.strong, errors.weak_other + errors.strong_other
    return own / (2 * outputs) + (outputs - 1) / (2 * outputs) * other


def printed_error(errors: GroupErrors, outputs: Numbers) -> Array:
    """Eq. 13 as printed, with the weights 1/l and 1 − 1/(2l), which add up to 2 + 1/l: 2 to 2 + 1/(l − 1) times R."""
    (outputs,) = floats(outputs)
    own, other = errors.weak + errors.strong, errors.weak_other + errors.strong_other
    return own / outputs + (1 - 1 / (2 * outputs)) * other


def _advantages(gap: Numbers, outputs: Numbers, strength: Numbers) -> tuple[Array, Array, Array]:
    """A_1, A_k (at some gap above 0 where there is none), and where there is one."""
    (gap,) = floats(gap)
    begun = gap > 0
    safe = np.where(begun, gap, 1.0)
    return advantage(safe, outputs, 1.0), advantage(safe, outputs, strength), begun
