"""Figures of the feature-strength model: R over the gap, over steps, over its parameters, and over the number of classes."""

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from scipy.ndimage import distance_transform_edt
from scipy.ndimage import label as connected
from xarray import DataArray, Dataset

from phasescope.figures.drawing import Drawing, Row
from phasescope.figures.layout import BASELINE, MINIMUM, heading, legend, side_by_side
from phasescope.figures.style import BLACK, COLOURS, GREY, PAGE, Array, step_axis, style
from phasescope.figures.theory_model import figure_3, figure_5

_MARKERS = ("o", "s", "^", "D", "v", "P")
#: The phases that may be there together, and their colours, which grow darker with their number.
_REGIMES = {
    (): "#ffffff",
    ("fall",): "#dcebf5",
    ("constant", "fall"): "#f6dcb8",
    ("fall", "rise"): "#8fc1e0",
    ("constant", "fall", "rise"): "#e0a04c",
    ("rise",): "#c9c9c9",
    ("constant", "rise"): "#8c8c8c",
}
_HATCH = "#5a7f99"
_BOUNDARIES: dict[str, dict[str, Any]] = {
    "time_rate": {"linestyle": "-", "label": "second minimum at the last step"},
    "corollary_rate": {"linestyle": ":", "label": "Corollary 4: interval empty to the right"},
    "resolved_rate": {"linestyle": "--", "label": "step 1 leaps over the first minimum"},
    "rise_rate": {"linestyle": "-.", "label": "step 1 leaps over the second minimum"},
}
_SCALED = {
    "scaling_initial": ("step 0", -1),
    "scaling_minimum": ("minima", -2),
    "scaling_bump": ("bump", -1),
    "scaling_final": ("end", -1),
}


def draw(solved: Dataset) -> Iterator[Drawing]:
    """Yield every figure of the feature-strength model.

    Args:
        solved: what `phasescope.solve.feature_strength` gives.
    """
    yield figure_3(solved)
    yield figure_5(solved)
    yield curve(solved)
    yield phases(solved)
    yield regimes(solved)
    yield scaling(solved)


@style()
def curve(solved: Dataset) -> Drawing:
    """L times R over the gap: of several l at the model's k, and of several k at its l; best decoder and the paper's.

    The point at Δ = 0 stands alone, for from there R jumps.
    """
    outputs, strength = solved.attrs["outputs"], solved.attrs["strength"]
    figure = Figure(figsize=(PAGE, 3.2))
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
    lines = {"best decoder": "-", "decoder of the paper, $g_j$": "--"}
    handles = [Line2D([], [], color=BLACK, linestyle=line, label=label) for label, line in lines.items()]
    legend(figure, [*handles, Line2D([], [], color=BLACK, linestyle="", marker="o", label="step 0 (both decoders)")])
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
    axes.legend(loc="lower right")


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
        step_axis(axes, solved.step.values)
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
def regimes(solved: Dataset) -> Drawing:
    """Which phases there are, over λ d and l, for each k; above with exact probabilities, below with noisy ones.

    Hatched where step 1 is near the first minimum. Crosses are the learning rates of the model itself.
    """
    strengths, noises = solved.strength.values.tolist(), solved.noise.values.tolist()
    figure = Figure(figsize=(PAGE, 0.9 + 2.1 * len(noises)))
    panels = figure.subplots(len(noises), len(strengths), squeeze=False, sharex=True, sharey=True)
    rows: list[Row] = []
    present: dict[tuple[str, ...], None] = {}
    for (noise, strength), axes in zip(itertools.product(noises, strengths), panels.flat, strict=True):
        here = solved.sel(noise=noise, strength=strength)
        own = solved.learning_rate.values * solved.attrs["inputs"] if strength == solved.attrs["strength"] else []
        at = [solved.attrs["outputs"]] * len(own)
        present |= dict.fromkeys(_map(axes, here, own, at))
        _edges(axes, here)
        axes.plot(own, at, linestyle="", marker="x", color=BLACK, markersize=4, zorder=4)
        if noise == noises[0]:
            heading(axes, f"k = {strength:g}")
        rows += _map_rows(here, noise, strength)
    rows += _edge_rows(solved)
    for axes, noise in zip(panels[:, 0], noises, strict=True):
        axes.set_ylabel(f"classes $l$\n(noise σ = {noise:g})" if noise else "classes $l$\n(exact probabilities)")
    for axes in panels[-1]:
        axes.set_xlabel("$\\lambda d$")
    patches = [Patch(facecolor=_REGIMES[found], edgecolor=GREY, label=_named(found)) for found in sorted(present, key=len)]
    hatched = Patch(facecolor="white", edgecolor=_HATCH, hatch="////", label="hatched: step 1 near the first minimum")
    lines = [Line2D([], [], color=BLACK, linewidth=1, **look) for look in _BOUNDARIES.values()]
    cross = Line2D([], [], color=BLACK, linestyle="", marker="x", markersize=4, label="the model's own λ d and l")
    legend(figure, [*patches, hatched, *lines, cross])
    return Drawing("theory-regimes", figure, rows)


