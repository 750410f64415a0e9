"""Figures 1 and 2 of Schneider & Prabhushankar (2024) and linear probes: losses and accuracies over steps."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from phasescope.figures.drawing import Curve, Drawing, Results, Row, heading, legend, level, normalised, taps
from phasescope.figures.style import BLACK, COLOURS, GREY, PAGE, step_axis, style
from phasescope.params.figures import FiguresSettings

#: Runs beside each other before the next ones go below.
_ABREAST = 3

_NETWORK: dict[str, Any] = {"color": BLACK, "marker": "."}
_LOSS: dict[str, Any] = {"color": COLOURS[1], "marker": "s"}
_BASELINE: dict[str, Any] = {"color": GREY, "linestyle": "--", "linewidth": 1}
_SHUFFLED: dict[str, Any] = {"color": GREY, "linestyle": ":", "linewidth": 1}
_CONSTANT: dict[str, Any] = {"color": BLACK, "linestyle": ":", "linewidth": 0.8}
_MINIMUM: dict[str, Any] = {"color": BLACK, "linestyle": "-.", "linewidth": 0.8}


@style()
def figure_1(results: Mapping[str, Results], settings: FiguresSettings) -> Drawing:
    """Test accuracy and reconstruction loss of one tap per run, each normalised, and below as measured.

    A normalised line is (v - min)/(max - min) of its mean over seeds, its band is scaled by the same range.
    The tap is the first of ``settings.headline`` that the run has, or else the run's first one.
    """
    figure, stacks = _side_by_side(len(results), heights=(1.6, 1.2, 0.9))
    rows: list[Row] = []
    for (run, result), (upper, middle, lower) in zip(results.items(), stacks, strict=True):
        layers = result.decode.layer.values.tolist()
        layer = next((tap for tap in settings.headline if tap in layers), layers[0])
        loss = Curve.of(result.decode.test_mse.sel(layer=layer))
        network = Curve.of(result.probe.network_accuracy)
        baseline = float(result.decode.baseline_mse)
        normalised([network])[0].draw(upper, rows, (run, "network", "normalised accuracy"), **_NETWORK)
        normalised([loss])[0].draw(upper, rows, (run, layer, "normalised loss"), **_LOSS)
        loss.draw(middle, rows, (run, layer, "loss"), **_LOSS)
        level(middle, rows, (run, "mean image", "loss"), baseline, **_BASELINE)
        network.draw(lower, rows, (run, "network", "accuracy"), **_NETWORK)
        heading(upper, f"{run}, {layer}", _mark_phases((upper, middle), result.phases[layer]))
        for axes in (upper, middle, lower):
            step_axis(axes, loss.steps)
    _label(stacks, ("normalised", "loss (MSE)", "accuracy"))
    handles = [
        Line2D([], [], **_NETWORK, label="test accuracy"),
        Line2D([], [], **_LOSS, label="reconstruction loss"),
        Line2D([], [], **_BASELINE, label="loss of the mean image"),
        Line2D([], [], **_CONSTANT, label="end of constant phase"),
        Line2D([], [], **_MINIMUM, label="minimum"),
    ]
    legend(figure, handles)
    return Drawing("figure-1", figure, rows)


@style()
def figure_2(results: Mapping[str, Results]) -> Drawing:
    """Reconstruction loss of every tap: normalised by itself, by all taps of the run together, and as it is.

    With one range for all taps, those closer to the input lie lower and are flatter. The loss of the mean image is
    what a layer without any information would give. A row per run.
    """
    figure = Figure(figsize=(PAGE, 0.6 + 1.6 * len(results)))
    panels = figure.subplots(len(results), 3, squeeze=False)
    looks, handles = taps(results)
    rows: list[Row] = []
    for (run, result), (left, centre, right) in zip(results.items(), panels, strict=True):
        layers = result.decode.layer.values.tolist()
        losses = [Curve.of(result.decode.test_mse.sel(layer=layer)) for layer in layers]
        network = Curve.of(result.probe.network_accuracy)
        normalised([network])[0].draw(left, rows, (run, "network", "normalised accuracy"), **_NETWORK)
        for layer, loss, joint in zip(layers, losses, normalised(losses), strict=True):
            normalised([loss])[0].draw(left, rows, (run, layer, "normalised loss"), **looks[layer])
            joint.draw(centre, rows, (run, layer, "jointly normalised loss"), **looks[layer])
            loss.draw(right, rows, (run, layer, "loss"), **looks[layer])
        level(right, rows, (run, "mean image", "loss"), float(result.decode.baseline_mse), **_BASELINE)
        right.set_ylim(bottom=0)
        heading(left, run)
        for axes, label in ((left, "normalised"), (centre, "jointly normalised"), (right, "loss (MSE)")):
            step_axis(axes, network.steps)
            axes.set_ylabel(label)
    for axes in panels[-1]:
        axes.set_xlabel("iteration")
    accuracy = Line2D([], [], **_NETWORK, label="test accuracy")
    legend(figure, [accuracy, *handles, Line2D([], [], **_BASELINE, label="mean image")])
    return Drawing("figure-2", figure, rows)


@style()
def probes(results: Mapping[str, Results]) -> Drawing:
    """Accuracy of a linear probe on every tap, beside the network's own, raw pixels, and shuffled labels."""
    figure, stacks = _side_by_side(len(results), heights=(2.2,))
    looks, handles = taps(results)
    rows: list[Row] = []
    for (run, result), (axes,) in zip(results.items(), stacks, strict=True):
        network = Curve.of(result.probe.network_accuracy)
        pixels = float(result.probe.pixel_accuracy)
        for layer in result.probe.layer.values.tolist():
            accuracy = Curve.of(result.probe.accuracy.sel(layer=layer))
            shuffled = Curve.of(result.probe.shuffled_accuracy.sel(layer=layer))
            dotted = {**_SHUFFLED, "color": looks[layer]["color"]}
            accuracy.draw(axes, rows, (run, layer, "probe accuracy"), **looks[layer])
            shuffled.draw(axes, rows, (run, layer, "shuffled accuracy"), **dotted)
        network.draw(axes, rows, (run, "network", "accuracy"), **_NETWORK)
        level(axes, rows, (run, "pixels", "probe accuracy"), pixels, **_BASELINE)
        heading(axes, run)
        step_axis(axes, network.steps)
        axes.set_ylim(0, 1.02)
    _label(stacks, ("accuracy",))
    handles = [
        Line2D([], [], **_NETWORK, label="network"),
        *handles,
        Line2D([], [], **_BASELINE, label="pixels"),
        Line2D([], [], **_SHUFFLED, label="shuffled labels"),
    ]
    legend(figure, handles)
    return Drawing("probes", figure, rows)


