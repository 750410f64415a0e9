"""Damage to kept directories, and everything that can be read of a project: for tests of readers."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import phasescope
from phasescope.errors import UserError
from phasescope.store.datasets import read_dataset
from phasescope.store.manifest import StoreError, sealed

#: Stores that are kept for ever, each with a project of one run `tiny`; a checkpoint of it, and its taps.
KEPT = Path(__file__).parent / "stores"
SEED, STEP, TAPS = 5, 2, ["logits", "predense"]

#: Where files of each kind are in a project.
KINDS = {
    "weights": "runs/*/train/arrays.zarr/weights/**/*",
    "activations": "runs/*/activations/arrays.zarr/*/**/*",
    "results": "results/*/*/arrays.zarr/*/**/*",
    "dataset": "datasets/*/arrays.zarr/*/**/*",
    "manifest": "**/manifest.json",
    "metadata": "**/arrays.zarr/zarr.json",
    "metadata of an array": "**/arrays.zarr/*/zarr.json",
}


def files(root: Path, kind: str) -> list[Path]:
    """The files of a kind in the project at `root`, in a fixed order."""
    found = (path for path in root.glob(KINDS[kind]) if path.is_file())
    return sorted(path for path in found if path.name != "zarr.json" or kind.startswith("metadata"))


def flip(path: Path, rng: np.random.Generator) -> None:
    """Flip one random bit of a file, which becomes a file of its own."""
    data = bytearray(path.read_bytes())
    position = int(rng.integers(8 * len(data)))
    data[position // 8] ^= 1 << position % 8
    path.unlink()
    path.write_bytes(data)


def write_manifest(path: Path, content: Any) -> None:
    """Write a manifest that vouches for itself, whatever stands in it."""
    path.write_text(sealed(content) if isinstance(content, dict) else json.dumps(content))


def refusal(action: Callable[[], object], kind: type[UserError] = StoreError) -> str:
    """The one line that an action is refused with."""
    with pytest.raises(kind) as caught:
        action()
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000
    return str(caught.value)


def readings(root: Path, run: str, seed: int, step: int, taps: list[str]) -> dict[str, Callable[[], list[np.ndarray]]]:
    """All ways of getting numbers of a run, by name; each opens what it needs anew."""

    def opened() -> phasescope.Run:
        return phasescope.open_run(root / "runs" / run)

    def dataset() -> list[np.ndarray]:
        stored = opened()
        read = read_dataset(stored.dataset, stored.dataset_digest)
        return [read.images, read.labels, read.train, np.array(read.classes), read.mean, read.std]

    def everything(name: str) -> list[np.ndarray]:
        stored = getattr(opened(), name)
        return [stored[variable].values for variable in sorted(map(str, stored.variables))]

    def activations(tap: str) -> list[np.ndarray]:
        cell = opened().activations(tap).sel(seed=seed, step=step)
        return [cell.values, cell["label"].values, cell["split"].values]

    def network() -> list[np.ndarray]:
        return [value.numpy() for value in opened().model(seed=seed, step=step).state_dict().values()]

    def measure() -> list[np.ndarray]:
        result = opened().measure("decode").load()
        return [result[variable].values for variable in sorted(map(str, result.variables))]

    return {
        "training": partial(everything, "training"),
        "recorded": partial(everything, "recorded"),
        **{f"activations at {tap}": partial(activations, tap) for tap in taps},
        "network": network,
        "measure": measure,
        "dataset": dataset,
    }
