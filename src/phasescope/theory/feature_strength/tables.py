"""The tables of the theory as labelled arrays: the shape of R, and when what happens to it."""

from collections.abc import Sequence

import numpy as np
from xarray import Dataset

from phasescope.theory.feature_strength import clock, extrema, reconstruction

OUTPUTS = (10, 100, 1000)
STRENGTHS = (2.0, 3.0, 5.0)


def shape(outputs: Sequence[int] = OUTPUTS, strengths: Sequence[float] = STRENGTHS) -> Dataset:
    """R at what is particular about it, on (strength, outputs); all of R times l, all gaps as they are.

    ``initial`` R(0), ``minimum`` (as Δ → 0+, and again at the second minimum), ``bump``, ``final``; ``bump_gap`` and
    ``second_minimum_gap``. NaN where there is no bump (l = 2).
    """
    classes, strong = np.asarray(outputs), np.asarray(strengths)[:, None]
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
    return _table(columns, outputs, strengths)


def times(outputs: Sequence[int] = OUTPUTS, strengths: Sequence[float] = STRENGTHS, growth: float = 2.0) -> Dataset:
    """λ d t of the flow, on (strength, outputs): the fields of `clock.Milestones`; NaN for never."""
    found = clock.milestones(np.asarray(outputs), np.asarray(strengths)[:, None], growth)
    return _table(found._asdict(), outputs, strengths)


def _table(columns: dict[str, np.ndarray], outputs: Sequence[int], strengths: Sequence[float]) -> Dataset:
    variables = {name: (("strength", "outputs"), values) for name, values in columns.items()}
    return Dataset(variables, {"strength": list(strengths), "outputs": list(outputs)})
