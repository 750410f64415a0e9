"""Stream a run's activations through a measure in batches of cells, in bounded memory, and none of them twice.

A cell is one (seed, step, layer). A measure is a pure function of the activations of several cells of one layer,
(seed, step, sample, feature), and of what is known of the samples; it returns a Dataset on (seed, step). Measures of
cells that are in the cache are not computed again.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import ceil
from typing import Any, TypeVar

import numpy as np
import xarray as xr
from threadpoolctl import threadpool_limits

from phasescope.compute import Compute
from phasescope.data.dataset import standardised
from phasescope.measures.samples import Samples
from phasescope.parallel import map_in_processes, map_in_threads
from phasescope.params.base import Section
from phasescope.progress import Pieces, Progress, tell_computed
from phasescope.store.arrays import load
from phasescope.store.cache import CellCache
from phasescope.store.commit import fingerprint
from phasescope.store.datasets import read_dataset
from phasescope.store.run import StoredRun
from phasescope.store.shared import readable

#: Bytes of stored activations that each worker reads at once; at least one cell.
BATCH_BYTES = 32 << 20
#: Pieces of work for each worker, so that none waits long for the others.
PIECES = 4

S = TypeVar("S", bound=Section)
#: Activations (seed, step, sample, feature) of one layer, what is known of the samples, settings → what is measured, on
#: (seed, step).
Function = Callable[[xr.DataArray, Any, S], xr.Dataset]


@dataclass(frozen=True)
class Measured:
    """What was measured of all cells, and under which keys the parts of it are in the cache."""

    result: xr.Dataset  #: on (seed, step, layer), or (seed, layer) for what is measured over the steps
    cached: dict[str, dict[str, Any]]


def samples_of(run: StoredRun) -> Samples:
    """What is known of the samples whose activations a run keeps; kept in memory for the next who asks.

    Raises:
        StoreError: the dataset is absent or damaged, or not the one that the activations were taken of.
    """
    return _samples(run.name, run.root, run.digest)


@lru_cache(maxsize=1)
def _samples(name: str, root: Any, digest: str) -> Samples:
    run = StoredRun(name, root)
    dataset = read_dataset(run.dataset, run.dataset_digest)
    kept = run.recorded["index"].values
    return Samples(
        inputs=standardised(dataset, kept).reshape(len(kept), -1),
        labels=dataset.labels[kept],
        train=dataset.train[kept],
        classes=len(dataset.classes),
        image=dataset.images.shape[1:],
    )


def measure(
    run: StoredRun,
    name: str,
    function: Function[S],
    settings: S,
    cache: CellCache,
    compute: Compute | None = None,
    taps: list[str] | None = None,
    known: Callable[[StoredRun], Any] = samples_of,
    *,
    processes: bool = False,
) -> Measured:
    """The measure `name` of every cell of a run, on (seed, step, layer), layers in the order of the taps.

    `function` takes activations (seed, step, sample, feature) of one layer and returns a Dataset on (seed, step);
    variables without these dimensions, such as a baseline, must be the same for every layer. It runs in as many
    threads as `compute` has workers, or `processes` (and must then be importable by name), or only here. Where only
    some `taps` are asked for, the others are NaN. `known` says what the function is to know of the run's samples.
    """
    shared = _shared(run, name, settings)
    threads, compute = (compute.threads, compute) if compute else (None, Compute("cpu", 1, 1))
    workers, processes = compute.workers, processes or compute.cluster
    seeds, steps = (run.recorded[dim].values for dim in ("seed", "step"))
    keys = np.full((len(seeds), len(steps), len(run.taps)), None, dtype=object)
    parts = np.empty(keys.shape, dtype=object)
    missing: dict[str, list[Cell]] = {}
    for layer, tap in enumerate(run.taps):
        for seed, step in np.ndindex(len(seeds), len(steps)) if taps is None or tap in taps else []:
            key = fingerprint(shared, _address(run, tap, seed, step))
            keys[seed, step, layer], parts[seed, step, layer] = key, cache.load(name, key)
            if parts[seed, step, layer] is None:
                missing.setdefault(tap, []).append((seed, step, key))
    asked, number = sum(key is not None for key in keys.flat), sum(map(len, missing.values()))
    length = ceil(number / (PIECES * workers)) if workers > 1 else max(number, 1)
    pieces = [
        (tap, cells[first : first + length]) for tap, cells in missing.items() for first in range(0, len(cells), length)
    ]
    if pieces:
        with Progress([f"{name} {run.name}"], number) as progress, threadpool_limits(threads):
            # What is limited here holds in all threads, and a thread must not lift it for the others.
            limit = threads if processes else None
            opened = StoredRun(run.name, readable(run.root, [run.path / "activations", run.dataset], compute))
            items = [(opened, known, name, function, settings, cache, limit, *piece) for piece in pieces]
            if not processes:
                known(opened)  # once, before all threads ask for it
            side_by_side = map_in_processes if processes else map_in_threads
            done = side_by_side(measure_cells, items, compute, Pieces(progress, len(items)))
        for (tap, cells), results in zip(pieces, done, strict=True):
            for (seed, step, _), part in zip(cells, results, strict=True):
                parts[seed, step, run.taps.index(tap)] = part
    tell_computed(f"{name} {run.name}", number, asked)
    return assembled(run, name, parts, keys, ("seed", "step", "layer"))


#: Positions of seed and step, and the key in the cache.
Cell = tuple[int, int, str]


def measure_cells(
    advance: Callable[[int], None],
    stored: StoredRun,
    known: Callable[[StoredRun], Any],
    name: str,
    function: Function[S],
    settings: S,
    cache: CellCache,
    threads: int | None,
    tap: str,
    cells: list[Cell],
) -> list[xr.Dataset]:
    """Measure some cells of one layer, keep each in the cache, and give what was measured of each.

    `threads` are those of numerical libraries, whose number changes bits (None: as they are).
    """
    samples = known(stored)
    keys = {(seed, step): key for seed, step, key in cells}
    parts = {}
    for batch, positions in batches(stored.activations(tap), list(keys)):
        with threadpool_limits(threads):
            result = function(batch, samples, settings)
        fixed = [str(key) for key, value in result.data_vars.items() if "step" not in value.dims]
        for index, position in enumerate(positions):
            part = result.isel(seed=0, step=index).drop_vars(["seed", "step"]).assign_attrs(fixed=fixed)
            cache.save(name, keys[position], part)
            parts[position] = part
        advance(len(parts))
    return [parts[position] for position in keys]


def measure_over_steps(
    run: StoredRun,
    name: str,
    function: Function[S],
    settings: S,
    cache: CellCache,
) -> Measured:
    """What is measured over all steps of a (seed, layer) at once, on (seed, layer).

    `function` takes activations (step, sample, feature) of one seed and layer, read when they are asked for.
    """
    samples = samples_of(run)
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
    return [run.shard_digest(tap, seed, step), str(activations.dtype), list(activations.attrs["feature_shape"])]


def measure_inputs(run: StoredRun, name: str, function: Function[S], settings: S, cache: CellCache) -> xr.Dataset:
    """The same measure of the standardised pixels themselves, as if they were the activations of a layer."""
    samples = samples_of(run)
    key = fingerprint(_shared(run, name, settings), "inputs")
    known = cache.load(f"{name}-inputs", key)
    if known is None:
        dims, coords = ("seed", "step", "sample", "feature"), {"sample": np.arange(len(samples.inputs))}
        shape = {"feature_shape": list(samples.image)}
        pixels = xr.DataArray(samples.inputs[None, None], {"seed": [0], "step": [0], **coords}, dims, attrs=shape)
        known = function(pixels, samples, settings).isel(seed=0, step=0).drop_vars(["seed", "step"])
        cache.save(f"{name}-inputs", key, known)
    return known


def combine(measured: Mapping[Any, Measured], dim: str) -> Measured:
    """Several measures of the same cells as one, on (seed, step, layer, `dim`), by their names along `dim`.

    What one of them does not have is NaN there.
    """
    results = [each.result for each in measured.values()]
    labels = xr.DataArray(np.array(list(measured), dtype=object), dims=dim, attrs={"long_name": dim})
    variables = {name: variable for result in reversed(results) for name, variable in result.variables.items()}
    combined = {}
    for name, variable in variables.items():
        if not {"seed", "step", "layer"} <= set(variable.dims):
            combined[name] = variable
            continue
        absent = np.full(variable.shape, np.nan, np.result_type(variable.dtype, np.float16))
        stacked = np.stack([result[name].values if name in result else absent for result in results], axis=3)
        combined[name] = xr.Variable((*variable.dims[:3], dim, *variable.dims[3:]), stacked, variable.attrs)
    coords = {name: combined.pop(name) for result in results for name in result.coords if name in combined}
    cached = {
        kind: {**entry, "select": {dim: place}}
        for place, each in enumerate(measured.values())
        for kind, entry in each.cached.items()
    }
    return Measured(xr.Dataset(combined, {**coords, dim: labels}), cached)


def assembled(run: StoredRun, name: str, parts: np.ndarray, keys: np.ndarray, dims: tuple[str, ...]) -> Measured:
    """The parts, one for each cell, as one Dataset on `dims`.

    Args:
        run: that they were measured of.
        name: of the measure, under which the parts are in the cache.
        parts: a Dataset for each cell, an array of objects on `dims`; its attribute `fixed` lists the variables that
            are the same in every cell. None for a cell that was not asked for: it is NaN.
        keys: of the parts in the cache, likewise.
        dims: "seed", "step" and "layer", or some of them.
    """
    first: xr.Dataset = next(part for part in parts.flat if part is not None)
    result = xr.Dataset(coords=first.coords)
    for variable, values in first.data_vars.items():
        if variable in first.attrs["fixed"]:
            result[variable] = values
        else:
            # Only floats can be absent.
            absent = values.values if all(keys.flat) else np.full(values.shape, np.nan, values.dtype)
            stacked = np.stack([absent if part is None else part[variable].values for part in parts.flat])
            stacked = stacked.reshape(*parts.shape, *values.shape)
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
