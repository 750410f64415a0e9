"""Regimes: which phases can be seen at what learning rate, and where that changes, in closed form.

Learning rate and number of attributes count as their product λ d alone. The first step is λ d (k + 1)/(2 l²), and what
it leaps over is not seen; what comes after the last step is not seen either.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from xarray import Dataset

from phasescope.theory.arrays import Array, Numbers, floats, increasing_steps
from phasescope.theory.feature_strength import clock, extrema, reconstruction
from phasescope.theory.feature_strength.labels import labelled
from phasescope.theory.feature_strength.model import FeatureStrength
from phasescope.theory.feature_strength.sweep import sweep

PHASES = ("constant", "fall", "rise")


def regimes(
    outputs: ArrayLike, strengths: ArrayLike, rates: ArrayLike, steps: ArrayLike, noises: Sequence[float] = (0.0,)
) -> Dataset:
    """Which phases there are on a grid of parameter sets, with the boundaries between regimes.

    Args:
        outputs: l, (map_outputs,).
        strengths: k, (strength,).
        rates: λ d, (map_rate,).
        steps: as `sweep` takes them, 1 among them.
        noises: standard deviations σ of noise on the probability that the decoder reads.

    Returns:
        ``map_constant``, ``map_fall`` and ``map_rise`` by the rules of `sweep`, on (noise, strength, map_outputs,
        map_rate); ``map_resolved`` without noise, on the last three: R(1) is at most twice its minimum, and step 1 is
        not beyond the bump, so that this minimum is the first one.
        ``corollary_rate``, ``resolved_rate``, ``rise_rate`` and ``time_rate`` of `boundaries`, (strength, map_outputs).

    Raises:
        UserError: for a value that is not allowed.
    """
    axes = {"strength": np.asarray(strengths), "map_outputs": np.asarray(outputs), "map_rate": np.asarray(rates)}
    strong, classes, rate = (grid.ravel() for grid in np.meshgrid(*axes.values(), indexing="ij"))
    model = FeatureStrength(classes, strong, classes, rate / classes)
    lengths = tuple(map(len, axes.values()))
    maps: dict[str, list[Array]] = {phase: [] for phase in PHASES}
    for noise in noises:
        found = sweep(model, steps, noise)
        for phase in PHASES:
            maps[phase].append(found[phase].values.reshape(lengths))
        if noise == noises[0]:
            first = reconstruction.optimal(found.gap.sel(step=1).values, classes, strong)
            before = ~(
                found.gap.sel(step=1).values > extrema.bump(classes, strong)
            )  # with two classes there is no bump
            resolved = (before & (first <= 2 * reconstruction.floor(classes, strong))).reshape(lengths)
    variables = {f"map_{phase}": (("noise", *axes), np.stack(values)) for phase, values in maps.items()}
    variables["map_resolved"] = (tuple(axes), resolved)
    edges = boundaries(axes["map_outputs"], axes["strength"][:, None], int(increasing_steps(steps)[-1]))
    variables |= {name: (("strength", "map_outputs"), values) for name, values in edges.items()}
    return labelled(Dataset(variables, {"noise": list(noises), **axes}))


def boundaries(outputs: Numbers, strength: Numbers, last: int, growth: float = 2.0) -> dict[str, Array]:
    """The λ d at which regimes change; the first three in closed form, from the length of the first step.

    - ``corollary_rate``: above 2 l (c_f − 1)/(k + 1) the interval of Corollary 4 is empty;
    - ``resolved_rate``: above it the first step is longer than sqrt(2 (1 + k²)/(k² l)), where R is twice its minimum
      for large l, so that the first minimum is not seen;
    - ``rise_rate``: above it the first step is longer than ln((l − 1)/(k − 1)), which is about where the second minimum
      is, so that of the rise only what comes after is left: less and less, and none a few times above (by a factor of
      1.4 for l = 1000, k = 2, of 2.2 for l = 10); NaN where that is below 0;
    - ``time_rate``: below it the second minimum comes after the ``last`` step (by the clock, no closed form); NaN where
      there is none.

    Args:
        outputs: l.
        strength: k.
        last: step.
        growth: c_f > 1 of Corollary 4.
    """
    classes, strong = floats(outputs, strength)
    step = 2 * classes**2 / (strong + 1)  # λ d of a first step of length 1
    second = (classes - 1) / (strong - 1)
    found = {
        "corollary_rate": 2 * classes * (growth - 1) / (strong + 1),
        "resolved_rate": step * np.sqrt(2 * (1 + strong**2) / (strong**2 * classes)),
        "rise_rate": np.where(second > 1, step * np.log(np.maximum(second, 1)), np.nan),
        "time_rate": clock.milestones(classes, strong).second_minimum / last,
    }
    shape = np.broadcast_shapes(classes.shape, strong.shape)
    return {name: np.broadcast_to(values, shape) for name, values in found.items()}
