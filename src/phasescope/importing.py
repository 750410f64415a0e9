"""Runs of checkpoints that others saved: they become a store like that of a training, and all else follows."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import xarray as xr

from phasescope.checkpoints import FOLDER
from phasescope.compute import Compute
from phasescope.data.tensors import Images
from phasescope.errors import UserError
from phasescope.models import state
from phasescope.models.foreign import fitted, read_weights
from phasescope.models.losses import UNITS, loss_of
from phasescope.models.optimisers import Optimiser
from phasescope.models.zoo import build_for, place
from phasescope.params.train import TrainJob
from phasescope.store import arrays
from phasescope.store.cache import CellCache
from phasescope.store.datasets import read_dataset
from phasescope.training import EVALUATIONS, LOGS, WEIGHTS, checkpoint_key, evaluate, looked_at


def import_seed(
    advance: Callable[[int], None],
    job: TrainJob,
    dataset_path: Path,
    path: Path,
    compute: Compute,
    cache: CellCache,
    index: int,
    key: str,
) -> tuple[xr.Dataset, int]:
    """Bring the checkpoints of one seed into the group at `path`, and look at their loss and accuracy.

    Returns:
        What `training.train_seed` does; of the updates, of which nothing is known, there are none.

    Raises:
        UserError: a file is absent, changed, no checkpoint, or not of this network; or weights are not finite.
    """
    device, dataset, seed = compute.start(), read_dataset(dataset_path), job.seeds[index]
    with torch.random.fork_rng([]):
        network = place(build_for(job, *dataset.shape), device)
    images = {
        name: Images.of(dataset, chosen, device, job.model.dtype, job.target)
        for name, chosen in looked_at(dataset).items()
    }
    weights, loss = arrays.open_array(path, "weights"), loss_of(job.loss)
    hashes, evaluated = [], []
    for position, step in enumerate(job.steps):
        file, digest = job.files[str(seed)][str(step)]
        network.load_state_dict(_read(FOLDER / file, digest, network))
        vector = state.flatten(network).cpu().numpy()
        if not np.isfinite(vector).all():
            raise UserError(f"{FOLDER / file}: weights that are not finite; leave this checkpoint out")
        arrays.write_cell(weights, (index, position), vector)
        cache.put(WEIGHTS, checkpoint_key(key, step), arrays.shard(weights, (index, position)))
        hashes.append(hashlib.sha256(vector.tobytes()).hexdigest())
        evaluated.append([value for data in images.values() for value in evaluate(network, data, loss)])
        advance(position + 1)
    values = {
        "last_weights": vector,
        "last_moments": Optimiser(job, network).moments(),
        "last_rng": torch.get_rng_state().numpy()[:0],
        "sha256": np.array(hashes, dtype=str),
        "loss": vector[:0],
        "accuracy": vector[:0],
        **dict(zip(EVALUATIONS, np.array(evaluated, dtype=np.float64).T, strict=True)),
    }
    units = {name: UNITS.get(job.loss, "1") for name in LOGS if name.endswith("loss")}
    described = {
        name: (dims, values[name], {"units": units.get(name, "1"), "long_name": long_name})
        for name, (dims, long_name) in LOGS.items()
    }
    return xr.Dataset(described, attrs={"step": job.steps[-1], "iterations": job.iterations}), len(hashes)


def _read(file: Path, digest: str, network: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The weights in a file, if it is the one that `resolve` has seen."""
    if not file.resolve().is_relative_to(FOLDER.resolve()):
        raise UserError(f"{file}: not in {FOLDER}/; run `dvc repro resolve`")
    weights = read_weights(file)
    with file.open("rb") as data:
        if hashlib.file_digest(data, "sha256").hexdigest() != digest:
            raise UserError(f"{file}: changed since `dvc repro` began; run `dvc repro` again")
    return fitted(weights, network, file)
