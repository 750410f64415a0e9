"""Transfer of a run to a target: its own images with other labels, or other images that pass through its networks.

The networks are frozen. Nothing of the target reaches them, its BatchNorm statistics neither: they stay those that the
run's activations were taken with, except in the mode `batch`, where they are those of each batch of the target. Images
are standardised by the constants of the target.
"""

from collections.abc import Callable, Mapping
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
from phasescope.measures.classifiers import settings_of
from phasescope.measures.transfer import PIXELS, Target, baselines
from phasescope.measures.transfer import transfer as measure
from phasescope.models.zoo import place
from phasescope.parallel import map_in_processes
from phasescope.params.activations import Tap
from phasescope.params.classifiers import Classifier
from phasescope.params.transfer import Label, ReadingSettings, TransferSettings
from phasescope.progress import Progress, tell_computed
from phasescope.run import Run
from phasescope.store import manifest
from phasescope.store.cache import CellCache
from phasescope.store.commit import fingerprint
from phasescope.store.datasets import read_dataset
from phasescope.store.files import Place
from phasescope.store.run import StoredRun

#: What a checkpoint's activations, or what is read off them, does not depend on: which samples these chose is in a key.
_LIMITS = {"train_samples", "test_samples"}


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
    each = {classifier: settings_of(classifier, reading) for classifier in reading.classifiers}
    if own:
        kept = own_samples(run, reading).kept
        measured = {classifier: _stored(run, classifier, mine, compute, cache) for classifier, mine in each.items()}
    else:
        kept = kept_samples(dataset, reading.train_samples, reading.test_samples)
        measured = _through_networks(run, target_path, kept, each, compute, cache)
    both = cells.combine(measured, "classifier")
    target = Target.of(dataset, kept, reading.labels)
    digest = manifest.read(target_path, "dataset").digest
    pixels = [_pixels(dataset, digest, kept, target, name, mine, compute, cache) for name, mine in each.items()]
    result = both.result.transpose("seed", "step", "layer", "label", "classifier", ...)
    result["pixel_accuracy"] = ("label", "classifier"), np.stack(pixels, axis=1), PIXELS.attributes
    index = xr.DataArray(kept[~target.train], dims="sample", attrs={"long_name": "index in the target", "units": "1"})
    run.write_measure(
        f"transfer-{settings.dataset}",
        result.merge(baselines(target)).assign_coords(index=index),
        settings.model_dump(),
        both.cached,
        also=(run.path / "train", target_path),
    )


def _kind(classifier: Classifier) -> str:
    """Kind of cells: what a classifier read off the activations of a checkpoint at a tap."""
    return "transfer" if classifier == "ridge" else f"transfer-{classifier}"


def _stored(
    run: Run, classifier: Classifier, reading: ReadingSettings, compute: Compute, cache: CellCache
) -> cells.Measured:
    function, known = partial(measure_own, compute=compute), partial(own_samples, reading=reading)
    return cells.measure(
        run, _kind(classifier), function, reading, cache, compute, known=known, processes=classifier != "ridge"
    )


def _pixels(
    dataset: Dataset,
    digest: str,
    kept: np.ndarray,
    target: Target,
    classifier: Classifier,
    reading: ReadingSettings,
    compute: Compute,
    cache: CellCache,
) -> np.ndarray:
    """Accuracy (label,) of the same classifier on the target's standardised pixels."""
    kind = f"{_kind(classifier)}-inputs"
    key = fingerprint(kind, reading.model_dump(exclude=_LIMITS), digest, kept.tolist())
    known = cache.load(kind, key)
    if known is None:
        known = _of_one_cell(standardised(dataset, kept).reshape(len(kept), -1), target, reading, compute)
        cache.save(kind, key, known)
    values: np.ndarray = known["accuracy"].values
    return values


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


def measure_own(activations: xr.DataArray, known: OwnSamples, reading: ReadingSettings, compute: Compute) -> xr.Dataset:
    """Read the labels off stored activations (seed, step, stored sample, feature)."""
    return measure(activations.isel(sample=known.chosen), known.target, reading, compute)