def _map(axes: Axes, here: Dataset, own: Sequence[float], at: Sequence[int]) -> list[tuple[str, ...]]:
    """Colour every parameter set (map_outputs, map_rate) by its phases, and name the regions; gives what there is.

    No name is where there is a cross, at the λ d of ``own`` and the l of ``at``.
    """
    known = list(_REGIMES)
    codes = _codes(here)
    rate, outputs = here.map_rate.values, here.map_outputs.values
    colours, norm = ListedColormap(list(_REGIMES.values())), BoundaryNorm(np.arange(len(known) + 1) - 0.5, len(known))
    axes.pcolormesh(rate, outputs, codes, cmap=colours, norm=norm, shading="nearest", rasterized=True)
    if not here.noise:
        mask = here.map_resolved.values.astype(float)
        hatched = axes.contourf(rate, outputs, mask, levels=[0.5, 1.5], colors="none", hatches=["//"])
        hatched.set_edgecolor(_HATCH)
        hatched.set_linewidth(0)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(rate[0], rate[-1])
    axes.set_ylim(outputs[0], outputs[-1])
    axes.grid(visible=False)
    free = np.ones(codes.shape, bool)
    for one, l in zip(own, at, strict=True):  # noqa: E741
        free[np.abs(outputs - l).argmin(), np.abs(np.log(rate / one)).argmin()] = False
    present = np.unique(codes).tolist()
    for code in present:
        regions, count = connected(codes == code)
        for region in range(1, count + 1):
            _name(axes, (regions == region) & free, rate, outputs, known[code])
    return [known[code] for code in present]


def _name(axes: Axes, inside: Array, rate: Array, outputs: Array, names: tuple[str, ...]) -> None:
    """Write the phases of a region (map_outputs, map_rate) where it is widest, if it is wide enough; words are broad."""
    depth = distance_transform_edt(np.pad(inside, 1), sampling=(1, 0.6))[1:-1, 1:-1]
    row, column = np.unravel_index(depth.argmax(), depth.shape)
    if depth[row, column] > 0.06 * len(rate):
        box = {"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": "none", "alpha": 0.75}
        text = "\n".join(names) or "none"
        axes.text(rate[column], outputs[row], text, ha="center", va="center", fontsize=6.5, bbox=box, zorder=5)


def _codes(here: Dataset) -> Array:
    """Which of `_REGIMES` each parameter set is in, (map_outputs, map_rate)."""
    flags = {phase: here[f"map_{phase}"].values for phase in ("constant", "fall", "rise")}
    codes = np.zeros(here.map_rise.shape, int)
    for code, names in enumerate(_REGIMES):
        codes[np.all([flags[phase] == (phase in names) for phase in flags], axis=0)] = code
    return codes


def _edges(axes: Axes, here: Dataset) -> None:
    for name, look in _BOUNDARIES.items():
        axes.plot(here[name].values, here.map_outputs.values, color=BLACK, linewidth=1, zorder=3, **look)


def _map_rows(here: Dataset, noise: float, strength: float) -> list[Row]:
    """A row for every parameter set; whether step 1 is near the first minimum where the decoder reads exactly."""
    names, known = {"noise": noise, "strength": strength}, list(map(_named, _REGIMES))
    resolved = here.map_resolved.values.astype(int)
    return [
        {**names, "outputs": l, "rate": rate, "phases": known[code]} | ({} if noise else {"resolved": int(near)})
        for l, line, line_near in zip(here.map_outputs.values.tolist(), _codes(here), resolved, strict=True)  # noqa: E741
        for rate, code, near in zip(here.map_rate.values.tolist(), line, line_near, strict=True)
    ]


def _edge_rows(solved: Dataset) -> list[Row]:
    return [
        {"strength": strength, "outputs": outputs, "boundary": name, "rate": value}
        for name in _BOUNDARIES
        for strength, line in zip(solved.strength.values.tolist(), solved[name].values.tolist(), strict=True)
        for outputs, value in zip(solved.map_outputs.values.tolist(), line, strict=True)
        if math.isfinite(value)
    ]


def _named(names: tuple[str, ...]) -> str:
    return ", ".join(names) or "no phase"


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
        heading(axes, f"k = {strength:g}", "slopes: " + ", ".join(f"{slope:.2f}" for slope in slopes).replace("-", "−"))
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel("classes $l$")
        axes.set_ylabel("$R$")
    handles = [Line2D([], [], **_look(place), label=words) for place, (words, _) in enumerate(_SCALED.values())]
    legend(figure, [*handles, Line2D([], [], **BASELINE, label="$1/l$ and $1/l^2$")])
    return Drawing("theory-scaling", figure, rows)


def _slope(outputs: Array, values: Sequence[float]) -> float:
    """Of log R over log l between the last two points."""
    return float(np.diff(np.log(values[-2:]))[0] / np.diff(np.log(outputs[-2:]))[0])


def _look(place: int) -> dict[str, Any]:
    """Colour and marker of the line at a place of a family."""
    return {"color": COLOURS[place % len(COLOURS)], "marker": _MARKERS[place % len(_MARKERS)]}
