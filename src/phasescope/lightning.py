"""The recorder as a callback of Lightning: checkpoints at 0 and 2^i of the trainer's global step.

It works with the trainers of `lightning` and of `pytorch_lightning`, whichever is imported::

    from phasescope.lightning import LightningRecorder

    trainer = Trainer(callbacks=[LightningRecorder("checkpoints/mine", seed=0)])
"""

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from phasescope.errors import UserError
from phasescope.recorder import Recorder

_PACKAGES = ("lightning.pytorch", "pytorch_lightning")


def _bases() -> tuple[type, ...]:
    """What a callback is: of each of the two packages that is imported already, or else of the first that is there."""
    found = [name for name in _PACKAGES if name in sys.modules]
    for name in [] if found else _PACKAGES:
        try:
            import_module(name)
        except ModuleNotFoundError:
            continue
        found = [name]
        break
    if not found:
        raise UserError("phasescope.lightning needs the package lightning, or pytorch_lightning: install one of them")
    return tuple(sys.modules[name].Callback for name in found)


_Callback: Any = type("_Callback", _bases(), {})


class LightningRecorder(_Callback):
    """Writes the weights of a LightningModule at 0 and 2^i of `trainer.global_step`, as `phasescope.Recorder` does.

    A `fit` that goes on from a checkpoint of Lightning goes on here too.

    Args:
        folder: where `seed_<seed>/step_<step>.safetensors` are written.
        seed: of the training.
        network: attribute of the LightningModule that is the network (default: all of the LightningModule).
        **given: `images` and `taps`, as `phasescope.Recorder` takes them.
    """

    def __init__(self, folder: str | Path, seed: int = 0, network: str = "", **given: Any) -> None:
        super().__init__()
        self._folder, self._seed, self._network, self._given = folder, seed, network, given
        self._recorder: Recorder | None = None

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Write the first checkpoint, or find those that are there."""
        network = pl_module.get_submodule(self._network)
        self._recorder = Recorder(network, self._folder, self._seed, trainer.global_step, **self._given)

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        """Write a checkpoint if one is due; several batches may make one update."""
        if self._recorder is not None:
            self._recorder.step(trainer.global_step)
