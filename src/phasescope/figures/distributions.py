"""Figure 4 of Schneider & Prabhushankar (2024): class-conditional distributions of single features."""

import math
from collections.abc import Iterator, Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, NullFormatter
from xarray import DataArray, Dataset

from phasescope.figures.drawing import Curve, Drawing, Results, Row, named
from phasescope.figures.layout import heading, legend, taps
from phasescope.figures.style import NAMED_CLASSES, PAGE, Array, class_styles, step_axis, style
from phasescope.params.figures import FiguresSettings

#: Columns of Figure 4 where the settings name none.
_COLUMNS = 5
#: Points of a line in Figure 4: finer bins are averaged, they would only show noise in a panel an inch wide.
_POINTS = 20

_QUANTITIES = {
    "zero_fraction": "share of zeros",
    "selectivity": "class selectivity",
    "class_variance": "class variance",
    "js_divergence": "JS divergence (bit)",
}


@style()
def figure_4(run: str, distributions: Dataset, settings: FiguresSettings) -> Drawing:
    """Distribution of single features in every class: a row per feature, a column per step, a line per class.

    Of the first seed and the tap ``settings.features``. Densities are on a logarithmic axis, without a point
    where a bin is empty. They leave out exact zeros, whose share P(0) stands above each panel. More classes than
    lines can tell apart are a map each panel, its height the class, its colour the density, white where it is zero.

    Args:
        run: name of the run.
        distributions: ``density`` (seed, layer, row, step, class, bin), ``zero`` (seed, layer, row, step,
            class), ``edge`` (seed, layer, row, end), and ``feature_index`` (seed, layer, row), negative or
            NaN where a layer has fewer rows; its attribute ``fixed`` lists the features that were not chosen
            for being selective.
        settings: the tap and the columns.
    """
    shown = distributions.isel(seed=0).sel(layer=settings.features)
    shown = shown.isel(row=np.flatnonzero(shown.feature_index.values >= 0))
    shown = shown.sel(step=_columns(shown.step.values, settings.columns))
    seed = int(shown.seed)
    features, steps = shown.feature_index.values.astype(int).tolist(), shown.step.values.tolist()
    fixed = np.atleast_1d(distributions.feature_index.attrs["fixed"])
    classes = [str(name) for name in shown["class"].values]
    edges = shown.edge.transpose("row", "end").values
    middles = DataArray((edges[:, :-1] + edges[:, 1:]) / 2, dims=("row", "bin"))
    merged = math.ceil(shown.sizes["bin"] / _POINTS)
    centres = middles.coarsen(bin=merged, boundary="pad").mean().values
    ends = np.column_stack([edges[:, :-1:merged], edges[:, -1]])
    density = shown.density.coarsen(bin=merged, boundary="pad").mean()
    density = density.transpose("row", "step", "class", "bin").values
    zero = shown.zero.transpose("row", "step", "class").values

    width = 0.6 + (PAGE - 0.6) / _COLUMNS * len(steps)
    figure = Figure(figsize=(max(3.6, width), 1.3 + 1.1 * len(features)))
    panels = figure.subplots(len(features), len(steps), squeeze=False, sharex="row", sharey="row")
    rows: list[Row] = []
    mapped = len(classes) > NAMED_CLASSES
    for row, feature in enumerate(features):
        for column, step in enumerate(steps):
            labels = {"run": run, "layer": settings.features, "seed": seed, "feature": feature, "step": step}
            rows += _rows(centres[row], density[row, column], zero[row, column], classes, labels)
            share = zero[row, column]
            panels[row, column].set_title(f"P(0) {np.nanmin(share):.2f}–{np.nanmax(share):.2f}", fontsize=7, pad=3)
            panels[row, column].xaxis.set_major_locator(MaxNLocator(3))
        panels[row, 0].set_ylabel(f"feature {feature}\n{'fixed' if feature in fixed else 'selective'}")
        if mapped:
            _maps(figure, panels[row].tolist(), ends[row], density[row])
        else:
            _lines(panels[row].tolist(), centres[row], density[row])
    for axes, step in zip(panels[0], steps, strict=True):
        axes.set_title(f"iteration {step}\n{axes.get_title()}", fontsize=7)
    figure.supxlabel(
        f"activation of {settings.features} ({run}, seed {seed})\n"
        "P(0): share of exact zeros, lowest to highest of any class",
        fontsize=8,
    )
    figure.supylabel("class" if mapped else "density", fontsize=8)
    if not mapped:
        named = zip(classes, class_styles(len(classes)), strict=True)
        legend(figure, [Line2D([], [], **look, label=f"class {name}") for name, look in named])
    return Drawing(f"figure-4-{run}", figure, [row for row in rows if math.isfinite(row["value"])])


