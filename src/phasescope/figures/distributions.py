"""Figure 4 of Schneider & Prabhushankar (2024): class-conditional distributions of single features."""

import math
from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
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
    where a bin is empty. They leave out exact zeros, whose share P(0) stands above each panel.

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
    merged = {"bin": math.ceil(shown.sizes["bin"] / _POINTS)}
    centres = middles.coarsen(merged, boundary="pad").mean().values
    density = shown.density.coarsen(merged, boundary="pad").mean()
    density = density.transpose("row", "step", "class", "bin").values
    zero = shown.zero.transpose("row", "step", "class").values

    width = 0.6 + (PAGE - 0.6) / _COLUMNS * len(steps)
    figure = Figure(figsize=(max(3.6, width), 1.3 + 1.1 * len(features)))
    panels = figure.subplots(len(features), len(steps), squeeze=False, sharex="row", sharey="row")
    rows: list[Row] = []
    for row, feature in enumerate(features):
        for column, step in enumerate(steps):
            labels = {"run": run, "layer": settings.features, "seed": seed, "feature": feature, "step": step}
            axes = panels[row, column]
            rows += _panel(axes, centres[row], density[row, column], zero[row, column], classes, labels)
        left = panels[row, 0]
        left.set_ylabel(f"feature {feature}\n{'fixed' if feature in fixed else 'selective'}")
        positive = density[row][density[row] > 0]
        if positive.size:  # a feature may be zero wherever one looks
            for axes in panels[row]:
                axes.set_yscale("log", nonpositive="mask")
                axes.yaxis.set_minor_formatter(NullFormatter())
            left.set_ylim(positive.min() / 1.5, positive.max() * 1.5)
    for axes, step in zip(panels[0], steps, strict=True):
        axes.set_title(f"iteration {step}\n{axes.get_title()}", fontsize=7)
    figure.supxlabel(
        f"activation of {settings.features} ({run}, seed {seed})\n"
        "P(0): share of exact zeros, lowest to highest of any class",
        fontsize=8,
    )
    figure.supylabel("density", fontsize=8)
    _name_classes(figure, panels.ravel().tolist(), classes)
    return Drawing(f"figure-4-{run}", figure, [row for row in rows if math.isfinite(row["value"])])


def _panel(axes: Axes, centres: Array, density: Array, zero: Array, classes: list[str], labels: Row) -> list[Row]:
    """Draw ``density`` (class, point) over ``centres``, with the range of ``zero`` (class) above it."""
    rows = []
    points = centres.tolist()
    for name, look, line, share in zip(
        classes, class_styles(len(classes)), density.tolist(), zero.tolist(), strict=True
    ):
        axes.plot(points, line, linewidth=0.9, marker=".", markersize=2, **look)
        named = {**labels, "class": name}
        rows.append({**named, "quantity": "share of zeros", "activation": 0.0, "value": share})
        rows += [
            {**named, "quantity": "density", "activation": point, "value": value}
            for point, value in zip(points, line, strict=True)
        ]
    axes.set_title(f"P(0) {np.nanmin(zero):.2f}–{np.nanmax(zero):.2f}", fontsize=7, pad=3)
    axes.xaxis.set_major_locator(MaxNLocator(3))
    return rows


def _name_classes(figure: Figure, panels: list[Axes], classes: list[str]) -> None:
    looks = class_styles(len(classes))
    if len(classes) <= NAMED_CLASSES:
        named = zip(classes, looks, strict=True)
        legend(figure, [Line2D([], [], **look, label=f"class {name}") for name, look in named])
    else:
        colours = ListedColormap([look["color"] for look in looks])
        scale = ScalarMappable(Normalize(-0.5, len(classes) - 0.5), colours)
        figure.colorbar(scale, ax=panels, label="class", aspect=60)


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
