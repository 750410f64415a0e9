"""A project in a DVC repository, read without pulling it: the one place that knows that DVC exists.

What is in the repository's workspace or cache is read there, anything else straight from its remote. Nothing is left
behind in either.
"""

import errno
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

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
            f"{self} cannot be read ({_reason(error)}): check the remote with `dvc remote list`, and that it was pushed"
        )


def open_repository(repo: str, rev: str | None, remote: str | None) -> DvcPlace:
    """The root of a DVC repository.

    Raises:
        StoreError: there is no such repository, revision or remote.
    """
    from dvc.api import DVCFileSystem  # type: ignore[import-untyped]

    told = f"{repo}@{rev}" if rev else repo
    try:
        files = DVCFileSystem(repo, rev=rev, remote=remote)
        files.repo  # noqa: B018 - opened now, so that a mistake is told here
    except OSError as error:
        hint = "check that it is there"
        if error.errno in (errno.EROFS, errno.EACCES):
            hint = f"DVC takes notes in the repository: give its git URL, repo='{Path(repo).absolute().as_uri()}'"
        raise StoreError(f"{told} cannot be opened ({_reason(error)}); {hint}") from None
    except Exception as error:  # DVC's, git's, and those of whatever talks to the host
        raise StoreError(f"{told} cannot be opened ({_reason(error)}); check repo, rev and remote") from None
    return DvcPlace(files, told, PurePosixPath())


def _reason(error: BaseException) -> str:
    """What went wrong first, for DVC wraps what others raised."""
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{(str(error).splitlines() or [''])[0] or type(error).__name__:.200}"
