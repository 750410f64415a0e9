"""Training with checkpoints at 0 and 2^i, that goes on where it was interrupted and ends in the same bits.

Everything random comes from the run's seed: the initialisation from torch's generator, the order of the data in
epoch e from (seed, e). Looking at the network never disturbs its training.

The store of a training holds, per seed, the weights at every checkpoint as one flat vector, the loss and accuracy of
every batch, those on training and test images at every checkpoint and as often as is asked for, and the state of the
optimiser after the last update.
"""

import hashlib
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import nn

from phasescope.compute import Compute
from phasescope.data.dataset import Dataset
from phasescope.data.tensors import Images
from phasescope.errors import UserError
from phasescope.models import state
from phasescope.models.losses import UNITS, loss_of, told_right
from phasescope.models.optimisers import UNHEEDED, Optimiser
from phasescope.models.taps import shapes
from phasescope.models.zoo import build_for, outline_for, place
from phasescope.parallel import map_in_processes
from phasescope.params.activations import Tap
from phasescope.params.train import TrainJob
from phasescope.progress import Progress, tell_computed
from phasescope.store import arrays, commit, manifest
from phasescope.store.cache import CellCache
from phasescope.store.datasets import read_dataset

#: Images that pass through the network at once where no gradient is needed.
EVALUATION_BATCH = 512
#: Seconds between two states from which an interrupted training goes on.
RESUME_INTERVAL = 30.0
#: Kinds of cells: the weights of a checkpoint, and where a training stands.
WEIGHTS, STATES = "train-weights", "train-states"

#: Training images whose loss and accuracy is looked at, at most: those of a fixed random order.
EVALUATION_IMAGES = 10_000
_BATCH = "on the batch, before the update"
_EVALUATED = {"train": "training images", "test": "test images"}
#: Loss and accuracy as they are looked at, BatchNorm with running statistics: long name and dimension after the seed.
EVALUATIONS = {
    f"{part}_{what}": (("evaluation",), f"{what} on the {images}, BatchNorm with running statistics")
    for part, images in _EVALUATED.items()
    for what in ("loss", "accuracy")
}
#: What is logged, and where a training stands after its last update: dimensions after the seed, and long name.
LOGS = {
    "last_weights": (("parameter",), "parameters and buffers after the last update"),
    "last_moments": (("moment", "trainable"), "averages of gradients that the optimiser keeps after the last update"),
    "last_rng": (("byte",), "state of torch's random number generator"),
    "sha256": (("step",), "SHA-256 of the weights"),
    "loss": (("iteration",), f"loss {_BATCH}"),
    "accuracy": (("iteration",), f"accuracy {_BATCH}"),
    **EVALUATIONS,
}


#: Gives where a training stands at its end, and how many checkpoints it made, as `train_seed` does.
BySeed = Callable[..., tuple[xr.Dataset, int]]


def train(
    job: TrainJob,
    dataset_path: Path,
    target: Path,
    compute: Compute,
    label: str,
    cache: CellCache,
    by_seed: BySeed | None = None,
) -> None:
    """Train a run's network once per seed, and commit weights and logs to the directory `target`.

    Or get its checkpoints `by_seed` in another way (`importing.import_seed`).

    What is known in the `cache` is not trained again: an interrupted training goes on from its last state, a longer
    one from the end of a shorter one, and seeds that are there stay as they are.

    Raises:
        UserError: the training diverges, or the dataset is absent or damaged.
        StoreError: another process is training this run.
    """
    dataset = manifest.read(dataset_path, "dataset")
    shared = job.model_dump(exclude={"seeds", "iterations", *UNHEEDED[job.optimiser]})
    keys = [commit.fingerprint(shared, seed, dataset.digest) for seed in job.seeds]
    steps = job.steps
    with commit.scratch(target) as scratch:
        path = scratch.path / arrays.GROUP
        _allocate(path, job, dataset_path)
        items = [(job, dataset_path, path, compute, cache, index, key) for index, key in enumerate(keys)]
        with Progress([f"train {label} seed {seed}" for seed in job.seeds], job.iterations) as progress:
            trained = map_in_processes(by_seed or train_seed, items, compute, progress, path)
        tell_computed(f"train {label}", sum(computed for _, computed in trained), len(keys) * len(steps))
        states = xr.concat(
            [state for state, _ in trained], xr.DataArray(job.seeds, dims="seed"), combine_attrs="drop_conflicts"
        )
        _write_logs(path, states, job.evaluations)
        hashes = {
            str(seed): dict(zip(map(str, steps), states["sha256"].sel(seed=seed).values.tolist(), strict=True))
            for seed in job.seeds
        }
        scratch.commit(
            "train",
            job.model_dump(),
            dataset=dataset.digest,
            weights=hashes,
            cells={
                "seeds": job.seeds,
                "steps": steps,
                "layers": ["weights"],
                "files": {WEIGHTS: {"weights": [[checkpoint_key(key, step) for step in steps] for key in keys]}},
                "arrays": {
                    STATES: {
                        "dims": ["seed"],
                        "keys": keys,
                        "names": sorted(LOGS),
                        "coords": [],
                        "attributes": {"step": job.iterations, "iterations": job.iterations},
                    }
                },
            },
        )