def _side_by_side(runs: int, heights: tuple[float, ...]) -> tuple[Figure, list[list[Axes]]]:
    """A figure with a stack of panels of these heights (inches) for each run, three runs abreast."""
    columns = min(runs, _ABREAST)
    bands = math.ceil(runs / columns)
    width = (3.6, 5.4, PAGE)[columns - 1]
    figure = Figure(figsize=(width, 0.6 + bands * (sum(heights) + 0.6)))
    grid = figure.subplots(bands * len(heights), columns, squeeze=False, height_ratios=heights * bands)
    stacks = [
        grid[band * len(heights) : (band + 1) * len(heights), column].tolist()
        for band in range(bands)
        for column in range(columns)
    ]
    for unused in stacks[runs:]:
        for axes in unused:
            axes.remove()
    return figure, stacks[:runs]


def _label(stacks: Sequence[Sequence[Axes]], labels: Sequence[str]) -> None:
    """Name the axes of stacked panels: y at the left edge of the figure, x at the foot of a stack."""
    for place, stack in enumerate(stacks):
        for axes, label in zip(stack, labels, strict=True):
            axes.tick_params(labelbottom=axes is stack[-1])
            if place % _ABREAST == 0:
                axes.set_ylabel(label)
        stack[-1].set_xlabel("iteration")


def _mark_phases(panels: Sequence[Axes], numbers: Mapping[str, Any]) -> str:
    """Mark the end of the constant phase and the minimum by vertical lines; returns the same in words."""
    present = numbers["phases"]
    words = []
    for phase, key, what, look in (
        ("constant", "constant_until", "constant until", _CONSTANT),
        ("fall", "minimum_at", "minimum at", _MINIMUM),
    ):
        if phase in present:
            words.append(f"{what} {numbers[key]}")
            for axes in panels:
                axes.axvline(numbers[key], **look)
    return ", ".join(words) or f"phases: {present}"
