"""Transfer of a run to a target: its own images with other labels, or other images that pass through its networks.

The networks are frozen. Nothing of the target reaches them, its BatchNorm statistics neither: they stay those that the
run's activations were taken with, except in the mode `batch`, where they are those of each batch of the target. Images
are standardised by the constants of the target.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import xarray as xr
from threadpoolctl import threadpool_limits

from phasescope.activations import batch_length, batches, forward, kept_samples
from phasescope.compute import Compute
from phasescope.data.dataset import standardised
from phasescope.data.tensors import Images
from phasescope.measures import cells
from phasescope.measures.transfer import Target, baselines
from phasescope.measures.transfer import transfer as measure
from phasescope.models.zoo import place
from phasescope.parallel import map_in_processes
from phasescope.params.activations import Tap
from phasescope.params.transfer import ReadingSettings, TransferSettings
from phasescope.progress import Progress, tell_computed
from phasescope.run import Run
from phasescope.store import manifest
from phasescope.store.cache import CellCache
from phasescope.store.commit import fingerprint
from phasescope.store.datasets import read_dataset
from phasescope.store.files import Place
from phasescope.store.run import StoredRun

#: Kind of cells: what was read off the activations of a checkpoint at a tap.
CELLS = "transfer"


def transfer(run: Run, target_path: Path, settings: TransferSettings, compute: Compute, cache: CellCache) -> None:
    """Read the labels off all layers of a run, and commit that as `results/<run>/transfer-<dataset>`.

    For a target that is the run's own dataset the stored activations will do; of their samples those are used that the
    settings' numbers of samples would also choose of the whole dataset.

    Raises:
        UserError: activations overflow the dtype that those of the run are stored in.
        StoreError: the run or the dataset is absent or damaged, or the run was made with another dataset of that name.
    """
    own = settings.dataset == run.dataset.name
    dataset = read_dataset(target_path, run.dataset_digest if own else None)
    reading = settings.reading
    if own:
        known = partial(own_samples, reading=reading)
        kept = known(run).kept
        # Ridges take less time than the start of a process.
        where = None if reading.classifiers == ["ridge"] else compute
        function = partial(measure_own, compute=compute)
        measured = cells.measure(run, CELLS, function, reading, cache, where, known=known)
    else:
        kept = kept_samples(dataset, reading.train_samples, reading.test_samples)
        measured = _through_networks(run, target_path, kept, reading, compute, cache)
    target = Target.of(dataset, kept, reading.labels)
    inputs = standardised(dataset, kept).reshape(len(kept), -1)
    index = xr.DataArray(kept[~target.train], dims="sample", attrs={"long_name": "index in the target", "units": "1"})
    result = measured.result.merge(baselines(inputs, target, reading, compute)).assign_coords(index=index)
    run.write_measure(
        f"transfer-{settings.dataset}",
        result,
        settings.model_dump(),
        measured.cached,
        also=(run.path / "train", target_path),
    )


class OwnSamples(NamedTuple):
    """Which of the stored samples of a run are used, and what is known of them."""

    chosen: np.ndarray  #: (stored sample,) bool
    kept: np.ndarray  #: (sample,) their indices in the dataset
    target: Target


def own_samples(run: StoredRun, reading: ReadingSettings) -> OwnSamples:
    """Those of a run's stored samples that the settings' numbers of samples would also choose of the whole dataset."""
    dataset, recorded = read_dataset(run.dataset, run.dataset_digest), run.recorded["index"].values
    chosen = np.isin(recorded, kept_samples(dataset, reading.train_samples, reading.test_samples))
    return OwnSamples(chosen, recorded[chosen], Target.of(dataset, recorded[chosen], reading.labels))


def measure_own(activations: xr.DataArray, known: OwnSamples, reading: ReadingSettings, compute: Compute) -> xr.Dataset:
    """Read the labels off stored activations (seed, step, stored sample, feature)."""
    return measure(activations.isel(sample=known.chosen), known.target, reading, compute)


def _through_networks(
    run: Run, target_path: Path, kept: np.ndarray, reading: ReadingSettings, compute: Compute, cache: CellCache
) -> cells.Measured:
    """Measure every cell of the target's activations; the networks compute those alone that the cache does not have."""
    recorded_with = run.recorded_with
    shared = fingerprint(
        CELLS,
        reading.model_dump(),
        run.trained_with.model.model_dump(),
        recorded_with.model_dump(include={"batchnorm", "dtype"}),
        batch_length(run.trained_with.batch_size, recorded_with),
        run.dataset_digest,  # of the images that BatchNorm was recalibrated with
        manifest.read(target_path, "dataset").digest,
        kept.tolist(),
    )
    taps, seeds, steps = recorded_with.taps, run.seeds, run.steps
    keys = np.empty((len(seeds), len(steps), len(taps)), dtype=object)
    for seed, step, tap in np.ndindex(keys.shape):
        weights = run.weights_digest(seeds[seed], steps[step])
        keys[seed, step, tap] = fingerprint(shared, weights, taps[tap].model_dump())
    parts = {key: part for key in keys.flat if (part := cache.load(CELLS, key)) is not None}
    missing = {
        seed: {
            step: {key: tap for key, tap in zip(of_step, taps, strict=True) if key not in parts}
            for step, of_step in zip(steps, of_seed, strict=True)
        }
        for seed, of_seed in zip(seeds, keys, strict=True)
        if any(key not in parts for key in of_seed.flat)
    }
    label = f"{CELLS} {run.name} to {target_path.name}"
    if missing:
        items = [
            (run.name, run.root, target_path, kept, reading, compute, cache, seed, of_seed)
            for seed, of_seed in missing.items()
        ]
        with Progress([f"{label} seed {seed}" for seed in missing], len(steps)) as progress:
            for of_seed in map_in_processes(transfer_seed, items, compute.workers, progress):
                parts |= of_seed
    tell_computed(label, sum(len(wanted) for of_seed in missing.values() for wanted in of_seed.values()), keys.size)
    found = np.empty(keys.shape, dtype=object)
    for cell in np.ndindex(keys.shape):
        found[cell] = parts[keys[cell]]
    return cells.assembled(run, CELLS, found, keys, ("seed", "step", "layer"))


