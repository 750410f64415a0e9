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
    #: Of decoders whose optimum is not known: by what share the training loss still fell in the last epoch, as the
    #: median over cells.
    falling: dict[str, float]

    def __str__(self) -> str:
        told = []
        if self.cells:
            late = sum(row["step"] >= LATE for row in self.beyond)
            told.append(f"{len(self.beyond)} of {self.cells} cells, from step {LATE} on {late} of {self.late}")
        for decoder, share in self.falling.items():
            told.append(f"{decoder}, whose optimum is not known, still fell by {100 * share:.1f} % in the last epoch")
        return "; ".join(told) or "no trained decoder"


def report(decode: Dataset, tolerance: float = 0.02) -> Report:
    """The cells whose training loss is above that of the exact decoder by a share of more than ``tolerance``.

    Args:
        decode: ``optimum_mse``, ``excess`` and ``test_excess`` (seed, step, layer, decoder), the first NaN where no
            optimum is known, and ``epoch_mse`` with ``epoch`` as well; what is not there was not asked for.
        tolerance: a share of the exact decoder's training loss.
    """
    falling = {}
    if "epoch_mse" in decode and decode.sizes["epoch"] > 1:
        fall = 1 - decode.epoch_mse.isel(epoch=-1) / decode.epoch_mse.isel(epoch=-2)
        known = decode.optimum_mse.notnull().any(("seed", "step", "layer")) if "optimum_mse" in decode else None
        for decoder in decode.decoder.values.tolist():
            of_decoder = fall.sel(decoder=decoder)
            if of_decoder.notnull().any() and (known is None or not known.sel(decoder=decoder)):
                falling[str(decoder)] = float(of_decoder.median())
    if "optimum_mse" not in decode:
        return Report([], 0, 0, falling)
    dims = ("layer", "decoder", "seed", "step")
    linear = decode[["optimum_mse", "excess", "test_excess"]].transpose(*dims, ...)
    train, test = linear.excess.values, linear.test_excess.values
    # Where there are as many features as samples, the least error is zero, and no share of it.
    cells = (linear.optimum_mse > 0).values
    labels = {dim: linear[dim].values.tolist() for dim in dims}
    beyond = [
        {
            **{dim: labels[dim][index] for dim, index in zip(dims, place, strict=True)},
            "train": float(train[tuple(place)]),
            "test": float(test[tuple(place)]),
        }
        for place in np.argwhere(cells & ~(train <= tolerance))
    ]
    return Report(beyond, int(cells.sum()), int(cells[..., linear.step.values >= LATE].sum()), falling)


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
