"""When features are learned: the tangent kernel over steps, and the alignment and the norms of layers."""

from collections.abc import Mapping
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator
from xarray import DataArray, Dataset

from phasescope.figures.drawing import Curve, Drawing, Row, level, named
from phasescope.figures.layout import BASELINE, heading, label, legend, side_by_side
from phasescope.figures.style import BLACK, COLOURS, step_axis, style

#: What is shown of the kernel, by its variable: its name, the label of its axis, and its colour.
SHOWN: dict[str, tuple[str, str, str]] = {
    "relative_change": ("relative change of the kernel", "relative\nchange", COLOURS[0]),
    "cosine": ("cosine to the first kernel", "cosine to\nthe first", COLOURS[1]),
    "effective_rank": ("effective rank of the kernel", "effective\nrank", COLOURS[2]),
    "target_alignment": ("alignment of the kernel with the classes", "alignment\nwith classes", COLOURS[3]),
}
#: Dark to light from the first pair of layers to the last, not up to the palest.
_DEPTH = (mpl.colormaps["cividis"], 0.9)
_RANDOM: dict[str, Any] = {"linestyle": "--", "linewidth": 0.8, "zorder": 1}
#: As many pairs as the legend names one by one.
_NAMED = 6


@style()
def kernel(results: Mapping[str, Dataset]) -> Drawing:
    """Of every run, over steps: how the kernel differs from the first one, how many directions it has, and the classes.

    Lines are means over seeds, bands reach from the lowest seed to the highest. Dashed is what the effective rank
    cannot exceed: the number of probes, of a full kernel times that of outputs. Changes below a tenth have a linear
    axis, larger ones a logarithmic one.

    Args:
        results: what `kernel` measures of runs with a ``tangent_kernel``.
    """
    figure, (stacks,) = side_by_side([len(results)], heights=(0.95,) * len(SHOWN))
    rows: list[Row] = []
    for (run, found), stack in zip(results.items(), stacks, strict=True):
        heading(stack[0], run, f"{found.sizes['probe']} probes")
        for axes, (variable, (name, _, colour)) in zip(stack, SHOWN.items(), strict=True):
            _range(axes, rows, named(run, "", name), found[variable], color=colour, marker="o")
            step_axis(axes, found.step.values)
        change, cosine, rank, target = stack
        change.set_yscale("symlog", linthresh=0.1, linscale=0.5)
        change.yaxis.set_minor_locator(NullLocator())
        change.set_ylim(0, 2 * max(1.0, float(found.relative_change.max())))
        cosine.set_ylim(min(0.8, float(found.cosine.min()) - 0.05), 1.02)
        most = found.sizes["probe"] * found.sizes.get("output", 1)
        level(rank, rows, named(run, "", "largest possible rank"), most, **BASELINE)
        rank.set_ylim(0, min(1.1 * most, 2.2 * float(found.effective_rank.max())))
        target.set_ylim(min(0.0, float(found.target_alignment.min())), 1.02)
    label(stacks, [axis for _, axis, _ in SHOWN.values()])
    handles: list[Artist] = [Patch(color=BLACK, alpha=0.2, linewidth=0, label="from the lowest seed to the highest")]
    legend(figure, [*handles, Line2D([], [], **BASELINE, label="largest possible rank")])
    return Drawing("kernel", figure, rows)


@style()
def alignment(results: Mapping[str, Dataset]) -> Drawing:
    """Of every run, over steps: ζ of all pairs of layers, that of random layers dashed, and the growth of their norms.

    Lines are means over seeds, bands reach from the lowest seed to the highest.

    Args:
        results: what `kernel` measures of runs with an ``alignment``.
    """
    figure, (stacks,) = side_by_side([len(results)], heights=(1.7, 1.3))
    rows: list[Row] = []
    for (run, found), (upper, lower) in zip(results.items(), stacks, strict=True):
        heading(upper, run)
        for pair, look in _looks(found).items():
            of_pair = found.sel(pair=pair)
            _range(upper, rows, named(run, pair, "layer alignment"), of_pair.alignment, **look)
            random = float(of_pair.width) ** -0.5
            level(upper, rows, named(run, pair, "alignment of random layers"), random, **_RANDOM | look)
            growth = of_pair.norm_product / of_pair.norm_product.isel(step=0)
            _range(lower, rows, named(run, pair, "norm product relative to the first"), growth, **look)
            rows += Curve.of(of_pair.norm_product).rows(named(run, pair, "norm product"))
        upper.set_ylim(bottom=0)
        lower.set_yscale("log", base=2)
        lower.yaxis.set_major_locator(LogLocator(base=2, numticks=6))
        lower.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        lower.yaxis.set_minor_locator(NullLocator())
        for axes in (upper, lower):
            step_axis(axes, found.step.values)
    label(stacks, ("layer alignment ζ", "product of norms\nN / N(0)"))
    looks = [_looks(found) for found in results.values()]
    shown = looks[0]
    if len(shown) > _NAMED or any(other != shown for other in looks):
        scale, end = _DEPTH
        shown = {"first pair of layers": {"color": scale(0.0)}, "last pair of layers": {"color": scale(end)}}
    handles = [Line2D([], [], **look, label=name) for name, look in shown.items()]
    legend(figure, [*handles, Line2D([], [], **_RANDOM, color=BLACK, label="random layers, 1/√h")])
    return Drawing("alignment", figure, rows)


def _looks(found: Dataset) -> dict[str, dict[str, Any]]:
    """The look of every pair of layers of a run."""
    scale, end = _DEPTH
    deepest = max(1, found.sizes["pair"] - 1)
    return {pair: {"color": scale(end * place / deepest)} for place, pair in enumerate(found.pair.values.tolist())}


def _range(axes: Axes, rows: list[Row], names: Row, values: DataArray, **look: Any) -> None:
    """Draw the mean over seeds of values (seed, step), and from the lowest to the highest where there are several."""
    curve = Curve.of(values)
    axes.plot(curve.steps, curve.mean, **look)
    rows += curve.rows(names)
    if curve.std is not None:
        low, high = values.min("seed"), values.max("seed")
        axes.fill_between(curve.steps, low, high, color=look["color"], alpha=0.2, linewidth=0)
        for bound, edge in (("min", low), ("max", high)):
            rows += [
                {**names, "seed": bound, "step": step, "value": value}
                for step, value in zip(curve.steps.tolist(), edge.values.tolist(), strict=True)
                if np.isfinite(value)
            ]
