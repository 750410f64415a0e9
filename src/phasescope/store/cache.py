"""Finished cells, kept so that none is computed twice.

A cell is the finished piece of a stage's work: the weights of a (seed, step), the activations of a (seed, step, tap), a
measure of a (seed, step, layer). It is kept as one file under a key, the fingerprint of all that it depends on, outside
of what DVC manages. So work goes on after a kill from its last finished cell, and where only a seed, a step or a layer
was added, what is known is taken from here, also after DVC removed the old output.

The name of a file ends in the hash of its content: what a crash left half-written, or what was damaged since, is never
taken for a cell. A file that is also part of a store is one file with two names (a hard link) where the file system
can do that, and takes no space of its own.
"""

import hashlib
import io
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from phasescope.store.commit import fingerprint, told_where
from phasescope.store.manifest import sha256


@dataclass(frozen=True)
class Kept:
    """What is kept of one kind of cells."""

    cells: int
    bytes: int
    #: Of these, what only the cells hold: clearing them frees as much.
    alone: int


class CellCache:
    """The cells under one folder that one version of the code made. Several processes may use it at the same time.

    Keys are fingerprints of what a cell depends on besides the code. The version is kept apart from them, so that a
    store, which names the keys of its cells, stays the same bytes when other code gives the same numbers.
    """

    def __init__(self, root: Path, code: str) -> None:
        self.root = root
        self.code = code

    def has(self, kind: str, key: str) -> bool:
        """Whether there is a cell; it may turn out to be damaged when it is used."""
        return any(self._named(kind, key))

    def put(self, kind: str, key: str, path: Path, digest: str | None = None) -> None:
        """Keep a finished file as a cell; from now on it must not be written to. `digest` is its SHA-256, if known."""
        place = self._place(kind, key, digest or sha256(path))
        with suppress(FileExistsError):
            _link(path, place)

    def get(self, kind: str, key: str, path: Path) -> bool:
        """Make the cell's file appear at `path`, where nothing is yet; False if there is none."""
        for found in self._named(kind, key):
            if _is_whole(found):
                path.parent.mkdir(parents=True, exist_ok=True)
                _link(found, path)
                return True
            found.unlink(missing_ok=True)
        return False

    def save(self, kind: str, key: str, values: xr.Dataset) -> Path:
        """Keep labelled arrays as a cell; gives its file."""
        content = _packed(values)
        place = self._place(kind, key, hashlib.sha256(content).hexdigest())
        if place.exists() and not _is_whole(place):
            place.unlink(missing_ok=True)
        with suppress(FileExistsError):
            _write_new(place, [content])
        return place

    def load(self, kind: str, key: str) -> xr.Dataset | None:
        """What `save` kept; None if there is none."""
        return next((values for _, values in self.versions(kind, key)), None)

    def versions(self, kind: str, key: str) -> Iterator[tuple[Path, xr.Dataset]]:
        """All that `save` kept under one key, with their files."""
        for found in self._named(kind, key):
            try:
                content = found.read_bytes()
            except FileNotFoundError:  # cleared just now
                continue
            if hashlib.sha256(content).hexdigest() == _hash_of(found):
                yield found, _unpacked(content)
            else:
                found.unlink(missing_ok=True)

    def take(self, files: Mapping[str, bytes]) -> None:
        """Keep the files of another cache that the same code filled, by their names there."""
        for name, content in files.items():
            place = self.root / name
            place.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileExistsError):
                _write_new(place, [content])

    def kept(self) -> dict[str, Kept]:
        """What is kept, by kind."""
        kinds = {}
        for folder in sorted(path for path in self.root.glob("*") if path.is_dir()):
            status = [path.stat() for path in folder.glob("*/*")]
            alone = sum(one.st_size for one in status if one.st_nlink == 1)
            kinds[folder.name] = Kept(len(status), sum(one.st_size for one in status), alone)
        return kinds

    def address(self, key: str) -> str:
        """What the names of a key's files begin with."""
        return fingerprint(key, self.code)

    def clear(self, kind: str, wanted: frozenset[str] = frozenset()) -> Kept:
        """Remove all cells of a kind, whatever code made them, but those of the `wanted` addresses; gives what went."""
        count = freed = alone = 0
        for path in sorted((self.root / kind).glob("*/*")):
            if path.name.partition("-")[0] not in wanted:
                status = path.stat()
                path.unlink()
                count, freed = count + 1, freed + status.st_size
                alone += status.st_size if status.st_nlink == 1 else 0
        for folder in [*(self.root / kind).glob("*"), self.root / kind, self.root]:
            with suppress(OSError):  # not empty
                folder.rmdir()
        return Kept(count, freed, alone)

    def _named(self, kind: str, key: str) -> Iterator[Path]:
        address = self.address(key)
        return iter(sorted((self.root / kind / address[:2]).glob(f"{address}-*")))

    def _place(self, kind: str, key: str, digest: str) -> Path:
        address = self.address(key)
        folder = self.root / kind / address[:2]
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"{address}-{digest}"


def _hash_of(path: Path) -> str:
    return path.name.rpartition("-")[2]


def _is_whole(path: Path) -> bool:
    try:
        return sha256(path) == _hash_of(path)
    except FileNotFoundError:
        return False


def _link(source: Path, target: Path) -> None:
    """Give a file a second name; where that cannot be (another disk, too many names), copy it.

    Raises:
        FileExistsError: the target is there.
    """
    try:
        os.link(source, target)
    except FileExistsError:
        raise
    except OSError:
        with source.open("rb") as there:
            _write_new(target, iter(lambda: there.read(1 << 20), b""))


def _write_new(path: Path, pieces: Iterable[bytes]) -> None:
    """Write a file that is not there yet. What a kill leaves of it does not have the hash in its name.

    Raises:
        FileExistsError: it is there.
    """
    with told_where(path), path.open("xb") as file:
        try:
            for piece in pieces:
                file.write(piece)
            file.flush()
        except OSError:
            path.unlink(missing_ok=True)
            raise


def _packed(values: xr.Dataset) -> bytes:
    """Labelled arrays as one piece of bytes; the same values give the same bytes."""
    header = {
        "attrs": values.attrs,
        "coords": sorted(map(str, values.coords)),
        "variables": {
            str(name): {"dims": variable.dims, "attrs": variable.attrs} for name, variable in values.variables.items()
        },
    }
    buffer = io.BytesIO()
    text = np.frombuffer(json.dumps(header).encode(), np.uint8)
    variables = {f"_{name}": _plain(variable.values) for name, variable in values.variables.items()}
    np.savez(buffer, allow_pickle=False, header=text, **variables)
    return buffer.getvalue()


def _plain(values: np.ndarray) -> np.ndarray:
    """Text of any length as text of a fixed one, which needs no pickle."""
    return np.array(values.tolist(), dtype=str) if values.dtype.kind in "OT" else values


def _unpacked(content: bytes) -> xr.Dataset:
    with np.load(io.BytesIO(content), allow_pickle=False) as saved:
        header: dict[str, Any] = json.loads(saved["header"].tobytes())
        variables = {
            name: (tuple(entry["dims"]), saved[f"_{name}"], entry["attrs"])
            for name, entry in header["variables"].items()
        }
    return xr.Dataset(variables, attrs=header["attrs"]).set_coords(header["coords"])
