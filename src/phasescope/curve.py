"""The curves of one layer of a run as numbers: a row for every step."""

from collections.abc import Mapping

import numpy as np
import xarray as xr
from rich import box
from rich.table import Table
from xarray import DataArray, Dataset


def curves(measures: Mapping[str, Dataset], layer: str) -> dict[str, DataArray]:
    """What was measured of a layer, (seed, step) each, by what the columns of a table are to be called.

    Args:
        measures: of the run, by name, those that there are of `decode`, `probe` and `transfer-<dataset>`, each of the
            steps and layers that it knows.
        layer: the tap.
    """
    measures = {name: measure for name, measure in measures.items() if layer in measure.layer}
    found: dict[str, DataArray] = {}
    if "decode" in measures:
        losses = measures["decode"].test_mse.sel(layer=layer)
        found |= {f"loss,\n{decoder}": losses.sel(decoder=decoder) for decoder in losses.decoder.values}
    if "probe" in measures:
        probe = measures["probe"]
        found["accuracy,\nnetwork"] = probe.network_accuracy
        accuracy = probe.accuracy.sel(layer=layer)
        found |= {f"accuracy,\n{name}": accuracy.sel(classifier=name) for name in accuracy.classifier.values}
    for name, transfer in measures.items():
        if name.startswith("transfer-"):
            accuracy = transfer.accuracy.sel(layer=layer)
            found |= {
                f"{name.removeprefix('transfer-')},\n{label},\n{classifier}": accuracy.sel(
                    label=label, classifier=classifier
                )
                for label in accuracy.label.values
                for classifier in accuracy.classifier.values
            }
    return {name: values for name, values in found.items() if values.notnull().any()}


def table(found: Mapping[str, DataArray]) -> Table:
    """Means over seeds, ± the standard deviation where there are several."""
    shown = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    shown.add_column("step", justify="right")
    for name in found:
        shown.add_column(name, justify="right", no_wrap=True)
    # After part of the pipeline ran, not all measures know the same steps and seeds.
    columns = xr.align(*found.values(), join="outer")
    seeds = columns[0].sizes["seed"]
    for step in columns[0].step.values.tolist():
        shown.add_row(str(step), *(_number(values.sel(step=step).values) for values in columns))
    shown.caption = f"n = {seeds} seed{'s: mean ± standard deviation' if seeds > 1 else ''}"
    return shown


def _number(values: np.ndarray) -> str:
    if not np.isfinite(values).all():
        return "–"
    return f"{values.mean():.4f}" + (f" ±{values.std(ddof=1):.4f}" if len(values) > 1 else "")
