"""Where panels, headings and legends stand, and what a line of each kind looks like in every figure."""

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from phasescope.figures.drawing import Results
from phasescope.figures.style import BLACK, GREY, PAGE, tap_styles

NETWORK: dict[str, Any] = {"color": BLACK, "marker": "."}
BASELINE: dict[str, Any] = {"color": GREY, "linestyle": "--", "linewidth": 1}
MINIMUM: dict[str, Any] = {"color": BLACK, "linestyle": "-.", "linewidth": 0.8}

#: Inches across, by the number of panels beside each other.
_WIDTHS = (3.6, 5.4, PAGE, PAGE)


def side_by_side(
    groups: Sequence[int], heights: tuple[float, ...], abreast: int = 3
) -> tuple[Figure, list[list[list[Axes]]]]:
    """A figure with stacks of panels of these ``heights`` (inches), so many ``abreast`` (4 at most).

    Each of the ``groups`` has as many stacks as it says and begins on a line of its own. Returns their panels:
    group, stack, from top to bottom.
    """
    columns = min(max(groups), abreast)
    bands = [math.ceil(stacks / columns) for stacks in groups]
    figure = Figure(figsize=(_WIDTHS[columns - 1], 0.6 + sum(bands) * (sum(heights) + 0.6)))
    deep = len(heights)
    grid = figure.subplots(sum(bands) * deep, columns, squeeze=False, height_ratios=heights * sum(bands))
    panels, first = [], 0
    for stacks, lines in zip(groups, bands, strict=True):
        places = [(first + line, column) for line in range(lines) for column in range(columns)]
        beside = [grid[line * deep : (line + 1) * deep, column].tolist() for line, column in places]
        for unused in beside[stacks:]:
            for axes in unused:
                axes.remove()
        panels.append(beside[:stacks])
        first += lines
    return figure, panels


def label(stacks: Sequence[Sequence[Axes]], labels: Sequence[str]) -> None:
    """Name the axes of stacked panels over steps: y at the left edge of the figure, x at the foot of a stack."""
    for stack in stacks:
        for axes, name in zip(stack, labels, strict=True):
            axes.tick_params(labelbottom=axes is stack[-1])
            place = axes.get_subplotspec()
            if place is not None and place.is_first_col():
                axes.set_ylabel(name)
        stack[-1].set_xlabel("iteration")


def heading(axes: Axes, title: str, below: str = "") -> None:
    """A bold title at the left, broken where it is too long for a panel, and a plain line below it."""
    axes.set_title(textwrap.fill(title, 30), loc="left", fontweight="bold", pad=13 if below else 4)
    axes.text(0, 1.02, below, transform=axes.transAxes, fontsize=7, va="bottom")


def legend(figure: Figure, handles: Sequence[Artist]) -> None:
    """A legend above all panels, where it hides no data, on as many lines as the figure's width demands."""
    # At this font a letter is about 0.05 inches wide, the sample of a line with its margins 0.55.
    widths = [0.55 + 0.05 * len(str(handle.get_label())) for handle in handles]
    for lines in range(1, len(handles) + 1):
        columns = math.ceil(len(handles) / lines)
        # A legend is filled column by column, and a column is as wide as its widest entry.
        if sum(column.max() for column in np.array_split(widths, columns)) <= figure.get_figwidth() - 0.3:
            break
    figure.legend(handles=handles, loc="outside upper center", ncols=columns)


def taps(results: Mapping[str, Results]) -> tuple[dict[str, dict[str, Any]], list[Artist]]:
    """The look of every tap of any run, and the legend's entries for them."""
    looks = tap_styles(str(layer) for result in results.values() for layer in result.decode.layer.values)
    return looks, [Line2D([], [], **look, label=layer) for layer, look in looks.items()]
