"""Stream a run's activations through a measure in batches of cells, in bounded memory.

A cell is one (seed, step, layer). A measure is a pure function of the activations of several cells of one layer,
(seed, step, sample, feature), and of what is known of the samples; it returns a Dataset on (seed, step).
"""

import itertools
from collections.abc import Callable, Iterator

import numpy as np
import xarray as xr

from phasescope.data.dataset import standardised
from phasescope.measures.samples import Samples
from phasescope.progress import Progress
from phasescope.store.arrays import load
from phasescope.store.datasets import read_dataset
from phasescope.store.run import StoredRun

#: Bytes of stored activations that are read at once; at least one cell.
BATCH_BYTES = 256 << 20

Measure = Callable[[xr.DataArray, Samples], xr.Dataset]


def samples_of(run: StoredRun) -> Samples:
    """What is known of the samples whose activations a run keeps.

    Raises:
        StoreError: the dataset is absent or damaged, or not the one that the activations were taken of.
    """
    dataset = read_dataset(run.dataset, run.dataset_digest)
    kept = run.recorded["index"].values
    return Samples(
        inputs=standardised(dataset, kept).reshape(len(kept), -1),
        labels=dataset.labels[kept],
        train=dataset.train[kept],
        classes=len(dataset.classes),
    )


def batches(activations: xr.DataArray, limit: int = BATCH_BYTES) -> Iterator[xr.DataArray]:
    """The activations of one layer in batches of cells, each in memory: one seed, as many steps as fit into `limit`."""
    seeds, steps, samples, features = activations.shape
    cell = samples * features * activations.dtype.itemsize
    length = max(1, limit // cell)
    for seed in range(seeds):
        for first in range(0, steps, length):
            batch = activations.isel(seed=[seed], step=slice(first, first + length))
            yield load(
                batch,
                f"activations of {activations.name} of seed {batch.seed.item()}, steps from {batch.step[0].item()}",
            )


def measure(run: StoredRun, function: Measure, samples: Samples, label: str) -> xr.Dataset:
    """The measure of every cell of a run: a Dataset on (seed, step, layer), layers in the order of the taps."""
    layers = []
    cells = run.recorded.sizes["seed"] * run.recorded.sizes["step"]
    with Progress([f"{label} {tap}" for tap in run.taps], cells) as progress:
        for index, tap in enumerate(run.taps):
            parts, done = [], 0
            for batch in batches(run.activations(tap)):
                parts.append(function(batch, samples))
                done += batch.sizes["seed"] * batch.sizes["step"]
                progress.update(index, done)
            layers.append(_joined(parts))
    names = xr.DataArray(np.array(run.taps, dtype=object), dims="layer", attrs={"long_name": "tap"})
    varying = [name for name, variable in layers[0].data_vars.items() if "step" in variable.dims]
    joined = xr.concat([layer[varying] for layer in layers], dim=names, combine_attrs="override")
    # What does not depend on the cell, such as a baseline, is the same in every layer.
    fixed = layers[0].drop_vars(varying)
    result = xr.merge(
        [joined.transpose("seed", "step", "layer", ...), fixed],
        combine_attrs="override",
        join="exact",
        compat="equals",
    )
    return result.assign_coords(layer=names)


def _joined(parts: list[xr.Dataset]) -> xr.Dataset:
    """Batches, in the order of `batches`, back on (seed, step)."""
    seeds = [list(group) for _, group in itertools.groupby(parts, key=lambda part: int(part["seed"].item()))]
    rows = [
        xr.concat(steps, "step", data_vars="minimal", coords="minimal", compat="equals", join="exact")
        for steps in seeds
    ]
    return xr.concat(rows, "seed", data_vars="minimal", coords="minimal", compat="equals", join="exact")
