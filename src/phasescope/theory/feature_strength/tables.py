"""The tables of the theory as labelled arrays and as text: the shape of R, and when what happens to it."""

import math
from collections.abc import Sequence

import numpy as np
from rich import box
from rich.table import Table
from xarray import Dataset

from phasescope.theory.feature_strength import clock, extrema, reconstruction
from phasescope.theory.feature_strength.labels import labelled
from phasescope.theory.feature_strength.model import FeatureStrength

OUTPUTS = (10, 100, 1000)
STRENGTHS = (2.0, 3.0, 5.0)

#: How a table is printed: its title, significant digits, and the headings of the columns by name.
PRINTED: dict[str, tuple[str, int, dict[str, str]]] = {
    "shape": (
        "Reconstruction error from softmax, times l",
        4,
        {
            "initial": "step 0",
            "minimum": "minima",
            "bump": "bump",
            "bump_gap": "bump\nat Δ",
            "second_minimum_gap": "second\nminimum at Δ",
            "final": "end",
        },
    ),
    "times": (
        "When: λ·d·t, with t in iterations",
        3,
        {
            "corollary": "end of\nCorollary 4",
            "leaving": "twice the\nminimum",
            "bump": "bump",
            "second_minimum": "second\nminimum",
            "regained": "90 % of\nthe end",
        },
    ),
}


def shape(outputs: Sequence[float] = OUTPUTS, strengths: Sequence[float] = STRENGTHS) -> Dataset:
    """R at what is particular about it, on (strength, outputs); all of R times l, all gaps as they are.

    ``initial`` R(0), ``minimum`` (as Δ → 0+, and again at the second minimum), ``bump``, ``final``; ``bump_gap`` and
    ``second_minimum_gap``. NaN where there is no bump (l = 2).

    Raises:
        UserError: for l or k outside the model.
    """
    classes, strong = _grid(outputs, strengths)
    bump_gap = extrema.bump(classes, strong)
    errors = {
        "initial": reconstruction.initial(classes, strong),
        "minimum": reconstruction.floor(classes, strong),
        "bump": reconstruction.optimal(bump_gap, classes, strong),
        "final": reconstruction.final(classes, strong),
    }
    errors["bump"] = np.where(np.isnan(bump_gap), np.nan, errors["bump"])
    columns = {name: classes * values for name, values in errors.items()}
    columns |= {"bump_gap": bump_gap, "second_minimum_gap": extrema.second_minimum(classes, strong)}
    return labelled(_table(columns, outputs, strengths), "shape_")


def times(outputs: Sequence[float] = OUTPUTS, strengths: Sequence[float] = STRENGTHS, growth: float = 2.0) -> Dataset:
    """λ d t of the flow, on (strength, outputs): the fields of `clock.Milestones`; NaN for never.

    Raises:
        UserError: for l or k outside the model.
    """
    found = clock.milestones(*_grid(outputs, strengths), growth)
    return labelled(_table(found._asdict(), outputs, strengths), "times_")


def printed(table: Dataset, which: str) -> Table:
    """A table for a terminal, a row for every k and l; – for never.

    Args:
        table: what `shape` or `times` gives.
        which: "shape" or "times".
    """
    title, digits, headings = PRINTED[which]
    shown = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", title_style="bold")
    for heading in ("k", "l", *headings.values()):
        shown.add_column(heading, justify="right", no_wrap=True)
    for k in table.strength.values.tolist():
        for classes in table.outputs.values.tolist():
            row = table.sel(strength=k, outputs=classes)
            shown.add_row(f"{k:.12g}", f"{classes:.12g}", *(_number(float(row[name]), digits) for name in headings))
        shown.add_section()
    return shown


def _number(value: float, digits: int) -> str:
    if math.isnan(value):
        return "–"
    text = f"{value:#.{digits}g}"
    # Rather 0.00025 than 0.0002500, and 5.65e3 than 5.65e+03.
    mantissa, _, exponent = text.partition("e")
    mantissa = mantissa.rstrip("0").removesuffix(".") if "." in mantissa else mantissa
    return f"{mantissa}e{int(exponent)}" if exponent else mantissa


def _grid(outputs: Sequence[float], strengths: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """The l (outputs,) and k (strength, 1), which broadcast, if they are such that there is a model."""
    classes, strong = np.asarray(outputs), np.asarray(strengths)[:, None]
    FeatureStrength(classes, strong, classes, 1.0)
    return classes, strong


def _table(columns: dict[str, np.ndarray], outputs: Sequence[float], strengths: Sequence[float]) -> Dataset:
    variables = {name: (("strength", "outputs"), values) for name, values in columns.items()}
    return Dataset(variables, {"strength": list(strengths), "outputs": list(outputs)})