def _rows(centres: Array, density: Array, zero: Array, classes: list[str], labels: Row) -> Iterator[Row]:
    """The numbers of a panel: ``density`` (class, point) at ``centres``, and the share ``zero`` (class)."""
    points = centres.tolist()
    for name, line, share in zip(classes, density.tolist(), zero.tolist(), strict=True):
        named = {**labels, "class": name}
        yield {**named, "quantity": "share of zeros", "activation": 0.0, "value": share}
        for point, value in zip(points, line, strict=True):
            yield {**named, "quantity": "density", "activation": point, "value": value}


def _lines(panels: list[Axes], centres: Array, density: Array) -> None:
    """Draw ``density`` (step, class, point) over ``centres``, a line per class."""
    for axes, of_step in zip(panels, density, strict=True):
        for look, line in zip(class_styles(len(of_step)), of_step, strict=True):
            axes.plot(centres, line, linewidth=0.9, marker=".", markersize=2, **look)
    positive = density[density > 0]
    if positive.size:  # a feature may be zero wherever one looks
        for axes in panels:
            axes.set_yscale("log", nonpositive="mask")
            axes.yaxis.set_minor_formatter(NullFormatter())
        panels[0].set_ylim(positive.min() / 1.5, positive.max() * 1.5)


def _maps(figure: Figure, panels: list[Axes], ends: Array, density: Array) -> None:
    """Draw ``density`` (step, class, bin) between the ``ends`` of bins, (bin + 1), classes above each other."""
    classes = np.arange(density.shape[1] + 1) - 0.5
    positive = density[density > 0]
    # A feature may be zero wherever one looks.
    norm = LogNorm(positive.min() / 1.5, positive.max() * 1.5) if positive.size else None
    for axes, of_step in zip(panels, density, strict=True):
        axes.grid(False)
        filled = np.ma.masked_where(~(of_step > 0), of_step)
        mesh = axes.pcolormesh(ends, classes, filled, norm=norm, cmap="cividis_r", rasterized=True)
        axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    if positive.size:
        scale = figure.colorbar(mesh, ax=panels, label="density", aspect=12, pad=0.02)
        scale.ax.yaxis.set_minor_formatter(NullFormatter())


def _columns(kept: Array, asked: list[int] | None) -> list[int]:
    """Some of the ``kept`` steps: evenly spread, or those nearest on a logarithmic axis to those asked for."""
    if asked is None:
        places = np.linspace(0, len(kept) - 1, min(_COLUMNS, len(kept))).round().astype(int)
    else:
        distances = np.abs(np.log2(kept + 1) - np.log2(np.array(asked) + 1)[:, None])
        places = np.unique(distances.argmin(axis=1))
    return [int(step) for step in kept[places]]


@style()
def statistics(results: Mapping[str, Results]) -> Drawing:
    """How far features tell classes apart, of every tap over steps: a row per run with distributions.

    Dotted: the Jensen–Shannon divergence of shuffled labels, which is the bias of the other.
    """
    measured = {run: result.distributions for run, result in results.items() if result.distributions is not None}
    figure = Figure(figsize=(PAGE, 0.6 + 1.5 * len(measured)))
    panels = figure.subplots(len(measured), len(_QUANTITIES), squeeze=False)
    looks, handles = taps(results)
    rows: list[Row] = []
    for (run, values), beside in zip(measured.items(), panels, strict=True):
        heading(beside[0], run)
        for axes, (quantity, label) in zip(beside, _QUANTITIES.items(), strict=True):
            for layer in values.layer.values.tolist():
                curve = Curve.of(values[quantity].sel(layer=layer))
                curve.draw(axes, rows, named(run, layer, quantity), **looks[layer])
            for layer in values.layer.values.tolist() if quantity == "js_divergence" else []:
                bias = f"{quantity}_shuffled"
                look = {**looks[layer], "linestyle": ":", "marker": ""}
                Curve.of(values[bias].sel(layer=layer)).draw(axes, rows, named(run, layer, bias), **look)
            step_axis(axes, values.step.values, labels=4)
            axes.set_ylabel(label)
    for axes in panels[-1]:
        axes.set_xlabel("iteration")
    shuffled = Line2D([], [], color="black", linestyle=":", label="shuffled labels")
    legend(figure, [*handles, shuffled])
    return Drawing("distributions", figure, rows)