def write_curves(run: str, training_path: Path, target: Path) -> None:
    """Commit the loss and accuracy on training and test images of a training, (seed, step), to the directory `target`.

    They are small, and what phases and figures need of a training; steps are those at which they were looked at.
    """
    training = manifest.read(training_path, "train")
    stored = arrays.load(arrays.open_dataset(training_path / arrays.GROUP)[list(EVALUATIONS)], str(training_path))
    curves = stored.reset_coords(drop=True).rename(evaluation="step")
    curves = curves.assign_coords(seed=stored["seed"], step=stored["evaluation"].rename(evaluation="step"))
    with commit.scratch(target) as scratch:
        arrays.write_dataset(scratch.path / arrays.GROUP, curves)
        cells: dict[str, Any] = {"seeds": [], "steps": [], "layers": [], "files": {}, "arrays": {}}
        inputs = {f"runs/{run}/train": training.digest}
        scratch.commit("training", training.settings, inputs=inputs, cells=cells)


def train_seed(
    advance: Callable[[int], None],
    job: TrainJob,
    dataset_path: Path,
    path: Path,
    compute: Compute,
    cache: CellCache,
    index: int,
    key: str,
) -> tuple[xr.Dataset, int]:
    """Train one seed from where it is known, each checkpoint as one shard of the group at `path`.

    Returns:
        Where the training stands at its end, and how many checkpoints it made.
    """
    training = _SeedTraining(job, read_dataset(dataset_path), path, compute.start(), cache, index, key)
    training.resume()
    advance(training.step)
    known = len(training.hashes)
    saved_at = time.monotonic()
    for batch in batches(job, training.seed, len(training.images.targets), training.step):
        training.look()
        if time.monotonic() - saved_at > RESUME_INTERVAL:
            training.save()
            saved_at = time.monotonic()
        training.update(batch)
        advance(training.step)
    training.look()
    return training.save(), len(training.hashes) - known


def checkpoint_key(key: str, step: int) -> str:
    """The key of a checkpoint's weights in the cache; `key` is that of its training."""
    return commit.fingerprint(key, step)


