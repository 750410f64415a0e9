"""Figures 1 and 2 of Schneider & Prabhushankar (2024) and linear probes: losses and accuracies over steps."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from phasescope.figures.drawing import Curve, Drawing, Results, Row, level, named, normalised
from phasescope.figures.layout import BASELINE, MINIMUM, NETWORK, heading, label, legend, side_by_side, taps
from phasescope.figures.style import BLACK, COLOURS, GREY, PAGE, step_axis, style
from phasescope.params.figures import FiguresSettings

_LOSS: dict[str, Any] = {"color": COLOURS[1], "marker": "s"}
_SHUFFLED: dict[str, Any] = {"color": GREY, "linestyle": ":", "linewidth": 1}
_CONSTANT: dict[str, Any] = {"color": BLACK, "linestyle": ":", "linewidth": 0.8}
#: Lines of the classifiers that are not a run's first.
_OTHERS: dict[str, Any] = {"ridge": (0, (7, 1.5)), "logistic": (0, (2, 1)), "sgd": (0, (4, 1.2, 1, 1.2))}


@style()
def figure_1(results: Mapping[str, Results], settings: FiguresSettings) -> Drawing:
    """Test accuracy and reconstruction loss of one tap per run, each normalised, and below as measured.

    A normalised line is (v - min)/(max - min) of its mean over seeds, its band is scaled by the same range.
    The loss is that of the first decoder, the tap the first of ``settings.headline`` that the run has, or else
    the run's first one.
    """
    figure, (stacks,) = side_by_side([len(results)], heights=(1.6, 1.2, 0.9))
    rows: list[Row] = []
    for (run, result), (upper, middle, lower) in zip(results.items(), stacks, strict=True):
        layer = result.headline(settings.headline)
        loss = Curve.of(result.loss.sel(layer=layer))
        network = Curve.of(result.probe.network_accuracy)
        baseline = float(result.decode.baseline_mse)
        normalised([network])[0].draw(upper, rows, named(run, "network", "normalised accuracy"), **NETWORK)
        normalised([loss])[0].draw(upper, rows, named(run, layer, "normalised loss"), **_LOSS)
        loss.draw(middle, rows, named(run, layer, "loss"), **_LOSS)
        level(middle, rows, named(run, "mean input", "loss"), baseline, **BASELINE)
        network.draw(lower, rows, named(run, "network", "accuracy"), **NETWORK)
        heading(upper, f"{run}, {layer}", _mark_phases((upper, middle), result.phases[layer]))
        for axes in (upper, middle, lower):
            step_axis(axes, loss.steps)
    label(stacks, ("normalised", "loss (MSE)", "accuracy"))
    handles = [
        Line2D([], [], **NETWORK, label="test accuracy"),
        Line2D([], [], **_LOSS, label="reconstruction loss"),
        Line2D([], [], **BASELINE, label="loss of the mean input"),
        Line2D([], [], **_CONSTANT, label="end of constant phase"),
        Line2D([], [], **MINIMUM, label="minimum"),
    ]
    legend(figure, handles)
    return Drawing("figure-1", figure, rows)


@style()
def figure_2(results: Mapping[str, Results]) -> Drawing:
    """Reconstruction loss of every tap: normalised by itself, by all taps of the run together, and as it is.

    With one range for all taps, those closer to the input lie lower and are flatter. The loss of the mean input is
    what a layer without any information would give. Of the first decoder; a row per run.
    """
    figure = Figure(figsize=(PAGE, 0.6 + 1.6 * len(results)))
    panels = figure.subplots(len(results), 3, squeeze=False)
    looks, handles = taps(results)
    rows: list[Row] = []
    for (run, result), (left, centre, right) in zip(results.items(), panels, strict=True):
        layers = result.loss.layer.values.tolist()
        losses = [Curve.of(result.loss.sel(layer=layer)) for layer in layers]
        network = Curve.of(result.probe.network_accuracy)
        normalised([network])[0].draw(left, rows, named(run, "network", "normalised accuracy"), **NETWORK)
        for layer, loss, joint in zip(layers, losses, normalised(losses), strict=True):
            normalised([loss])[0].draw(left, rows, named(run, layer, "normalised loss"), **looks[layer])
            joint.draw(centre, rows, named(run, layer, "jointly normalised loss"), **looks[layer])
            loss.draw(right, rows, named(run, layer, "loss"), **looks[layer])
        level(right, rows, named(run, "mean input", "loss"), float(result.decode.baseline_mse), **BASELINE)
        right.set_ylim(bottom=0)
        heading(left, run)
        for axes, name in ((left, "normalised"), (centre, "jointly normalised"), (right, "loss (MSE)")):
            step_axis(axes, network.steps)
            axes.set_ylabel(name)
    for axes in panels[-1]:
        axes.set_xlabel("iteration")
    accuracy = Line2D([], [], **NETWORK, label="test accuracy")
    legend(figure, [accuracy, *handles, Line2D([], [], **BASELINE, label="mean input")])
    return Drawing("figure-2", figure, rows)


@style()
def probes(results: Mapping[str, Results]) -> Drawing:
    """Accuracy of a linear probe on every tap, beside the network's own, the raw inputs, and shuffled labels.

    Of a run's first classifier; the others are thin lines of the same colours.
    """
    figure, (stacks,) = side_by_side([len(results)], heights=(2.2,))
    looks, handles = taps(results)
    rows: list[Row] = []
    thin: dict[str, Any] = {}
    for (run, result), (axes,) in zip(results.items(), stacks, strict=True):
        first, *others = result.probe.classifier.values.tolist()
        thin |= {other: {"color": BLACK, "linewidth": 0.8, "linestyle": _OTHERS[other]} for other in others}
        for layer, classifier in itertools.product(result.probe.layer.values.tolist(), (*others, first)):
            cells = result.probe.sel(layer=layer, classifier=classifier)
            colour = {"color": looks[layer]["color"]}
            look = looks[layer] if classifier == first else thin[classifier] | colour
            if classifier == "ridge":  # of no other are there shuffled labels
                names = named(run, layer, "shuffled accuracy", classifier=classifier)
                Curve.of(cells.shuffled_accuracy).draw(axes, rows, names, **_SHUFFLED | colour)
            names = named(run, layer, "probe accuracy", classifier=classifier)
            Curve.of(cells.accuracy).draw(axes, rows, names, **look)
        network = Curve.of(result.probe.network_accuracy)
        network.draw(axes, rows, named(run, "network", "accuracy"), **NETWORK)
        pixels = float(result.probe.pixel_accuracy.sel(classifier=first))
        level(axes, rows, named(run, "inputs", "probe accuracy", classifier=first), pixels, **BASELINE)
        heading(axes, run, f"probe: {first}")
        step_axis(axes, network.steps)
        axes.set_ylim(0, 1.02)
    label(stacks, ("accuracy",))
    handles = [
        Line2D([], [], **NETWORK, label="network"),
        *handles,
        *(Line2D([], [], **look, label=f"{other} (thin)") for other, look in thin.items()),
        Line2D([], [], **BASELINE, label="inputs"),
    ]
    if any("ridge" in result.probe.classifier for result in results.values()):
        handles.append(Line2D([], [], **_SHUFFLED, label="shuffled labels"))
    legend(figure, handles)
    return Drawing("probes", figure, rows)


def _mark_phases(panels: Sequence[Axes], numbers: Mapping[str, Any]) -> str:
    """Mark the end of the constant phase and the minimum by vertical lines; returns the same in words."""
    present = numbers["phases"]
    words = []
    for phase, key, what, look in (
        ("constant", "constant_until", "constant until", _CONSTANT),
        ("fall", "minimum_at", "minimum at", MINIMUM),
    ):
        if phase in present:
            words.append(f"{what} {numbers[key]}")
            for axes in panels:
                axes.axvline(numbers[key], **look)
    return ", ".join(words) or f"phases: {present}"
