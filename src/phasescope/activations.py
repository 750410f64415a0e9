"""Activations of every checkpoint at every tap, written as one shard per (seed, step).

For each checkpoint the weights go back into the network, BatchNorm gets statistics that fit them, and the kept
samples pass through once. The statistics are stored too, so that a network can be had as its activations saw it.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

from phasescope.compute import Compute
from phasescope.data.dataset import Dataset
from phasescope.data.tensors import Images
from phasescope.errors import UserError
from phasescope.models import state
from phasescope.models.batchnorm import recalibrate, use_batch_statistics
from phasescope.models.losses import UNITS, loss_of, told_right
from phasescope.models.taps import Capture, shapes
from phasescope.models.zoo import build_for, outline_for, place
from phasescope.parallel import map_in_processes
from phasescope.params.activations import ActivationsSettings, Tap
from phasescope.params.train import TrainJob
from phasescope.progress import Progress, tell_computed
from phasescope.store import arrays, commit, manifest
from phasescope.store.cache import CellCache
from phasescope.store.datasets import read_dataset
from phasescope.store.manifest import StoreError

#: Images that pass through the network at once, where it does not matter to the numbers.
BATCH = 256
#: Most training images that BatchNorm is recalibrated with.
RECALIBRATION_IMAGES = 20_000
#: Kinds of cells: the activations of a checkpoint at a tap, and what is small of a checkpoint.
SHARDS, RECORDS = "activations", "activations-records"

#: What is recorded of a checkpoint beside its activations: dimensions after (seed, step), and attributes.
RECORD = {
    "batchnorm": (
        ("statistic",),
        {"long_name": "BatchNorm statistics that the activations were taken with", "units": "1"},
    ),
    "loss": (("part",), {"long_name": "loss of the network", "units": "1"}),
    "accuracy": (("part",), {"long_name": "accuracy of the network", "units": "1"}),
    "weight_norm": ((), {"long_name": "norm of the parameters", "units": "1"}),
}


def record(
    job: TrainJob,
    settings: ActivationsSettings,
    dataset_path: Path,
    training_path: Path,
    target: Path,
    compute: Compute,
    label: str,
    cache: CellCache,
) -> None:
    """Take the activations of all checkpoints in `training_path`, and commit them to the directory `target`.

    Those that are known in the `cache` are not taken again.

    Raises:
        UserError: a tap does not fit the network, or values overflow the dtype they are to be stored in.
        StoreError: the dataset or the training is absent, damaged, or was made with other settings, or another process
            is recording this run.
    """
    dataset = manifest.read(dataset_path, "dataset")
    training = manifest.read(training_path, "train")
    manifest.require_settings(training, job.model_dump())
    if training.extra["dataset"] != dataset.digest:
        raise StoreError(f"{training_path} was made with another dataset than {dataset_path} is now; run `dvc repro`")
    length = batch_length(job.batch_size, settings)
    kept = settings.model_dump(exclude={"taps"})
    shared = [job.network, job.loss, job.target, kept, length, dataset.digest]
    steps = job.steps
    keys = [
        [commit.fingerprint(*shared, training.extra["weights"][str(seed)][str(step)]) for step in steps]
        for seed in job.seeds
    ]
    with commit.scratch(target) as scratch:
        path = scratch.path / arrays.GROUP
        table = _allocate(path, job, settings, read_dataset(dataset_path), steps)
        items = [
            (job, settings, dataset_path, training_path, path, compute, cache, index, of_seed)
            for index, of_seed in enumerate(keys)
        ]
        labels = [f"activations {label} seed {seed}" for seed in job.seeds]
        with Progress(labels, len(steps)) as progress:
            recorded = map_in_processes(record_seed, items, compute, progress, path)
        taken = len(keys) * len(steps) * len(settings.taps)
        tell_computed(f"activations {label}", sum(computed for _, computed in recorded), taken)
        records = xr.concat([records for records, _ in recorded], xr.DataArray(job.seeds, dims="seed"))
        _write_records(path, records, table)
        scratch.commit(
            "activations",
            settings.model_dump(),
            train=training.digest,
            dataset={"name": job.dataset, "digest": dataset.digest},
            cells={
                "seeds": job.seeds,
                "steps": steps,
                "layers": [tap.name for tap in settings.taps],
                "files": {
                    SHARDS: {
                        tap.name: [[tap_key(key, tap) for key in of_seed] for of_seed in keys] for tap in settings.taps
                    }
                },
                "arrays": {
                    RECORDS: {
                        "dims": ["seed", "step"],
                        "keys": keys,
                        "names": sorted(RECORD),
                        "coords": [],
                        "attributes": {},
                    }
                },
            },
        )


def record_seed(
    advance: Callable[[int], None],
    job: TrainJob,
    settings: ActivationsSettings,
    dataset_path: Path,
    training_path: Path,
    path: Path,
    compute: Compute,
    cache: CellCache,
    index: int,
    keys: list[str],
) -> tuple[xr.Dataset, int]:
    """Bring the activations of one seed's checkpoints into the group at `path`, and take those that are not known.

    Returns:
        What is small of every checkpoint, on (step), and how many activations (step, tap) were taken.
    """
    recorder = Recorder(job, settings, read_dataset(dataset_path), compute.start())
    weights = arrays.open_dataset(training_path / arrays.GROUP)["weights"]
    stores = {tap.name: arrays.open_array(path, tap.name) for tap in settings.taps}
    steps, records, taken = job.steps, [], 0
    for position, (step, key) in enumerate(zip(steps, keys, strict=True)):
        where = f"seed {job.seeds[index]}, step {step}"
        missing = []
        for tap in settings.taps:
            shard = arrays.shard(stores[tap.name], (index, position))
            if not cache.get(SHARDS, tap_key(key, tap), shard):
                missing.append(tap)
        known = cache.load(RECORDS, key)
        if missing or known is None:
            stored = arrays.load(weights.isel(seed=index, step=position), f"{training_path}, {where}").values
            activations, known = recorder.take(stored, weights.attrs["table"], missing, known, where)
            for tap in missing:
                array = stores[tap.name]
                arrays.write_cell(array, (index, position), activations[tap.name])
                cache.put(SHARDS, tap_key(key, tap), arrays.shard(array, (index, position)))
            cache.save(RECORDS, key, known)
        records.append(known)
        taken += len(missing)
        advance(position + 1)
    return xr.concat(records, xr.DataArray(steps, dims="step")), taken


def tap_key(key: str, tap: Tap) -> str:
    """The key of the activations at a tap in the cache; `key` is that of the checkpoint's record."""
    return commit.fingerprint(key, tap.model_dump())


