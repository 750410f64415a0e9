"""Long runs of the recursion: step by step at first, then by the clock, in a time that hardly depends on their length.

After `PLAIN` steps of the plain recursion steps have become small, at whatever learning rate: where one is steep,
|h'| > ε, the gap is past it after about ln(l)/ε steps. So the number of steps between two gaps is an integral
(`clock`), with an error of the order of h'⁴ a step, which is inverted here for the steps asked for.
Tests hold it to the plain recursion; see docs/theory.md for how far the two are apart.
"""

import numpy as np
from numpy.typing import ArrayLike

from phasescope.theory.arrays import Array, increasing_steps
from phasescope.theory.feature_strength.clock import pace, panel, panel_length
from phasescope.theory.feature_strength.model import FeatureStrength
from phasescope.theory.feature_strength.recursion import gaps as plain_gaps
from phasescope.theory.feature_strength.recursion import rate, scale

#: Steps of the plain recursion before the clock is trusted.
PLAIN = 1024
#: Newton steps to a gap within a panel; the integrand is smooth there, and five reach the last digit.
NEWTON = 6


def gaps(model: FeatureStrength, steps: ArrayLike) -> Array:
    """Δ at the given steps as `phasescope.theory.feature_strength.recursion.gaps` has it, (*model.shape, step) float64.

    Steps may go to 2^62: beyond the first 1,024 the work grows with their logarithm.

    Raises:
        UserError: unless the steps are whole, not negative and increasing.
    """
    numbers = increasing_steps(steps)
    near = numbers[numbers <= PLAIN]
    begun = plain_gaps(model, np.union1d(near, [PLAIN]) if len(near) < len(numbers) else near)
    if len(near) == len(numbers):
        return begun
    waits = (numbers[len(near) :] - PLAIN).astype(np.float64)
    outputs, strength, step_size = (
        np.broadcast_to(given, model.shape).ravel() for given in (model.outputs, model.strength, scale(model))
    )
    late = _later(begun[..., -1].ravel(), waits, outputs, strength, step_size)
    return np.concatenate([begun[..., : len(near)], late.reshape(*model.shape, -1)], axis=-1)


def _later(gap: Array, waits: Array, outputs: Array, strength: Array, step_size: Array) -> Array:
    """The gap (set, wait) so many steps after it was `gap` (set,)."""
    found = np.repeat(gap[:, None], len(waits), axis=1)
    # Where even the present step, repeated, changes nothing, the gap stays as it is.
    left = np.flatnonzero(step_size * rate(gap, outputs, strength) * waits[-1] > np.finfo(float).eps * gap)
    edge, passed = gap[left], np.zeros(len(left))  # passed: what is behind the edge of the integral c T of `pace`
    while len(left):
        given = outputs[left], strength[left], step_size[left]
        length = panel_length(edge, *given[:2])
        taken = panel(edge, length, *given)
        wanted = given[2][:, None] * waits - passed[:, None]
        which, wait = np.nonzero((wanted > 0) & (wanted <= taken[:, None]))
        of = [array[which] for array in (taken, edge, length, *given)]
        found[left[which], wait] = _within_panel(wanted[which, wait], *of)
        on = wanted[:, -1] > taken
        left, edge, passed = left[on], (edge + length)[on], (passed + taken)[on]
    return found


def _within_panel(
    wait: Array, taken: Array, edge: Array, length: Array, outputs: Array, strength: Array, step_size: Array
) -> Array:
    """The gap in the panel at which its integral is `wait`, all (found,); Newton on a convex function."""
    position = length.copy()
    for _ in range(NEWTON):
        excess = taken - wait
        position = np.clip(position - excess / pace(edge + position, outputs, strength, step_size), 0, length)
        taken = panel(edge, position, outputs, strength, step_size)
    return edge + position
