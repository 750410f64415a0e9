"""Training with checkpoints at 0 and 2^i, that goes on where it was interrupted and ends in the same bits.

Everything random comes from the run's seed: the initialisation from torch's generator, the order of the data in
epoch e from (seed, e). Looking at the network never disturbs its training.

The store of a training holds, per seed, the weights at every checkpoint as one flat vector, the loss and accuracy of
every batch, those on the test images at every checkpoint, and the state of the optimiser after the last update.
"""

import hashlib
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import zarr
from torch import nn
from torch.nn import functional

from phasescope.compute import Compute
from phasescope.data.dataset import Dataset
from phasescope.data.tensors import Images
from phasescope.errors import UserError
from phasescope.models import state
from phasescope.models.zoo import build, place
from phasescope.parallel import map_in_processes
from phasescope.params.train import TrainJob
from phasescope.progress import Progress
from phasescope.provenance import code_digest
from phasescope.schedule import checkpoint_steps
from phasescope.store import arrays, commit, manifest
from phasescope.store.commit import Scratch
from phasescope.store.datasets import read_dataset

#: Images that pass through the network at once where no gradient is needed.
EVALUATION_BATCH = 512
#: Seconds between two states from which an interrupted training goes on.
RESUME_INTERVAL = 30.0


def train(job: TrainJob, dataset_path: Path, target: Path, compute: Compute, label: str) -> None:
    """Train a run's network once per seed, and commit weights and logs to the directory `target`.

    An interrupted training goes on from its last state; finished seeds are not trained again.

    Raises:
        UserError: the training diverges, or the dataset is absent or damaged.
    """
    dataset = manifest.read(dataset_path, "dataset")
    key = commit.fingerprint(job.model_dump(), dataset.digest, code_digest(), compute.device, compute.threads)
    steps = checkpoint_steps(job.iterations)
    with commit.scratch(target, key) as scratch:
        _allocate(scratch.path, job, dataset_path)
        items = [(job, dataset_path, scratch, compute, index) for index in range(len(job.seeds))]
        with Progress([f"train {label} seed {seed}" for seed in job.seeds], job.iterations) as progress:
            map_in_processes(train_seed, items, compute.workers, progress)
        states = [arrays.read_state(state_path(scratch, index)) for index in range(len(job.seeds))]
        _write_logs(scratch.path / arrays.GROUP, states)
        hashes = {
            str(seed): {str(step): str(value) for step, value in zip(steps, logged["hashes"], strict=True)}
            for seed, logged in zip(job.seeds, states, strict=True)
        }
        cells = {"seeds": job.seeds, "steps": steps, "layers": ["weights"]}
        scratch.commit("train", job.model_dump(), dataset=dataset.digest, weights=hashes, cells=cells)


def train_seed(
    advance: Callable[[int], None], job: TrainJob, dataset_path: Path, scratch: Scratch, compute: Compute, index: int
) -> None:
    """Train one seed from where its state file says, writing each checkpoint as one shard."""
    training = _SeedTraining(job, read_dataset(dataset_path), scratch, compute.start(), index)
    training.resume()
    advance(training.step)
    steps = checkpoint_steps(job.iterations)
    saved_at = time.monotonic()
    for step, batch in batches(
        training.seed, len(training.images.labels), job.batch_size, training.step, job.iterations
    ):
        if step in steps[len(training.hashes) :]:
            training.checkpoint()
        elif time.monotonic() - saved_at > RESUME_INTERVAL:
            training.save()
            saved_at = time.monotonic()
        training.update(batch)
        advance(training.step)
    if len(training.hashes) < len(steps):
        training.checkpoint()
    training.save()


