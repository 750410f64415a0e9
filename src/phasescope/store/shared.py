"""Stores at an url of fsspec, such as a bucket of S3, for workers that do not see the project's folder.

A directory is put under the digest of its manifest, which is written last: it is complete or absent there too, and what
is there is never overwritten.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from uuid import uuid4

from phasescope.compute import Compute
from phasescope.errors import UserError, reason
from phasescope.scheduler import SHARED, shared
from phasescope.store.files import Place, StoreError
from phasescope.store.manifest import MANIFEST, Manifest, parse, sha256
from phasescope.store.names import damaged

#: What has no folders, but might take a missing one for a bucket that is to be made.
OBJECT_STORES = {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "oss", "oci"}


def readable(root: Path, folders: Iterable[Path], compute: Compute) -> Place:
    """The project as its workers can read it: the folder itself, or what is brought to the url for them.

    Args:
        root: the project.
        folders: in it, the committed directories that they will read.
        compute: where they are.

    Raises:
        UserError: nothing can be brought to the url.
        StoreError: a directory is absent or damaged.
    """
    url = shared()
    if not url or not compute.cluster:
        return root
    digests = {}
    for folder in folders:
        manifest = parse(folder)
        digests[folder.relative_to(root).as_posix()] = manifest.digest
        _bring(url, manifest)
    return SharedPlace(url, tuple(digests.items()), PurePosixPath())


@dataclass(frozen=True)
class SharedPlace:
    """A folder or file of a project whose directories are at an url."""

    url: str
    digests: tuple[tuple[str, str], ...]  #: by path in the project
    path: PurePosixPath

    def __str__(self) -> str:
        return f"{self._there or self.url}"

    @property
    def remedy(self) -> str:
        """What to do where a file is not what it was."""
        return f"remove {self._there}, from where it is brought again"

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.name

    def __truediv__(self, name: object, /) -> "SharedPlace":
        return SharedPlace(self.url, self.digests, self.path / str(name))

    def is_dir(self) -> bool:
        """Whether it is one of the directories, or holds some of them."""
        return any(PurePosixPath(folder).is_relative_to(self.path) for folder, _ in self.digests)

    def read(self, most: int) -> bytes:
        """The first `most` bytes of a file.

        Raises:
            FileNotFoundError: there is none.
            StoreError: the url cannot be read.
        """
        if self._there is None:
            raise FileNotFoundError(str(self))
        files, place = _open(self._there)
        try:
            data: bytes = files.cat_file(place, end=most) if files.size(place) > most else files.cat_file(place)
        except FileNotFoundError:
            raise FileNotFoundError(str(self)) from None
        except Exception as error:  # of whatever talks to the host
            raise StoreError(f"{self} cannot be read ({reason(error)}): check {SHARED} and its credentials") from None
        return data

    @property
    def _there(self) -> str | None:
        for folder, digest in self.digests:
            if self.path.is_relative_to(folder):
                return "/".join([self.url.rstrip("/"), digest, *self.path.relative_to(folder).parts])
        return None


def _bring(url: str, manifest: Manifest) -> None:
    """Put a committed directory to its place at the url, if it is not there."""
    folder = manifest.path
    files, place = _open(f"{url.rstrip('/')}/{manifest.digest}")
    try:
        if files.exists(f"{place}/{MANIFEST}"):
            return
        for name, entry in manifest.files.items():
            if sha256(folder / name) != entry["sha256"]:
                raise damaged(manifest, name, "is not as it was written")
        protocols = {files.protocol} if isinstance(files.protocol, str) else {*files.protocol}
        if not OBJECT_STORES & protocols:
            for parent in {PurePosixPath(name).parent for name in [*manifest.files, MANIFEST]}:
                files.makedirs(f"{place}/{parent}", exist_ok=True)
        names = list(manifest.files)
        if names:
            files.put([str(folder / name) for name in names], [f"{place}/{name}" for name in names])
        draft = f"{place}/.{MANIFEST}.{uuid4().hex}"
        files.put_file(str(folder / MANIFEST), draft)
        files.mv(draft, f"{place}/{MANIFEST}")
    except UserError:
        raise
    except Exception as error:  # of whatever talks to the host
        raise UserError(
            f"{SHARED}={url}: {folder} cannot be brought there ({reason(error)}): check that it is there and may be "
            "written"
        ) from None


def _open(url: str) -> tuple[Any, str]:
    """The file system of an url, and the path in it.

    Raises:
        UserError: it is none, or needs a package that is not installed.
    """
    import fsspec

    try:
        files, place = fsspec.core.url_to_fs(url)
    except (ValueError, ImportError) as error:
        raise UserError(f"{SHARED}: {reason(error)}") from None
    return files, str(place)
