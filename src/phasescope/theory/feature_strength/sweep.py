"""Many parameter sets at once: R at checkpoints, and which phases it has.

There is no noise between seeds here, so a phase counts by the rules of `phasescope.phases` without standard errors.
"""

import numpy as np
from numpy.typing import ArrayLike
from xarray import Dataset

from phasescope.errors import UserError
from phasescope.theory.arrays import increasing_steps
from phasescope.theory.feature_strength import reconstruction
from phasescope.theory.feature_strength.labels import labelled
from phasescope.theory.feature_strength.leap import gaps
from phasescope.theory.feature_strength.model import FeatureStrength


def sweep(
    model: FeatureStrength, steps: ArrayLike, noise: float = 0.0, tolerance: float = 0.1, threshold: float = 0.02
) -> Dataset:
    """R of the best linear decoder of softmax probabilities for every parameter set, and its phases.

    Args:
        model: one parameter set, or a one-dimensional array of them.
        steps: whole, increasing, from 0 on, as `phasescope.schedule.checkpoint_steps` gives them.
        noise: standard deviation σ of noise on the probability that the decoder reads; without it there is no constant
            phase, for the first step is a jump.
        tolerance: the constant phase ends where R has left R(0) by this share of its range.
        threshold: a fall or rise counts above this share of R(0).

    Returns:
        On (set, step): ``error`` R, ``gap`` Δ. On (set): ``outputs``, ``strength``, ``inputs``, ``learning_rate`` as
        coordinates; ``constant_until``, ``minimum_at`` (steps); ``constant``, ``fall``, ``rise`` (is the phase there);
        ``fall_share`` 1 − R(m)/R(0), ``rise_share`` R(T)/R(m) − 1, ``end_ratio`` R(T)/R(0), with m the step of the
        minimum and T the last step.

    Raises:
        UserError: unless the steps are whole, increasing and begin with 0, and the sets in one dimension.
    """
    numbers = increasing_steps(steps)
    if numbers[0] != 0:
        raise UserError(f"theory: the first step is {numbers[0]}; phases are told against step 0, give it first")
    if len(model.shape) > 1:
        raise UserError(f"theory: parameter sets in an array of {model.shape}; a sweep takes one dimension of them")
    fields = {name: np.atleast_1d(np.broadcast_to(value, model.shape)) for name, value in vars(model).items()}
    gap = gaps(FeatureStrength(**fields), numbers)
    error = reconstruction.optimal(gap, fields["outputs"][:, None], fields["strength"][:, None], noise)
    start, end, minimum = error[:, 0], error[:, -1], error.min(axis=1)
    near = np.abs(error - start[:, None]) <= tolerance * np.ptp(error, axis=1, keepdims=True)
    until = numbers[np.minimum.accumulate(near, axis=1).sum(axis=1) - 1]
    fall, rise = start - minimum > threshold * start, end - minimum > threshold * start
    of_sets = {
        "constant_until": until,
        "minimum_at": numbers[error.argmin(axis=1)],
        "constant": (until >= 2) & (fall | rise),
        "fall": fall,
        "rise": rise,
        "fall_share": 1 - minimum / start,
        "rise_share": end / minimum - 1,
        "end_ratio": end / start,
    }
    found = Dataset(
        {"error": (("set", "step"), error), "gap": (("set", "step"), gap)}
        | {name: ("set", values) for name, values in of_sets.items()},
        {"step": numbers} | {name: ("set", values) for name, values in fields.items()},
        {"title": "Feature-strength model: reconstruction error from softmax, best linear decoder"},
    )
    return labelled(found)
