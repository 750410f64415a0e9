"""Figures of the two-layer linear network: alignment over time, phases over exponents, and mechanisms."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm, ListedColormap, LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from xarray import Dataset

from phasescope.figures.drawing import Drawing, Row
from phasescope.figures.layout import heading, legend
from phasescope.figures.style import BLACK, COLOURS, GREY, PAGE, step_axis, style
from phasescope.theory.linear_network.scaling import Exponents, reduced
from phasescope.theory.mechanisms import mechanisms

#: Marker of each activation and points across, for those that lie on each other.
_MARKERS = (("o", 4.5), ("s", 8), ("^", 4.5), ("D", 5.5), ("v", 3))
_DIVERGED, _STILL = "#8c8c8c", "#e2e2e2"
#: Phases that are regions, and their colours.
_PHASES = {
    ("frozen", "kernel"): "#e6f0f8",
    ("frozen", "rich"): "#fbeedb",
    ("unstable", "kernel"): "#a9cbe4",
    ("unstable", "rich"): "#eec48c",
}
#: What the regions are called, and where.
_NAMES = (
    ("frozen\nkernel", 0.72, 1.2),
    ("frozen\nrich", 1.5, 0.8),
    ("unstable\nkernel", 0.35, -0.27),
    ("unstable\nrich", 1.5, -0.27),
)
#: Mechanisms that may be there together, and their colours.
_MECHANISMS = {
    (): "#ffffff",
    ("alignment",): "#8fc1e0",
    ("alignment", "rescaling"): "#cfe3c4",
    ("rescaling",): "#f2e6a8",
    ("disalignment", "rescaling"): "#f0c9a0",
    ("disalignment",): "#dd8f5a",
}


def draw(solved: Dataset) -> Iterator[Drawing]:
    """Yield every figure of the linear network.

    Args:
        solved: what `phasescope.solve.linear_network` gives.
    """
    yield alignment(solved)
    yield phases(solved)
    yield mechanism_map(solved)


@style()
def alignment(solved: Dataset) -> Drawing:
    """Alignment and norms of trained networks over steps, and the closed form as lines: small and large weights.

    The line of an activation is that of the linear network with the output scale times its mean slope m.
    """
    figure = Figure(figsize=(PAGE, 4.3))
    panels = figure.subplots(2, solved.sizes["initialisation"], squeeze=False, sharex=True, height_ratios=(1.6, 1))
    rows: list[Row] = []
    looks: dict[str, dict[str, Any]] = {
        activation: {"color": colour, "marker": marker, "markersize": across, "markerfacecolor": "none"}
        for activation, colour, (marker, across) in zip(
            solved.activation.values.tolist(), COLOURS, _MARKERS, strict=False
        )
    }
    for column, initialisation in enumerate(solved.initialisation.values.tolist()):
        here = solved.sel(initialisation=initialisation)
        for axes, quantity in zip(panels[:, column], ("alignment", "norm"), strict=True):
            for activation, look in looks.items():
                _course(axes, here.sel(activation=activation), quantity, look, rows)
            step_axis(axes, solved.step.values)
        low = min(0.0, float(here.trained_alignment.min()), float(here.theory_alignment.min()))
        panels[0, column].set_ylim(low - 0.05, 1.05)
        panels[0, column].set_ylabel("alignment ζ")
        panels[1, column].set_ylabel("$|u||w|$ over its start")
        panels[1, column].set_xlabel("iteration")
        first = here.isel(activation=0)
        words = f"closed form ({first.activation.values}): {_mechanisms(first)}"
        heading(panels[0, column], f"{initialisation} initial weights", words)
    points = [
        Line2D([], [], linestyle="", **look, label=f"{name} (m = {slope:.3g})")
        for (name, look), slope in zip(looks.items(), solved.mean_slope.values.tolist(), strict=True)
    ]
    legend(figure, [*points, Line2D([], [], color=GREY, linewidth=1, label="closed form with γ·m")])
    return Drawing("linear-network-alignment", figure, rows)


def _course(axes: Axes, here: Dataset, quantity: str, look: dict[str, Any], rows: list[Row]) -> None:
    """Points and line of one activation."""
    names = {"initialisation": str(here.initialisation.values), "activation": str(here.activation.values)}
    for source, over in (("theory", "time"), ("trained", "step")):
        at, values = here[over].values, here[f"{source}_{quantity}"].values
        values = values / values[0] if quantity == "norm" else values
        if source == "theory":
            axes.plot(at, values, color=GREY, linewidth=1, zorder=1)
        else:
            axes.plot(at, values, linestyle="", clip_on=False, **look)
        rows += [
            {**names, "quantity": quantity, "source": source, "step": step, "value": value}
            for step, value in zip(at.tolist(), values.tolist(), strict=True)
            if math.isfinite(value)
        ]


def _mechanisms(one: Dataset) -> str:
    """Which mechanisms a closed form shows, in words."""
    given = one.theory_alignment.values, one.theory_norm.values, one.theory_kernel.values
    found = mechanisms(*given, tolerance=float(one.attrs["tolerance"]))
    names = [name for name in ("alignment", "disalignment", "rescaling", "kernel") if getattr(found, name)]
    return ", ".join(names) or "none"


@style()
def phases(solved: Dataset) -> Drawing:
    """Phases over the two exponents that count, with parametrisations; and networks trained there.

    To the left the theory; to the right K/K(0) of networks of a finite width after some steps of gradient descent.
    """
    figure = Figure(figsize=(PAGE, 3.7))
    left, right = figure.subplots(1, 2, sharex=True, sharey=True)
    scale, rate = solved.map_scale.values, solved.map_rate.values
    _theory(left, solved)
    rows = _phase_rows(solved) + _parametrisations(left, solved)
    width, steps = solved.attrs["map_width"], solved.attrs["map_steps"]
    kernel, learned = solved.map_kernel.values, np.abs(solved.map_missing.values) < 0.5
    still = np.where(np.isfinite(kernel) & ~learned, 1.0, np.nan)
    right.set_facecolor(_DIVERGED)
    right.pcolormesh(scale, rate, still, cmap=ListedColormap([_STILL]), shading="nearest", rasterized=True)
    shown, norm = np.where(learned, kernel, np.nan), LogNorm(1, max(float(width), 10))
    mesh = right.pcolormesh(scale, rate, shown, norm=norm, cmap="cividis", shading="nearest", rasterized=True)
    figure.colorbar(mesh, ax=right, label=f"$K/K(0)$ after {steps} steps", shrink=0.9)
    heading(left, "theory, $d$ → ∞")
    units = f"{width:,}".replace(",", "\u2009")
    heading(right, f"trained, $d$ = {units}")
    for axes in (left, right):
        axes.plot(scale, np.maximum(0, 1 - scale), color=BLACK, linewidth=1.2)
        axes.axvline(1, color=BLACK, linewidth=1, linestyle="--")
        axes.set_xlim(scale[0], scale[-1])
        axes.set_ylim(rate[0], rate[-1])
        axes.grid(visible=False)
        axes.set_xlabel("$X$:  output scale × variance of weights ~ $d^{-X}$")
    left.set_ylabel("$Y$:  output scale × learning rate ~ $d^{-Y}$")
    lines = [
        Line2D([], [], color=BLACK, linewidth=1.2, label="$D$ ~ 1: trains"),
        Line2D([], [], color=BLACK, linewidth=1, linestyle="--", label="ρ ~ 1: features"),
    ]
    patches = [
        Patch(facecolor=_STILL, edgecolor=GREY, label="error above half of the first"),
        Patch(facecolor=_DIVERGED, edgecolor=GREY, label="diverged"),
    ]
    legend(figure, [*lines, *patches])
    return Drawing("linear-network-phases", figure, rows)


def _theory(axes: Axes, solved: Dataset) -> None:
    """Colour every point by its phases, and name the regions."""
    codes = np.zeros(solved.map_training.shape)
    for code, (training, learning) in enumerate(_PHASES, start=1):
        codes[(solved.map_training.values == training) & (solved.map_learning.values == learning)] = code
    colours = ListedColormap(["#ffffff", *_PHASES.values()])
    norm = BoundaryNorm(np.arange(len(_PHASES) + 2) - 0.5, len(_PHASES) + 1)
    places = solved.map_scale.values, solved.map_rate.values
    axes.pcolormesh(*places, codes, cmap=colours, norm=norm, shading="nearest", rasterized=True)
    for text, x, y in _NAMES:
        axes.text(x, y, text, ha="center", va="center", fontsize=7, color="#404040", linespacing=1.3)


def _parametrisations(axes: Axes, solved: Dataset) -> list[Row]:
    """A point for each, named together where several are at the same."""
    together: dict[tuple[float, float], list[str]] = {}
    for name in solved.parametrisation.values.tolist():
        exponents = solved.exponent.sel(parametrisation=name)
        known = dict(zip(exponents["quantity"].values.tolist(), exponents.values, strict=True))
        place = reduced(Exponents(**known))
        together.setdefault((float(place.scale), float(place.rate)), []).append(name)
    for (x, y), names in together.items():
        axes.plot(x, y, "o", color=COLOURS[1], markersize=4.5, zorder=4, clip_on=False)
        # Clear of the lines: to the right where they end or meet, below the slope, and above the level one.
        if x in (0, 1):
            look, offset = {"ha": "left", "va": "bottom"}, (5, 4)
        elif x + y == 1:
            look, offset = {"ha": "right", "va": "top"}, (-4, -2)
        else:
            look, offset = {"ha": "center", "va": "bottom"}, (0, 5)
        text: dict[str, Any] = {"fontsize": 7, "fontweight": "bold", "zorder": 5, **look}
        axes.annotate("\n".join(names), (x, y), offset, textcoords="offset points", **text)
    return [
        {"quantity": "parametrisation", "parametrisation": name, "scale": x, "rate": y}
        for (x, y), names in together.items()
        for name in names
    ]


def _phase_rows(solved: Dataset) -> list[Row]:
    """A row for every point of the map; without numbers where descent diverges."""
    scale, rate = solved.map_scale.values.tolist(), solved.map_rate.values.tolist()
    return [
        {"quantity": "map", "scale": scale[column], "rate": rate[line]}
        | {name: str(solved[f"map_{name}"].values[line, column]) for name in ("training", "learning")}
        | ({"kernel": kernel, "missing": solved.map_missing.values[line, column]} if math.isfinite(kernel) else {})
        for (line, column), kernel in np.ndenumerate(solved.map_kernel.values)
    ]


@style()
def mechanism_map(solved: Dataset) -> Drawing:
    """Which mechanisms balanced layers learn by, over initial output and ρ in units of the target.

    The marks are where the linear networks of `alignment` begin.
    """
    figure = Figure(figsize=(4.6, 3.9))
    axes = figure.subplots()
    flags = {name: solved[f"map_{name}"].values for name in ("alignment", "disalignment", "rescaling")}
    codes = np.zeros(solved.map_alignment.shape, int)
    for code, there in enumerate(_MECHANISMS):
        codes[np.all([flags[name] == (name in there) for name in flags], axis=0)] = code
    colours = ListedColormap(list(_MECHANISMS.values()))
    norm = BoundaryNorm(np.arange(len(_MECHANISMS) + 1) - 0.5, len(_MECHANISMS))
    start, lazy = solved.map_start.values, solved.map_lazy.values
    axes.pcolormesh(start, lazy, codes, cmap=colours, norm=norm, shading="nearest", rasterized=True)
    kept = solved.map_kernel_kept.values
    hatched = axes.contourf(start, lazy, kept.astype(float), levels=[0.5, 1.5], colors="none", hatches=["////"])
    hatched.set_edgecolor(GREY)
    hatched.set_linewidth(0)
    rows: list[Row] = [
        {"quantity": "map", "start": start[column], "lazy": lazy[line]}
        | {name: int(values[line, column]) for name, values in (flags | {"kernel": kept}).items()}
        for line, column in np.ndindex(codes.shape)
    ]
    for initialisation, mark in zip(solved.initialisation.values.tolist(), ("x", "+"), strict=True):
        one = solved.sel(initialisation=initialisation).isel(activation=0)
        x, y = abs(float(one.start_ratio)), abs(float(one.lazy_ratio))
        axes.plot(x, y, mark, color=BLACK, markersize=6, zorder=4)
        text: dict[str, Any] = {"textcoords": "offset points", "fontsize": 7, "fontweight": "bold"}
        axes.annotate(f"{initialisation} weights", (x, y), (5, 3), **text)
        rows.append({"quantity": "network", "initialisation": initialisation, "start": x, "lazy": y})
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(start[0], start[-1])
    axes.set_ylim(lazy[0], lazy[-1])
    axes.set_xlabel("initial output over target, $|f(0)/b|$")
    axes.set_ylabel("scale of lazy learning over target, $\\rho/|b|$")
    axes.grid(visible=False)
    patches = [
        Patch(facecolor=colour, edgecolor=GREY, label=" and ".join(there) or "none")
        for there, colour in _MECHANISMS.items()
    ]
    legend(figure, [*patches, Patch(facecolor="white", edgecolor=GREY, hatch="////", label="the kernel stays")])
    return Drawing("linear-network-mechanisms", figure, rows)
