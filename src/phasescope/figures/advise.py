"""Which checkpoint and layer to transfer from: held-out accuracy on a target, and what is tied with the best."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from xarray import DataArray, Dataset

from phasescope.advice import CONFIDENCE, LEAST, Advice, Candidate, advise
from phasescope.errors import UserError
from phasescope.figures.drawing import Drawing, Row, level, named
from phasescope.figures.layout import MINIMUM, heading, label, legend, side_by_side
from phasescope.figures.style import BLACK, COLOURS, GREY, step_axis, style, tap_styles

_BEST: dict[str, Any] = {"marker": "*", "markersize": 9, "markerfacecolor": BLACK, "markeredgecolor": BLACK}
_LAST: dict[str, Any] = {"marker": "s", "markersize": 8, "markerfacecolor": "none", "markeredgecolor": BLACK}
_TIED: dict[str, Any] = {"marker": "o", "markersize": 3.5}
_OTHER: dict[str, Any] = {"marker": "o", "markersize": 3.5, "markerfacecolor": "white", "markeredgewidth": 0.8}
_PIXELS: dict[str, Any] = {"color": BLACK, "linestyle": ":", "linewidth": 1}


@style()
def advice(run: str, target: str, measured: Dataset, losses: DataArray) -> Drawing:
    """Held-out accuracy of every layer at every step: with all labels above, with few below; a column per label.

    Bands are intervals, of several seeds those for networks trained anew; full circles cannot be told from the best of
    their panel. Below, of each number of labels per class, the layer that is best with so many.

    Args:
        run: name of the run.
        target: name of the target.
        measured: what `phasescope.measures.advise` gives.
        losses: test reconstruction losses (seed, step, layer).
    """
    labels = told_apart(measured)
    figure, (stacks,) = side_by_side([len(labels)], heights=(2.2, 1.7))
    looks = tap_styles(str(layer) for layer in measured.layer.values)
    few_looks: dict[int, dict[str, Any]] = {
        per_class: {"color": colour, "linestyle": line}
        for per_class, colour, line in zip(
            measured.per_class.values.tolist(), (GREY, COLOURS[4], COLOURS[5]), ("-.", "--", "-"), strict=False
        )
    }
    rows: list[Row] = []
    for name, (upper, lower) in zip(labels, stacks, strict=True):
        names = {"target": target, "label": name}
        found = advise(measured, name, losses=losses)
        for layer, look in looks.items():
            of_layer = [candidate for candidate in found.ranking if candidate.layer == layer]
            _curve(upper, rows, of_layer, named(run, layer, "held-out accuracy", **names), look)
        _marks(upper, found)
        pixels = float(measured.pixel_accuracy.sel(label=name))
        level(upper, rows, named(run, "inputs", "held-out accuracy", **names), pixels, **_PIXELS)
        shown = []
        for per_class, look in few_looks.items():
            few = _few(measured, name, per_class, losses)
            if few is not None:
                of_layer = [candidate for candidate in few.ranking if candidate.layer == few.best.layer]
                about = named(run, few.best.layer, "held-out accuracy", **names, per_class=str(per_class))
                _curve(lower, rows, of_layer, about, look)
                shown.append(f"{per_class}: {few.best.layer}")
                lower.plot(few.best.step, few.best.measured, **_BEST)
                lower.plot(few.last_same_layer.step, few.last_same_layer.measured, **_LAST)
        lowest = "" if found.minimum is None else f", Rec lowest {found.minimum.candidate.step}"
        where = f"{run}: {name}" if target == run else f"{run} → {target}: {name}"
        heading(upper, where, f"best {found.best.step}, {found.best.layer}{lowest}")
        heading(lower, "", "; ".join(shown))
        for axes in (upper, lower):
            step_axis(axes, measured.step.values)
    label(stacks, ("accuracy, all labels", "accuracy, few labels"))
    plain: dict[str, Any] = {"color": BLACK, "linestyle": "none"}
    marks = [
        Line2D([], [], linestyle="none", **_BEST, label="best"),
        Line2D([], [], linestyle="none", **_LAST, label="last checkpoint"),
        Line2D([], [], **plain, **_TIED, label="tied with the best"),
        Line2D([], [], **plain, **_OTHER, label="worse"),
        Line2D([], [], **MINIMUM, label="Rec lowest"),
        Line2D([], [], **_PIXELS, label="inputs"),
    ]
    layers = [
        Line2D([], [], color=look["color"], linestyle=look["linestyle"], label=name) for name, look in looks.items()
    ]
    budgets = [Line2D([], [], **look, label=f"{per_class} per class") for per_class, look in few_looks.items()]
    legend(figure, [*layers, *budgets, *marks])
    return Drawing(f"advice-{run}-{target}", figure, rows)


def told_apart(measured: Dataset) -> list[str]:
    """The labels of which there are as many samples and classes as an advice takes."""
    enough = ((measured["count"] > 0).sum("class") > 1).values & (measured.sizes["sample"] >= LEAST)
    return [str(name) for name in measured.label.values[enough]]


def _curve(axes: Axes, rows: list[Row], candidates: Sequence[Candidate], names: Row, look: dict[str, Any]) -> None:
    """Accuracies over steps with their intervals, and which of them are tied with the best."""
    by_step = sorted(candidates, key=lambda candidate: candidate.step)
    steps = np.array([candidate.step for candidate in by_step])
    means = np.array([candidate.measured for candidate in by_step])
    low, high = np.array([candidate.anew_interval or candidate.interval for candidate in by_step]).T
    line: dict[str, Any] = {"color": look["color"], "linestyle": look["linestyle"]}
    axes.plot(steps, means, **line)
    axes.fill_between(steps, low, high, color=look["color"], alpha=0.2, linewidth=0)
    tied = np.array([candidate.tied for candidate in by_step])
    for mask, mark in ((tied, _TIED), (~tied, _OTHER)):
        axes.plot(steps[mask], means[mask], color=look["color"], linestyle="none", **mark)
    bounds = (f"low {100 * CONFIDENCE:.0f} %", f"high {100 * CONFIDENCE:.0f} %")
    for kind, values in (("mean", means), *zip(bounds, (low, high), strict=True), ("tied", tied.astype(float))):
        for step, value in zip(steps.tolist(), values.tolist(), strict=True):
            rows.append({**names, "seed": kind, "step": step, "value": value})


def _marks(axes: Axes, found: Advice) -> None:
    """The best, the last checkpoint's best layer, and where the reconstruction loss is lowest."""
    if found.minimum is not None:
        axes.axvline(found.minimum.candidate.step, **MINIMUM)
    axes.plot(found.best.step, found.best.measured, **_BEST)
    axes.plot(found.last.step, found.last.measured, **_LAST)


def _few(measured: Dataset, name: str, per_class: int, losses: DataArray) -> Advice | None:
    """The advice for few labels; None where a class has too few samples."""
    try:
        return advise(measured, name, per_class, losses)
    except UserError:
        return None