class _SeedTraining:
    """The training of one seed: its network, optimiser and logs, and the file it can be resumed from."""

    def __init__(self, job: TrainJob, dataset: Dataset, scratch: Scratch, device: torch.device, index: int) -> None:
        self.seed = job.seeds[index]
        self.step = 0
        #: SHA-256 of the weights of every checkpoint made so far.
        self.hashes: list[str] = []
        self.images = Images.of(dataset, np.flatnonzero(dataset.train), device)
        self._test_images = Images.of(dataset, np.flatnonzero(~dataset.train), device)
        self._job, self._index, self._state_path = job, index, state_path(scratch, index)
        self._weights = arrays.open_array(scratch.path / arrays.GROUP, "weights")
        torch.manual_seed(self.seed)
        self._network = place(build(job.model, *dataset.shape), device)
        self._network.train()
        self._optimiser = torch.optim.SGD(
            self._network.parameters(), lr=job.learning_rate, momentum=job.momentum, weight_decay=job.weight_decay
        )
        # Filled on the device, so that no update waits for the host.
        self._logs = torch.full((2, job.iterations), torch.nan, device=device)
        self._tests = np.full((2, len(checkpoint_steps(job.iterations))), np.nan)

    def update(self, batch: np.ndarray) -> None:
        """One update with the training samples at indices `batch` (sample,)."""
        rows = torch.from_numpy(batch).to(self.images.labels.device)
        labels = self.images.labels[rows]
        outputs = self._network(self.images.images[rows])
        loss = functional.cross_entropy(outputs, labels)
        self._optimiser.zero_grad()
        loss.backward()
        self._optimiser.step()
        self._logs[0, self.step] = loss.detach()
        self._logs[1, self.step] = (outputs.detach().argmax(1) == labels).float().mean()
        self.step += 1

    def checkpoint(self) -> None:
        """Write the weights as the next checkpoint, look at the test images, and save."""
        vector = state.flatten(self._network).cpu().numpy()
        if not np.isfinite(vector).all():
            raise UserError(
                f"seed {self.seed} diverged before step {self.step}: its weights are not finite; "
                f"lower train.learning_rate (now {self._job.learning_rate})"
            )
        position = len(self.hashes)
        arrays.write_cell(self._weights, (self._index, position), vector)
        self._tests[:, position] = evaluate(self._network, self._test_images)
        self.hashes.append(hashlib.sha256(vector.tobytes()).hexdigest())
        self.save()

    def save(self) -> None:
        """Write all that is needed to go on from here, so that the file is whole at any moment."""
        arrays.save_state(
            self._state_path,
            step=self.step,
            weights=state.flatten(self._network).cpu().numpy(),
            momentum=_momentum(self._optimiser),
            rng=torch.get_rng_state().numpy(),
            logs=self._logs[:, : self.step].cpu().numpy(),
            tests=self._tests,
            hashes=np.array(self.hashes, dtype=str),
        )

    def resume(self) -> None:
        """Go on from the saved state, if there is one and the checkpoints it speaks of are there."""
        if not self._state_path.exists():
            return
        saved = arrays.read_state(self._state_path)
        if not _checkpoints_match(self._weights, self._index, saved["hashes"]):
            return
        self.step, self.hashes, self._tests = int(saved["step"]), saved["hashes"].tolist(), saved["tests"]
        state.unflatten(self._network, torch.from_numpy(saved["weights"]), state.table(self._network))
        _restore_momentum(self._optimiser, saved["momentum"])
        torch.set_rng_state(torch.from_numpy(saved["rng"]))
        self._logs[:, : self.step] = torch.from_numpy(saved["logs"]).to(self._logs.device)