def transfer_seed(
    advance: Callable[[int], None],
    name: str,
    root: Place,
    target_path: Path,
    kept: np.ndarray,
    reading: ReadingSettings,
    compute: Compute,
    cache: CellCache,
    seed: int,
    missing: dict[int, dict[str, Tap]],
) -> dict[str, xr.Dataset]:
    """Measure the missing cells of one seed, given by step and key, and keep them in the cache; gives them by key."""
    device = compute.start()
    run, dataset = Run(name, root), read_dataset(target_path)
    target, images = Target.of(dataset, kept, reading.labels), Images.of(dataset, kept, device).images
    dtype, parts = run.recorded_with.dtype, {}
    together = batches(dataset.train[kept], run.trained_with.batch_size, run.recorded_with)
    # Unlike torch, numpy's threads are not limited in a process of its own.
    with threadpool_limits(compute.threads):
        for position, (step, wanted) in enumerate(missing.items()):
            if wanted:
                network = place(run.model(seed, step), device)
                where = f"seed {seed}, step {step} for {target_path.name}"
                activations, _ = forward(network, dtype, list(wanted.values()), images, together, where)
                for key, tap in wanted.items():
                    parts[key] = _of_one_cell(activations.pop(tap.name), target, reading, compute)
                    cache.save(CELLS, key, parts[key])
            advance(position + 1)
    return parts


def _of_one_cell(cell: np.ndarray, target: Target, reading: ReadingSettings, compute: Compute) -> xr.Dataset:
    """The measure of activations (sample, feature), as it is kept in the cache."""
    coords = {"seed": [0], "step": [0], "sample": np.arange(len(cell))}
    activations = xr.DataArray(cell[None, None], coords, ("seed", "step", "sample", "feature"))
    measured = measure(activations, target, reading, compute)
    return measured.isel(seed=0, step=0).drop_vars(["seed", "step"]).assign_attrs(fixed=[])
