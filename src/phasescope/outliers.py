"""Checkpoints that are out of line: their loss or weight norm does not go with that of their neighbours.

A curve of losses may fall by a factor between two powers of two, so a steep step is no outlier: what counts is its
bend, how far the logarithm at a step lies from the middle of the two around it (at the ends: from the one beside it).

- With three seeds or more, bends are compared between seeds: a checkpoint is out of line if its bend differs from the
  median bend of all seeds by more than 30 times the typical such difference, the median over the seeds at this step
  and the two around it, or over all steps if that is more.
- With one or two seeds nobody can say which is right. Then a checkpoint is out of line if it lies beyond both of its
  neighbours, by more than 5 times the typical change from one step to the next.
- Of neighbours in one seed only the farthest counts, for an outlier bends the curve beside it too.
- Two checkpoints with exactly the same loss and weight norm are one: training never stands still.
- A loss or norm that is not finite is out of line, and its seed takes no part in the rest.

Typical means at least 1 % for a loss and 0.01 % for a norm. Tried on 16 runs on digits (F0, VGG-8, VGG-11, ResNet-10,
learning rates from tame to wild, 3 or 5 seeds each, 10 to 14 checkpoints): no alarm with all seeds, 3 in 4,827
checkpoints with any three of the seeds, none in 902 with one. Of checkpoints replaced by that of the same step of a run
with other settings 67 % were found with three seeds and 41 % with one (716 and 712 trials). Replaced by that of another
step of the same seed all were, since the two are the same; without that rule 76 % two steps or more away and 31 % at
the next step, with three seeds. One replaced by that of another seed is found if that seed is in the run, else not
(6 %). The numbers for one and two seeds are from before of two neighbours only the farthest counted, which takes alarms
away and adds none.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from xarray import DataArray

Array = NDArray[Any]

#: How many times what is typical a bend may differ from that of the other seeds.
BETWEEN_SEEDS = 30.0
#: How many times the typical change a single curve may lie beyond both neighbours.
WITHIN_SEED = 5.0
#: Least that counts as typical, as a share of the loss and of the weight norm.
LEAST = {"loss": 1e-2, "weight norm": 1e-4}
#: Below this, a cross-entropy in float32 is rounding.
RESOLUTION = float(np.finfo(np.float32).eps)


class Outlier(NamedTuple):
    """A checkpoint that is out of line, and why."""

    seed: int
    step: int
    reason: str

    def __str__(self) -> str:
        return f"seed {self.seed}, step {self.step}: {self.reason}"


def outliers(loss: DataArray, weight_norm: DataArray) -> list[Outlier]:
    """All checkpoints of a run that are out of line, each once, by seed and step.

    Args:
        loss: (seed, step) of the network, on images that stay the same; not negative.
        weight_norm: (seed, step), not negative.
    """
    curves = {
        "loss": loss.transpose("seed", "step").values.astype(np.float64),
        "weight norm": weight_norm.transpose("seed", "step").values.astype(np.float64),
    }
    seeds, steps = loss["seed"].values.tolist(), loss["step"].values.tolist()
    reasons: dict[tuple[int, int], str] = {}
    for name, values in curves.items():
        for seed, step in np.argwhere(~np.isfinite(values)).tolist():
            reasons.setdefault((seed, step), f"its {name} is not finite")
    for (seed, step), (other_seed, other_step) in _same(*curves.values()).items():
        what = f"its loss and weight norm are exactly those of seed {seeds[other_seed]}, step {steps[other_step]}"
        reasons.setdefault((seed, step), what)
    whole = np.flatnonzero(np.all([np.isfinite(values).all(axis=1) for values in curves.values()], axis=0))
    for name, values in curves.items():
        logarithms = np.log(np.maximum(values[whole], RESOLUTION))
        for row, step in np.argwhere(_out_of_line(logarithms, LEAST[name])).tolist():
            around = values[whole[row], max(0, step - 1) : step + 2].tolist()
            where = f"where its seed goes {', '.join(f'{value:.4g}' for value in around)} around that step"
            what = f"its {name} of {values[whole[row], step]:.4g} is out of line"
            reasons.setdefault((int(whole[row]), step), f"{what}, {where}")
    return [Outlier(seeds[seed], steps[step], reason) for (seed, step), reason in sorted(reasons.items())]


def _same(*curves: Array) -> dict[tuple[int, int], tuple[int, int]]:
    """Cells (seed, step) that have the same finite values in all curves as another one, with that one."""
    cells: dict[tuple[float, ...], list[tuple[int, int]]] = {}
    for seed, step in np.argwhere(np.all(np.isfinite(curves), axis=0)).tolist():
        cells.setdefault(tuple(curve[seed, step] for curve in curves), []).append((seed, step))
    groups = [group for group in cells.values() if len(group) > 1]
    return {cell: group[0] if cell != group[0] else group[1] for group in groups for cell in group}


def _out_of_line(logarithms: Array, least: float) -> Array:
    """Which of the logarithms (seed, step) are out of line."""
    seeds, steps = logarithms.shape
    if seeds == 0 or steps < 3:
        return np.zeros(logarithms.shape, dtype=bool)
    change = np.diff(logarithms, axis=1)
    if seeds < 3:
        into, out = change[:, :-1], -change[:, 1:]
        beyond = np.where(into * out > 0, np.minimum(np.abs(into), np.abs(out)), 0.0)
        far = np.pad(beyond, ((0, 0), (1, 1)))
        limit = np.full(steps, WITHIN_SEED * max(least, float(np.median(np.abs(change)))))
    else:
        bend = np.concatenate([-change[:, :1], (change[:, :-1] - change[:, 1:]) / 2, change[:, -1:]], axis=1)
        far = np.abs(bend - np.median(bend, axis=0))
        here = [float(np.median(far[:, max(0, step - 1) : step + 2])) for step in range(steps)]
        limit = BETWEEN_SEEDS * np.maximum(here, max(least, float(np.median(far))))
    # One that is off by d bends by d. Beside it the curve bends by d/2, but at its ends by d.
    height = far * np.where(np.isin(np.arange(steps), [0, steps - 1]), 2 / 3, 1.0)
    beside = np.pad(height, ((0, 0), (1, 1)))
    return (far > limit) & (height >= beside[:, :-2]) & (height >= beside[:, 2:])