class _SeedTraining:
    """The training of one seed: its network, optimiser and logs, and the cell it can be resumed from."""

    def __init__(
        self,
        job: TrainJob,
        dataset: Dataset,
        path: Path,
        device: torch.device,
        cache: CellCache,
        index: int,
        key: str,
    ) -> None:
        self.seed = job.seeds[index]
        self.step = 0
        #: SHA-256 of the weights of every checkpoint made so far.
        self.hashes: list[str] = []
        self.images = Images.of(dataset, np.flatnonzero(dataset.train), device, job.model.dtype, job.target)
        self._looked_at = {
            name: Images.of(dataset, chosen, device, job.model.dtype, job.target)
            for name, chosen in looked_at(dataset).items()
        }
        self._steps, self._evaluation_steps = job.steps, job.evaluations
        #: Loss and accuracy at each evaluation made so far, in the order of `EVALUATIONS`.
        self._evaluated: list[list[float]] = []
        self._job, self._index, self._cache, self._key = job, index, cache, key
        self._loss = loss_of(job.loss)
        self._weights = arrays.open_array(path, "weights")
        torch.manual_seed(self.seed)
        self._network = place(build_for(job, *dataset.shape), device)
        self._network.train()
        self._drops = any(isinstance(module, nn.Dropout) and module.p > 0 for module in self._network.modules())
        self._optimiser = Optimiser(job, self._network)
        # Filled on the device, so that no update waits for the host.
        self._logs = torch.full((2, job.iterations), torch.nan, device=device, dtype=getattr(torch, job.model.dtype))
        #: The state saved last, which the next one replaces.
        self._saved: Path | None = None

    def update(self, batch: np.ndarray) -> None:
        """One update with the training samples at indices `batch` (sample,)."""
        if self._drops:
            # Of every device, so that any step drops the same units wherever a training begins again.
            torch.manual_seed(int(np.random.SeedSequence([self.seed, self.step]).generate_state(1, np.uint64)[0]))
        rows = torch.from_numpy(batch).to(self.images.targets.device)
        targets = self.images.targets[rows]
        outputs = self._network(self.images.images[rows])
        loss = self._loss(outputs, targets)
        self._optimiser.forget_gradients()
        loss.backward()
        self._optimiser.update(self._job.learning_rate * min(1.0, (self.step + 1) / max(1, self._job.warmup)))
        self._logs[0, self.step] = loss.detach()
        self._logs[1, self.step] = told_right(outputs.detach(), targets).mean()
        self.step += 1

    def look(self) -> None:
        """Take the loss and accuracy, and a checkpoint, if this is a step at which they are due."""
        if self.step in self._evaluation_steps[len(self._evaluated) : len(self._evaluated) + 1]:
            self._evaluated.append(
                [value for data in self._looked_at.values() for value in evaluate(self._network, data, self._loss)]
            )
        if self.step in self._steps[len(self.hashes) : len(self.hashes) + 1]:
            self.checkpoint()

    def checkpoint(self) -> None:
        """Write the weights as the next checkpoint, and save."""
        vector = state.flatten(self._network).cpu().numpy()
        if not np.isfinite(vector).all():
            raise UserError(
                f"seed {self.seed} diverged before step {self.step}: its weights are not finite; "
                f"lower train.learning_rate (now {self._job.learning_rate})"
            )
        position = len(self.hashes)
        arrays.write_cell(self._weights, (self._index, position), vector)
        shard = arrays.shard(self._weights, (self._index, position))
        self._cache.put(WEIGHTS, checkpoint_key(self._key, self.step), shard)
        self.hashes.append(hashlib.sha256(vector.tobytes()).hexdigest())
        self.save()

    def save(self) -> xr.Dataset:
        """Keep all that is needed to go on from here, instead of what was saved before."""
        reached = self._state()
        saved = self._cache.save(STATES, self._key, reached)
        if self._saved not in (None, saved):
            self._saved.unlink(missing_ok=True)
        # The end of a training stays: a longer one goes on from it.
        self._saved = None if _is_end(reached) else saved
        return reached

    def resume(self) -> None:
        """Go on from the furthest state that is known, if the checkpoints up to it are."""
        states = sorted(self._cache.versions(STATES, self._key), key=lambda version: version[1].attrs["step"])
        fitting = [version for version in states if version[1].attrs["step"] <= self._job.iterations]
        for older, reached in fitting[:-1]:
            if not _is_end(reached):  # a kill between the new state and the removal of the old one
                older.unlink(missing_ok=True)
        if not fitting:
            return
        path, saved = fitting[-1]
        for position, step in enumerate(self._steps[: saved.sizes["step"]]):
            shard = arrays.shard(self._weights, (self._index, position))
            if not self._cache.get(WEIGHTS, checkpoint_key(self._key, step), shard):
                return
        self._saved = None if _is_end(saved) else path
        self.step, self.hashes = saved.attrs["step"], saved["sha256"].values.tolist()
        self._evaluated = np.stack([saved[name].values for name in EVALUATIONS], axis=1).tolist()
        weights = torch.from_numpy(saved["last_weights"].values)
        state.unflatten(self._network, weights, state.table(self._network))
        self._optimiser.restore(saved["last_moments"].values, self.step)
        torch.set_rng_state(torch.from_numpy(saved["last_rng"].values))
        logs = torch.from_numpy(np.stack([saved["loss"], saved["accuracy"]]))
        self._logs[:, : self.step] = logs.to(self._logs.device)

    def _state(self) -> xr.Dataset:
        """Where the training stands, in the names of the store."""
        logs = self._logs[:, : self.step].cpu().numpy()
        evaluated = np.array(self._evaluated, dtype=np.float64).reshape(-1, len(EVALUATIONS))
        values = {
            "last_weights": state.flatten(self._network).cpu().numpy(),
            "last_moments": self._optimiser.moments(),
            "last_rng": torch.get_rng_state().numpy(),
            "sha256": np.array(self.hashes, dtype=str),
            "loss": logs[0],
            "accuracy": logs[1],
            **dict(zip(EVALUATIONS, evaluated.T, strict=True)),
        }
        units = {name: UNITS.get(self._job.loss, "1") for name in LOGS if name.endswith("loss")}
        described = {
            name: (dims, values[name], {"units": units.get(name, "1"), "long_name": long_name})
            for name, (dims, long_name) in LOGS.items()
        }
        return xr.Dataset(described, attrs={"step": self.step, "iterations": self._job.iterations})