class Recorder:
    """What takes the activations of one checkpoint after the other."""

    def __init__(self, job: TrainJob, settings: ActivationsSettings, dataset: Dataset, device: torch.device) -> None:
        kept = kept_samples(dataset, settings.train_samples, settings.test_samples)
        self._job, self._settings, self._dataset, self._device = job, settings, dataset, device
        self._data = Images.of(dataset, kept, device, job.model.dtype, job.target)
        self._calibration = Images.of(dataset, calibration_samples(dataset, settings), device, job.model.dtype).images
        train = dataset.train[kept]
        self._batches = batches(train, job.batch_size, settings)
        self._parts = [torch.from_numpy(np.flatnonzero(part)).to(device) for part in (train, ~train)]

    def take(
        self, weights: np.ndarray, table: list[state.Entry], taps: list[Tap], known: xr.Dataset | None, where: str
    ) -> tuple[dict[str, np.ndarray], xr.Dataset]:
        """Activations (sample, feature) by tap, and the record of the checkpoint.

        Args:
            weights: the checkpoint's (parameter,), laid out as `table` says.
            table: of the weights.
            taps: those to take the activations at.
            known: the record, if it was made before; BatchNorm is then not recalibrated again.
            where: which checkpoint, for errors.
        """
        network = place(build_for(self._job, *self._dataset.shape), self._device)
        state.unflatten(network, torch.from_numpy(weights), table)
        if known is not None and self._settings.batchnorm == "recalibrated":
            network.eval()
            state.unflatten_batchnorm(network, torch.from_numpy(known["batchnorm"].values))
            return forward(network, self._settings.dtype, taps, self._data.images, self._batches, where)[0], known
        statistics = set_batchnorm(network, self._settings, self._calibration)
        activations, outputs = forward(network, self._settings.dtype, taps, self._data.images, self._batches, where)
        losses = loss_of(self._job.loss)(outputs, self._data.targets, reduction="none").double()
        correct = told_right(outputs, self._data.targets).double()
        values = {
            "batchnorm": statistics.cpu().numpy(),
            "loss": np.array([losses[part].mean().item() for part in self._parts]),
            "accuracy": np.array([correct[part].mean().item() for part in self._parts]),
            "weight_norm": weight_norm(network),
        }
        records = xr.Dataset({name: (dims, values[name], attributes) for name, (dims, attributes) in RECORD.items()})
        records["loss"].attrs["units"] = UNITS.get(self._job.loss, "1")
        return activations, records


