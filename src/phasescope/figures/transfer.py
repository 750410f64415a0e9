"""Figures 6 and 7 of Schneider & Prabhushankar (2024): what else can be read off a layer, beside what it keeps."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from phasescope.figures.drawing import Curve, Drawing, Results, Row, level, named, normalised
from phasescope.figures.layout import BASELINE, MINIMUM, NETWORK, heading, label, legend, side_by_side, taps
from phasescope.figures.style import BLACK, COLOURS, Array, step_axis, style
from phasescope.params.figures import FiguresSettings

#: What is drawn in one column: run, target dataset, label.
Case = tuple[str, str, str]

# Colours that the four taps do not have, for these are shown below.
_LOSS: dict[str, Any] = {"color": COLOURS[4], "marker": "X"}
_TARGET: dict[str, Any] = {"color": COLOURS[5], "marker": "<"}
_BEST: dict[str, Any] = {"color": COLOURS[5], "linestyle": "--", "linewidth": 1}
_PIXELS: dict[str, Any] = {"color": BLACK, "linestyle": ":", "linewidth": 1}


def to_datasets(results: Mapping[str, Results]) -> list[Case]:
    """The classes of other datasets than the run's own, which Figure 6 shows."""
    return [case for case in _cases(results) if case[2] == "class" and case[1] != results[case[0]].dataset]


def to_properties(results: Mapping[str, Results]) -> list[Case]:
    """Labels that are not a dataset's classes, which Figure 7 shows."""
    return [case for case in _cases(results) if case[2] != "class"]


@style()
def transfers(name: str, cases: Sequence[Case], results: Mapping[str, Results], settings: FiguresSettings) -> Drawing:
    """Accuracy on other labels beside the reconstruction loss and the network's own accuracy: a column per case.

    Above, of one tap, each normalised, with the steps of lowest loss and of highest target accuracy; below, target
    accuracy of every tap as measured. Of the first decoder and the first classifier; the tap is that of Figure 1.

    Args:
        name: of the figure.
        cases: what is drawn.
        results: their runs.
        settings: the tap.
    """
    figure, (stacks,) = side_by_side([len(cases)], heights=(1.6, 1.4))
    looks, handles = taps({run: results[run] for run, _, _ in cases})
    rows: list[Row] = []
    for (run, target, of), (upper, lower) in zip(cases, stacks, strict=True):
        result = results[run]
        measured = result.transfers[target].sel(label=of).isel(classifier=0)
        layer = result.headline(settings.headline)
        accuracy = Curve.of(measured.accuracy.sel(layer=layer))
        loss = Curve.of(result.loss.sel(layer=layer))
        own = {"target": target, "label": of}
        for curve, at, quantity, look in (
            (Curve.of(result.probe.network_accuracy), "network", "accuracy", NETWORK),
            (loss, layer, "loss", _LOSS),
            (accuracy, layer, "target accuracy", _TARGET),
        ):
            normalised([curve])[0].draw(upper, rows, named(run, at, f"normalised {quantity}", **own), **look)
        for tap in measured.layer.values.tolist():
            curve = Curve.of(measured.accuracy.sel(layer=tap))
            curve.draw(lower, rows, named(run, tap, "target accuracy", **own), **looks[tap])
        majority, pixels = float(measured.majority_accuracy), float(measured.pixel_accuracy)
        level(lower, rows, named(run, "majority", "target accuracy", **own), majority, **BASELINE)
        level(lower, rows, named(run, "inputs", "target accuracy", **own), pixels, **_PIXELS)
        where = run if target == result.dataset else f"{run} → {target}"
        title = f"{where}, {layer}" if of == "class" else f"{where}: {of}, {layer}"
        lowest = _mark(upper, loss, np.argmin, "Rec lowest", MINIMUM)
        heading(upper, title, f"{lowest}, {_mark(upper, accuracy, np.argmax, 'target best', _BEST)}")
        for axes in (upper, lower):
            step_axis(axes, accuracy.steps)
    label(stacks, ("normalised", "target accuracy"))
    lines = [
        Line2D([], [], **NETWORK, label="source accuracy"),
        Line2D([], [], **_LOSS, label="reconstruction loss (Rec)"),
        Line2D([], [], **_TARGET, label="target accuracy"),
        Line2D([], [], **MINIMUM, label="Rec lowest"),
        Line2D([], [], **_BEST, label="target best"),
    ]
    levels = [Line2D([], [], **BASELINE, label="majority class"), Line2D([], [], **_PIXELS, label="inputs")]
    legend(figure, [*lines, *handles, *levels])
    return Drawing(name, figure, rows)


def _cases(results: Mapping[str, Results]) -> list[Case]:
    return [
        (run, target, str(of))
        for run, result in results.items()
        for target, measured in result.transfers.items()
        for of in measured.label.values
    ]


def _mark(axes: Axes, curve: Curve, extreme: Callable[[Array], Any], words: str, look: dict[str, Any]) -> str:
    """Mark the step of a curve's lowest or highest mean by a vertical line; returns the same in words."""
    if not np.isfinite(curve.mean).any():
        return f"{words} –"
    step = int(curve.steps[extreme(curve.mean)])
    axes.axvline(step, **look)
    return f"{words} {step}"
