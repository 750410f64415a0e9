"""A run as one opens it in a notebook: its labelled arrays and its networks."""

from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, TypeVar

from pydantic import ValidationError

from phasescope import own
from phasescope.errors import UserError
from phasescope.params.activations import ActivationsSettings
from phasescope.params.base import Section, is_own
from phasescope.params.train import TrainJob
from phasescope.store.files import Place, plain, remedy
from phasescope.store.manifest import Manifest, StoreError
from phasescope.store.run import StoredRun, labelled

if TYPE_CHECKING:
    import torch
    from torch import nn
    from xarray import DataArray


S = TypeVar("S", bound=Section)


class Run(StoredRun):
    """A run of the project: activations, weights, measures, and the networks themselves.

    >>> run = open_run("runs/digits-vgg8")
    >>> run.activations("predense").sel(seed=0, step=16).dims
    ('sample', 'feature')
    >>> run.measure("decode")["fvu"].mean("seed").dims
    ('step', 'layer', 'decoder')
    >>> network = run.model(seed=0, step=16)
    """

    #: Whether a network that the user's own code makes may be made: see `open_run`.
    trust = False

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    @property
    def seeds(self) -> list[int]:
        """The seeds that were trained.

        >>> open_run("runs/digits-vgg8").seeds
        [0, 1]
        """
        return [int(seed) for seed in self._weights["seed"].values]

    @property
    def steps(self) -> list[int]:
        """The steps of the checkpoints.

        >>> open_run("runs/digits-vgg8").steps
        [0, 1, 2, 4, 8, 16]
        """
        return [int(step) for step in self._weights["step"].values]

    @property
    def trained_with(self) -> TrainJob:
        """The settings of its training.

        >>> open_run("runs/digits-vgg8").trained_with.optimiser
        'sgd'

        Raises:
            StoreError: the store is absent or damaged, or another version wrote it.
        """
        return self._settings(TrainJob, self._training)

    @property
    def recorded_with(self) -> ActivationsSettings:
        """The settings that its activations were taken with.

        >>> [tap.name for tap in open_run("runs/digits-vgg8").recorded_with.taps]
        ['logits', 'predense']

        Raises:
            StoreError: the store is absent or damaged, or another version wrote it.
        """
        return self._settings(ActivationsSettings, self._recording)

    def weights(self, seed: int, step: int) -> "dict[str, torch.Tensor]":
        """The state_dict of a checkpoint as its training left it, running statistics of BatchNorm included.

        No network is made for it, so that this needs no code of the run's own.

        >>> weights = open_run("runs/digits-vgg8").weights(seed=0, step=16)
        >>> weights["blocks.0.0.weight"].shape
        torch.Size([2, 1, 3, 3])

        Raises:
            UserError: there is no such checkpoint.
            StoreError: the store is absent, incomplete or damaged.
        """
        import torch

        weights = self._checkpoint(seed, step)
        vector = torch.from_numpy(weights.values)
        try:
            return {
                entry["name"]: vector[entry["offset"] : entry["offset"] + entry["length"]]
                .reshape(entry["shape"])
                .to(getattr(torch, entry["dtype"]))
                .clone()
                for entry in weights.attrs["table"]
            }
        except (AttributeError, KeyError, RuntimeError, TypeError):
            path = self._training.path
            raise StoreError(f"{path}: what it says of its weights is none of phasescope's: {remedy(path)}") from None

    def model(self, seed: int, step: int) -> "nn.Module":
        """The network at a checkpoint, in eval mode, with BatchNorm as its activations were taken.

        It gives the stored activations again, for the images `(pixel − mean) / std` of the run's dataset.

        >>> network = open_run("runs/digits-vgg8").model(seed=0, step=16)
        >>> network.training
        False

        Raises:
            UserError: there is no such checkpoint, or the network is made by code that is not trusted or there.
            StoreError: a store is absent, incomplete or damaged, or the two are not of the same training.
        """
        import torch

        from phasescope.models import state
        from phasescope.models.batchnorm import use_batch_statistics

        weights = self._checkpoint(seed, step)
        if self._recording.entry("extra.train", str) != self._training.digest:
            raise StoreError(f"{self.path}: its activations are of another training than it holds; run `dvc repro`")
        cell = {"seed": seed, "step": step}
        mode = self.recorded_with.batchnorm
        network = self._network()
        state.unflatten(network, torch.from_numpy(weights.values), weights.attrs["table"])
        if mode == "batch":
            use_batch_statistics(network)
        else:
            stored = labelled(self.recorded, "batchnorm", ("seed", "step", "statistic"), self._recording)
            state.unflatten_batchnorm(network, torch.from_numpy(stored.sel(cell).values))
        return network.eval()

    def _checkpoint(self, seed: int, step: int) -> "DataArray":
        """The flat vector of a checkpoint, (parameter,)."""
        if seed not in self.seeds or step not in self.steps:
            raise UserError(
                f"{self.path}: no checkpoint of seed {seed}, step {step}; seeds {self.seeds}, steps {self.steps}"
            )
        return self._weights.sel(seed=seed, step=step)

    @property
    def normalises(self) -> bool:
        """Whether there is BatchNorm in its networks."""
        from phasescope.models.batchnorm import normalises

        return normalises(self._network())

    @property
    def _weights(self) -> "DataArray":
        return labelled(self.training, "weights", ("seed", "step", "parameter"), self._training)

    def _network(self) -> "nn.Module":
        """The run's network, its values yet unset."""
        import torch

        from phasescope.models import state
        from phasescope.models.zoo import build_for

        job = self.trained_with
        try:
            channels, resolution, _ = self.training.attrs["image"]
            # Nothing is allocated for settings that do not belong to these weights; what others' code computes besides
            # weights has to be there.
            where, forked = torch.device("cpu" if is_own(job.model.name) else "meta"), torch.random.fork_rng([])
            with where, forked, own.trusted(self.trust):
                network = build_for(job, channels, resolution, len(self.training.attrs["classes"]))
            table = state.table(network)
        except (KeyError, TypeError, ValueError, RuntimeError):
            table = []
        length = sum(entry["length"] for entry in table)
        if table != self._weights.attrs.get("table") or length != self._weights.sizes["parameter"]:
            raise StoreError(
                f"{self._training.path}: its weights are not those of the network in its settings: "
                f"{remedy(self._training.path)}"
            )
        return network if is_own(job.model.name) else network.to_empty(device="cpu")

    @staticmethod
    def _settings(model: type[S], found: Manifest) -> S:
        try:
            return model.model_validate(found.settings)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "all of them"
            raise StoreError(
                f"{found.path}: its settings are not those of this version of phasescope ({where:.100}: "
                f"{first['msg']:.100}): install the version that wrote it"
            ) from None


