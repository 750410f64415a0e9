"""Is what is kept what was written? Every directory against its manifest, and against those it was made from.

Nothing that a directory says of itself is trusted: its names are compared with a walk through it and never opened by
themselves, links are not followed, and what is held in memory is its manifest alone.
"""

import os
import stat
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from phasescope.outliers import outliers
from phasescope.store import arrays, manifest
from phasescope.store.manifest import MANIFEST, Manifest, StoreError
from phasescope.store.names import named

#: What a project keeps, below its folder.
LAYOUT = ("datasets/*", "runs/*/*", "results/*/*", "figures")
#: Files that wait to be hashed at the same time.
WAITING = 64


@dataclass(frozen=True)
class Finding:
    """One line about one place; a note is no fault."""

    text: str
    note: bool = False

    def __str__(self) -> str:
        # Names come from directories that may be anyone's: no line breaks, no control sequences of the terminal.
        shown = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in self.text)
        return f"note: {shown}" if self.note else shown


@dataclass(frozen=True)
class Place:
    """Where a directory is kept: `name` below the project's folder, such as "runs/digits-f0/train"."""

    root: Path
    name: str

    @property
    def path(self) -> Path:
        """The directory, as it is shown: from the current folder if it is inside it."""
        path = self.root / self.name
        return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path

    @property
    def kind(self) -> str | None:
        """What it has to hold; None outside a project."""
        first, _, last = self.name.partition("/")
        return {"datasets": "dataset", "figures": "figures", "": None}.get(first, last.rpartition("/")[2])

    @property
    def run(self) -> str | None:
        """The run it belongs to."""
        parts = self.name.split("/")
        return parts[1] if len(parts) == 3 else None


def places(path: Path) -> list[Place]:
    """The kept directories at or below a path: a project's folder, a part of it, or one kept directory anywhere.

    Raises:
        StoreError: the path is not there, or holds nothing that is kept.
    """
    if not path.is_dir():
        raise StoreError(f"{path} is not there, or no folder: name a project's folder or something kept in it")
    path = Path(os.path.abspath(path))
    inside = [
        [place for place in in_project(root) if (root / place.name).is_relative_to(path)]
        for root in (path, *list(path.parents)[:3])
    ]
    # A folder may look like a project's by the names in it alone, so one with manifests goes first.
    for found in inside:
        if any((place.root / place.name / MANIFEST).exists() for place in found):
            return found
    if (path / MANIFEST).exists():
        return [Place(path, "")]
    for found in inside:
        if found:
            return found
    raise StoreError(f"{path} holds nothing that is kept: name a project's folder after `dvc repro` or `dvc pull`")


def in_project(root: Path) -> list[Place]:
    """All directories that a project keeps."""
    names = [path.relative_to(root) for pattern in LAYOUT for path in sorted(root.glob(pattern)) if path.is_dir()]
    return [Place(root, name.as_posix()) for name in names if not any(part.startswith(".") for part in name.parts)]


@dataclass
class Verification:
    """The check of some directories, and what it counted."""

    #: Whether every file is hashed, not those of metadata alone.
    full: bool
    directories: int = 0
    files: int = 0
    bytes: int = 0

    def check(self, place: Place, tell: Callable[[int], None] = lambda done: None) -> Iterator[Finding]:
        """All that is wrong inside a directory; `tell` is told the bytes that were looked at so far."""
        self.directories += 1
        try:
            content = manifest.parse(place.path)
        except StoreError as error:
            yield Finding(str(error))
            return
        if place.kind not in (None, content.kind):
            yield Finding(
                f"{place.path} holds {content.kind!r}, where {place.kind!r} is expected: remove it and run `dvc repro`"
            )
        #: Lengths of the files that the manifest lists; -1 for what is no plain file.
        found: dict[str, int] = {}
        try:
            for name, status in walk(place.path):
                if name in content.files:
                    found[name] = status.st_size if stat.S_ISREG(status.st_mode) else -1
                elif name != MANIFEST:
                    yield Finding(f"{place.path / name}: is not in the manifest; remove it")
        except OSError as error:
            yield Finding(f"{error.filename}: cannot be read ({error.strerror}); give yourself the right to")
        hashed = []
        for name, entry in content.files.items():
            length = found.get(name)
            if length is None:
                yield _wrong(place, content, name, "is missing")
            elif length < 0:
                yield _wrong(place, content, name, "is no plain file")
            elif length != entry["bytes"]:
                yield _wrong(place, content, name, f"has {length} bytes, and {entry['bytes']} were written")
            elif self.full or name.endswith(".json"):
                hashed.append(name)
            self.files += length is not None
            self.bytes += max(0, length or 0)
        yield from self._hashes(place, content, hashed, found, tell)

    def _hashes(
        self, place: Place, content: Manifest, names: list[str], lengths: dict[str, int], tell: Callable[[int], None]
    ) -> Iterator[Finding]:
        """The files among `names` that are not what was written."""
        written = {content.files[name]["sha256"]: name for name in names}
        done = 0
        for name, digest in _hashed(place.path, names):
            if digest is None:
                yield _wrong(place, content, name, "cannot be read")
            elif digest != content.files[name]["sha256"]:
                what = f"holds {named(content, written[digest])}" if digest in written else "is not what was written"
                yield _wrong(place, content, name, what)
            done += lengths[name]
            tell(done)


