"""The scale of the initial weights against accuracy, as in Figures 2 and 3 of "When Does Feature Learning Happen?"."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from phasescope.figures.drawing import Drawing, Results, Row, named
from phasescope.figures.layout import heading, legend, side_by_side
from phasescope.figures.style import BLACK, COLOURS, Array, style

#: Runs by the scale of their initial weights, from the smallest to the largest.
Family = dict[float, tuple[str, Results]]

_PARTS: dict[str, dict[str, Any]] = {"train": {"linestyle": "--"}, "test": {"linestyle": "-"}}
_WORDS = {"train": "training samples", "test": "test samples"}
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")


def families(results: Mapping[str, Results]) -> dict[str, Family]:
    """The runs that differ in the scale of their initial weights, by the name of their family.

    A family of a single scale is none, nor is one without accuracies, as where a number is learnt.
    """
    found: dict[str, Family] = {}
    for run, result in results.items():
        if result.scaled is not None and np.isfinite(_accuracy(result, "test")).all():
            found.setdefault(result.scaled.family, {})[result.scaled.scale] = (run, result)
    return {name: dict(sorted(family.items())) for name, family in found.items() if len(family) > 1}


@style()
def initialisation_scale(found: Mapping[str, Family]) -> Drawing:
    """Accuracy after the last update over the scale: mean and range of the seeds, a panel for each dataset.

    Args:
        found: what `families` gives, at least one.
    """
    datasets = {name: next(iter(family.values()))[1].dataset for name, family in found.items()}
    panels = list(dict.fromkeys(datasets.values()))
    figure, (stacks,) = side_by_side([len(panels)], heights=(2.0,))
    axes_of = {dataset: axes for dataset, (axes,) in zip(panels, stacks, strict=True)}
    rows: list[Row] = []
    handles = []
    for place, (name, family) in enumerate(found.items()):
        look: dict[str, Any] = {"color": COLOURS[place % len(COLOURS)], "marker": _MARKERS[place % len(_MARKERS)]}
        handles.append(Line2D([], [], **look, label=name))
        for part in _PARTS:
            _draw(axes_of[datasets[name]], rows, part, name, family, look)
    for dataset, axes in axes_of.items():
        scales = sorted({scale for name, family in found.items() if datasets[name] == dataset for scale in family})
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(FixedLocator(scales[:: math.ceil(len(scales) / 8)]))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda scale, _: f"{scale:g}"))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlabel("scale of the initial weights")
        heading(axes, dataset)
    stacks[0][0].set_ylabel("accuracy")
    parts = [Line2D([], [], color=BLACK, **line, label=_WORDS[part]) for part, line in _PARTS.items()]
    legend(figure, [*handles, *parts])
    return Drawing("initialisation-scale", figure, rows)


def _draw(axes: Axes, rows: list[Row], part: str, name: str, family: Family, look: dict[str, Any]) -> None:
    """The line of a family, and a row for the mean, the lowest and the highest of the seeds of each run."""
    seeds = [_accuracy(result, part) for _, result in family.values()]
    told = {how: np.array([getattr(np, how)(each) for each in seeds]) for how in ("mean", "min", "max")}
    reach = np.abs([told["mean"] - told["min"], told["max"] - told["mean"]])
    axes.errorbar(list(family), told["mean"], reach, capsize=2, elinewidth=0.8, **_PARTS[part], **look)
    for place, (scale, (run, _)) in enumerate(family.items()):
        about = named(run, "network", f"{part} accuracy", family=name) | {"scale": scale}
        rows += [{**about, "seed": how, "value": float(values[place])} for how, values in told.items()]


def _accuracy(result: Results, part: str) -> Array:
    """Accuracy after the last update, (seed,)."""
    assert result.training is not None
    return np.asarray(result.training[f"{part}_accuracy"].isel(step=-1))
