"""A file of a kept directory is read whole, once, and never further than it is said to reach.

What is kept may come from anywhere, so nothing is read that is no plain file inside its directory.
"""

import os
import re
from pathlib import Path
from typing import Any, Protocol

from pydantic_core import from_json

from phasescope.errors import UserError

#: The longest JSON file that is read, and the most lists and objects in it: a manifest of some 100,000 files.
JSON_BYTES = 16 << 20
JSON_PARTS = 200_000
#: What to do about damage. The file in DVC's cache is the same, so a pull alone would bring the damage back.
MEND = "run `phasescope verify --full --mend`, then `dvc pull` or `dvc repro`"
#: A file in DVC's cache, to which DVC links where `cache.type` is symlink; it is named by its content.
_CACHED = re.compile(r"[/\\]files[/\\]md5[/\\][0-9a-f]{2}[/\\][0-9a-f]{30}$")


class StoreError(UserError):
    """A kept directory is missing, incomplete, damaged, or not the one that was asked for."""


class Distant(Protocol):
    """A folder or file that is not on this machine."""

    @property
    def name(self) -> str:
        """The last part of the path."""

    @property
    def remedy(self) -> str:
        """What to do about a damaged directory."""

    def __truediv__(self, name: str, /) -> "Distant":
        """What is inside under a relative name."""

    def is_dir(self) -> bool:
        """Whether it is a folder."""

    def read(self, most: int) -> bytes:
        """The first `most` bytes at least, of a file; raises FileNotFoundError."""


#: A folder or file that is read from.
Place = Path | Distant


def read_file(folder: Place, name: str, most: int) -> bytes:
    """The bytes of a file inside `folder`.

    Raises:
        FileNotFoundError: it is not there.
        StoreError: it is longer than `most` bytes, lies elsewhere, or cannot be read.
    """
    data = _read(folder, name, most + 1) if isinstance(folder, Path) else (folder / name).read(most + 1)
    if len(data) > most:
        raise StoreError(f"{folder / name} is longer than {most} bytes: {remedy(folder)}")
    return data


def _read(folder: Path, name: str, most: int) -> bytes:
    place = folder / name
    try:
        found = place.stat()
        if not is_plain(place, folder):
            raise StoreError(f"{place} is no plain file inside {folder}: {remedy(folder)}")
        with place.open("rb") as file:
            return file.read(min(most, found.st_size + 1))
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(str(place)) from None
    except OSError as error:
        raise StoreError(f"{place} cannot be read ({error.strerror}): mend that and try again") from None


def parse_json(data: bytes) -> Any:
    """The value of a JSON text; raises ValueError, also where it is nested deeper than 200 levels."""
    require_few_parts(data)
    return from_json(data)


def require_few_parts(data: bytes) -> None:
    """Raise ValueError on a JSON text that would take far more memory than its length: 8 MB of "[],[],…" take 200."""
    if data.count(b"[") + data.count(b"{") > JSON_PARTS:
        raise ValueError("too many lists and objects")


def plain(name: object) -> bool:
    """Whether a name stays inside the folder it is used in, and on one line where it is told."""
    if not isinstance(name, str) or not name.isprintable() or len(name) > 1000:
        return False
    return not any(part in ("", ".", "..") or "\\" in part or ":" in part for part in name.split("/"))


def remedy(folder: Place) -> str:
    """What to do about a damaged directory."""
    return MEND if isinstance(folder, Path) else folder.remedy


def is_plain(path: Path, folder: Path) -> bool:
    """Whether there is a plain file inside the folder, or a link to one in DVC's cache."""
    real = os.path.realpath(path)
    inside = real.startswith(os.path.realpath(folder) + os.sep) or bool(_CACHED.search(real))
    return inside and path.is_file()
