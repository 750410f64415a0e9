"""A run as one opens it in a notebook: its labelled arrays and its networks."""

from pathlib import Path
from typing import TYPE_CHECKING

from phasescope.errors import UserError
from phasescope.store import manifest
from phasescope.store.run import StoredRun

if TYPE_CHECKING:
    from phasescope.models.zoo import Network


class Run(StoredRun):
    """A run of the project: activations, weights, measures, and the networks themselves.

    >>> run = open_run("runs/digits-vgg8")                             # doctest: +SKIP
    >>> run.activations("predense").sel(seed=0, step=1024)             # doctest: +SKIP
    >>> run.measure("decode")["fvu"].mean("seed")                      # doctest: +SKIP
    >>> network = run.model(seed=0, step=1024)                         # doctest: +SKIP
    """

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    @property
    def seeds(self) -> list[int]:
        """The seeds that were trained."""
        return [int(seed) for seed in self.training["seed"].values]

    @property
    def steps(self) -> list[int]:
        """The steps of the checkpoints."""
        return [int(step) for step in self.training["step"].values]

    def model(self, seed: int, step: int) -> "Network":
        """The network at a checkpoint, in eval mode, with BatchNorm as its activations were taken.

        It gives the stored activations again, for the images `(pixel − mean) / std` of the run's dataset.

        Raises:
            UserError: there is no such checkpoint.
            StoreError: a store is absent, incomplete or damaged.
        """
        import torch

        from phasescope.models import state
        from phasescope.models.batchnorm import use_batch_statistics
        from phasescope.models.zoo import build
        from phasescope.params.train import TrainJob

        if seed not in self.seeds or step not in self.steps:
            raise UserError(
                f"{self.path}: no checkpoint of seed {seed}, step {step}; seeds {self.seeds}, steps {self.steps}"
            )
        cell = {"seed": seed, "step": step}
        job = TrainJob.model_validate(manifest.read(self.path / "train", "train").settings)
        weights = self.training["weights"]
        channels, resolution, _ = self.training.attrs["image"]
        network = build(job.model, channels, resolution, len(self.training.attrs["classes"]))
        state.unflatten(network, torch.from_numpy(weights.sel(cell).values), weights.attrs["table"])
        if self._recording.settings["batchnorm"] == "batch":
            use_batch_statistics(network)
        else:
            state.unflatten_batchnorm(network, torch.from_numpy(self.recorded["batchnorm"].sel(cell).values))
        return network.eval()


def open_run(path: str | Path) -> Run:
    """Open a run by the path of its folder, such as "runs/digits-vgg8".

    Raises:
        UserError: there is no such run.
    """
    path = Path(path)
    if not path.is_dir():
        known = sorted(p.name for p in path.parent.glob("*") if p.is_dir() and not p.name.startswith("."))
        raise UserError(f"{path}: no such run; {path.parent} holds {', '.join(known) or 'none'}")
    path = path.resolve()
    return Run(path.name, path.parent.parent)
