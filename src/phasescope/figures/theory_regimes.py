"""A map of the feature-strength model: which phases there are at what learning rate, for how many classes."""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from scipy.ndimage import distance_transform_edt
from scipy.ndimage import label as connected
from xarray import Dataset

from phasescope.figures.drawing import Drawing, Row
from phasescope.figures.layout import heading, legend
from phasescope.figures.style import BLACK, GREY, PAGE, Array, style

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
    patches = [
        Patch(facecolor=_REGIMES[found], edgecolor=GREY, label=_named(found)) for found in sorted(present, key=len)
    ]
    hatched = Patch(
        facecolor="white", edgecolor=_HATCH, hatch="\\\\\\\\", label="hatched: step 1 near the first minimum"
    )
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
        hatched = axes.contourf(rate, outputs, mask, levels=[0.5, 1.5], colors="none", hatches=["\\\\"])
        hatched.set_edgecolor(_HATCH)
        hatched.set_linewidth(0)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(rate[0], rate[-1])
    axes.set_ylim(outputs[0], outputs[-1])
    axes.grid(visible=False)
    free = np.ones(codes.shape, bool)
    for one, classes in zip(own, at, strict=True):
        free[np.abs(outputs - classes).argmin(), np.abs(np.log(rate / one)).argmin()] = False
    present = np.unique(codes).tolist()
    for code in present:
        regions, count = connected(codes == code)
        for region in range(1, count + 1):
            _name(axes, (regions == region) & free, rate, outputs, known[code])
    return [known[code] for code in present]


def _name(axes: Axes, inside: Array, rate: Array, outputs: Array, names: tuple[str, ...]) -> None:
    """Write the phases of a region (map_outputs, map_rate) in the middle of its widest part, if there is room."""
    words = names or ("no phase",)
    # Half of what the words take, in inches, and of what a parameter set takes of the panel.
    height, width = 0.03 + 0.05 * len(words), 0.04 + 0.024 * max(map(len, words))
    parts = np.array(axes.bbox.size)[::-1] / axes.figure.dpi / inside.shape
    room = distance_transform_edt(np.pad(inside, 1), sampling=parts / np.array([height, width]))[1:-1, 1:-1]
    row, column = np.unravel_index(room.argmax(), room.shape)
    if room[row, column] > 1:
        box = {"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": "none", "alpha": 0.75}
        text = "\n".join(words)
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
    outputs, rates, resolved = (here[name].values.tolist() for name in ("map_outputs", "map_rate", "map_resolved"))
    return [
        {**names, "outputs": outputs[line], "rate": rates[place], "phases": known[code]}
        | ({} if noise else {"resolved": int(resolved[line][place])})
        for (line, place), code in np.ndenumerate(_codes(here))
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