def references(place: Place, known: Callable[[str], str | None]) -> Iterator[Finding]:
    """Where a directory was made from another one than the one that lies beside it now.

    Args:
        place: of a project; whatever is wrong inside it is passed over here.
        known: the digest of the directory of a name in the same project; None if it is not there or unreadable.
    """
    try:
        content = manifest.parse(place.path)
        made_from = list(_made_from(place, content))
    except (StoreError, KeyError, TypeError, AttributeError):
        return
    for name, digest in made_from:
        parts = name.split("/")
        now = known(name)
        if place.run and parts[0] == "runs" and parts[1:2] != [place.run]:
            yield Finding(f"{place.path} was made from {name}, and belongs to another run than {place.run}: {_REPRO}")
        elif now is None:
            yield Finding(f"{place.path} was made from {name}, which cannot be compared: it is not here", note=True)
        elif now != digest:
            yield Finding(f"{place.path} was made from another {name} than the one that is there now: {_REPRO}")


_REPRO = "`dvc pull` both again, or run `dvc repro`"


def _made_from(place: Place, content: Manifest) -> Iterator[tuple[str, str]]:
    """Names and digests of the directories that one was made from."""
    match content.kind:
        case "train":
            yield f"datasets/{content.settings['dataset']}", content.extra["dataset"]
        case "activations":
            yield f"runs/{place.run}/train", content.extra["train"]
            yield f"datasets/{content.extra['dataset']['name']}", content.extra["dataset"]["digest"]
        case _:
            yield from content.extra.get("inputs", {}).items()


def out_of_line(place: Place) -> Iterator[Finding]:
    """Notes about checkpoints whose loss or weight norm does not go with that of their neighbours."""
    try:
        content = manifest.read(place.path, "activations")
        cells = content.extra["cells"]
        stored = arrays.open_dataset(place.path / arrays.GROUP)[["loss", "weight_norm"]].sel(part="test")
        # Its shape is the directory's own word: what was never written would fill the memory with nothing.
        if stored["loss"].shape == stored["weight_norm"].shape == (len(cells["seeds"]), len(cells["steps"])):
            stored = arrays.load(stored, f"{place.path}")
            for outlier in outliers(stored["loss"], stored["weight_norm"]):
                yield Finding(f"{place.path} (run {place.run}), {outlier}", note=True)
    except (StoreError, KeyError, TypeError, ValueError, AttributeError):
        return  # `check` has said what is wrong


def _wrong(place: Place, content: Manifest, name: str, what: str) -> Finding:
    held = named(content, name)
    where = ", ".join([*([f"run {place.run}"] if place.run else []), *([held] if held != name else [])])
    shown = f"{place.path / name} ({where})" if where else f"{place.path / name}"
    return Finding(f"{shown}: {what}; `dvc pull` {place.path} again, or remove it and run `dvc repro`")


def walk(path: Path) -> Iterator[tuple[str, os.stat_result]]:
    """All that is inside a directory and is no folder, by its name from there. Links are not followed."""
    folders = [""]
    while folders:
        folder = folders.pop()
        with os.scandir(path / folder) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                if entry.is_dir(follow_symlinks=False):
                    folders.append(f"{folder}{entry.name}/")
                else:
                    yield f"{folder}{entry.name}", entry.stat(follow_symlinks=False)


def _hashed(path: Path, names: Iterable[str]) -> Iterator[tuple[str, str | None]]:
    """SHA-256 of each file in the order of the names, several at a time; None where it cannot be read."""

    def digest(name: str) -> str | None:
        try:
            return manifest.sha256(path / name)
        except OSError:
            return None

    waiting: deque[tuple[str, Future[Any]]] = deque()
    with ThreadPoolExecutor() as pool:
        for name in names:
            waiting.append((name, pool.submit(digest, name)))
            if len(waiting) == WAITING:
                name, future = waiting.popleft()
                yield name, future.result()
        for name, future in waiting:
            yield name, future.result()
