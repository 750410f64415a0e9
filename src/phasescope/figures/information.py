"""The information plane (Tishby & Zaslavsky 2015), and what a layer tells of the input and of the class over steps."""

import math
from collections.abc import Mapping
from typing import Any

import matplotlib as mpl
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from xarray import Dataset

from phasescope.figures.drawing import Curve, Drawing, Results, Row, level, named
from phasescope.figures.layout import BASELINE, heading, label, legend, side_by_side, taps
from phasescope.figures.style import BLACK, COLOURS, step_axis, style

#: What is shown, by the variable that holds it: its name, its look, and the entropy that it cannot exceed.
SHOWN: dict[str, tuple[str, dict[str, Any], str]] = {
    "i_x": ("I(T;X)", {"color": COLOURS[0], "marker": "o"}, "h_x"),
    "i_y": ("I(T;Y)", {"color": COLOURS[1], "marker": "s"}, "h_y"),
}
CEILINGS = {"h_x": "ln n", "h_y": "H(Y)"}


@style()
def plane(results: Mapping[str, Results]) -> Drawing:
    """I(T;Y) over I(T;X): a panel per run, a path per tap, the mean over seeds with a point for every step.

    Thin paths are single seeds. Of the first estimator; what there is to tell at most, ln n and H(Y), is dashed.

    Args:
        results: runs with ``information``.
    """
    shown = {run: first_estimator(result) for run, result in results.items()}
    figure, (stacks,) = side_by_side([len(shown)], heights=(2.2,))
    looks, handles = taps(results)
    steps = sorted({step for values in shown.values() for step in values.step.values.tolist()})
    scale = mpl.colormaps["cividis"].resampled(len(steps))
    colours = {step: scale(place) for place, step in enumerate(steps)}
    rows: list[Row] = []
    for (run, values), (axes,) in zip(shown.items(), stacks, strict=True):
        for layer in values.layer.values.tolist():
            _path(axes, values.sel(layer=layer), looks[layer], colours)
            for variable, (name, _, _) in SHOWN.items():
                for seed in values.seed.values.tolist():
                    of_seed = values[variable].sel(layer=layer, seed=[seed])
                    rows += [{**row, "seed": seed} for row in Curve.of(of_seed).rows(named(run, layer, name))]
        for variable, draw in (("h_x", axes.axvline), ("h_y", axes.axhline)):
            most = float(values[variable])
            draw(most, **BASELINE)
            rows.append({**named(run, "", CEILINGS[variable]), "value": most})
        heading(axes, run, str(values.estimator.item()))
        axes.set_xlabel("I(T;X) (nat)")
    stacks[0][0].set_ylabel("I(T;Y) (nat)")
    handles += [
        Line2D([], [], color=colours[step], marker="o", linestyle="", label=f"iteration {step}")
        for step in steps[:: math.ceil(len(steps) / 6)]
    ]
    legend(figure, [*handles, Line2D([], [], **BASELINE, label="ln n, H(Y)")])
    return Drawing("information-plane", figure, rows)


@style()
def information(results: Mapping[str, Results]) -> Drawing:
    """I(T;X) and I(T;Y) over steps, mean over seeds, below what there is to tell: a panel per run and tap.

    The bands lie between the bounds (means over seeds as well), thin lines are single seeds. Of the first estimator;
    one that puts T into bins has no bounds.

    Args:
        results: runs with ``information``.
    """
    shown = {run: first_estimator(result) for run, result in results.items()}
    figure, groups = side_by_side([values.sizes["layer"] for values in shown.values()], (1.5,), abreast=4)
    rows: list[Row] = []
    for (run, values), stacks in zip(shown.items(), groups, strict=True):
        for layer, (axes,) in zip(values.layer.values.tolist(), stacks, strict=True):
            over_steps(axes, rows, run, values.sel(layer=layer))
            heading(axes, run if axes is stacks[0][0] else "", f"{layer}, {values.estimator.item()}")
            step_axis(axes, values.step.values, labels=4)
        label(stacks, ("information (nat)",))
    handles: list[Artist] = [Line2D([], [], **look, label=name) for name, look, _ in SHOWN.values()]
    if any("i_x_lower" in values for values in shown.values()):
        handles += [Patch(color=BLACK, alpha=0.2, linewidth=0, label="between the bounds")]
    legend(figure, [*handles, Line2D([], [], **BASELINE | {"color": BLACK}, label="ln n, H(Y)")])
    return Drawing("information", figure, rows)


def over_steps(axes: Axes, rows: list[Row], run: str, values: Dataset) -> None:
    """Draw I(T;X) and I(T;Y) of one layer, (seed, step), with their bounds, single seeds and ceilings."""
    layer = str(values.layer.item())
    for variable, (name, look, most) in SHOWN.items():
        _band(axes, rows, named(run, layer, name), values, variable)
        for seed in range(values.sizes["seed"]):
            curve = values[variable].isel(seed=seed)
            axes.plot(curve.step, curve, color=look["color"], linewidth=0.4, alpha=0.6)
        mean = Curve.of(values[variable])
        axes.plot(mean.steps, mean.mean, **look)
        rows += mean.rows(named(run, layer, name))
        names = named(run, layer, CEILINGS[most])
        level(axes, rows, names, float(values[most]), **BASELINE | {"color": look["color"]})
    axes.set_ylim(0, 1.05 * float(values.h_x))


def first_estimator(result: Results) -> Dataset:
    """What the first estimator of a run found, without the bounds that it has not."""
    assert result.information is not None
    first = result.information.isel(estimator=0)
    bounds = [name for name in first.data_vars if str(name).endswith(("_lower", "_upper"))]
    return first.drop_vars([name for name in bounds if first[name].isnull().all()])


def _path(axes: Axes, values: Dataset, look: Mapping[str, Any], colours: Mapping[int, Any]) -> None:
    """Draw the path of one tap, (seed, step), thin for each seed and with its points for the mean."""
    line = {"color": look["color"], "linestyle": look["linestyle"]}
    for seed in range(values.sizes["seed"] if values.sizes["seed"] > 1 else 0):
        axes.plot(values.i_x.isel(seed=seed), values.i_y.isel(seed=seed), **line, linewidth=0.4, alpha=0.6)
    x, y = Curve.of(values.i_x), Curve.of(values.i_y)
    axes.plot(x.mean, y.mean, **line, linewidth=0.8)
    point: dict[str, Any] = {"marker": look["marker"], "s": 14, "edgecolors": look["color"], "linewidths": 0.5}
    axes.scatter(x.mean, y.mean, c=[colours[step] for step in x.steps.tolist()], zorder=3, **point)


def _band(axes: Axes, rows: list[Row], names: Row, values: Dataset, variable: str) -> None:
    """Draw the bounds of a variable (seed, step), where it has any, and note them."""
    if f"{variable}_lower" in values:
        lower, upper = Curve.of(values[f"{variable}_lower"]), Curve.of(values[f"{variable}_upper"])
        colour = SHOWN[variable][1]["color"]
        axes.fill_between(lower.steps, lower.mean, upper.mean, color=colour, alpha=0.2, linewidth=0)
        for curve, bound in ((lower, "lower bound"), (upper, "upper bound")):
            rows += curve.rows({**names, "quantity": f"{names['quantity']} {bound}"})
