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
from torch.nn import functional

from phasescope.compute import Compute
from phasescope.data.dataset import Dataset, standardised
from phasescope.errors import UserError
from phasescope.models import state
from phasescope.models.batchnorm import recalibrate, use_batch_statistics
from phasescope.models.taps import Capture, shapes
from phasescope.models.zoo import Network, build, place
from phasescope.parallel import map_in_processes
from phasescope.params.activations import ActivationsSettings
from phasescope.params.train import TrainJob
from phasescope.progress import Progress
from phasescope.provenance import code_digest
from phasescope.store import arrays, commit
from phasescope.store.commit import StoreError
from phasescope.store.datasets import read_dataset

#: Images that pass through the network at once.
BATCH = 256
#: Most training images that BatchNorm is recalibrated with (methods: 20,000 are ample; the first ones of a fixed draw).
RECALIBRATION_IMAGES = 20_000


def record(
    job: TrainJob,
    settings: ActivationsSettings,
    dataset_path: Path,
    training_path: Path,
    target: Path,
    compute: Compute,
    label: str,
) -> None:
    """Take the activations of all checkpoints in `training_path`, and commit them to the directory `target`.

    An interrupted recording goes on from its last finished checkpoint.

    Raises:
        UserError: a tap does not fit the network, or values overflow the dtype they are to be stored in.
        StoreError: the dataset or the training is absent, damaged, or was made with other settings.
    """
    dataset = commit.read(dataset_path, "dataset")
    training = commit.read(training_path, "train")
    commit.require_settings(training, job.model_dump())
    if training.extra["dataset"] != dataset.digest:
        raise StoreError(f"{training_path} was made with another dataset than {dataset_path} is now; run `dvc repro`")
    key = commit.fingerprint(
        settings.model_dump(), dataset.digest, training.digest, code_digest(), compute.device, compute.threads
    )
    stored = arrays.open_dataset(training_path / arrays.GROUP)
    steps = stored["step"].values
    with commit.scratch(target, key) as scratch:
        records = _allocate(scratch.path, job, settings, read_dataset(dataset_path), steps)
        items = [
            (job, settings, dataset_path, training_path, scratch.path, compute, index)
            for index in range(len(job.seeds))
        ]
        labels = [f"activations {label} seed {seed}" for seed in job.seeds]
        with Progress(labels, len(steps)) as progress:
            map_in_processes(record_seed, items, compute.workers, progress)
        _write_records(scratch.path, records, len(job.seeds), len(steps))
        scratch.commit(
            "activations",
            settings.model_dump(),
            train=training.digest,
            dataset={"name": job.dataset, "digest": dataset.digest},
        )


def record_seed(
    advance: Callable[[int], None],
    job: TrainJob,
    settings: ActivationsSettings,
    dataset_path: Path,
    training_path: Path,
    scratch: Path,
    compute: Compute,
    index: int,
) -> None:
    """Take the activations of one seed's checkpoints, those already there left out."""
    device = compute.start()
    dataset = read_dataset(dataset_path)
    kept = kept_samples(dataset, settings)
    images = torch.from_numpy(standardised(dataset, kept)).to(device, memory_format=torch.channels_last)
    labels = torch.from_numpy(dataset.labels[kept]).to(device)
    train = torch.from_numpy(dataset.train[kept]).to(device)
    calibration = torch.from_numpy(standardised(dataset, calibration_samples(dataset))).to(
        device, memory_format=torch.channels_last
    )
    stored = arrays.open_dataset(training_path / arrays.GROUP)["weights"]
    dtype = np.dtype(settings.dtype)
    for position, step in enumerate(stored["step"].values):
        path = _record_path(scratch, index, position)
        if not path.exists():
            vector = torch.from_numpy(stored.isel(seed=index, step=position).values)
            network = place(build_network(job, dataset), device)
            state.unflatten(network, vector, stored.attrs["table"])
            statistics = set_batchnorm(network, settings, calibration)
            activations, outputs = _forward(network, settings, images)
            for tap, values in activations.items():
                _check_range(values, dtype, tap, job.seeds[index], int(step))
                arrays.write_cell(
                    arrays.open_array(scratch / arrays.GROUP, tap), (index, position), values.astype(dtype)
                )
            losses = functional.cross_entropy(outputs, labels, reduction="none").double()
            correct = (outputs.argmax(1) == labels).double()
            np.savez(
                draft := path.with_suffix(".part.npz"),
                batchnorm=statistics.cpu().numpy(),
                loss=[losses[train].mean().item(), losses[~train].mean().item()],
                accuracy=[correct[train].mean().item(), correct[~train].mean().item()],
            )
            draft.rename(path)
        advance(position + 1)


