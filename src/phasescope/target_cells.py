"""Stream the activations of a target through measures: a run's own images, or others that pass through its networks.

The networks are frozen. Nothing of the target reaches them, its BatchNorm statistics neither: they stay those that the
run's activations were taken with, except in the mode `batch`, where they are those of each batch of the target. Images
are standardised by the constants of the target.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import xarray as xr
from threadpoolctl import threadpool_limits

from phasescope.activations import batch_length, batches, forward, kept_samples
from phasescope.compute import Compute
from phasescope.data.dataset import Dataset, standardised
from phasescope.data.tensors import Images
from phasescope.measures import cells
from phasescope.measures.transfer import Target
from phasescope.models.zoo import place
from phasescope.parallel import map_in_processes
from phasescope.params.activations import Tap
from phasescope.params.transfer import Label, ReadingSettings
from phasescope.progress import Progress, tell_computed
from phasescope.run import Run
from phasescope.store import manifest
from phasescope.store.cache import CellCache
from phasescope.store.commit import fingerprint
from phasescope.store.datasets import read_dataset
from phasescope.store.files import Place
from phasescope.store.run import StoredRun
from phasescope.store.shared import readable

#: What a checkpoint's activations, or what is read off them, does not depend on: which samples these chose is in a key.
_LIMITS = {"train_samples", "test_samples"}


@dataclass(frozen=True)
class Reading:
    """What is to be read off the activations of each checkpoint at each tap."""

    kind: str  #: of its cells in the cache
    #: Activations (seed, step, sample, feature) of one layer, target, settings, compute → what is measured, on (seed,
    #: step); it must be importable by name.
    function: Callable[[xr.DataArray, Target, ReadingSettings, Compute], xr.Dataset]
    settings: ReadingSettings  #: labels and numbers of samples are the same for all that is read together
    #: Whether to measure stored activations in processes, for what holds the interpreter's lock.
    processes: bool = False


class Measured(NamedTuple):
    """What was read off a target."""

    cells: list[cells.Measured]  #: on (seed, step, layer), one for each of what was to be read
    inputs: list[xr.Dataset]  #: the same of the standardised pixels, as if they were the activations of a layer
    target: Target
    kept: np.ndarray  #: (sample,) indices of the samples in the target


def measure(run: Run, target_path: Path, readings: Sequence[Reading], compute: Compute, cache: CellCache) -> Measured:
    """Read off the target at all checkpoints and taps of a run what the cache does not have.

    For a target that is the run's own dataset the stored activations will do; of their samples those are used that the
    settings' numbers of samples would also choose of the whole dataset.

    Raises:
        UserError: activations overflow the dtype that those of the run are stored in.
        StoreError: the run or the dataset is absent or damaged, or the run was made with another dataset of that name.
    """
    own = target_path.name == run.dataset.name
    dataset = read_dataset(target_path, run.dataset_digest if own else None)
    settings = readings[0].settings
    if own:
        kept = own_samples(run, settings).kept
        measured = [_stored(run, reading, compute, cache) for reading in readings]
    else:
        kept = kept_samples(dataset, settings.train_samples, settings.test_samples)
        measured = _through_networks(run, target_path, kept, readings, compute, cache)
    target = Target.of(dataset, kept, settings.labels)
    digest = manifest.read(target_path, "dataset").digest
    inputs = [_inputs(dataset, digest, kept, target, reading, compute, cache) for reading in readings]
    return Measured(measured, inputs, target, kept)


def _stored(run: Run, reading: Reading, compute: Compute, cache: CellCache) -> cells.Measured:
    function = partial(measure_own, function=reading.function, compute=compute)
    known = partial(own_samples, reading=reading.settings)
    return cells.measure(
        run, reading.kind, function, reading.settings, cache, compute, known=known, processes=reading.processes
    )


def _inputs(
    dataset: Dataset,
    digest: str,
    kept: np.ndarray,
    target: Target,
    reading: Reading,
    compute: Compute,
    cache: CellCache,
) -> xr.Dataset:
    kind = f"{reading.kind}-inputs"
    key = fingerprint(kind, reading.settings.model_dump(exclude=_LIMITS), digest, kept.tolist())
    known = cache.load(kind, key)
    if known is None:
        known = _of_one_cell(standardised(dataset, kept).reshape(len(kept), -1), target, reading, compute.here())
        cache.save(kind, key, known)
    return known


class OwnSamples(NamedTuple):
    """Which of the stored samples of a run are used, and what is known of them."""

    chosen: np.ndarray  #: (stored sample,) bool
    kept: np.ndarray  #: (sample,) their indices in the dataset
    target: Target


def own_samples(run: StoredRun, reading: ReadingSettings) -> OwnSamples:
    """Those of a run's stored samples that the settings' numbers of samples would also choose of the whole dataset."""
    limits = reading.train_samples, reading.test_samples
    return _own_samples(run.name, run.root, run.digest, tuple(reading.labels), *limits)


@lru_cache(maxsize=1)  # each piece of work of a process asks for them
def _own_samples(
    name: str, root: Place, digest: str, labels: tuple[Label, ...], train_samples: int, test_samples: int | None
) -> OwnSamples:
    run = StoredRun(name, root)
    dataset, recorded = read_dataset(run.dataset, run.dataset_digest), run.recorded["index"].values
    chosen = np.isin(recorded, kept_samples(dataset, train_samples, test_samples))
    return OwnSamples(chosen, recorded[chosen], Target.of(dataset, recorded[chosen], labels))


def measure_own(
    activations: xr.DataArray,
    known: OwnSamples,
    settings: ReadingSettings,
    function: Callable[[xr.DataArray, Target, ReadingSettings, Compute], xr.Dataset],
    compute: Compute,
) -> xr.Dataset:
    """Apply what is to be read to stored activations (seed, step, stored sample, feature)."""
    return function(activations.isel(sample=known.chosen), known.target, settings, compute)


#: What is to be read off a checkpoint: what, at which tap, and the key in the cache.
Wanted = tuple[Reading, Tap, str]


def _through_networks(
    run: Run,
    target_path: Path,
    kept: np.ndarray,
    readings: Sequence[Reading],
    compute: Compute,
    cache: CellCache,
) -> list[cells.Measured]:
    """Measure every cell of the target's activations; the networks compute those alone that the cache does not have."""
    recorded_with = run.recorded_with
    taps, seeds, steps = recorded_with.taps, run.seeds, run.steps
    target = manifest.read(target_path, "dataset").digest
    keys = [np.empty((len(seeds), len(steps), len(taps)), dtype=object) for _ in readings]
    parts: dict[str, xr.Dataset] = {}
    missing: dict[int, dict[int, list[Wanted]]] = {}
    for reading, of_reading in zip(readings, keys, strict=True):
        shared = fingerprint(
            reading.kind,
            reading.settings.model_dump(exclude=_LIMITS),
            run.trained_with.network,
            recorded_with.model_dump(include={"batchnorm", "dtype"}),
            batch_length(run.trained_with.batch_size, recorded_with),
            run.dataset_digest,  # of the images that BatchNorm was recalibrated with
            target,
            kept.tolist(),
        )
        for seed, step, tap in np.ndindex(of_reading.shape):
            weights = run.weights_digest(seeds[seed], steps[step])
            key = of_reading[seed, step, tap] = fingerprint(shared, weights, taps[tap].model_dump())
            part = cache.load(reading.kind, key)
            if part is None:
                missing.setdefault(seeds[seed], {}).setdefault(steps[step], []).append((reading, taps[tap], key))
            else:
                parts[key] = part
    label = f"{readings[0].kind} {run.name} to {target_path.name}"
    if missing:
        own = [run.path / "train", run.path / "activations", run.dataset]
        root = readable(run.root, [*own, target_path], compute)
        there = root / target_path.relative_to(run.root).as_posix()
        items = [(run.name, root, there, kept, compute, cache, seed, of_seed) for seed, of_seed in missing.items()]
        with Progress([f"{label} seed {seed}" for seed in missing], max(map(len, missing.values()))) as progress:
            for of_seed in map_in_processes(measure_seed, items, compute, progress):
                parts |= of_seed
    computed = sum(len(wanted) for of_seed in missing.values() for wanted in of_seed.values())
    tell_computed(label, computed, sum(of_reading.size for of_reading in keys))
    measured = []
    for reading, of_reading in zip(readings, keys, strict=True):
        found = np.empty(of_reading.shape, dtype=object)
        for cell in np.ndindex(found.shape):
            found[cell] = parts[str(of_reading[cell])]
        measured.append(cells.assembled(run, reading.kind, found, of_reading, ("seed", "step", "layer")))
    return measured


