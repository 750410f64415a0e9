"""How far from linear the networks are over training: linear mapping number, and local complexity."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import PercentFormatter
from xarray import Dataset

from phasescope.figures.drawing import Curve, Drawing, Row, named
from phasescope.figures.layout import heading, label, legend, side_by_side
from phasescope.figures.style import BLACK, COLOURS, GREY, step_axis, style, tap_styles

#: Dark to light from the first nonlinearity to the last, not up to the palest.
_DEPTH = (mpl.colormaps["cividis"], 0.9)
_PARTS: dict[str, dict[str, Any]] = {
    "train": {"color": BLACK, "marker": "o"},
    "test": {"color": COLOURS[1], "marker": "s", "linestyle": "--"},
    "random": {"color": GREY, "marker": "^", "linestyle": ":"},
}


@style()
def complexity(results: Mapping[str, Dataset]) -> Drawing:
    """Of every run: linear mapping number of its layers, local complexity of its nonlinearities, and their sum.

    The local complexity of a nonlinearity is of training points, and drawn as a share of all its neurons. The sum is
    a number of neurons, near training, test and random points. Points and seeds are averaged over.

    Args:
        results: what `complexity` measures, by run.
    """
    layers = [str(layer) for found in results.values() if "layer" in found for layer in found.layer.values]
    local = any("nonlinearity" in found for found in results.values())
    labels = ["linear mapping\nnumber"] if layers else []
    labels += ["local complexity\n(share of neurons)", "local complexity\n(neurons)"] if local else []
    figure, (stacks,) = side_by_side([len(results)], heights=(1.2,) * len(labels))
    looks = tap_styles(layers)
    rows: list[Row] = []
    for (run, found), stack in zip(results.items(), stacks, strict=True):
        heading(stack[0], run)
        for axes in stack:
            step_axis(axes, found.step.values)
        for layer in found.layer.values.tolist() if "layer" in found else []:
            curve = Curve.of(found.linear_mapping_number.sel(layer=layer))
            curve.draw(stack[0], rows, named(run, layer, "linear mapping number"), **looks[layer])
        if "nonlinearity" in found:
            _draw_local(stack[-2], stack[-1], rows, run, found)
    label(stacks, labels)
    handles = [Line2D([], [], **look, label=layer) for layer, look in looks.items()]
    if local:
        scale, end = _DEPTH
        ends = {"first nonlinearity": scale(0.0), "last nonlinearity": scale(end)}
        handles += [Line2D([], [], color=colour, label=name) for name, colour in ends.items()]
        handles += [Line2D([], [], **look, label=f"{part} points") for part, look in _PARTS.items()]
    legend(figure, handles)
    return Drawing("complexity", figure, rows)


def _draw_local(middle: Axes, lower: Axes, rows: list[Row], run: str, found: Dataset) -> None:
    shares = found.local_complexity / found.neurons
    scale, end = _DEPTH
    deepest = max(1, found.sizes["nonlinearity"] - 1)
    for place, path in enumerate(found.nonlinearity.values.tolist()):
        # Without the spread over seeds, for the bands of so many lines hide each other.
        curve = replace(Curve.of(shares.sel(nonlinearity=path, part="train")), std=None)
        look = {"color": scale(end * place / deepest)}
        curve.draw(middle, rows, named(run, path, "local complexity per neuron", part="train"), **look)
    middle.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    for part, look in _PARTS.items():
        curve = Curve.of(found.total_complexity.sel(part=part))
        curve.draw(lower, rows, named(run, "all", "local complexity", part=part), **look)
    for axes in (middle, lower):
        axes.set_ylim(bottom=0)
