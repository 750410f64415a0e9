"""A directory is complete or absent: how one is written.

Whatever is kept is first built in a scratch directory beside its place, which DVC and readers ignore. When all files
are there, a manifest with the length and SHA-256 of each is written last, everything is flushed to the disk, and one
rename puts the directory in place. A reader refuses a directory whose manifest is missing or does not match.

The scratch directory is named by a fingerprint of what goes into it, so that an interrupted piece of work finds its
finished parts again, and never those of another setting.
"""

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from phasescope.store.manifest import FORMAT, MANIFEST, StoreError, canonical, sha256

SCRATCH = ".scratch"


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
            "files": {name: {"bytes": p.stat().st_size, "sha256": sha256(p)} for name, p in files.items()},
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
        with _told_where(target):
            yield work
        if not work.path.exists():
            # All is in its place: what cannot be tidied up must not fail the stage, for DVC would remove its output.
            for left in root.iterdir():
                # A key has no dash: what is left of `mnist-small` is none of `mnist`'s.
                if left.is_dir() and left.name.rpartition("-")[0] == target.name:
                    shutil.rmtree(left, ignore_errors=True)
            with suppress(OSError):
                (root / f"{target.name}.lock").unlink(missing_ok=True)
    finally:
        lock.release()
        with suppress(OSError):  # not empty: a neighbour is at work, or this one goes on later
            root.rmdir()


def write_file(path: Path, data: bytes) -> None:
    """Write a small file of its own so that it is whole or absent, also after a crash."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.part")
    with _told_where(path):
        try:
            _write_synced(draft, data)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise
        draft.rename(path)
        sync(path.parent)


@contextmanager
def _told_where(path: Path) -> Iterator[None]:
    """Give errors a place that have none: a write into an open file fails, such as on a full disk, without its name."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


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
