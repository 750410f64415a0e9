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
from phasescope.data.dataset import Dataset
from phasescope.data.tensors import Images
from phasescope.errors import UserError
from phasescope.models import state
from phasescope.models.batchnorm import recalibrate, use_batch_statistics
from phasescope.models.taps import Capture, shapes
from phasescope.models.zoo import Network, build, place
from phasescope.parallel import map_in_processes
from phasescope.params.activations import ActivationsSettings, Tap
from phasescope.params.train import TrainJob
from phasescope.progress import Progress
from phasescope.provenance import code_digest
from phasescope.store import arrays, commit, manifest
from phasescope.store.commit import Scratch
from phasescope.store.datasets import read_dataset
from phasescope.store.manifest import StoreError

#: Images that pass through the network at once.
BATCH = 256
#: Most training images that BatchNorm is recalibrated with.
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
    dataset = manifest.read(dataset_path, "dataset")
    training = manifest.read(training_path, "train")
    manifest.require_settings(training, job.model_dump())
    if training.extra["dataset"] != dataset.digest:
        raise StoreError(f"{training_path} was made with another dataset than {dataset_path} is now; run `dvc repro`")
    key = commit.fingerprint(
        settings.model_dump(), dataset.digest, training.digest, code_digest(), compute.device, compute.threads
    )
    stored = arrays.open_dataset(training_path / arrays.GROUP)
    steps = stored["step"].values
    with commit.scratch(target, key) as scratch:
        table = _allocate(scratch.path, job, settings, read_dataset(dataset_path), steps)
        items = [
            (job, settings, dataset_path, training_path, scratch, compute, index) for index in range(len(job.seeds))
        ]
        labels = [f"activations {label} seed {seed}" for seed in job.seeds]
        with Progress(labels, len(steps)) as progress:
            map_in_processes(record_seed, items, compute.workers, progress)
        _write_records(scratch, table, len(job.seeds), len(steps))
        scratch.commit(
            "activations",
            settings.model_dump(),
            train=training.digest,
            dataset={"name": job.dataset, "digest": dataset.digest},
            cells={"seeds": job.seeds, "steps": steps.tolist(), "layers": [tap.name for tap in settings.taps]},
        )


def record_seed(
    advance: Callable[[int], None],
    job: TrainJob,
    settings: ActivationsSettings,
    dataset_path: Path,
    training_path: Path,
    scratch: Scratch,
    compute: Compute,
    index: int,
) -> None:
    """Take the activations of one seed's checkpoints, those already there left out."""
    recorder = Recorder(job, settings, read_dataset(dataset_path), compute.start())
    weights = arrays.open_dataset(training_path / arrays.GROUP)["weights"]
    for position, step in enumerate(weights["step"].values):
        path = _record_path(scratch, index, position)
        if not path.exists():
            where = f"seed {job.seeds[index]}, step {step}"
            stored = arrays.load(weights.isel(seed=index, step=position), f"{training_path}, {where}").values
            activations, known = recorder.take(stored, weights.attrs["table"], settings.taps, None, where)
            for tap, values in activations.items():
                arrays.write_cell(arrays.open_array(scratch.path / arrays.GROUP, tap), (index, position), values)
            arrays.save_state(path, **known)
        advance(position + 1)


