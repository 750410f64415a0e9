"""Stream a run's activations through a measure in batches of cells, in bounded memory, and none of them twice.

A cell is one (seed, step, layer). A measure is a pure function of the activations of several cells of one layer,
(seed, step, sample, feature), and of what is known of the samples; it returns a Dataset on (seed, step). Measures of
cells that are in the cache are not computed again.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import xarray as xr

from phasescope.data.dataset import standardised
from phasescope.measures.samples import Samples
from phasescope.params.base import Section
from phasescope.progress import Progress, tell_computed
from phasescope.store.arrays import load
from phasescope.store.cache import CellCache
from phasescope.store.commit import fingerprint
from phasescope.store.datasets import read_dataset
from phasescope.store.run import StoredRun

#: Bytes of stored activations that are read at once; at least one cell.
BATCH_BYTES = 256 << 20


S = TypeVar("S", bound=Section)
#: What is known of the samples.
K = TypeVar("K")


@dataclass(frozen=True)
class Measured:
    """What was measured of all cells, and under which keys the parts of it are in the cache."""

    result: xr.Dataset  #: on (seed, step, layer), or (seed, layer) for what is measured over the steps
    cached: dict[str, dict[str, Any]]


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


def measure(
    run: StoredRun,
    name: str,
    function: Callable[[xr.DataArray, K, S], xr.Dataset],
    samples: K,
    settings: S,
    cache: CellCache,
) -> Measured:
    """The measure `name` of every cell of a run, on (seed, step, layer), layers in the order of the taps.

    `function` takes activations (seed, step, sample, feature) of one layer and returns a Dataset on (seed, step);
    variables without these dimensions, such as a baseline, must be the same for every layer.
    """
    shared = _shared(run, name, settings)
    seeds, steps = (run.recorded[dim].values for dim in ("seed", "step"))
    keys = np.empty((len(seeds), len(steps), len(run.taps)), dtype=object)
    parts = np.empty(keys.shape, dtype=object)
    computed = 0
    with Progress([f"{name} {run.name} {tap}" for tap in run.taps], len(seeds) * len(steps)) as progress:
        for layer, tap in enumerate(run.taps):
            activations = run.activations(tap)
            for seed, step in np.ndindex(len(seeds), len(steps)):
                keys[seed, step, layer] = fingerprint(shared, _address(run, tap, seed, step))
                parts[seed, step, layer] = cache.load(name, keys[seed, step, layer])
            missing = [cell for cell in np.ndindex(len(seeds), len(steps)) if parts[(*cell, layer)] is None]
            computed += len(missing)
            done = len(seeds) * len(steps) - len(missing)
            for batch, positions in batches(activations, missing):
                result = function(batch, samples, settings)
                fixed = [str(key) for key, value in result.data_vars.items() if "step" not in value.dims]
                for index, (seed, step) in enumerate(positions):
                    part = result.isel(seed=0, step=index).drop_vars(["seed", "step"]).assign_attrs(fixed=fixed)
                    cache.save(name, keys[seed, step, layer], part)
                    parts[seed, step, layer] = part
                done += len(positions)
                progress.update(layer, done)
            progress.update(layer, done)
    tell_computed(f"{name} {run.name}", computed, parts.size)
    return assembled(run, name, parts, keys, ("seed", "step", "layer"))


def measure_over_steps(
    run: StoredRun,
    name: str,
    function: Callable[[xr.DataArray, Samples, S], xr.Dataset],
    samples: Samples,
    settings: S,
    cache: CellCache,
) -> Measured:
    """What is measured over all steps of a (seed, layer) at once, on (seed, layer).

    `function` takes activations (step, sample, feature) of one seed and layer, read when they are asked for.
    """
    shared = _shared(run, name, settings)
    seeds, steps = run.recorded.sizes["seed"], run.recorded.sizes["step"]
    keys = np.empty((seeds, len(run.taps)), dtype=object)
    parts = np.empty(keys.shape, dtype=object)
    computed = 0
    for layer, tap in enumerate(run.taps):
        for seed in range(seeds):
            key = fingerprint(shared, [_address(run, tap, seed, step) for step in range(steps)])
            part = cache.load(name, key)
            if part is None:
                part = function(run.activations(tap).isel(seed=seed), samples, settings).assign_attrs(fixed=[])
                cache.save(name, key, part)
                computed += 1
            keys[seed, layer], parts[seed, layer] = key, part
    tell_computed(f"{name} {run.name}", computed, parts.size)
    return assembled(run, name, parts, keys, ("seed", "layer"))


def batches(
    activations: xr.DataArray, cells: list[tuple[int, int]], limit: int = BATCH_BYTES
) -> Iterator[tuple[xr.DataArray, list[tuple[int, int]]]]:
    """The activations of some cells of one layer, each batch in memory: one seed, as many steps as fit into `limit`.

    Args:
        activations: (seed, step, sample, feature).
        cells: positions of seed and step, in order.
        limit: bytes of a batch; at least one cell is read.
    """
    _, _, samples, features = activations.shape
    length = max(1, limit // (samples * features * activations.dtype.itemsize))
    for seed in sorted({seed for seed, _ in cells}):
        steps = [step for of_seed, step in cells if of_seed == seed]
        for first in range(0, len(steps), length):
            part = steps[first : first + length]
            batch = activations.isel(seed=[seed], step=part)
            what = f"activations of {activations.name} of seed {batch.seed.item()}, steps from {batch.step[0].item()}"
            yield load(batch, what), [(seed, step) for step in part]


def _shared(run: StoredRun, name: str, settings: Section) -> str:
    """What the measure of a cell depends on besides the cell itself."""
    samples = run.recorded["index"].values.tolist()
    return fingerprint(name, settings.model_dump(), run.dataset_digest, samples)


def _address(run: StoredRun, tap: str, seed: int, step: int) -> list[Any]:
    """What tells a cell's activations from any others."""
    activations = run.recorded[tap]
    return [run.shard_digest(tap, seed, step), str(activations.dtype), activations.shape[-1]]


def assembled(run: StoredRun, name: str, parts: np.ndarray, keys: np.ndarray, dims: tuple[str, ...]) -> Measured:
    """The parts, one for each cell, as one Dataset on `dims`.

    Args:
        run: that they were measured of.
        name: of the measure, under which the parts are in the cache.
        parts: a Dataset for each cell, an array of objects on `dims`; its attribute `fixed` lists the variables that
            are the same in every cell.
        keys: of the parts in the cache, likewise.
        dims: "seed", "step" and "layer", or some of them.
    """
    first: xr.Dataset = parts.flat[0]
    result = xr.Dataset(coords=first.coords)
    for variable, values in first.data_vars.items():
        if variable in first.attrs["fixed"]:
            result[variable] = values
        else:
            stacked = np.stack([part[variable].values for part in parts.flat]).reshape(*parts.shape, *values.shape)
            result[variable] = ((*dims, *values.dims), stacked, values.attrs)
    layers = xr.DataArray(np.array(run.taps, dtype=object), dims="layer", attrs={"long_name": "tap"})
    labels = {dim: layers if dim == "layer" else run.recorded[dim].variable for dim in dims}
    cached = {
        "dims": list(dims),
        "keys": keys.tolist(),
        "names": sorted(map(str, first.data_vars)),
        "coords": sorted(map(str, first.coords)),
        "attributes": first.attrs,
    }
    return Measured(result.assign_coords(labels), {name: cached})
