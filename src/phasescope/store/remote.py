"""A project in a DVC repository, read without pulling it, and rid of damage: the one place that knows that DVC exists.

What is in the repository's workspace or cache is read there, anything else straight from its remote. Nothing is left
behind in either.
"""

import errno
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from phasescope.errors import reason
from phasescope.store.files import StoreError


@dataclass(frozen=True, eq=False)
class DvcPlace:
    """A folder or file of a DVC repository."""

    files: Any  #: the `dvc.api.DVCFileSystem` of the repository
    repository: str  #: as it is told to a user
    path: PurePosixPath

    def __str__(self) -> str:
        return f"{self.repository}:{self.path}"

    def __deepcopy__(self, memo: dict[int, Any]) -> "DvcPlace":
        return self

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.name

    @property
    def remedy(self) -> str:
        """What to do where a file is not what it was."""
        return "`dvc push` it where it was made"

    def __truediv__(self, name: str, /) -> "DvcPlace":
        return DvcPlace(self.files, self.repository, self.path / name)

    def is_dir(self) -> bool:
        """Whether it is a folder at that revision; whether its files were pushed is seen when they are read.

        Raises:
            StoreError: what it holds was not pushed, or the remote cannot be reached.
        """
        try:
            return bool(self.files.isdir(str(self.path)))
        except Exception as error:  # DVC's, and those of whatever talks to the remote
            raise self._told(error) from None

    def read(self, most: int) -> bytes:
        """The first `most` bytes of a file.

        Raises:
            FileNotFoundError: there is none at that revision.
            StoreError: it was not pushed, or the remote cannot be reached.
        """
        try:
            with self.files.open(str(self.path), "rb") as file:
                data: bytes = file.read(most)
        except FileNotFoundError:
            raise FileNotFoundError(str(self)) from None
        except Exception as error:  # DVC's, and those of whatever talks to the remote
            raise self._told(error) from None
        return data

    def _told(self, error: Exception) -> StoreError:
        return StoreError(
            f"{self} cannot be read ({reason(error)}): check the remote with `dvc remote list`, and that it was pushed"
        )


def open_repository(repo: str, rev: str | None, remote: str | None) -> DvcPlace:
    """The root of a DVC repository.

    Raises:
        StoreError: there is no such repository, revision or remote.
    """
    from dvc.api import DVCFileSystem

    told = f"{repo}@{rev}" if rev else repo
    try:
        files = DVCFileSystem(repo, rev=rev, remote=remote)
        files.repo  # noqa: B018 - opened now, so that a mistake is told here
    except OSError as error:
        hint = "check that it is there"
        if error.errno in (errno.EROFS, errno.EACCES):
            hint = f"DVC takes notes in the repository: give its git URL, repo='{Path(repo).absolute().as_uri()}'"
        raise StoreError(f"{told} cannot be opened ({reason(error)}); {hint}") from None
    except Exception as error:  # DVC's, git's, and those of whatever talks to the host
        raise StoreError(f"{told} cannot be opened ({reason(error)}); check repo, rev and remote") from None
    return DvcPlace(files, told, PurePosixPath())


def forget(file: Path) -> int:
    """Remove a damaged file, also from the cache of its DVC repository; gives how many objects went there.

    DVC believes its cache: it would link to the damaged object again, after a pull and even after making it anew. An
    object is named by the MD5 of what it should hold. Looked at are those that are this file or as long as it.
    """
    status = file.stat()
    removed = 0
    for candidate in _cache_objects(file):
        found = candidate.stat()
        same = (found.st_dev, found.st_ino) == (status.st_dev, status.st_ino)
        if same or (found.st_size == status.st_size and _md5(candidate) != _md5_of_name(candidate)):
            candidate.unlink()
            removed += 1
    file.unlink()
    return removed


def _cache_objects(file: Path) -> Iterator[Path]:
    """All objects in the local cache of the DVC repository around a file; none where there is no repository."""
    from dvc.exceptions import NotDvcRepoError
    from dvc.repo import Repo

    try:
        with Repo(file.parent) as repo:
            yield from sorted(Path(repo.cache.local.path).glob("[0-9a-f][0-9a-f]/*"))
    except NotDvcRepoError:
        return


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def _md5_of_name(path: Path) -> str:
    return path.parent.name + path.name.removesuffix(".dir")
