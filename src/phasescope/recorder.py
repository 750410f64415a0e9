"""Checkpoints at 0 and 2^i from anybody's own training loop, in files that become a run of a project.

Three lines in the loop; what the training does, down to the last bit, is what it does without them::

    record = phasescope.Recorder(network, "checkpoints/mine", seed=0)
    for images, labels in batches:
        ...
        optimiser.step()
        record.step()

A file is `checkpoints/mine/seed_0/step_<step>.safetensors`: whole or absent, whenever the training is killed. In a
project, `train: {checkpoints: "mine/seed_{seed}/step_{step}.safetensors"}` makes a run of them.
"""

import json
import re
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from torch import nn

from phasescope.errors import UserError
from phasescope.models.taps import Capture
from phasescope.params.activations import Tap
from phasescope.schedule import is_checkpoint
from phasescope.store import arrays, commit

#: Images that pass through the network at once.
BATCH = 256


class Recorder:
    """Writes the weights of a network that somebody trains, at iterations 0 and 2^i.

    The first checkpoint is written at once. Of several processes that train together, that of rank 0 writes.

    >>> network = torch.nn.Linear(2, 3)
    >>> record = Recorder(network, "checkpoints/mine")
    >>> for _ in range(5):  # updates
    ...     record.step()
    >>> sorted(file.name for file in Path("checkpoints/mine/seed_0").iterdir())
    ['step_0.safetensors', 'step_1.safetensors', 'step_2.safetensors', 'step_4.safetensors']

    Args:
        model: the network, as it is or as `torch.compile` or DistributedDataParallel wrap it.
        folder: where `seed_<seed>/step_<step>.safetensors` are written; each seed of a run has the same folder.
        seed: of the training.
        start: updates made so far, where a training goes on that was interrupted. Checkpoints up to there stay, later
            ones are written again when they are reached.
        images: (sample, …) that the network takes; their activations at `taps`, in eval mode, are then kept beside
            every checkpoint: `xarray.open_zarr("…/step_<step>.activations/arrays.zarr")` is of
            (seed, step, sample, <tap>_feature), and `xarray.combine_by_coords` puts those of many together.
        taps: names of taps, `logits`, `softmax`, `predense`, or module paths.

    Raises:
        UserError: the folder holds checkpoints of another training, the network's state is not all tensors, or it has
            no such tap.
    """

    def __init__(
        self,
        model: nn.Module,
        folder: str | Path,
        seed: int = 0,
        start: int = 0,
        images: torch.Tensor | None = None,
        taps: Sequence[str] = ("logits",),
    ) -> None:
        self._network, self._folder, self._seed = unwrapped(model), Path(folder) / f"seed_{seed}", seed
        self._images, self._taps = images, [Tap(name=tap) for tap in taps]
        self._reached = start
        alone = not torch.distributed.is_available() or not torch.distributed.is_initialized()
        self._writes = alone or torch.distributed.get_rank() == 0
        if self._writes:
            self._training = self._identified()
            if not self._file(start).exists():
                self._record()

    def step(self, reached: int | None = None) -> None:
        """Note that an update was made, or how many were made so far; write a checkpoint if it is due.

        Raises:
            UserError: another training has written it meanwhile.
        """
        reached = self._reached + 1 if reached is None else reached
        if reached > self._reached:
            self._reached = reached
            self._record()

    def _record(self) -> None:
        if not self._writes or not is_checkpoint(self._reached):
            return
        from safetensors.torch import save

        file = self._file(self._reached)
        if file.exists() and _training(file) != self._training:
            raise UserError(
                f"{file}: another training has written it meanwhile; give each a folder or a seed of its own"
            )
        if self._images is not None:
            self._write_activations(file.with_suffix(".activations"), self._images)
        about = {
            "seed": self._seed,
            "step": self._reached,
            "training": self._training,
            "version": version("phasescope"),
        }
        # The weights come last: where they are, all of the checkpoint is.
        commit.write_file(file, save(self._weights(), {"phasescope": json.dumps(about), "format": "pt"}))

    def _file(self, step: int) -> Path:
        return self._folder / f"step_{step}.safetensors"

    def _identified(self) -> str:
        """The name of the training that is recorded: a new one, or that of the checkpoints which it goes on from."""
        steps = sorted(
            int(found[1])
            for path in self._folder.glob("step_*.safetensors")
            if (found := re.fullmatch(r"step_(\d+)\.safetensors", path.name))
        )
        if not steps:
            return secrets.token_hex(8)
        names = {_training(self._file(step)) for step in steps}
        (name,) = names if len(names) == 1 else [None]
        if self._reached == 0 or name is None or steps[0] > self._reached:
            raise UserError(
                f"{self._folder}: holds checkpoints of another training, of steps {steps[0]} to {steps[-1]}: name "
                "another folder or seed, or remove them; to go on with that training, give start=, its updates so far"
            )
        return name

    def _weights(self) -> dict[str, torch.Tensor]:
        """A copy of the state_dict, as the plain network has it, in tensors of their own."""
        copied = {}
        for name, value in self._network.state_dict().items():
            if not isinstance(value, torch.Tensor) or hasattr(value, "full_tensor"):
                raise UserError(
                    f"{name} of {type(self._network).__name__} is a {type(value).__name__}, no plain tensor"
                )
            plain = value.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
            copied[name.replace("_orig_mod.", "")] = plain
        return copied

    def _write_activations(self, target: Path, images: torch.Tensor) -> None:
        """Commit the activations of the images to the directory `target`."""
        weight = next(self._network.parameters())
        # Whatever a forward pass writes into buffers goes into copies of them.
        buffers = {name: value.clone() for name, value in self._network.named_buffers()}
        parts: dict[str, list[np.ndarray]] = {tap.name: [] for tap in self._taps}
        devices = [weight.device] if weight.device.type == "cuda" else []
        with (
            torch.random.fork_rng(devices),
            torch.no_grad(),
            torch.autocast(weight.device.type, enabled=False),
            _in_eval_mode(self._network),
            Capture(self._network, self._taps) as capture,
        ):
            for batch in images.split(BATCH):
                torch.func.functional_call(self._network, buffers, batch.to(weight.device))
                for tap, values in capture.read().items():
                    wide = values if values.dtype == torch.float64 else values.float()
                    parts[tap].append(wide.cpu().numpy())
        kept = xr.Dataset(
            {
                tap: (
                    ("seed", "step", "sample", f"{tap}_feature"),
                    np.concatenate(values)[None, None],
                    {"long_name": f"activations at {tap}, in eval mode"},
                )
                for tap, values in parts.items()
            },
            coords={
                "seed": ("seed", [self._seed], {"long_name": "seed of the training"}),
                "step": ("step", [self._reached], {"long_name": "updates made so far"}),
            },
        )
        with commit.scratch(target) as scratch:
            arrays.write_dataset(scratch.path / arrays.GROUP, kept)
            scratch.commit("recorded", {"taps": [tap.name for tap in self._taps]})


def unwrapped(model: nn.Module) -> nn.Module:
    """The network inside what `torch.compile` and data parallelism put around it."""
    while True:
        if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            model = model.module
        elif isinstance(inner := getattr(model, "_orig_mod", None), nn.Module):
            model = inner
        else:
            return model


def _training(file: Path) -> str | None:
    """Which training wrote a checkpoint; None if no `Recorder` did."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "pt") as opened:
            return str(json.loads(opened.metadata()["phasescope"])["training"])
    except (SafetensorError, KeyError, TypeError, ValueError):
        return None


@contextmanager
def _in_eval_mode(network: nn.Module) -> Iterator[None]:
    """Every module in eval mode, and each as it was afterwards; `train` and `eval` may do other things than that."""
    before = {module: module.training for module in network.modules()}
    try:
        for module in before:
            module.training = False
        yield
    finally:
        for module, training in before.items():
            module.training = training
