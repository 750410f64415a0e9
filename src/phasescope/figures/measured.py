"""Measures of the user's own over training."""

from collections.abc import Mapping

from phasescope.figures.drawing import Curve, Drawing, Results, Row, named
from phasescope.figures.layout import heading, label, legend, side_by_side, taps
from phasescope.figures.style import step_axis, style


@style()
def measures(results: Mapping[str, Results]) -> Drawing:
    """Every number of every measure of the user's own: a panel each, a line for each tap."""
    panels = [
        (run, name, quantity)
        for run, result in results.items()
        for name, measured in result.measured.items()
        for quantity in map(str, measured.data_vars)
    ]
    figure, (stacks,) = side_by_side([len(panels)], heights=(1.8,))
    looks, handles = taps({run: results[run] for run, _, _ in panels})
    rows: list[Row] = []
    for (run, name, quantity), (axes,) in zip(panels, stacks, strict=True):
        values = results[run].measured[name][quantity]
        for tap in values.layer.values.tolist():
            curve = Curve.of(values.sel(layer=tap))
            curve.draw(axes, rows, named(run, tap, quantity, measure=name), **looks[tap])
        heading(axes, f"{run}: {name}", quantity)
        step_axis(axes, values.step.values)
    label(stacks, ("",))
    legend(figure, handles)
    return Drawing("measures", figure, rows)
