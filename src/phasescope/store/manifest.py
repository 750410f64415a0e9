"""A directory is complete or absent: the manifest that says so.

The manifest lists every file of a directory with its length and SHA-256, and is written last. A reader refuses a
directory whose manifest is missing or does not match.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from phasescope.errors import UserError

FORMAT = 1
MANIFEST = "manifest.json"


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


def parse(path: Path) -> Manifest:
    """The manifest of a directory, taken by its own word: the files it lists are not looked at.

    Raises:
        StoreError: the directory is absent, has no manifest, or one that is damaged or of another format.
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
        if text != sealed(content).encode():
            raise ValueError("not as it was written")
        if not all(isinstance(part, dict) for part in (manifest.settings, manifest.files, manifest.extra)):
            raise ValueError("not a manifest")
        if any(Path(name).is_absolute() or ".." in Path(name).parts for name in manifest.files):
            raise ValueError("a file outside the directory")
        if not all(isinstance(e["bytes"], int) and isinstance(e["sha256"], str) for e in manifest.files.values()):
            raise ValueError("a file without its length and SHA-256")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise StoreError(
            f"{path / MANIFEST} is damaged: `dvc pull` {path} again, or remove it and run `dvc repro`"
        ) from None
    return manifest


def sealed(content: dict[str, Any]) -> str:
    """The text of a manifest, with the SHA-256 of all else in it as `sha256`: one changed bit shows in any of it."""
    rest = {key: value for key, value in content.items() if key != "sha256"}
    return canonical({**rest, "sha256": hashlib.sha256(canonical(rest).encode()).hexdigest()})


def read(path: Path, kind: str | None = None) -> Manifest:
    """The manifest of a complete directory, after checking every file's length and the metadata's hashes.

    Shards are not hashed here: their own checksums are checked when they are read.

    Raises:
        StoreError: the directory is absent, has no manifest, or does not match it.
    """
    manifest = parse(path)
    wrong = next((name for name, entry in manifest.files.items() if not _matches(path / name, entry)), None)
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


def _matches(path: Path, entry: dict[str, Any]) -> bool:
    try:
        same = path.stat().st_size == entry["bytes"]
    except (OSError, ValueError):
        return False
    return same and (path.suffix != ".json" or sha256(path) == entry["sha256"])


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
