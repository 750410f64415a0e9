"""A run's stores as labelled xarray objects."""

from functools import cached_property
from pathlib import Path
from typing import Any

import xarray as xr

from phasescope.store import arrays, commit, manifest
from phasescope.store.files import Place, plain, remedy
from phasescope.store.manifest import Manifest, StoreError
from phasescope.store.names import placed
from phasescope.store.verified import open_verified


class StoredRun:
    """What is kept of one run: `runs/<name>` holds what it is, `results/<name>` what was measured of it.

    Args:
        name: of the run.
        root: the project, a folder here or another place (see `remote`).
    """

    def __init__(self, name: str, root: Place = Path()) -> None:
        self.name = name
        self.root: Any = root

    @property
    def path(self) -> Any:
        """The folder with the stores of the run."""
        return self.root / "runs" / self.name

    @cached_property
    def training(self) -> xr.Dataset:
        """Weights (seed, step, parameter) and logs (seed, iteration) of the training.

        Raises:
            StoreError: the store is absent, incomplete or damaged.
        """
        return open_verified(self._training)

    @cached_property
    def recorded(self) -> xr.Dataset:
        """Everything that was recorded with the activations, each tap (seed, step, sample, <tap>_feature).

        Raises:
            StoreError: the store is absent, incomplete or damaged.
        """
        return open_verified(self._recording)

    @cached_property
    def _training(self) -> Manifest:
        return manifest.read(self.path / "train", "train")

    @cached_property
    def _recording(self) -> Manifest:
        return manifest.read(self.path / "activations", "activations")

    @property
    def digest(self) -> str:
        """Digest of the manifest of the activations: others have another."""
        return self._recording.digest

    @property
    def dataset(self) -> Any:
        """Where the prepared dataset of the run is."""
        name = self._recording.entry("extra.dataset.name", str)
        if not plain(name) or "/" in name:
            raise StoreError(f"{self._recording.path}: {name!r:.60} is no name of a dataset; run `dvc repro`")
        return self.root / "datasets" / name

    @property
    def training_digest(self) -> str:
        """SHA-256 of the manifest of its training."""
        return self._training.digest

    @property
    def trained_on(self) -> str:
        """Digest of the manifest of the dataset that it was trained on."""
        return self._training.entry("extra.dataset", str)

    @property
    def dataset_digest(self) -> str:
        """Digest of the manifest of the dataset that the activations were taken of."""
        return self._recording.entry("extra.dataset.digest", str)

    @property
    def taps(self) -> list[str]:
        """Names of the taps whose activations are kept, in the order of the settings."""
        taps = self._recording.entry("settings.taps", list)
        names = [str(tap["name"]) for tap in taps if isinstance(tap, dict) and plain(tap.get("name"))]
        if len(names) < len(taps):
            raise StoreError(f"{self._recording.path}: the taps in its settings have no names; run `dvc repro`")
        return names

    def activations(self, tap: str) -> xr.DataArray:
        """Activations at a tap, (seed, step, sample, feature), read when their values are asked for.

        `sample` carries the coordinates label, split ("train" or "test") and index (in the dataset).

        >>> activations = StoredRun("digits-vgg8").activations("predense")
        >>> activations.dims
        ('seed', 'step', 'sample', 'feature')
        >>> activations.sel(seed=0, step=16)[activations["split"] == "test"].sizes["sample"]
        50

        Raises:
            StoreError: the store is absent or damaged, or has no such tap.
        """
        if tap not in self.taps:
            raise StoreError(f"{self.path}: no tap {tap!r} is kept; there are {', '.join(self.taps)}")
        stored = labelled(self.recorded, tap, ("seed", "step", "sample", f"{tap}_feature"), self._recording)
        return stored.rename({f"{tap}_feature": "feature"})

    def shard_digest(self, array: str, seed_index: int, step_index: int) -> str:
        """SHA-256 of the file that holds a cell of an array of the activations, as the manifest has it.

        Raises:
            StoreError: there is no such file, or the manifest is absent or damaged.
        """
        digest = self._shards.get((array, (seed_index, step_index, 0, 0)))
        if digest is None:
            raise StoreError(
                f"{self._recording.path} has no file of {array} at ({seed_index}, {step_index}): remove it and run "
                "`dvc repro`"
            )
        return digest

    @cached_property
    def _shards(self) -> dict[tuple[str, tuple[int, ...] | None], str]:
        """SHA-256 of the files of the activations, by array and place."""
        return {placed(file): str(entry["sha256"]) for file, entry in self._recording.files.items()}

    def weights_digest(self, seed: int, step: int) -> str:
        """SHA-256 of the weights of a checkpoint, as the manifest of the training has it.

        Raises:
            StoreError: there is no such checkpoint, or the manifest is absent or damaged.
        """
        return self._training.entry(f"extra.weights.{seed}.{step}", str)

    def measure(self, name: str) -> xr.Dataset:
        """The result of a measure such as "decode", on (seed, step, layer).

        >>> probe = StoredRun("digits-vgg8").measure("probe")
        >>> probe["accuracy"].dims
        ('seed', 'step', 'layer', 'classifier')

        Raises:
            StoreError: the result is absent, incomplete or damaged.
        """
        return open_verified(manifest.read(self.root / "results" / self.name / name, name))

    def write_measure(
        self,
        name: str,
        result: xr.Dataset,
        settings: dict[str, Any],
        cached: dict[str, Any],
        also: tuple[Path, ...] = (),
    ) -> None:
        """Commit the result of a measure of this run's activations as `results/<run>/<name>`.

        Args:
            name: of the measure.
            result: what was measured.
            settings: of the measure.
            cached: under which keys the cells of the result are in the cache.
            also: directories that it was made from besides the activations and the dataset of the run.
        """
        digests = {path: manifest.read(path).digest for path in (self.path / "activations", *also)}
        digests[self.dataset] = self.dataset_digest  # which need not be here
        inputs = {path.relative_to(self.root).as_posix(): digest for path, digest in digests.items()}
        with commit.scratch(self.root / "results" / self.name / name) as scratch:
            arrays.write_dataset(scratch.path / arrays.GROUP, result)
            labels = {f"{dim}s": self.recorded[dim].values.tolist() for dim in ("seed", "step")}
            cells = {**labels, "layers": [], "files": {}, "arrays": cached}
            scratch.commit(name, settings, inputs=inputs, cells=cells)


def write_theory(target: Path, result: xr.Dataset, settings: dict[str, Any]) -> None:
    """Commit what a model of the theory gives, of no run, as `theory/<model>`."""
    with commit.scratch(target) as scratch:
        arrays.write_dataset(scratch.path / arrays.GROUP, result)
        scratch.commit("theory", settings)


def read_theory(path: Place) -> xr.Dataset:
    """What `write_theory` committed.

    Raises:
        StoreError: it is absent, incomplete or damaged.
    """
    return open_verified(manifest.read(path, "theory"))


def labelled(dataset: xr.Dataset, name: str, dims: tuple[str, ...], source: Manifest) -> xr.DataArray:
    """The array of this name and these dimensions, the first two with their coordinates.

    Raises:
        StoreError: there is none.
    """
    if name not in dataset or dataset[name].dims != dims or not {*dims[:2]} <= dataset.coords.keys():
        raise StoreError(f"{source.path} has no {name} on {', '.join(dims)}: {remedy(source.path)}")
    return dataset[name]
