"""Figures of the feature-strength model: R over the gap, over steps, and over the number of classes."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from xarray import DataArray, Dataset

from phasescope.figures.drawing import Curve, Drawing, Row
from phasescope.figures.layout import BASELINE, MINIMUM, heading, legend, side_by_side
from phasescope.figures.style import BLACK, COLOURS, PAGE, Array, step_axis, style
from phasescope.figures.theory_model import figure_3, figure_5
from phasescope.figures.theory_regimes import regimes
from phasescope.params.figures import SolvedRun
from phasescope.theory.feature_strength import leap, reconstruction
from phasescope.theory.feature_strength.model import FeatureStrength

#: Points of the line of the theory over the steps of a run.
_DENSE = 200
_MARKERS = ("o", "s", "^", "D", "v", "P")
_SCALED = {
    "scaling_initial": ("step 0", -1),
    "scaling_minimum": ("minima", -2),
    "scaling_bump": ("bump", -1),
    "scaling_final": ("end", -1),
}


def draw(solved: Dataset, runs: Mapping[str, DataArray], models: Mapping[str, SolvedRun]) -> Iterator[Drawing]:
    """Yield every figure of the feature-strength model.

    Args:
        solved: what `phasescope.solve.feature_strength` gives.
        runs: the reconstruction loss at softmax, (seed, step), of the runs that are trained on the model.
        models: their parameters.
    """
    yield figure_3(solved)
    yield figure_5(solved)
    yield curve(solved)
    yield phases(solved)
    yield regimes(solved)
    yield scaling(solved)
    if runs:
        yield measured(runs, models)


@style()
def curve(solved: Dataset) -> Drawing:
    """L times R over the gap: of several l at the model's k, and of several k at its l; best decoder and the paper's.

    The point at Δ = 0 stands alone, for from there R jumps.
    """
    outputs, strength = solved.attrs["outputs"], solved.attrs["strength"]
    figure = Figure(figsize=(PAGE, 3.7))
    left, right = figure.subplots(1, 2)
    rows: list[Row] = []
    error = solved.outputs * solved.curve_error
    _family(left, error.sel(strength=strength), "outputs", "l", rows, {"strength": strength})
    _family(right, error.sel(outputs=outputs), "strength", "k", rows, {"outputs": outputs})
    heading(left, f"k = {strength:g}")
    heading(right, f"l = {outputs}")
    second = float(np.nanmax(np.append(solved.shape_second_minimum_gap.sel(outputs=outputs), 0)))
    right.set_xlim(right=min(second + 5, float(solved.curve_gap[-1])))
    left.set_ylabel("$l R$")
    handles = [
        Line2D([], [], color=BLACK, label="best decoder"),
        Line2D([], [], color=BLACK, linestyle="--", label="decoder of the paper, $g_j$"),
        Line2D([], [], color=BLACK, linestyle="", marker="o", label="step 0 (both decoders)"),
    ]
    legend(figure, handles)
    return Drawing("theory-curve", figure, rows)


def _family(axes: Axes, error: DataArray, dim: str, letter: str, rows: list[Row], names: Row) -> None:
    """A curve of each member of a family (decoder, ``dim``, curve_gap)."""
    gap = error.curve_gap.values
    for place, member in enumerate(error[dim].values.tolist()):
        look = _look(place)
        for decoder, line in (("optimal", "-"), ("paper", "--")):
            values = error.sel({dim: member, "decoder": decoder}).values
            axes.plot(gap[1:], values[1:], linestyle=line, color=look["color"], linewidth=1.2 if line == "-" else 0.9)
            rows += [
                {**names, dim: member, "decoder": decoder, "gap": at, "value": value}
                for at, value in zip(gap.tolist(), values.tolist(), strict=True)
            ]
        first = error.sel({dim: member, "decoder": "optimal"}).values
        axes.plot(gap[:1], first[:1], linestyle="", clip_on=False, zorder=3, **look)
        some = slice(20 + 9 * place, None, 60)
        axes.plot(gap[some], first[some], linestyle="", **look)
        axes.plot([], [], label=f"${letter}$ = {member:g}", **look)
    axes.set_yscale("log")
    axes.set_xlim(left=0, right=gap[-1])
    axes.set_xlabel("gap Δ")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=3)


@style()
def phases(solved: Dataset) -> Drawing:
    """R over steps for every learning rate, where the decoder reads exact probabilities, and where they are noisy."""
    figure, (stacks,) = side_by_side([solved.sizes["noise"]], (2.6,), abreast=2)
    rows: list[Row] = []
    own = solved.sel(outputs=solved.attrs["outputs"], strength=solved.attrs["strength"])
    levels = {"minimum": own.shape_minimum / own.outputs, "end": own.shape_final / own.outputs}
    looks = {"minimum": MINIMUM, "end": BASELINE}
    for noise, (axes,) in zip(solved.noise.values.tolist(), stacks, strict=True):
        for place, rate in enumerate(solved.learning_rate.values.tolist()):
            error = solved.error.sel(noise=noise, learning_rate=rate)
            axes.plot(error.step.values, error.values, **_look(place))
            rows += [
                {"noise": noise, "learning_rate": rate, "quantity": "error", "step": step, "value": value}
                for step, value in zip(error.step.values.tolist(), error.values.tolist(), strict=True)
            ]
        for name, value in levels.items():
            axes.axhline(float(value), **looks[name])
        heading(axes, f"noise σ = {noise:g}" if noise else "exact probabilities")
        axes.set_yscale("log")
        step_axis(axes, solved.step.values, labels=6 if solved.attrs["iterations"] < 10**6 else 3)
        axes.set_xlabel("iteration")
        axes.set_ylabel("$R$ (mean squared error)")
    rows += [{"quantity": name, "value": float(value)} for name, value in levels.items()]
    rates = [
        Line2D([], [], **_look(place), label=f"$\\lambda$ = {rate:g}")
        for place, rate in enumerate(solved.learning_rate.values.tolist())
    ]
    legend(figure, [*rates, *(Line2D([], [], **look, label=name) for name, look in looks.items())])
    return Drawing("theory-phases", figure, rows)


@style()
def measured(runs: Mapping[str, DataArray], models: Mapping[str, SolvedRun]) -> Drawing:
    """R of trained networks, a panel for each run, and R of the theory for equal initial weights as a line."""
    figure, (stacks,) = side_by_side([len(runs)], (2.2,))
    rows: list[Row] = []
    for (run, error), (axes,) in zip(runs.items(), stacks, strict=True):
        model = models[run]
        last = int(error.step[-1])
        steps = np.unique(np.geomspace(1, last, _DENSE).round().astype(np.int64))
        gap = leap.gaps(FeatureStrength(**dict(model)), np.append(0, steps))
        exact = reconstruction.optimal(gap, model.outputs, model.strength)
        axes.plot(steps, exact[1:], color=BLACK, linewidth=1)
        axes.plot([0], exact[:1], color=BLACK, linestyle="", marker="_", markersize=8)
        names = {"run": run, "quantity": "theory"}
        rows += [
            {**names, "step": step, "value": value}
            for step, value in zip([0, *steps.tolist()], exact.tolist(), strict=True)
        ]
        look = {"color": COLOURS[0], "marker": "o", "linestyle": "", "markersize": 4}
        Curve.of(error).draw(axes, rows, {"run": run, "quantity": "measured"}, **look)
        heading(axes, run, f"l = {model.outputs}, k = {model.strength:g}, λ d = {model.learning_rate * model.inputs:g}")
        axes.set_yscale("log")
        step_axis(axes, error.step.values)
        axes.set_xlabel("iteration")
        axes.set_ylabel("$R$ (mean squared error)")
    measured_in = Line2D([], [], color=COLOURS[0], marker="o", linestyle="", markersize=4, label="trained network")
    legend(figure, [measured_in, Line2D([], [], color=BLACK, linewidth=1, label="theory, equal initial weights")])
    return Drawing("theory-runs", figure, rows)


@style()
def scaling(solved: Dataset) -> Drawing:
    """Corollary 4: R at step 0, at its minima, its bump and its end over l, a panel for each k.

    Grey lines fall as 1/l and 1/l²; below a panel's name, the slopes between the last two points.
    """
    figure, (stacks,) = side_by_side([solved.sizes["strength"]], (2.2,))
    outputs = solved.map_outputs.values
    rows: list[Row] = []
    for strength, (axes,) in zip(solved.strength.values.tolist(), stacks, strict=True):
        slopes = []
        for place, (name, (words, order)) in enumerate(_SCALED.items()):
            values = solved[name].sel(strength=strength).values
            axes.plot(outputs, values[-1] * (outputs / outputs[-1]) ** float(order), **BASELINE)
            axes.plot(outputs, values, **_look(place), markevery=max(1, len(outputs) // 8))
            slopes.append(_slope(outputs, values))
            rows += [
                {"strength": strength, "quantity": words, "outputs": at, "value": value}
                for at, value in zip(outputs.tolist(), values.tolist(), strict=True)
                if math.isfinite(value)
            ]
            rows.append({"strength": strength, "quantity": f"slope of {words}", "value": slopes[-1]})
        heading(axes, f"k = {strength:g}", "slopes: " + ", ".join(f"{slope:.2g}" for slope in slopes).replace("-", "−"))
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel("classes $l$")
        axes.set_ylabel("$R$")
    handles = [Line2D([], [], **_look(place), label=words) for place, (words, _) in enumerate(_SCALED.values())]
    legend(figure, [*handles, Line2D([], [], **BASELINE, label="$1/l$ and $1/l^2$")])
    return Drawing("theory-scaling", figure, rows)


def _slope(outputs: Array, values: Array) -> float:
    """Of log R over log l between the last two points."""
    return float(np.diff(np.log(values[-2:]))[0] / np.diff(np.log(outputs[-2:]))[0])


def _look(place: int) -> dict[str, Any]:
    """Colour and marker of the line at a place of a family."""
    return {"color": COLOURS[place % len(COLOURS)], "marker": _MARKERS[place % len(_MARKERS)]}