def kept_samples(dataset: Dataset, train_samples: int, test_samples: int | None) -> np.ndarray:
    """Indices (sample,) of the samples whose activations are kept: training first, each part in the dataset's order.

    Which those are depends on the dataset and on how many of each part are asked for (at most), never on the run; fewer
    are among more.
    """
    rng = np.random.default_rng(0)
    training, testing = np.flatnonzero(dataset.train), np.flatnonzero(~dataset.train)
    limits = [(training, train_samples), (testing, test_samples or len(testing))]
    return np.concatenate([np.sort(rng.permutation(indices)[:limit]) for indices, limit in limits])


def calibration_samples(dataset: Dataset, settings: ActivationsSettings) -> np.ndarray:
    """Indices (sample,) of the training images that BatchNorm is recalibrated with, in a fixed random order."""
    most = RECALIBRATION_IMAGES if settings.batchnorm == "recalibrated" else 0
    return np.random.default_rng(1).permutation(np.flatnonzero(dataset.train))[:most]


def set_batchnorm(network: torch.nn.Module, settings: ActivationsSettings, images: torch.Tensor) -> torch.Tensor:
    """Bring BatchNorm into the mode of the settings, in eval mode; gives its statistics (statistic,) as used.

    `recalibrated`: from `images`, (sample, channel, row, column); `batch`: of each batch (the statistics are then
    not stored: the vector is NaN); `eval`: the running ones of the training.
    """
    network.eval()
    if settings.batchnorm == "recalibrated":
        recalibrate(network, images)
    statistics = state.flatten_batchnorm(network)
    if settings.batchnorm == "batch":
        use_batch_statistics(network)
        return torch.full_like(statistics, torch.nan)
    return statistics


def weight_norm(network: torch.nn.Module) -> float:
    """Euclidean norm of all trained parameters, in float64; statistics and counters of BatchNorm are not among them.

    Running statistics start at (0, 1) and change the length of the whole vector by a quarter in the first steps
    (VGG-8 × 0.25 on digits: 24.1 to 18.7), that of the parameters by 3 % in 2,048 (18.3 to 18.9).
    """
    return math.sqrt(sum(weights.detach().double().square().sum().item() for weights in network.parameters()))


def batch_length(trained_with: int, settings: ActivationsSettings) -> int:
    """How many images pass through at once: as many as in training where BatchNorm has the statistics of each batch."""
    return trained_with if settings.batchnorm == "batch" else BATCH