#: What is to be read off a checkpoint: with which classifier, at which tap, and the key in the cache.
Wanted = tuple[Classifier, Tap, str]


def _through_networks(
    run: Run,
    target_path: Path,
    kept: np.ndarray,
    each: Mapping[Classifier, ReadingSettings],
    compute: Compute,
    cache: CellCache,
) -> dict[Classifier, cells.Measured]:
    """Measure every cell of the target's activations; the networks compute those alone that the cache does not have."""
    recorded_with = run.recorded_with
    taps, seeds, steps = recorded_with.taps, run.seeds, run.steps
    target = manifest.read(target_path, "dataset").digest
    keys = {classifier: np.empty((len(seeds), len(steps), len(taps)), dtype=object) for classifier in each}
    parts: dict[str, xr.Dataset] = {}
    missing: dict[int, dict[int, list[Wanted]]] = {}
    for classifier, reading in each.items():
        shared = fingerprint(
            _kind(classifier),
            reading.model_dump(exclude=_LIMITS),
            run.trained_with.network,
            recorded_with.model_dump(include={"batchnorm", "dtype"}),
            batch_length(run.trained_with.batch_size, recorded_with),
            run.dataset_digest,  # of the images that BatchNorm was recalibrated with
            target,
            kept.tolist(),
        )
        for seed, step, tap in np.ndindex(keys[classifier].shape):
            weights = run.weights_digest(seeds[seed], steps[step])
            key = keys[classifier][seed, step, tap] = fingerprint(shared, weights, taps[tap].model_dump())
            part = cache.load(_kind(classifier), key)
            if part is None:
                missing.setdefault(seeds[seed], {}).setdefault(steps[step], []).append((classifier, taps[tap], key))
            else:
                parts[key] = part
    label = f"transfer {run.name} to {target_path.name}"
    if missing:
        items = [
            (run.name, run.root, target_path, kept, each, compute, cache, seed, of_seed)
            for seed, of_seed in missing.items()
        ]
        with Progress([f"{label} seed {seed}" for seed in missing], max(map(len, missing.values()))) as progress:
            for of_seed in map_in_processes(transfer_seed, items, compute.workers, progress):
                parts |= of_seed
    computed = sum(len(wanted) for of_seed in missing.values() for wanted in of_seed.values())
    tell_computed(label, computed, sum(of_classifier.size for of_classifier in keys.values()))
    measured = {}
    for classifier, of_classifier in keys.items():
        found = np.empty(of_classifier.shape, dtype=object)
        for cell in np.ndindex(found.shape):
            found[cell] = parts[str(of_classifier[cell])]
        measured[classifier] = cells.assembled(run, _kind(classifier), found, of_classifier, ("seed", "step", "layer"))
    return measured


def transfer_seed(
    advance: Callable[[int], None],
    name: str,
    root: Place,
    target_path: Path,
    kept: np.ndarray,
    each: Mapping[Classifier, ReadingSettings],
    compute: Compute,
    cache: CellCache,
    seed: int,
    missing: dict[int, list[Wanted]],
) -> dict[str, xr.Dataset]:
    """Measure what is missing of one seed, by step, and keep it in the cache; gives it by key."""
    device = compute.start()
    run, dataset = Run(name, root), read_dataset(target_path)
    (labels,) = {tuple(reading.labels) for reading in each.values()}
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
            for classifier, tap, key in wanted:
                parts[key] = _of_one_cell(activations[tap.name], target, each[classifier], compute)
                cache.save(_kind(classifier), key, parts[key])
            advance(position + 1)
    return parts


def _of_one_cell(cell: np.ndarray, target: Target, reading: ReadingSettings, compute: Compute) -> xr.Dataset:
    """The measure of activations (sample, feature), as it is kept in the cache."""
    coords = {"seed": [0], "step": [0], "sample": np.arange(len(cell))}
    activations = xr.DataArray(cell[None, None], coords, ("seed", "step", "sample", "feature"))
    measured = measure(activations, target, reading, compute)
    return measured.isel(seed=0, step=0).drop_vars(["seed", "step"]).assign_attrs(fixed=[])
