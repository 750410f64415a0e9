"""A directory is complete or absent: the manifest that says so.

The manifest lists every file of a directory with its length and SHA-256, and is written last. A reader refuses a
directory whose manifest is missing or does not match.
"""

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from phasescope.store.files import JSON_BYTES, Place, parse_json, plain, read_file, remedy
from phasescope.store.files import StoreError as StoreError
from phasescope.store.names import damaged

FORMAT = 1
MANIFEST = "manifest.json"
_DIGEST = re.compile(r"[0-9a-f]{64}")
#: Where a manifest has its own digest, and what stands there while that is taken.
_SEAL = re.compile(rb'"sha256": "([0-9a-f]{64})"\n}\n\Z')
_UNSEALED = "0" * 64

T = TypeVar("T")


class DamagedManifestError(StoreError):
    """A manifest is not what was written."""


@dataclass(frozen=True)
class Manifest:
    """What a complete directory says of itself."""

    path: Any  #: a `pathlib.Path`, or another `Place`
    kind: str
    settings: dict[str, Any]
    files: dict[str, dict[str, Any]]
    extra: dict[str, Any]
    #: SHA-256 of the manifest, and so of everything in the directory.
    digest: str

    @property
    def bytes(self) -> int:
        """Of all files that it lists, as they lie on the disk."""
        return sum(entry["bytes"] for entry in self.files.values())

    def entry(self, where: str, kind: type[T]) -> T:
        """What stands at a path such as "extra.dataset.name".

        Raises:
            StoreError: nothing does, or something of another kind.
        """
        value: Any = {"settings": self.settings, "extra": self.extra}
        for key in where.split("."):
            value = value.get(key) if isinstance(value, dict) else None
        if not isinstance(value, kind):
            raise _unreadable(self.path)
        return value


def canonical(value: object) -> str:
    """JSON with sorted keys: the same value gives the same text."""
    return json.dumps(value, sort_keys=True, indent=1, allow_nan=False) + "\n"


def sealed(content: dict[str, Any]) -> str:
    """The text of a manifest, whose last entry is the SHA-256 of all else in it: one changed bit shows anywhere."""
    text = canonical({**content, "sha256": _UNSEALED})
    head, _, tail = text.rpartition(_UNSEALED)
    return head + hashlib.sha256(text.encode()).hexdigest() + tail


def _is_sealed(text: bytes) -> bool:
    seal = _SEAL.search(text, max(0, len(text) - 100))
    if seal is None:
        return False
    blank = text[: seal.start(1)] + _UNSEALED.encode() + text[seal.end(1) :]
    return hashlib.sha256(blank).hexdigest().encode() == seal[1]


def parse(path: Place) -> Manifest:
    """The manifest of a directory, taken by its own word: the files it lists are not looked at.

    Raises:
        StoreError: the directory is absent, has no manifest, or one that is damaged or of another format.
    """
    if not path.is_dir():
        elsewhere = "make it with `dvc repro`, or fetch it with `dvc pull`"
        raise StoreError(f"{path} is not there: {elsewhere if isinstance(path, Path) else 'name a rev that has it'}")
    try:
        text = read_file(path, MANIFEST, JSON_BYTES)
    except FileNotFoundError:
        if not isinstance(path, Path):
            raise StoreError(f"{path} has no {MANIFEST} that can be fetched: {remedy(path)}") from None
        raise StoreError(
            f"{path} has no {MANIFEST}, so it is not complete: remove it and run `dvc repro`, or `dvc pull` it again"
        ) from None
    return _parsed(path, text)


def read(path: Place, kind: str | None = None) -> Manifest:
    """The manifest of a complete directory, after checking that every file is there and as long as it was.

    Contents are not hashed here, but when they are read (see `verified`). The lengths of files elsewhere are seen only
    then, too.

    Raises:
        StoreError: the directory is absent, has no manifest, or does not match it.
    """
    manifest = parse(path)
    if isinstance(path, Path):
        for name, entry in manifest.files.items():
            if not _as_long(path / name, entry["bytes"]):
                raise damaged(manifest, name, "is missing or not as it was written")
    if kind is not None and manifest.kind != kind:
        raise StoreError(
            f"{path} holds {manifest.kind!r:.60}, where {kind!r} is expected: remove it and run `dvc repro`"
        )
    return manifest


def _parsed(path: Place, text: bytes) -> Manifest:
    try:
        content = parse_json(text)
        if content["format"] != FORMAT:
            raise StoreError(
                f"{path} has format {content['format']!r:.60}, and this version of phasescope reads {FORMAT}: "
                "install the version that wrote it"
            )
        if not _is_sealed(text):
            raise ValueError("not as it was written")
        manifest = Manifest(
            path=path,
            kind=content["kind"],
            settings=content["settings"],
            files=content["files"],
            extra=content["extra"],
            digest=hashlib.sha256(text).hexdigest(),
        )
    except (ValueError, KeyError, TypeError):
        raise _unreadable(path) from None
    parts = (manifest.settings, manifest.files, manifest.extra)
    sound = isinstance(manifest.kind, str) and all(isinstance(part, dict) for part in parts)
    if not sound or not all(plain(name) and _is_entry(entry) for name, entry in manifest.files.items()):
        raise _unreadable(path)
    return manifest


def _is_entry(entry: object) -> bool:
    match entry:
        case {"bytes": int(length), "sha256": str(digest)}:
            return not isinstance(length, bool) and 0 <= length < 2**63 and _DIGEST.fullmatch(digest) is not None
    return False


def _unreadable(path: Place) -> DamagedManifestError:
    return DamagedManifestError(f"{path / MANIFEST} is damaged: {remedy(path)}")


def require_settings(manifest: Manifest, settings: dict[str, Any]) -> None:
    """Refuse a directory that was written for other settings.

    Raises:
        StoreError: names the first setting that differs, with both values.
    """
    for key in sorted(settings.keys() | manifest.settings.keys()):
        there, wanted = manifest.settings.get(key), settings.get(key)
        if there != wanted:
            raise StoreError(
                f"{manifest.path} was written for other settings: {key:.60} is {there!r:.200} there and "
                f"{wanted!r:.200} in params.yaml; run `dvc repro`"
            )


def _as_long(path: Path, length: int) -> bool:
    try:
        return path.stat().st_size == length
    except (OSError, ValueError):
        return False


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
