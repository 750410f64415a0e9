"""A directory is complete or absent.

Whatever is kept is first built in a scratch directory beside its place, which DVC and readers ignore. When all files
are there, a manifest with the length and SHA-256 of each is written last, everything is flushed to the disk, and one
rename puts the directory in place. A reader refuses a directory whose manifest is missing or does not match.

The scratch directory is named by a fingerprint of what goes into it, so that an interrupted piece of work finds its
finished parts again, and never those of another setting.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from phasescope.errors import UserError

FORMAT = 1
MANIFEST = "manifest.json"
SCRATCH = ".scratch"


class StoreError(UserError):
    """A kept directory is missing, incomplete, damaged, or not the one that was asked for."""


@dataclass(frozen=True)
class Manifest:
    """What a complete directory says of itself."""

    path: Path
    kind: str
    settings: dict[str, Any]
    files: dict[str, dict[str, Any]]
    extra: dict[str, Any]
    #: SHA-256 of the manifest, and so of everything in the directory.
    digest: str


def canonical(value: object) -> str:
    """JSON with sorted keys: the same value gives the same text."""
    return json.dumps(value, sort_keys=True, indent=1, allow_nan=False) + "\n"


def fingerprint(*parts: object) -> str:
    """A short name for the given JSON values: the same parts give the same name."""
    return hashlib.sha256(canonical(list(parts)).encode()).hexdigest()[:16]


class Scratch:
    """The scratch directory of one target, held by this process alone."""

    def __init__(self, target: Path, key: str) -> None:
        self.target = target
        self.path = target.parent / SCRATCH / f"{target.name}-{key}"
        #: What is only needed to go on after an interruption, and no part of what is committed.
        self.state = self.path.with_name(f"{self.path.name}.state")

    def commit(self, kind: str, settings: dict[str, Any], **extra: Any) -> None:
        """Write the manifest, flush everything, and put the directory in its place with one rename."""
        # An attempt that ended while it committed has left one.
        (self.path / MANIFEST).unlink(missing_ok=True)
        files = {str(p.relative_to(self.path)): p for p in sorted(self.path.rglob("*")) if p.is_file()}
        manifest = {
            "format": FORMAT,
            "kind": kind,
            "settings": settings,
            "files": {name: {"bytes": p.stat().st_size, "sha256": _sha256(p)} for name, p in files.items()},
            "extra": extra,
        }
        _write_synced(self.path / MANIFEST, canonical(manifest).encode())
        sync_tree(self.path)
        if self.target.exists():
            # Only where no DVC has cleared the way: the old directory steps aside, so that no reader sees a mixture.
            aside = self.path.with_name(f"{self.target.name}-replaced")
            shutil.rmtree(aside, ignore_errors=True)
            self.target.rename(aside)
        self.path.rename(self.target)
        sync(self.target.parent)


@contextmanager
def scratch(target: Path, key: str) -> Iterator[Scratch]:
    """Hold the scratch directory of `target`; what is in it with the same `key` is kept from an earlier attempt.

    After `commit` every scratch directory of the target is removed. Without it the directory stays, for the next
    attempt to go on from.

    Raises:
        StoreError: another process is building the same target.
    """
    root = target.parent / SCRATCH
    lock = FileLock(root / f"{target.name}.lock")
    while True:
        # A neighbour that ends just now may take the empty folder away again, at any moment.
        with suppress(FileNotFoundError, FileExistsError):
            root.mkdir(parents=True, exist_ok=True)
            try:
                # Not 0: a folder taken away and made again meanwhile looks like a lock that is held.
                lock.acquire(timeout=1, poll_interval=0.02)
            except Timeout:
                raise StoreError(f"{target}: another process is writing it; wait for that one to end") from None
            break
    try:
        work = Scratch(target, key)
        if not work.path.exists():
            # What a state speaks of went into place, where it may be gone since.
            shutil.rmtree(work.state, ignore_errors=True)
        work.path.mkdir(exist_ok=True)
        work.state.mkdir(exist_ok=True)
        # Zarr writes a file beside its place and renames it; a killed process leaves such files behind.
        for left in work.path.rglob("*.partial"):
            left.unlink()
        yield work
        if not work.path.exists():
            for left in root.iterdir():
                # A key has no dash: what is left of `mnist-small` is none of `mnist`'s.
                if left.is_dir() and left.name.rpartition("-")[0] == target.name:
                    shutil.rmtree(left)
            (root / f"{target.name}.lock").unlink(missing_ok=True)
    finally:
        lock.release()
        with suppress(OSError):  # not empty: a neighbour is at work, or this one goes on later
            root.rmdir()


def read(path: Path, kind: str | None = None) -> Manifest:
    """The manifest of a complete directory, after checking every file's length and the metadata's hashes.

    Shards are not hashed here: their own checksums are checked when they are read.

    Raises:
        StoreError: the directory is absent, has no manifest, or does not match it.
    """
    if not path.is_dir():
        raise StoreError(f"{path} is not there: make it with `dvc repro`, or fetch it with `dvc pull`")
    try:
        text = (path / MANIFEST).read_bytes()
    except FileNotFoundError:
        raise StoreError(
            f"{path} has no {MANIFEST}, so it is not complete: remove it and run `dvc repro`, or `dvc pull` it again"
        ) from None
    try:
        content = json.loads(text)
        if content["format"] != FORMAT:
            raise StoreError(
                f"{path} has format {content['format']!r}, and this version of phasescope reads {FORMAT}: "
                "install the version that wrote it"
            )
        manifest = Manifest(
            path=path,
            kind=content["kind"],
            settings=content["settings"],
            files=content["files"],
            extra=content["extra"],
            digest=hashlib.sha256(text).hexdigest(),
        )
        if not all(isinstance(part, dict) for part in (manifest.settings, manifest.files, manifest.extra)):
            raise ValueError("not a manifest")
        if any(Path(name).is_absolute() or ".." in Path(name).parts for name in manifest.files):
            raise ValueError("a file outside the directory")
        wrong = next((name for name, entry in manifest.files.items() if not _matches(path / name, entry)), None)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise StoreError(
            f"{path / MANIFEST} is damaged: `dvc pull` {path} again, or remove it and run `dvc repro`"
        ) from None
    if wrong is not None:
        raise StoreError(
            f"{path / wrong} is missing or not as it was written: `dvc pull` {path} again, "
            "or remove it and run `dvc repro`"
        )
    if kind is not None and manifest.kind != kind:
        raise StoreError(f"{path} holds {manifest.kind!r}, where {kind!r} is expected: remove it and run `dvc repro`")
    return manifest


def require_settings(manifest: Manifest, settings: dict[str, Any]) -> None:
    """Refuse a directory that was written for other settings.

    Raises:
        StoreError: names the first setting that differs, with both values.
    """
    for key in sorted(settings.keys() | manifest.settings.keys()):
        there, wanted = manifest.settings.get(key), settings.get(key)
        if there != wanted:
            raise StoreError(
                f"{manifest.path} was written for other settings: {key} is {there!r} there and {wanted!r} in "
                "params.yaml; run `dvc repro`"
            )


def write_file(path: Path, data: bytes) -> None:
    """Write a small file of its own so that it is whole or absent, also after a crash."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.part")
    try:
        _write_synced(draft, data)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    draft.rename(path)
    sync(path.parent)


def _matches(path: Path, entry: dict[str, Any]) -> bool:
    try:
        same = path.stat().st_size == entry["bytes"]
    except OSError:
        return False
    return same and (path.suffix != ".json" or _sha256(path) == entry["sha256"])


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_synced(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def sync_tree(path: Path) -> None:
    """Flush a directory and everything in it to the disk."""
    for inside in [*path.rglob("*"), path]:
        sync(inside)


def sync(path: Path) -> None:
    """Flush one file or directory to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
