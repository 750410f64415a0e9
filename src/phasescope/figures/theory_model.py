"""Figures 3 and 5 of Schneider & Prabhushankar (2024): the feature-strength model, and its decoders as it learns."""

import itertools
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Circle, FancyBboxPatch, Rectangle
from matplotlib.ticker import MaxNLocator
from xarray import Dataset

from phasescope.figures.drawing import Drawing, Row
from phasescope.figures.layout import heading, legend, side_by_side
from phasescope.figures.style import BLACK, COLOURS, GREY, PAGE, style

#: Of blocks of attributes, of outputs, and of attributes of a block, no more are drawn; … stands for the others.
_BLOCKS, _ATTRIBUTES = 3, 3
_OWN, _OTHER = COLOURS[1], "#c8c8c8"
#: The class of the samples that are drawn.
_CLASS = 1
#: Where the columns of Figure 3 stand: samples, attributes, outputs, probabilities.
_SAMPLES, _X, _O, _Q = {"weak": 0.0, "strong": 1.1}, 4.9, 10.4, 14.9
#: Inches of one unit of Figure 3.
_UNIT = 0.42

_DECODERS: dict[str, dict[str, Any]] = {
    "optimal": {"color": COLOURS[0], "linestyle": "-", "label": "best decoder"},
    "paper": {"color": COLOURS[1], "linestyle": "--", "label": "decoder of the paper, $g_j$"},
}
_GROUPS: dict[str, dict[str, Any]] = {
    "weak": {"marker": "o", "color": BLACK, "label": "own class, weak ($q_1$, 1)"},
    "strong": {"marker": "s", "color": BLACK, "label": "own class, strong ($q_k$, $k$)"},
    "weak_other": {"marker": "o", "color": BLACK, "fillstyle": "none", "label": "other classes, weak ($p_1$, 0)"},
    "strong_other": {"marker": "s", "color": BLACK, "fillstyle": "none", "label": "other classes, strong ($p_k$, 0)"},
}


