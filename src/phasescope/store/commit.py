"""A directory is complete or absent: how one is written.

Whatever is kept is first built in a scratch directory beside its place, which DVC and readers ignore. When all files
are there, a manifest with the length and SHA-256 of each is written last, everything is flushed to the disk, and one
rename puts the directory in place.

A scratch directory lives as long as one attempt. What an attempt finished is found again in the cache of cells.
"""

import hashlib
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from phasescope.store.manifest import FORMAT, MANIFEST, StoreError, canonical, sealed, sha256

SCRATCH = ".scratch"


def fingerprint(*parts: object) -> str:
    """A short name for the given JSON values: the same parts give the same name."""
    return hashlib.sha256(canonical(list(parts)).encode()).hexdigest()[:32]


class Scratch:
    """The scratch directory of one target, held by this process alone."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self.path = target.parent / SCRATCH / target.name
        self._replaced = self.path.with_name(f"{target.name}.replaced")

    def commit(self, kind: str, settings: dict[str, Any], **extra: Any) -> None:
        """Write the manifest, flush everything, and put the directory in its place with one rename."""
        files = [path for path in sorted(self.path.rglob("*")) if path.is_file()]
        with ThreadPoolExecutor() as pool:
            hashed = zip(files, pool.map(sha256, files), strict=True)
            entries = {
                str(path.relative_to(self.path)): {"bytes": path.stat().st_size, "sha256": digest}
                for path, digest in hashed
            }
        manifest = {"format": FORMAT, "kind": kind, "settings": settings, "files": entries, "extra": extra}
        _write_synced(self.path / MANIFEST, sealed(manifest).encode())
        _sync_tree(self.path)
        if self.target.exists():
            # Only where no DVC has cleared the way: the old directory steps aside, so that no reader sees a mixture.
            self.target.rename(self._replaced)
        self.path.rename(self.target)
        _sync(self.target.parent)

    def clear(self) -> None:
        """Remove what this attempt, or one before it that was killed, has left."""
        for left in (self.path, self._replaced):
            if left.exists():
                shutil.rmtree(left)


@contextmanager
def scratch(target: Path) -> Iterator[Scratch]:
    """Hold an empty scratch directory for `target`, to be filled and committed; it is gone afterwards.

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
                lock.acquire(timeout=0.2, poll_interval=0.02)
            except Timeout:
                raise StoreError(f"{target}: another process is writing it; wait for that one to end") from None
            break
    try:
        work = Scratch(target)
        with told_where(target):
            work.clear()
            work.path.mkdir()
            try:
                yield work
            finally:
                # What cannot be tidied up must not fail a stage whose output is in place: DVC would remove that.
                with suppress(OSError):
                    work.clear()
                with suppress(OSError):
                    Path(lock.lock_file).unlink(missing_ok=True)
    finally:
        lock.release()
        with suppress(OSError):  # not empty: a neighbour is at work
            root.rmdir()


def write_file(path: Path, data: bytes) -> None:
    """Write a small file of its own so that it is whole or absent, also after a crash."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.part")
    with told_where(path):
        try:
            _write_synced(draft, data)
            draft.rename(path)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise
        _sync(path.parent)


@contextmanager
def told_where(path: Path) -> Iterator[None]:
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


def _sync_tree(path: Path) -> None:
    """Flush a directory and everything in it to the disk.

    Several at a time, which file systems with a journal write together: 490 files and folders on ext4 took 0.11 s by
    four threads and 1.2 s one after the other.
    """
    with ThreadPoolExecutor() as pool:
        for _ in pool.map(_sync, [*path.rglob("*"), path]):
            pass


def _sync(path: Path) -> None:
    """Flush one file or directory to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
