"""Decoders side by side, and how far from the end of their training those that are trained have come."""

import itertools
import math
from collections.abc import Mapping
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator
from xarray import DataArray, Dataset

from phasescope.figures.drawing import Curve, Drawing, Results, Row, known, level, named
from phasescope.figures.layout import BASELINE, heading, label, legend, side_by_side, taps
from phasescope.figures.style import decoder_styles, step_axis, style

#: Below this the axis of distances is linear, for a distance may be zero: a tenth of a per cent.
_LINEAR = 1e-3


@style()
def decoders(results: Mapping[str, Results]) -> Drawing:
    """Test loss of every decoder beside that of the mean input: a panel per run and tap, runs on lines of their own.

    A decoder is left out where it was not asked for.

    Args:
        results: runs with more than one decoder.
    """
    figure, groups = side_by_side([result.decode.sizes["layer"] for result in results.values()], (1.5,), abreast=4)
    looks = decoder_styles(str(name) for result in results.values() for name in result.decode.decoder.values)
    rows: list[Row] = []
    for (run, result), stacks in zip(results.items(), groups, strict=True):
        losses = result.decode.test_mse
        for layer, (axes,) in zip(losses.layer.values.tolist(), stacks, strict=True):
            for decoder in known(losses.sel(layer=layer), "decoder"):
                loss = Curve.of(losses.sel(layer=layer, decoder=decoder))
                loss.draw(axes, rows, named(run, layer, "loss", decoder=decoder), **looks[decoder])
            level(axes, rows, named(run, "mean input", "loss"), float(result.decode.baseline_mse), **BASELINE)
            heading(axes, run if axes is stacks[0][0] else "", layer)
            step_axis(axes, losses.step.values, labels=4)
        label(stacks, ("loss (MSE)",))
    handles = [Line2D([], [], **look, label=decoder) for decoder, look in looks.items()]
    legend(figure, [*handles, Line2D([], [], **BASELINE, label="mean input")])
    return Drawing("decoders", figure, rows)


@style()
def convergence(results: Mapping[str, Results]) -> Drawing:
    """How far from the end of their training the trained decoders are: two panels per run and trained decoder.

    Left: the training loss of each epoch, a line per step, of the first seed and the first tap that was decoded.
    Right: the distance to the exact optimum at each step, train_mse/optimum_mse - 1. Where no optimum is known,
    the share by which the training loss still fell in the last epoch, 1 - last/previous, is a sign of it.
    The rows hold both for all seeds and taps.

    Args:
        results: runs with trained decoders.
    """
    found = {run: trained(result.decode) for run, result in results.items()}
    figure, groups = side_by_side([2 * len(of_run) for of_run in found.values()], (1.5,), abreast=4)
    steps = sorted({step for result in results.values() for step in result.decode.step.values.tolist()})
    scale = mpl.colormaps["cividis"].resampled(len(steps))
    colours = {step: scale(place) for place, step in enumerate(steps)}
    looks, handles = taps(results)
    rows: list[Row] = []
    for (run, of_run), stacks in zip(found.items(), groups, strict=True):
        panels = [axes for (axes,) in stacks]
        for decoder, left, right in zip(of_run, panels[::2], panels[1::2], strict=True):
            decode = results[run].decode.sel(decoder=decoder)
            layers = known(decode.epoch_mse, "layer")
            shown = decode.epoch_mse.isel(seed=0).sel(layer=layers[0])
            rows += _long(decode.epoch_mse, named(run, "", "epoch loss", decoder=decoder))
            _epochs(left, shown, colours)
            heading(left, run if left is panels[0] else "", f"{decoder}, {layers[0]}")
            quantity, distance = _distance(decode)
            rows += _long(distance, named(run, "", quantity, decoder=decoder))
            for layer in layers:
                curve = Curve.of(distance.sel(layer=layer))
                curve.draw(right, rows, named(run, layer, quantity, decoder=decoder), **looks[layer])
            _share_axis(right, f"{quantity} (%)")
            step_axis(right, decode.step.values, labels=4)
            right.set_xlabel("iteration")
    handles += [
        Line2D([], [], color=colours[step], label=f"iteration {step}") for step in steps[:: math.ceil(len(steps) / 6)]
    ]
    legend(figure, handles)
    return Drawing("convergence", figure, rows)


def trained(decode: Dataset) -> list[str]:
    """The decoders whose training is recorded."""
    return known(decode.epoch_mse, "decoder") if "epoch_mse" in decode else []


def _distance(decode: Dataset) -> tuple[str, DataArray]:
    """What tells how far a decoder is from the end of its training, and its name: (seed, step, layer)."""
    if "excess" in decode and decode.excess.notnull().any():
        return "above the optimum", decode.excess
    # NaN after a single epoch.
    return "fall in last epoch", 1 - (decode.epoch_mse / decode.epoch_mse.shift(epoch=1)).isel(epoch=-1)


def _epochs(axes: Axes, losses: DataArray, colours: Mapping[int, Any]) -> None:
    """Draw training losses (step, epoch), each step in its colour."""
    epochs = range(1, losses.sizes["epoch"] + 1)
    for step in losses.step.values.tolist():
        axes.plot(epochs, losses.sel(step=step).values, color=colours[step], linewidth=0.9)
    axes.set_xlabel("epoch (first seed)")
    axes.set_ylabel("training loss (MSE)")
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))


def _share_axis(axes: Axes, label: str) -> None:
    """A logarithmic axis of shares, from 0 to a power of ten, as per cent; linear near 0."""
    low, high = axes.dataLim.y0, axes.dataLim.y1
    axes.set_yscale("symlog", linthresh=_LINEAR, linscale=0.5)
    axes.set_ylim(min(0, low), 10 ** math.ceil(math.log10(max(high, 10 * _LINEAR))))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g}"))
    axes.set_ylabel(label)


def _long(values: DataArray, names: Row) -> list[Row]:
    """A row for every finite number of ``values``."""
    labels = [values[dim].values.tolist() for dim in values.dims]
    return [
        {**names, **dict(zip(map(str, values.dims), place, strict=True)), "value": value}
        for place, value in zip(itertools.product(*labels), values.values.ravel().tolist(), strict=True)
        if math.isfinite(value)
    ]