@style()
def figure_3(solved: Dataset) -> Drawing:
    """The data model and the network: attributes in blocks, all connected to all outputs, and softmax.

    Beside the attributes a weak and a strong sample of one class. The rows are the samples, an attribute each.

    Args:
        solved: its attributes ``outputs``, ``strength`` and ``inputs``.
    """
    outputs, inputs, strength = (solved.attrs[name] for name in ("outputs", "inputs", "strength"))
    per_block = inputs // outputs
    figure = Figure()
    axes = figure.subplots()
    axes.set_axis_off()
    axes.set_aspect("equal")
    blocks, rows = _some(outputs, _BLOCKS), []
    heights: dict[int, list[float]] = {}  # of the attributes of each block
    y = 0.0
    for block in blocks:
        if block is None:
            _dots(axes, (*_SAMPLES.values(), _X), y)
            y -= 0.7
            continue
        top, inside = y, _some(per_block, _ATTRIBUTES)
        heights[block] = []
        for attribute in inside:
            if attribute is None:
                _dots(axes, (*_SAMPLES.values(), _X), y + 0.12)
                y -= 0.46
                continue
            index = block * per_block + attribute
            for name, column in _SAMPLES.items():
                value = {"weak": 1.0, "strong": strength}[name] if block == _CLASS else 0.0
                _cell(axes, column, y, f"{value:g}", own=block == _CLASS)
                rows.append({"sample": name, "class": _CLASS, "attribute": index, "value": value})
            axes.text(_X - 0.34, y, f"$x_{{{index}}}$", ha="right", va="center", fontsize=7)
            heights[block].append(y)
            y -= 0.6
        frame = (_X - 1.3, y + 0.3), 1.6, top - y
        axes.add_patch(FancyBboxPatch(*frame, boxstyle="round,pad=0.02", fill=False, edgecolor=GREY, linewidth=0.8))
        y -= 0.3
    _network(axes, blocks, heights)
    for name, column in _SAMPLES.items():
        axes.text(column, 0.45, name, ha="center", va="bottom")
    axes.text(_X - 0.5, 0.45, f"{per_block} a class", ha="center", va="bottom")
    for column, name in (
        (sum(_SAMPLES.values()) / 2, f"samples of class {_CLASS}"),
        (_X - 0.5, f"{inputs} attributes"),
        (_O, f"{outputs} outputs"),
        (_Q, "probabilities"),
    ):
        axes.text(column, 0.95, name, ha="center", va="bottom", fontweight="bold")
    axes.set_xlim(-1.0, _Q + 1.1)
    bottom = y - 0.3
    axes.set_ylim(bottom, 1.5)
    figure.set_size_inches(PAGE, _UNIT * (1.5 - bottom) + 0.4)
    handles = [
        Line2D([], [], color=_OWN, label="weight $a$, of a class's own attributes"),
        Line2D([], [], color=_OTHER, label="weight $b$, of all others; at first $a = b$"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=2)
    return Drawing("theory-figure-3", figure, rows)


def _network(axes: Axes, blocks: list[int | None], heights: dict[int, list[float]]) -> None:
    """Lines from every attribute to every output, outputs, softmax and probabilities."""
    ends = [float(np.mean(heights[block])) for block in heights]
    for output, end in zip(heights, ends, strict=True):
        for block in heights:
            colour, width, above = (_OWN, 1.1, 2) if block == output else (_OTHER, 0.7, 1)
            for height in heights[block]:
                axes.plot([_X, _O], [height, end], color=colour, linewidth=width, zorder=above)
        axes.plot([_O, _Q], [end, end], color=GREY, linewidth=0.8, zorder=1)
        for x, name in ((_O, "o"), (_Q, "q")):
            axes.add_patch(Circle((x, end), 0.34, facecolor="white", edgecolor=BLACK, linewidth=0.8, zorder=3))
            axes.text(x, end, f"${name}_{{{output}}}$", ha="center", va="center", fontsize=8, zorder=4)
    for height in itertools.chain(*heights.values()):
        axes.add_patch(Circle((_X, height), 0.17, facecolor="white", edgecolor=BLACK, linewidth=0.8, zorder=3))
    if None in blocks:
        _dots(axes, (_O, _Q), (ends[-2] + ends[-1]) / 2)
    middle, height = (_O + _Q) / 2, ends[0] - ends[-1] + 1.2
    axes.add_patch(
        Rectangle((middle - 0.4, ends[-1] - 0.6), 0.8, height, facecolor="#f0f0f0", edgecolor=BLACK, zorder=3)
    )
    axes.text(middle, (ends[0] + ends[-1]) / 2, "softmax", rotation=90, ha="center", va="center", zorder=4)


def _some(count: int, most: int) -> list[int | None]:
    """The first of ``count`` things and the last, None standing for those between them where there are too many."""
    return [*range(count)] if count <= most else [*range(most - 1), None, count - 1]


def _dots(axes: Axes, columns: tuple[float, ...], y: float) -> None:
    for x in columns:
        axes.text(x, y, "⋮", ha="center", va="center")


def _cell(axes: Axes, x: float, y: float, text: str, own: bool) -> None:
    """An attribute of a sample: framed in bold where it is one of the class's own."""
    colour, width = (_OWN, 1.4) if own else (GREY, 0.6)
    axes.add_patch(Rectangle((x - 0.38, y - 0.25), 0.76, 0.5, fill=False, edgecolor=colour, linewidth=width))
    weight = "bold" if own else "normal"
    axes.text(x, y, text, ha="center", va="center", fontsize=7.5, fontweight=weight, color=BLACK if own else GREY)


@style()
def figure_5(solved: Dataset) -> Drawing:
    """What the decoder reads in the four groups of samples, and both decoders, at each stage.

    Vertical bars are residuals, arrows the way since the stage before. Each panel has a range of probabilities of its
    own, for at first they hardly differ. Iterations are told at the first learning rate, between checkpoints.

    Args:
        solved: what `phasescope.solve.feature_strength` gives.
    """
    figure, (stacks,) = side_by_side([solved.sizes["stage"]], (1.9,))
    rows: list[Row] = []
    before = None
    for stage, (axes,) in zip(solved.stage.values.tolist(), stacks, strict=True):
        here = solved.sel(stage=stage)
        if np.isnan(here.stage_gap):
            heading(axes, _words(stage), "not with two classes")
            axes.set_axis_off()
            continue
        _stage(axes, here, before, solved.attrs["outputs"])
        heading(axes, _words(stage), f"Δ = {float(here.stage_gap):.3g}, {_when(here)}")
        rows += _rows(here, stage)
        before = here.probability
        axes.set_xlabel("probability of the attribute's class")
        axes.set_ylabel("attribute")
    points = [Line2D([], [], linestyle="", **look) for look in _GROUPS.values()]
    lines = [Line2D([], [], **look) for look in _DECODERS.values()]
    way = Line2D([], [], color=GREY, marker=">", label="way since the stage before")
    legend(figure, [*points, *lines, way])
    return Drawing("theory-figure-5", figure, rows)


def _stage(axes: Axes, here: Dataset, before: Any, outputs: int) -> None:
    """Points, lines, residuals and arrows of one panel."""
    read, target = here.probability.values, here.target.values
    seen = np.append(read, read if before is None else before.values)
    low, high = seen.min(), seen.max()
    # At the start all are 1/l, but for the last digit.
    margin = 0.08 * (high - low) if high - low > 1e-9 else 1 / outputs
    low, high = low - margin, high + margin
    axes.set_xlim(low, high)
    top = target.max()
    axes.set_ylim(-0.12 * top, 1.36 * top)
    ends = np.array([low, high])
    errors = []
    for place, (decoder, look) in enumerate(_DECODERS.items()):
        one = here.sel(decoder=decoder)
        intercept, slope = float(one.intercept), float(one.slope)
        axes.plot(ends, intercept + slope * ends, **look)
        # Side by side, for both begin at the same point.
        beside = read + (place - 0.5) * 0.024 * (high - low)
        axes.vlines(beside, target, intercept + slope * read, color=look["color"], linewidth=1.2)
        errors.append(outputs * float(one.stage_error))
    axes.text(0.02, 0.98, "$l R$ = {:.3g}, with $g_j$ {:.3g}".format(*errors), transform=axes.transAxes, va="top")
    for place, (group, look) in enumerate(_GROUPS.items()):
        axes.plot(read[place], target[place], linestyle="", markersize=4.5, zorder=3, **look)
        if before is not None:
            way = {"arrowstyle": "-|>", "color": GREY, "linewidth": 0.9, "shrinkA": 0, "shrinkB": 2.5}
            start = float(before.sel(group=group))
            axes.annotate("", (read[place], target[place]), (start, target[place]), arrowprops=way, zorder=2)
    axes.xaxis.set_major_locator(MaxNLocator(4))


def _words(stage: str) -> str:
    return stage.replace("-", " ")


def _when(here: Dataset) -> str:
    """Between which checkpoints the stage comes, at the first learning rate."""
    steps, gaps = here.step.values, here.gap.isel(learning_rate=0).values
    place = int(np.searchsorted(gaps, float(here.stage_gap)))
    if place == 0:
        return "iteration 0"
    return f"iterations {steps[place - 1]}–{steps[place]}" if place < len(steps) else f"after iteration {steps[-1]}"


def _rows(here: Dataset, stage: str) -> list[Row]:
    rows: list[Row] = [{"stage": stage, "quantity": "gap", "value": float(here.stage_gap)}]
    for decoder in _DECODERS:
        one = here.sel(decoder=decoder)
        rows.append({"stage": stage, "quantity": "error", "decoder": decoder, "value": float(one.stage_error)})
        for group in _GROUPS:
            value = float(one.intercept + one.slope * one.probability.sel(group=group))
            rows.append({"stage": stage, "quantity": "decoded", "decoder": decoder, "group": group, "value": value})
    for quantity in ("probability", "target"):
        values = here[quantity]
        rows += [
            {"stage": stage, "quantity": quantity, "group": group, "value": float(values.sel(group=group))}
            for group in _GROUPS
        ]
    return rows