def batches(seed: int, samples: int, batch_size: int, start: int, iterations: int) -> Iterator[tuple[int, np.ndarray]]:
    """The step and sample indices (batch,) of every update from `start` on.

    Each epoch visits every sample once, in an order drawn from (seed, epoch), so that any step can be found again; its
    last batch holds what is left over. A single sample left over joins the batch before it, for BatchNorm cannot
    normalise one alone.
    """
    per_epoch = max(1, samples // batch_size) if samples % batch_size == 1 else math.ceil(samples / batch_size)
    epoch, order = -1, np.empty(0, dtype=np.int64)
    for step in range(start, iterations):
        if step // per_epoch != epoch:
            epoch = step // per_epoch
            order = np.random.default_rng([seed, epoch]).permutation(samples)
        position = step % per_epoch
        end = None if position == per_epoch - 1 else (position + 1) * batch_size
        yield step, order[position * batch_size : end]


def evaluate(network: nn.Module, data: Images) -> tuple[float, float]:
    """Mean cross-entropy and accuracy on `data` in eval mode, leaving the network as it was."""
    was_training = network.training
    network.eval()
    loss = correct = 0.0
    with torch.no_grad():
        for images, labels in zip(
            data.images.split(EVALUATION_BATCH), data.labels.split(EVALUATION_BATCH), strict=True
        ):
            outputs = network(images)
            loss += functional.cross_entropy(outputs, labels, reduction="sum").item()
            correct += (outputs.argmax(1) == labels).sum().item()
    network.train(was_training)
    return loss / len(data.labels), correct / len(data.labels)


def state_path(scratch: Scratch, index: int) -> Path:
    """Where a seed's training is saved while it runs."""
    return scratch.state / f"seed-{index}.npz"


def _checkpoints_match(weights: zarr.Array, index: int, hashes: np.ndarray) -> bool:
    """Whether the checkpoints are those the saved state speaks of: a crash can lose a file."""
    try:
        vectors = [np.asarray(weights[index, position]) for position in range(len(hashes))]
    except Exception:  # whatever zarr raises on a damaged file: the seed is trained anew
        return False
    return all(hashlib.sha256(v.tobytes()).hexdigest() == h for v, h in zip(vectors, hashes, strict=True))


def _momentum(optimiser: torch.optim.Optimizer) -> np.ndarray:
    """The momentum of all parameters (parameter,), zero before the first update and without momentum."""
    parameters = optimiser.param_groups[0]["params"]
    buffers = [optimiser.state[p].get("momentum_buffer") for p in parameters]
    parts = [torch.zeros_like(p) if b is None else b for p, b in zip(parameters, buffers, strict=True)]
    return torch.cat([part.detach().flatten() for part in parts]).cpu().numpy()


def _restore_momentum(optimiser: torch.optim.Optimizer, momentum: np.ndarray) -> None:
    if optimiser.param_groups[0]["momentum"] == 0:
        return
    parameters = optimiser.param_groups[0]["params"]
    parts = torch.from_numpy(momentum).split([p.numel() for p in parameters])
    for parameter, part in zip(parameters, parts, strict=True):
        buffer = torch.empty_like(parameter).copy_(part.view_as(parameter))
        optimiser.state[parameter]["momentum_buffer"] = buffer


def _allocate(scratch: Path, job: TrainJob, dataset_path: Path) -> None:
    """Make the group with its coordinates and the empty array of weights."""
    dataset = read_dataset(dataset_path)
    with torch.device("meta"):
        network = build(job.model, *dataset.shape)
    table = state.table(network)
    steps = checkpoint_steps(job.iterations)

    def fill(path: Path) -> None:
        group = arrays.create_group(path, {"classes": dataset.classes, "image": list(dataset.images.shape[1:])})
        arrays.write(group, "seed", ("seed",), job.seeds, long_name="seed of initialisation and data order")
        arrays.write(group, "step", ("step",), steps, long_name="updates made so far")
        shape = (len(job.seeds), len(steps), table[-1]["offset"] + table[-1]["length"])
        long_name = "parameters and buffers of the network"
        arrays.create(
            group, "weights", ("seed", "step", "parameter"), shape, np.float32, cell=2, long_name=long_name, table=table
        )

    arrays.build(scratch / arrays.GROUP, fill)


def _write_logs(path: Path, states: list[dict[str, Any]]) -> None:
    """Write what the seeds logged, and where their training stands, next to the weights."""
    group = arrays.reopen(path)
    iterations = np.arange(1, states[0]["logs"].shape[1] + 1)
    arrays.write(group, "iteration", ("iteration",), iterations, long_name="number of the update")
    for name, dims, long_name in [
        ("weights", ("seed", "parameter"), "parameters and buffers after the last update"),
        ("momentum", ("seed", "trainable"), "momentum of the parameters after the last update"),
        ("rng", ("seed", "byte"), "state of torch's random number generator after the last update"),
    ]:
        arrays.write(group, f"last_{name}", dims, np.stack([saved[name] for saved in states]), long_name=long_name)
    for row, name, units in [(0, "loss", "nat"), (1, "accuracy", "1")]:
        logs = np.stack([saved["logs"][row] for saved in states])
        long_name = f"{name} on the batch, before the update"
        arrays.write(group, name, ("seed", "iteration"), logs, long_name=long_name, units=units)
        tests = np.stack([saved["tests"][row] for saved in states])
        long_name = f"{name} on the test images, BatchNorm with running statistics"
        arrays.write(group, f"test_{name}", ("seed", "step"), tests, long_name=long_name, units=units)
    arrays.finish(path)
