"""Where the points of a figure's lines are in the picture and what they stand for: a page can tell their values."""

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.lines import Line2D

#: Places are whole numbers in this fraction of the figure's width and height.
UNIT = 10_000
#: Points of a line at most; of one with more, which has no markers, these are evenly chosen.
_MOST = 128


def points(figure: Figure) -> dict[str, Any]:
    """The lines of a figure whose panels are laid out, point by point, as JSON values.

    Returns:
        ``width`` and ``height`` in points of 1/72 inch; in ``panels``, for each that has lines over its own axes, its
        ``box`` (left, top, right, bottom), ``title``, the words at its axes ``x`` and ``y``, and ``lines``: their
        ``name`` in a legend (or none), and for each point that can be seen its place ``at`` (x, y, x, y, …) and its
        values ``x`` and ``y`` to four digits. Places are in 1/10,000 of the figure, from its left upper corner.
    """
    width, height = figure.get_size_inches() * 72
    names = dict(_named(figure))
    panels = []
    for axes in figure.axes:
        lines = [found for line in axes.lines if (found := _line(axes, line, names))["x"]]
        if lines:
            (left, low), (right, high) = axes.get_position(original=True).get_points()
            panels.append(
                {
                    "box": [round(UNIT * end) for end in (left, 1 - high, right, 1 - low)],
                    "title": _plain(axes.get_title("left") or axes.get_title()),
                    "x": _beside(axes, "x"),
                    "y": _beside(axes, "y"),
                    "lines": lines,
                }
            )
    return {"width": round(float(width), 2), "height": round(float(height), 2), "panels": panels}


def _line(axes: Axes, line: Line2D, names: dict[tuple[str, ...], str]) -> dict[str, Any]:
    values = np.column_stack([np.asarray(part, dtype=np.float64) for part in line.get_data()])
    if line.get_transform() != axes.transData or len(values) < 2:  # a baseline or a mark
        values = values[:0]
    values = values[np.linspace(0, len(values) - 1, min(len(values), _MOST)).round().astype(int)]
    inside = axes.transAxes.inverted().transform(axes.transData.transform(values)) if len(values) else values
    seen = (np.isfinite(inside) & (inside >= -0.001) & (inside <= 1.001)).all(axis=1)
    box = axes.get_position(original=True)
    places = np.column_stack([box.x0 + inside[seen, 0] * box.width, 1 - box.y0 - inside[seen, 1] * box.height])
    x, y = ([float(f"{value:.4g}") for value in part] for part in values[seen].T)
    own = str(line.get_label())
    name = next((names[look] for look in _looks(line) if look in names), "" if own.startswith("_") else own)
    return {"name": name, "at": (UNIT * places).round().astype(int).ravel().tolist(), "x": x, "y": y}


def _looks(line: Line2D) -> Iterator[tuple[str, ...]]:
    """What tells a line apart in a legend, from the most telling to the least."""
    colour, kind = to_hex(line.get_color()), str(line.get_linestyle())
    yield colour, kind, str(line.get_marker())
    yield colour, kind


def _named(figure: Figure) -> Iterator[tuple[tuple[str, ...], str]]:
    """The words of the figure's legends, by the look that they stand for; what two share has none."""
    legends: list[Legend] = [*figure.legends, *(found for axes in figure.axes if (found := axes.get_legend()))]
    words: dict[tuple[str, ...], set[str]] = {}
    for legend in legends:
        for handle, text in zip(legend.legend_handles, legend.get_texts(), strict=True):
            for look in _looks(handle) if isinstance(handle, Line2D) else ():
                words.setdefault(look, set()).add(text.get_text())
    for look, told in words.items():
        if len(told) == 1:
            yield look, _plain(told.pop())


def _beside(axes: Axes, which: str) -> str:
    """The words at an axis, which a panel may have from its neighbours: y from the left, x from below."""
    across = which == "y"
    box = axes.get_position(original=True)

    def aligned(other: Axes) -> bool:
        its = other.get_position(original=True)
        one, two = ((its.y0, its.y1), (box.y0, box.y1)) if across else ((its.x0, its.x1), (box.x0, box.x1))
        before = its.x0 <= box.x0 if across else its.y0 <= box.y0
        return before and np.allclose(one, two, atol=0.01)

    def distance(other: Axes) -> float:
        its = other.get_position(original=True)
        return float(box.x0 - its.x0 if across else box.y0 - its.y0)

    figure = axes.get_figure()
    near = sorted(filter(aligned, figure.axes if figure else []), key=distance)
    labels = (other.get_ylabel() if across else other.get_xlabel() for other in near)
    return next((_plain(label) for label in labels if label), "")


def _plain(text: str) -> str:
    r"""Text on one line, its formulas as they are said: ``$\lambda d^{-X}$`` is λ d^-X."""
    said = text.replace(r"\lambda", "λ").replace(r"\rho", "ρ")
    return " ".join(re.sub(r"[${}]", "", said).split())