def batches(train: np.ndarray, trained_with: int, settings: ActivationsSettings) -> list[np.ndarray]:
    """Indices of the images that pass through together, given which of all are for training, (sample,).

    In a fixed random order, for with statistics of each batch, one must not hold a class alone; training and test
    images are then apart, as in the paper's released code, so that neither's activations depend on the others.
    """
    parts = [train, ~train] if settings.batchnorm == "batch" else [np.full(len(train), True)]
    length = batch_length(trained_with, settings)
    shuffled = [np.random.default_rng(2).permutation(np.flatnonzero(part)) for part in parts]
    # Of nearly equal length, so that none is too short for statistics of its own.
    return [rows for part in shuffled for rows in np.array_split(part, -(-len(part) // length))]


def forward(
    network: torch.nn.Module, dtype: str, taps: list[Tap], images: torch.Tensor, batches: list[np.ndarray], where: str
) -> tuple[dict[str, np.ndarray], torch.Tensor]:
    """Activations (sample, feature) by tap as they are stored, and logits (sample, class), of all images.

    `batches` has the indices of those that pass through together; `where` says in errors which checkpoint it is.
    """
    activations: dict[str, np.ndarray] = {}
    outputs = []
    with torch.no_grad(), Capture(network, taps) as capture:
        for rows in batches:
            outputs.append(network(images[torch.from_numpy(rows).to(images.device)]))
            for tap, values in capture.read().items():
                if tap not in activations:
                    activations[tap] = np.empty((len(images), values.shape[1]), dtype)
                activations[tap][rows] = _representable(values, dtype, f"tap {tap!r} at {where}")
    order = torch.from_numpy(np.concatenate(batches)).to(images.device)
    return activations, torch.cat(outputs)[order.argsort()]


def _representable(values: torch.Tensor, dtype: str, what: str) -> np.ndarray:
    """The values, if they fit into the dtype they are to be stored in."""
    largest, end = values.abs().max().item(), float(np.finfo(dtype).max)
    if not largest <= end:
        raise UserError(
            f"{what} reaches {largest:.3g}, and {dtype} ends at {end:.3g}: set activations.dtype to float32"
        )
    return values.cpu().numpy()


def _shapes(network: torch.nn.Module, settings: ActivationsSettings, dataset: Dataset) -> dict[str, tuple[int, ...]]:
    return shapes(network, settings.taps, dataset.images.shape[1], dataset.images.shape[2])


def _allocate(
    path: Path, job: TrainJob, settings: ActivationsSettings, dataset: Dataset, steps: list[int]
) -> list[dict[str, Any]]:
    """Make the group with its coordinates and empty arrays; gives the BatchNorm table."""
    network = outline_for(job, *dataset.shape)
    tap_shapes = _shapes(network, settings, dataset)
    kept = kept_samples(dataset, settings.train_samples, settings.test_samples)
    group = arrays.create_group(path, {"classes": dataset.classes}, ("index", "label", "split"))
    arrays.write(group, "seed", ("seed",), job.seeds, long_name="seed of initialisation and data order")
    arrays.write(group, "step", ("step",), steps, long_name="updates made so far")
    arrays.write(group, "sample", ("sample",), np.arange(len(kept)), long_name="kept sample")
    arrays.write(group, "index", ("sample",), kept, long_name="index in the dataset")
    arrays.write(group, "label", ("sample",), dataset.labels[kept], long_name="class")
    split = np.where(dataset.train[kept], "train", "test")
    arrays.write(group, "split", ("sample",), split, long_name="part of the dataset")
    arrays.write(group, "part", ("part",), ["train", "test"], long_name="part of the dataset")
    for tap in settings.taps:
        shape = tap_shapes[tap.name]
        arrays.create(
            group,
            tap.name,
            ("seed", "step", "sample", f"{tap.name}_feature"),
            (len(job.seeds), len(steps), len(kept), math.prod(shape)),
            settings.dtype,
            cell=2,
            long_name=f"activations at {tap.name}",
            feature_shape=list(shape),
            batchnorm=settings.batchnorm,
        )
    return [dict(entry) for entry in state.batchnorm_table(network)]


def _write_records(path: Path, records: xr.Dataset, table: list[dict[str, Any]]) -> None:
    """Write what is small of every checkpoint beside the activations."""
    group = arrays.reopen(path)
    for name, recorded in records.data_vars.items():
        attributes = {**recorded.attrs, "table": table} if name == "batchnorm" else recorded.attrs
        ordered = recorded.transpose("seed", "step", ...)
        arrays.write(group, str(name), tuple(map(str, ordered.dims)), ordered.values, **attributes)
    arrays.finish(path)