def open_run(
    path: str | Path,
    repo: str | Path | None = None,
    rev: str | None = None,
    remote: str | None = None,
    *,
    trust: bool = False,
) -> Run:
    """Open a run by the path of its folder, such as "runs/digits-vgg8".

    With `repo` it is read without pulling anything: from the DVC repository at that path or git URL, what is not in
    its workspace or cache straight from its remote. `path` is then relative to the repository.

    >>> open_run("runs/digits-vgg8")
    Run('.../runs/digits-vgg8')
    >>> open_run("runs/digits-vg8")
    Traceback (most recent call last):
    phasescope.errors.UserError: runs/digits-vg8: no such run; runs holds digits-vgg8, ...

    Args:
        path: of the run's folder.
        repo: path or git URL of a DVC repository; none: the folder as it is here.
        rev: branch, tag or commit of the repository; none: what is there now.
        remote: name of a DVC remote; none: the repository's own choice.
        trust: let `Run.model` run the code, in `own/` or installed, that the run names as that of its network.

    Raises:
        UserError: there is no such run.
        StoreError: the repository or its remote cannot be read.
    """
    if repo is not None:
        from phasescope.store.remote import open_repository

        inside = PurePosixPath(path)
        if inside.is_absolute() or len(inside.parts) < 2 or not plain(str(inside)):
            raise UserError(f"{path}: a run in a repository is told by its path there, such as runs/digits-vgg8")
        root: Place = open_repository(str(repo), rev, remote)
        for part in inside.parts[:-2]:
            root = root / part
        if not (root / inside.parts[-2] / inside.name).is_dir():
            raise UserError(f"{root / str(inside)}: no such run; name one that is there, or another rev")
        return _trusting(Run(inside.name, root), trust)
    if rev is not None or remote is not None:
        raise UserError("rev and remote belong to a repository: give repo as well, such as repo='.'")
    path = Path(path)
    if not path.is_dir():
        known = sorted(p.name for p in path.parent.glob("*") if p.is_dir() and not p.name.startswith("."))
        raise UserError(f"{path}: no such run; {path.parent} holds {', '.join(known) or 'none'}")
    path = path.resolve()
    return _trusting(Run(path.name, path.parent.parent), trust)


def _trusting(run: Run, trust: bool) -> Run:
    run.trust = trust
    return run
