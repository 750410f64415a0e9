"""The two phases of 2504.12700: all curves of a run over one axis with their onsets, and its Figures 3 and 4."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from xarray import DataArray, Dataset

from phasescope.figures.drawing import Curve, Drawing, Results, Row, named
from phasescope.figures.information import CEILINGS, SHOWN, first_estimator, over_steps
from phasescope.figures.layout import BASELINE, heading, label, legend, side_by_side
from phasescope.figures.style import BLACK, COLOURS, GREY, step_axis, style

_TRAIN: dict[str, Any] = {"color": COLOURS[0], "linestyle": "--"}
_TEST: dict[str, Any] = {"color": BLACK, "linestyle": "-"}
_LINES: dict[str, Any] = {"color": COLOURS[2], "marker": "^"}
_NEURONS: dict[str, Any] = {"color": COLOURS[3], "marker": "D"}
#: What is marked by an upright line: its words and its look.
_MARKS: dict[str, tuple[str, dict[str, Any]]] = {
    "fit": ("training samples fitted", {"color": GREY, "linestyle": ":"}),
    "generalise": ("test samples too", {"color": GREY, "linestyle": "--"}),
    "test_loss": ("second descent begins", {"color": BLACK, "linestyle": "-."}),
    "i_x": ("compression begins", {"color": COLOURS[0], "linestyle": "-."}),
}


@style()
def time_scales(results: Mapping[str, Results]) -> Drawing:
    """Accuracy, test loss, I(T;X), I(T;Y) and complexity over iterations, a stack of panels for every run.

    Information is that of the last hidden layer that is kept, between its bounds and below ln n and H(Y), which are
    dashed; the linear mapping number is that from the first. Upright lines stand at the median over those seeds in
    which there is such a step.

    Args:
        results: runs with ``training``, ``times`` and ``information``.
    """
    figure, (stacks,) = side_by_side([len(results)], (0.9,) * 5)
    rows: list[Row] = []
    for (run, result), stack in zip(results.items(), stacks, strict=True):
        training, informed = _known(result)
        layer = last_hidden(informed)
        accuracy, loss, told, lines, neurons = stack
        _accuracy(accuracy, run, training, rows)
        Curve.of(training.test_loss).draw(loss, rows, named(run, "", "test loss"), **_TEST)
        over_steps(told, rows, run, informed.sel(layer=layer))
        bent = result.complexity if result.complexity is not None else Dataset()
        if "linear_mapping_number" in bent:
            number = bent.linear_mapping_number.isel(layer=0)
            path = str(number.layer.item())
            Curve.of(number).draw(lines, rows, named(run, path, "linear mapping number"), **_LINES)
        if "total_complexity" in bent:
            total = bent.total_complexity.sel(part="train")
            Curve.of(total).draw(neurons, rows, named(run, "", "local complexity"), **_NEURONS)
        for axes in stack:
            if axes.has_data():
                _mark(axes, result)
            else:  # no nonlinearity, or not asked for
                axes.text(0.5, 0.5, "none", transform=axes.transAxes, ha="center", va="center", color=GREY)
                axes.set_yticks([])
            step_axis(axes, informed.step.values)
        heading(accuracy, run, f"information of {layer}, {informed.estimator.item()}")
        label([stack], ("accuracy", "test loss", "nat", "linear\nmapping no.", "local\ncomplexity"))
    handles = [
        Line2D([], [], **_TRAIN, label="training samples"),
        Line2D([], [], **_TEST, label="test samples"),
        *(Line2D([], [], **look, label=name) for name, look, _ in SHOWN.values()),
        Patch(color=BLACK, alpha=0.2, linewidth=0, label="bounds; spread of seeds"),
        *(Line2D([], [], **look, linewidth=0.9, label=words) for words, look in _MARKS.values()),
    ]
    legend(figure, handles)
    return Drawing("time-scales", figure, rows)


@style()
def two_phases(results: Mapping[str, Results]) -> Drawing:
    """Figures 3 and 4 of the paper: accuracy, the information plane, and the test loss, a row of panels for every run.

    The plane is that of the last hidden layer that is kept; its path begins at the open point and ends at the full one.

    Args:
        results: runs with ``training`` and ``information``.
    """
    figure, groups = side_by_side([3] * len(results), (1.7,))
    rows: list[Row] = []
    for (run, result), ((accuracy,), (plane,), (loss,)) in zip(results.items(), groups, strict=True):
        training, informed = _known(result)
        layer = last_hidden(informed)
        _accuracy(accuracy, run, training, rows)
        of_layer = informed.sel(layer=layer)
        x, y = (Curve.of(of_layer[name]) for name in ("i_x", "i_y"))
        for seed in range(of_layer.sizes["seed"]):
            plane.plot(of_layer.i_x.isel(seed=seed), of_layer.i_y.isel(seed=seed), color=COLOURS[0], linewidth=0.4)
        plane.plot(x.mean, y.mean, color=COLOURS[0], marker=".")
        plane.plot(x.mean[:1], y.mean[:1], color=COLOURS[0], marker="o", markerfacecolor="white", markersize=6)
        plane.plot(x.mean[-1:], y.mean[-1:], color=COLOURS[0], marker="o", markersize=6)
        for most, line in (("h_x", plane.axvline), ("h_y", plane.axhline)):
            line(float(informed[most]), **BASELINE)
            rows.append({**named(run, "", CEILINGS[most]), "value": float(informed[most])})
        rows += x.rows(named(run, layer, "I(T;X)")) + y.rows(named(run, layer, "I(T;Y)"))
        plane.set_xlabel("I(T;X) (nat)")
        plane.set_ylabel("I(T;Y) (nat)")
        Curve.of(training.test_loss).draw(loss, rows, named(run, "", "test loss"), **_TEST)
        for axes, name in ((accuracy, "accuracy"), (loss, "test loss")):
            step_axis(axes, informed.step.values)
            axes.set_xlabel("iteration")
            axes.set_ylabel(name)
        heading(accuracy, run)
        heading(plane, layer, str(informed.estimator.item()))
    parts = [Line2D([], [], **_TRAIN, label="training samples"), Line2D([], [], **_TEST, label="test samples")]
    legend(figure, [*parts, Line2D([], [], **BASELINE, label="ln n, H(Y)")])
    return Drawing("two-phases", figure, rows)


def last_hidden(informed: Dataset) -> str:
    """What the last layer reads, if that is kept; else the first of the taps that is neither softmax nor logits."""
    layers = [str(layer) for layer in informed.layer.values]
    hidden = [layer for layer in layers if layer not in ("softmax", "logits")]
    return "predense" if "predense" in hidden else (hidden or layers)[0]


def _known(result: Results) -> tuple[Dataset, Dataset]:
    assert result.training is not None
    return result.training, first_estimator(result)


def _accuracy(axes: Axes, run: str, training: Dataset, rows: list[Row]) -> None:
    for part, look in (("train", _TRAIN), ("test", _TEST)):
        curve: DataArray = training[f"{part}_accuracy"]
        Curve.of(curve).draw(axes, rows, named(run, "", f"{part} accuracy"), **look)
    axes.set_ylim(-0.03, 1.03)


def _mark(axes: Axes, result: Results) -> None:
    """Draw an upright line at every onset that there is."""
    found = {name: result.times[name] for name in ("fit", "generalise")}
    for one in result.times["declines"]:
        if one["curve"] in _MARKS and one["layer"] in ("", last_hidden(_known(result)[1])):
            found[one["curve"]] = one["onset"]
    for name, steps in found.items():
        there = [step for step in steps if step is not None]
        if there:
            axes.axvline(float(np.median(there)), linewidth=0.9, zorder=0.5, **_MARKS[name][1])