def measure_seed(
    advance: Callable[[int], None],
    name: str,
    root: Place,
    target_path: Place,
    kept: np.ndarray,
    compute: Compute,
    cache: CellCache,
    seed: int,
    missing: dict[int, list[Wanted]],
) -> dict[str, xr.Dataset]:
    """Measure what is missing of one seed, by step, and keep it in the cache; gives it by key."""
    device = compute.start()
    run, dataset = Run(name, root), read_dataset(target_path)
    (labels,) = {tuple(reading.settings.labels) for wanted in missing.values() for reading, _, _ in wanted}
    target = Target.of(dataset, kept, labels)
    images = Images.of(dataset, kept, device, run.trained_with.model.dtype).images
    dtype, parts = run.recorded_with.dtype, {}
    together = batches(dataset.train[kept], run.trained_with.batch_size, run.recorded_with)
    # Unlike torch, numpy's threads are not limited in a process of its own.
    with threadpool_limits(compute.threads):
        for position, (step, wanted) in enumerate(missing.items()):
            network = place(run.model(seed, step), device)
            where = f"seed {seed}, step {step} for {target_path.name}"
            taps = list({tap.name: tap for _, tap, _ in wanted}.values())
            activations, _ = forward(network, dtype, taps, images, together, where)
            for reading, tap, key in wanted:
                parts[key] = _of_one_cell(activations[tap.name], target, reading, compute)
                cache.save(reading.kind, key, parts[key])
            advance(position + 1)
    return parts


def _of_one_cell(cell: np.ndarray, target: Target, reading: Reading, compute: Compute) -> xr.Dataset:
    """What is read off activations (sample, feature), as it is kept in the cache."""
    coords = {"seed": [0], "step": [0], "sample": np.arange(len(cell))}
    activations = xr.DataArray(cell[None, None], coords, ("seed", "step", "sample", "feature"))
    measured = reading.function(activations, target, reading.settings, compute)
    fixed = [str(key) for key, value in measured.data_vars.items() if "step" not in value.dims]
    return measured.isel(seed=0, step=0).drop_vars(["seed", "step"]).assign_attrs(fixed=fixed)
