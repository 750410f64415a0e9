"""Where training has left a decoder short of the exact least-squares decoder, which is its optimum.

The reconstruction loss of a layer is meant to be that of the best decoder of its kind. One that is trained for some
epochs ends above it, at some steps and layers further than at others, and such a difference can look like a phase. For
linear decoders the optimum is known, so that the difference can be told.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich import box
from rich.table import Table
from xarray import Dataset

Row = dict[str, Any]

#: From this step on cells are counted by themselves as well.
LATE = 32


@dataclass(frozen=True)
class Report:
    """The cells of a run that are further from their optimum than the tolerance, and of how many that is."""

    #: A row per such cell: ``layer``, ``decoder``, ``seed``, ``step``, and by what share its losses are above those of
    #: the exact decoder, ``train`` and ``test``. The second may be negative, both are NaN where training diverged.
    beyond: list[Row]
    #: How many cells with a known optimum there are, and how many of them at steps from `LATE` on.
    cells: int
    late: int

    def __str__(self) -> str:
        if not self.cells:
            return "no trained linear decoder"
        late = sum(row["step"] >= LATE for row in self.beyond)
        return f"{len(self.beyond)} of {self.cells} cells, from step {LATE} on {late} of {self.late}"


def report(decode: Dataset, tolerance: float = 0.02) -> Report:
    """The cells whose training loss is above that of the exact decoder by a share of more than ``tolerance``.

    Args:
        decode: ``optimum_mse``, ``excess`` and ``test_excess`` (seed, step, layer, decoder), the first NaN where no
            optimum is known; without them no decoder was trained.
        tolerance: a share of the exact decoder's training loss.
    """
    if "optimum_mse" not in decode:
        return Report([], 0, 0)
    dims = ("layer", "decoder", "seed", "step")
    known = decode[["optimum_mse", "excess", "test_excess"]].transpose(*dims, ...)
    train, test = known.excess.values, known.test_excess.values
    cells = known.optimum_mse.notnull().values
    labels = {dim: known[dim].values.tolist() for dim in dims}
    beyond = [
        {
            **{dim: labels[dim][index] for dim, index in zip(dims, place, strict=True)},
            "train": float(train[tuple(place)]),
            "test": float(test[tuple(place)]),
        }
        for place in np.argwhere(cells & ~(train <= tolerance))
    ]
    return Report(beyond, int(cells.sum()), int(cells[..., known.step.values >= LATE].sum()))


def table(reports: Mapping[str, Report]) -> Table:
    """The cells of all runs that are further from their optimum than the tolerance."""
    shown = Table(box=box.SIMPLE_HEAD, padding=0)
    for heading in ("run", "layer", "decoder"):
        shown.add_column(heading, overflow="fold")
    for heading in ("seed", "step", "train %", "test %"):
        shown.add_column(heading, justify="right", no_wrap=True)
    for run, found in reports.items():
        for row in found.beyond:
            shares = (_percent(row[key]) for key in ("train", "test"))
            shown.add_row(run, row["layer"], row["decoder"], str(row["seed"]), str(row["step"]), *shares)
        shown.add_section()
    return shown


def _percent(share: float) -> str:
    return f"{100 * share:+.1f}" if np.isfinite(share) else "diverged"