class Recorder:
    """What takes the activations of one checkpoint after the other."""

    def __init__(self, job: TrainJob, settings: ActivationsSettings, dataset: Dataset, device: torch.device) -> None:
        kept = kept_samples(dataset, settings)
        self._job, self._settings, self._dataset, self._device = job, settings, dataset, device
        self._data = Images.of(dataset, kept, device)
        self._calibration = Images.of(dataset, calibration_samples(dataset, settings), device).images
        parts = (dataset.train[kept], ~dataset.train[kept])
        self._parts = [torch.from_numpy(np.flatnonzero(part)).to(device) for part in parts]

    def take(
        self, weights: np.ndarray, table: list[state.Entry], taps: list[Tap], known: None, where: str
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Activations (sample, feature) by tap, and the record of the checkpoint.

        Args:
            weights: the checkpoint's (parameter,), laid out as `table` says.
            table: of the weights.
            taps: those to take the activations at.
            known: the record, if it was made before.
            where: which checkpoint, for errors.
        """
        network = place(build(self._job.model, *self._dataset.shape), self._device)
        state.unflatten(network, torch.from_numpy(weights), table)
        statistics = set_batchnorm(network, self._settings, self._calibration)
        activations, outputs = _forward(network, self._settings.dtype, taps, self._data.images, where)
        losses = functional.cross_entropy(outputs, self._data.labels, reduction="none").double()
        correct = (outputs.argmax(1) == self._data.labels).double()
        return activations, {
            "batchnorm": statistics.cpu().numpy(),
            "loss": [losses[part].mean().item() for part in self._parts],
            "accuracy": [correct[part].mean().item() for part in self._parts],
            "weight_norm": weight_norm(network),
        }


def kept_samples(dataset: Dataset, settings: ActivationsSettings) -> np.ndarray:
    """Indices (sample,) of the samples whose activations are kept: training first, each part in the dataset's order.

    Which training samples those are depends on the dataset and their number alone, never on the run.
    """
    rng = np.random.default_rng(0)
    training, testing = np.flatnonzero(dataset.train), np.flatnonzero(~dataset.train)
    limits = [(training, settings.train_samples), (testing, settings.test_samples or len(testing))]
    return np.concatenate([np.sort(rng.permutation(indices)[:limit]) for indices, limit in limits])


def calibration_samples(dataset: Dataset, settings: ActivationsSettings) -> np.ndarray:
    """Indices (sample,) of the training images that BatchNorm is recalibrated with, in a fixed random order."""
    most = RECALIBRATION_IMAGES if settings.batchnorm == "recalibrated" else 0
    return np.random.default_rng(1).permutation(np.flatnonzero(dataset.train))[:most]


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


def weight_norm(network: Network) -> float:
    """Euclidean norm of all trained parameters, in float64; statistics and counters of BatchNorm are not among them.

    Running statistics start at (0, 1) and change the length of the whole vector by a quarter in the first steps
    (VGG-8 × 0.25 on digits: 24.1 to 18.7), that of the parameters by 3 % in 2,048 (18.3 to 18.9).
    """
    return math.sqrt(sum(weights.detach().double().square().sum().item() for weights in network.parameters()))


def _forward(
    network: Network, dtype: str, taps: list[Tap], images: torch.Tensor, where: str
) -> tuple[dict[str, np.ndarray], torch.Tensor]:
    """Activations (sample, feature) by tap as they are stored, and logits (sample, class), of all images."""
    # A fixed random order: with statistics of each batch, a batch must not hold one class alone.
    order = torch.from_numpy(np.random.default_rng(2).permutation(len(images))).to(images.device)
    activations: dict[str, np.ndarray] = {}
    outputs = []
    with torch.no_grad(), Capture(network, taps) as capture:
        # Batches of nearly equal length, so that none is too short for statistics of its own.
        for rows in order.tensor_split(-(-len(order) // BATCH)):
            outputs.append(network(images[rows]))
            for tap, values in capture.read().items():
                if tap not in activations:
                    activations[tap] = np.empty((len(images), values.shape[1]), dtype)
                activations[tap][rows.cpu().numpy()] = _representable(values, dtype, f"tap {tap!r} at {where}")
    return activations, torch.cat(outputs)[order.argsort()]


def _representable(values: torch.Tensor, dtype: str, what: str) -> np.ndarray:
    """The values, if they fit into the dtype they are to be stored in."""
    largest, end = values.abs().max().item(), float(np.finfo(dtype).max)
    if not largest <= end:
        raise UserError(
            f"{what} reaches {largest:.3g}, and {dtype} ends at {end:.3g}: set activations.dtype to float32"
        )
    return values.cpu().numpy()


def _shapes(network: Network, settings: ActivationsSettings, dataset: Dataset) -> dict[str, tuple[int, ...]]:
    return shapes(network, settings.taps, dataset.images.shape[1], dataset.images.shape[2])


def _record_path(scratch: Scratch, index: int, position: int) -> Path:
    return scratch.state / f"cell-{index}-{position}.npz"


def _allocate(
    scratch: Path, job: TrainJob, settings: ActivationsSettings, dataset: Dataset, steps: np.ndarray
) -> list[dict[str, Any]]:
    """Make the group with its coordinates and empty arrays, at once or not at all; gives the BatchNorm table."""
    with torch.device("meta"):
        network = build(job.model, *dataset.shape)
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


def _write_records(scratch: Scratch, table: list[dict[str, Any]], seeds: int, steps: int) -> None:
    """Gather what is small of every cell into arrays of its own."""
    cells = [[arrays.read_state(_record_path(scratch, seed, step)) for step in range(steps)] for seed in range(seeds)]
    values = {name: np.array([[cell[name] for cell in row] for row in cells]) for name in cells[0][0]}
    path = scratch.path / arrays.GROUP
    group = arrays.reopen(path)
    part, statistic = ("seed", "step", "part"), ("seed", "step", "statistic")
    arrays.write(group, "loss", part, values["loss"], long_name="cross-entropy of the network", units="nat")
    arrays.write(group, "accuracy", part, values["accuracy"], long_name="accuracy of the network")
    arrays.write(group, "weight_norm", ("seed", "step"), values["weight_norm"], long_name="norm of the parameters")
    long_name = "BatchNorm statistics that the activations were taken with"
    arrays.write(group, "batchnorm", statistic, values["batchnorm"], long_name=long_name, table=table)
    arrays.finish(path)