def _is_end(reached: xr.Dataset) -> bool:
    return reached.attrs["step"] == reached.attrs["iterations"]


def batches(job: TrainJob, seed: int, samples: int, start: int) -> Iterator[np.ndarray]:
    """The sample indices (batch,) of every update from step `start` on, any of which can be found again.

    In epochs, each visits every sample once, in an order drawn from (seed, epoch); its last batch holds what is left
    over. A single sample left over joins the batch before it, for BatchNorm cannot normalise one alone. With
    replacement, each batch is drawn from (seed, step).
    """
    length = min(job.batch_size, samples)
    if job.sampling == "replacement":
        for step in range(start, job.iterations):
            yield np.random.default_rng([seed, step]).integers(samples, size=length)
        return
    per_epoch = max(1, samples // length) if samples % length == 1 else math.ceil(samples / length)
    epoch, order = -1, np.empty(0, dtype=np.int64)
    for step in range(start, job.iterations):
        if step // per_epoch != epoch:
            epoch = step // per_epoch
            order = np.random.default_rng([seed, epoch]).permutation(samples)
        position = step % per_epoch
        end = None if position == per_epoch - 1 else (position + 1) * length
        yield order[position * length : end]


def looked_at(dataset: Dataset) -> dict[str, np.ndarray]:
    """Indices of the training and the test images whose loss and accuracy is looked at."""
    training = np.flatnonzero(dataset.train)
    some = np.random.default_rng(3).permutation(training)[:EVALUATION_IMAGES]
    return {"train": np.sort(some), "test": np.flatnonzero(~dataset.train)}


def evaluate(network: nn.Module, data: Images, criterion: Callable[..., torch.Tensor]) -> tuple[float, float]:
    """Mean loss by `criterion` (one of `LOSSES`) and accuracy on `data` in eval mode, leaving the network as it was.

    There is no accuracy of numbers: it is NaN.
    """
    was_training = network.training
    network.eval()
    loss = correct = 0.0
    with torch.no_grad():
        for images, targets in zip(
            data.images.split(EVALUATION_BATCH), data.targets.split(EVALUATION_BATCH), strict=True
        ):
            outputs = network(images)
            loss += criterion(outputs, targets, reduction="sum").item()
            correct += told_right(outputs, targets).sum().item()
    network.train(was_training)
    return loss / len(data.targets), correct / len(data.targets)


def _allocate(path: Path, job: TrainJob, dataset_path: Path) -> None:
    """Make the group with its coordinates and the empty array of weights."""
    dataset = read_dataset(dataset_path)
    network = outline_for(job, *dataset.shape)
    channels, resolution, classes = dataset.shape
    (outputs,) = shapes(network, [Tap(name="logits")], channels, resolution).values()
    if outputs != (job.outputs(classes),):
        raise UserError(f"{job.model.name}: gives {outputs} of an image, where ({job.outputs(classes)},) is expected")
    table = state.table(network)
    steps = job.steps
    group = arrays.create_group(path, {"classes": dataset.classes, "image": list(dataset.images.shape[1:])})
    arrays.write(group, "seed", ("seed",), job.seeds, long_name="seed of initialisation and data order")
    arrays.write(group, "step", ("step",), steps, long_name="updates made so far")
    shape = (len(job.seeds), len(steps), table[-1]["offset"] + table[-1]["length"])
    about: dict[str, Any] = {"long_name": "parameters and buffers of the network", "table": table}
    arrays.create(group, "weights", ("seed", "step", "parameter"), shape, job.model.dtype, cell=2, **about)


def _write_logs(path: Path, states: xr.Dataset, evaluations: list[int]) -> None:
    """Write what the seeds logged, and where their training stands, next to the weights."""
    group = arrays.reopen(path)
    iterations = np.arange(1, states.sizes["iteration"] + 1)
    arrays.write(group, "iteration", ("iteration",), iterations, long_name="number of the update")
    arrays.write(group, "evaluation", ("evaluation",), evaluations, long_name="updates made when looked at")
    for name, logged in states.data_vars.items():
        ordered = logged.transpose("seed", ...)
        # What is as long as the network is one file for each seed.
        cell = 1 if {"parameter", "trainable"} & set(ordered.dims) else 0
        arrays.write(group, str(name), tuple(map(str, ordered.dims)), ordered.values, cell=cell, **logged.attrs)
    arrays.finish(path)