def build_network(job: TrainJob, dataset: Dataset) -> Network:
    """The run's network for this dataset, with weights yet to be put in."""
    return build(job.model, dataset.images.shape[1], dataset.images.shape[2], len(dataset.classes))


def kept_samples(dataset: Dataset, settings: ActivationsSettings) -> np.ndarray:
    """Indices (sample,) of the samples whose activations are kept: training first, each part in the dataset's order.

    Which training samples those are depends on the dataset and their number alone, never on the run.
    """
    rng = np.random.default_rng(0)
    training, testing = np.flatnonzero(dataset.train), np.flatnonzero(~dataset.train)
    limits = [(training, settings.train_samples), (testing, settings.test_samples or len(testing))]
    return np.concatenate([np.sort(rng.permutation(indices)[:limit]) for indices, limit in limits])


def calibration_samples(dataset: Dataset) -> np.ndarray:
    """Indices (sample,) of the training images that BatchNorm statistics are taken from, in a fixed random order."""
    return np.random.default_rng(1).permutation(np.flatnonzero(dataset.train))[:RECALIBRATION_IMAGES]


def set_batchnorm(network: Network, settings: ActivationsSettings, images: torch.Tensor) -> torch.Tensor:
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


def _forward(
    network: Network, settings: ActivationsSettings, images: torch.Tensor
) -> tuple[dict[str, np.ndarray], torch.Tensor]:
    """Activations (sample, feature) by tap, and logits (sample, class), of all images."""
    # A fixed random order: with statistics of each batch, a batch must not hold one class alone.
    order = torch.from_numpy(np.random.default_rng(2).permutation(len(images))).to(images.device)
    parts: dict[str, list[torch.Tensor]] = {tap.name: [] for tap in settings.taps}
    outputs = []
    with torch.no_grad(), Capture(network, settings.taps) as capture:
        # Batches of nearly equal length, so that none is too short for statistics of its own.
        for rows in order.tensor_split(-(-len(order) // BATCH)):
            outputs.append(network(images[rows]))
            for tap, values in capture.read().items():
                parts[tap].append(values.cpu())
    back = order.argsort()
    return {tap: torch.cat(p)[back.cpu()].numpy() for tap, p in parts.items()}, torch.cat(outputs)[back]


def _check_range(values: np.ndarray, dtype: np.dtype, tap: str, seed: int, step: int) -> None:
    largest = np.abs(values).max()
    if not largest <= np.finfo(dtype).max:
        raise UserError(
            f"tap {tap!r} at seed {seed}, step {step} reaches {largest:.3g}, and {dtype} ends at "
            f"{np.finfo(dtype).max:.3g}: set activations.dtype to float32"
        )


def _shapes(network: Network, settings: ActivationsSettings, dataset: Dataset) -> dict[str, tuple[int, ...]]:
    return shapes(network, settings.taps, dataset.images.shape[1], dataset.images.shape[2])


def _record_path(scratch: Path, index: int, position: int) -> Path:
    return scratch / f"cell-{index}-{position}.npz"


def _allocate(
    scratch: Path, job: TrainJob, settings: ActivationsSettings, dataset: Dataset, steps: np.ndarray
) -> list[dict[str, Any]]:
    """Make the group with its coordinates and empty arrays, at once or not at all; gives the BatchNorm table."""
    with torch.device("meta"):
        network = build_network(job, dataset)
    table: list[dict[str, Any]] = [dict(entry) for entry in state.batchnorm_table(network)]
    tap_shapes = _shapes(network, settings, dataset)
    kept = kept_samples(dataset, settings)

    def fill(path: Path) -> None:
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

    arrays.build(scratch / arrays.GROUP, fill)
    return table


def _write_records(scratch: Path, table: list[dict[str, Any]], seeds: int, steps: int) -> None:
    """Gather what is small of every cell into arrays of its own."""
    paths = [[_record_path(scratch, seed, step) for step in range(steps)] for seed in range(seeds)]
    cells = [[dict(np.load(path, allow_pickle=False)) for path in row] for row in paths]
    values = {name: np.array([[cell[name] for cell in row] for row in cells]) for name in cells[0][0]}
    group = arrays.reopen(scratch / arrays.GROUP)
    part, statistic = ("seed", "step", "part"), ("seed", "step", "statistic")
    arrays.write(group, "loss", part, values["loss"], long_name="cross-entropy of the network", units="nat")
    arrays.write(group, "accuracy", part, values["accuracy"], long_name="accuracy of the network")
    long_name = "BatchNorm statistics that the activations were taken with"
    arrays.write(group, "batchnorm", statistic, values["batchnorm"], long_name=long_name, table=table)
    for row in paths:
        for path in row:
            path.unlink()
    arrays.finish(scratch / arrays.GROUP)
