"""A run's stores as labelled xarray objects."""

from functools import cached_property
from pathlib import Path
from typing import Any

import xarray as xr

from phasescope.store import arrays, commit, manifest
from phasescope.store.manifest import Manifest, StoreError


class StoredRun:
    """What is kept of one run: `runs/<name>` holds what it is, `results/<name>` what was measured of it."""

    def __init__(self, name: str, root: Path = Path()) -> None:
        self.name = name
        self.root = root

    @property
    def path(self) -> Path:
        """The folder with the stores of the run."""
        return self.root / "runs" / self.name

    @cached_property
    def training(self) -> xr.Dataset:
        """Weights (seed, step, parameter) and logs (seed, iteration) of the training.

        Raises:
            StoreError: the store is absent, incomplete or damaged.
        """
        return self._open(self.path / "train", "train")

    @cached_property
    def recorded(self) -> xr.Dataset:
        """Everything that was recorded with the activations, each tap (seed, step, sample, <tap>_feature).

        Raises:
            StoreError: the store is absent, incomplete or damaged.
        """
        return arrays.open_dataset(self._recording.path / arrays.GROUP)

    @cached_property
    def _recording(self) -> Manifest:
        return manifest.read(self.path / "activations", "activations")

    @property
    def dataset(self) -> Path:
        """Where the prepared dataset of the run is."""
        return self.root / "datasets" / self._recording.extra["dataset"]["name"]

    @property
    def dataset_digest(self) -> str:
        """Digest of the manifest of the dataset that the activations were taken of."""
        return self._recording.extra["dataset"]["digest"]

    @property
    def taps(self) -> list[str]:
        """Names of the taps whose activations are kept, in the order of the settings."""
        return [tap["name"] for tap in self._recording.settings["taps"]]

    def activations(self, tap: str) -> xr.DataArray:
        """Activations at a tap, (seed, step, sample, feature), read when their values are asked for.

        `sample` carries the coordinates label, split ("train" or "test") and index (in the dataset).

        Raises:
            StoreError: the store is absent or damaged, or has no such tap.
        """
        if tap not in self.taps:
            raise StoreError(f"{self.path}: no tap {tap!r} is kept; there are {', '.join(self.taps)}")
        return self.recorded[tap].rename({f"{tap}_feature": "feature"})

    def measure(self, name: str) -> xr.Dataset:
        """The result of a measure such as "decode", on (seed, step, layer).

        Raises:
            StoreError: the result is absent, incomplete or damaged.
        """
        return self._open(self.root / "results" / self.name / name, name)

    def digest(self, name: str) -> str:
        """Digest of the manifest of a measure's result.

        Raises:
            StoreError: the result is absent, incomplete or damaged.
        """
        return manifest.read(self.root / "results" / self.name / name, name).digest

    def shard_digest(self, tap: str, seed: int, step: int) -> str:
        """SHA-256 of the file with the activations at a tap, by the positions of seed and step."""
        return self._recording.files[f"{arrays.GROUP}/{tap}/c/{seed}/{step}/0/0"]["sha256"]

    def write_measure(self, name: str, result: xr.Dataset, settings: dict[str, Any], cached: dict[str, Any]) -> None:
        """Commit the result of a measure of this run's activations as `results/<run>/<name>`.

        `cached` says under which keys the cells of the result are in the cache.
        """
        inputs = {
            path.relative_to(self.root).as_posix(): manifest.read(path).digest
            for path in (self.path / "activations", self.dataset)
        }
        with commit.scratch(self.root / "results" / self.name / name) as scratch:
            arrays.write_dataset(scratch.path / arrays.GROUP, result)
            labels = {f"{dim}s": self.recorded[dim].values.tolist() for dim in ("seed", "step")}
            cells = {**labels, "layers": [], "files": {}, "arrays": cached}
            scratch.commit(name, settings, inputs=inputs, cells=cells)

    def _open(self, path: Path, kind: str) -> xr.Dataset:
        return arrays.open_dataset(manifest.read(path, kind).path / arrays.GROUP)
