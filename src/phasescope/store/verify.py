"""Is what is kept what was written? Every directory against its manifest, and against those it was made from.

Nothing that a directory says of itself is trusted: its names are compared with a walk through it and never opened by
themselves, links are not followed, and what is held in memory is its manifest alone.
"""

import os
import stat
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from rich.filesize import decimal

from phasescope.outliers import outliers
from phasescope.store import arrays, manifest
from phasescope.store.files import MEND, is_plain
from phasescope.store.manifest import MANIFEST, Manifest, StoreError
from phasescope.store.names import named

#: What a project keeps, below its folder.
LAYOUT = ("datasets/*", "runs/*/*", "results/*/*", "theory/*", "figures")
#: Files that wait to be hashed at the same time.
WAITING = 64
_REPRO = "`dvc pull` both again, or run `dvc repro`"


@dataclass(frozen=True)
class Finding:
    """One line about one place; a note is no fault."""

    text: str
    note: bool = False
    #: The file that is not what was written, if it is about one.
    file: Path | None = None

    def __str__(self) -> str:
        # Names come from directories that may be anyone's: no line breaks, no control sequences of the terminal.
        shown = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in self.text)
        return f"note: {shown}" if self.note else shown


@dataclass(frozen=True)
class Kept:
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
        match self.name.split("/"):
            case ["datasets", _]:
                return "dataset"
            case ["runs" | "results", _, kind] | ["theory" as kind, _] | ["figures" as kind]:
                return kind
        return None

    @property
    def run(self) -> str | None:
        """The run it belongs to."""
        parts = self.name.split("/")
        return parts[1] if len(parts) == 3 else None


def kept(path: Path) -> list[Kept]:
    """The kept directories at or below a path: a project's folder, a part of it, or one kept directory anywhere.

    Raises:
        StoreError: the path is not there, or holds nothing that is kept.
    """
    if not path.is_dir():
        raise StoreError(f"{path} is not there, or no folder: name a project's folder or something kept in it")
    path = Path(os.path.abspath(path))  # noqa: PTH100 (a project stays one where its runs/ is a link)
    inside = [
        [place for place in in_project(root) if (root / place.name).is_relative_to(path)]
        for root in (path, *list(path.parents)[:3])
    ]
    # A folder may look like a project's by the names in it alone, so one with manifests goes first.
    for found in inside:
        if any((place.root / place.name / MANIFEST).exists() for place in found):
            return found
    if (path / MANIFEST).exists():
        return [Kept(path, "")]
    for found in inside:
        if found:
            return found
    raise StoreError(f"{path} holds nothing that is kept: name a project's folder after `dvc repro` or `dvc pull`")


def in_project(root: Path) -> list[Kept]:
    """All directories that a project keeps."""
    names = [path.relative_to(root) for pattern in LAYOUT for path in sorted(root.glob(pattern)) if path.is_dir()]
    return [Kept(root, name.as_posix()) for name in names if not any(part.startswith(".") for part in name.parts)]


class Check:
    """The check of some directories, one after the other, and what it counted."""

    def __init__(self, full: bool) -> None:
        #: Whether every file is hashed, not those of metadata alone.
        self.full = full
        self.directories = self.files = self.bytes = self._hashed_bytes = 0
        self._projects: dict[Path, dict[str, Kept]] = {}
        self._digests: dict[Kept, str | None] = {}

    def summary(self) -> str:
        """What was looked at, and how."""
        how = "every file hashed" if self.full else "lengths compared and metadata hashed; --full hashes every file"
        return f"{self.directories} directories, {self.files} files, {decimal(self.bytes)}: {how}"

    def directory(self, place: Kept, tell: Callable[[int], None] = lambda read: None) -> Iterator[Finding]:
        """All that is wrong inside a directory; `tell` is told the bytes hashed so far in all of them."""
        self.directories += 1
        try:
            content = manifest.parse(place.path)
        except StoreError as error:
            # One of another format is not damaged.
            damaged = isinstance(error, manifest.DamagedManifestError)
            yield Finding(str(error), file=place.path / MANIFEST if damaged else None)
            return
        if place.kind not in (None, content.kind):
            yield Finding(
                f"{place.path} holds {str(content.kind)[:60]!r}, where {place.kind!r} is expected: "
                "remove it and run `dvc repro`"
            )
        # Lengths of the files that the manifest lists; -1 for what is no plain file.
        found: dict[str, int] = {}
        try:
            for name, status in walk(place.path):
                if name in content.files:
                    found[name] = _plain_length(place.path, name, status)
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
                # What it leads to is not ours to mend.
                yield replace(_wrong(place, content, name, "is no plain file"), file=None)
            elif length != entry["bytes"]:
                yield _wrong(place, content, name, f"has {length} bytes, and {entry['bytes']} were written")
            elif self.full or name.endswith(".json"):
                hashed.append(name)
            self.files += length is not None
            self.bytes += max(0, length or 0)
        yield from self._hashes(place, content, hashed, found, tell)

    def _hashes(
        self, place: Kept, content: Manifest, names: list[str], lengths: dict[str, int], tell: Callable[[int], None]
    ) -> Iterator[Finding]:
        """The files among `names` that are not what was written."""
        written = {content.files[name]["sha256"]: name for name in names}
        for name, digest in hashed(place.path, names):
            if digest is None:
                yield _wrong(place, content, name, "cannot be read")
            elif digest != content.files[name]["sha256"]:
                what = f"holds {named(content, written[digest])}" if digest in written else "is not what was written"
                yield _wrong(place, content, name, what)
            self._hashed_bytes += lengths[name]
            tell(self._hashed_bytes)

    def references(self, place: Kept) -> Iterator[Finding]:
        """Where a directory of a project was made from another one than the one that lies beside it now."""
        try:
            made_from = list(_made_from(place, manifest.parse(place.path))) if place.name else []
        except (StoreError, KeyError, TypeError, AttributeError):
            return  # `directory` says what is wrong, or the manifest says nothing of it
        for name, digest in made_from:
            now = self._digest(place.root, name)
            if place.run and name.startswith("runs/") and not name.startswith(f"runs/{place.run}/"):
                yield Finding(f"{place.path} was made from {name}, so it belongs to another run: {_REPRO}")
            elif now is None:
                yield Finding(f"{place.path} was made from {name}, which is not here to compare", note=True)
            elif now != digest:
                yield Finding(f"{place.path} was made from another {name} than the one that is there now: {_REPRO}")

    def _digest(self, root: Path, name: str) -> str | None:
        """Digest of the directory of that name in a project; None if there is none, or none that can be read."""
        if root not in self._projects:
            self._projects[root] = {place.name: place for place in in_project(root)}
        place = self._projects[root].get(name)
        if place is not None and place not in self._digests:
            try:
                self._digests[place] = manifest.parse(place.path).digest
            except StoreError:
                self._digests[place] = None
        return self._digests.get(place) if place else None


def _made_from(place: Kept, content: Manifest) -> Iterator[tuple[str, str]]:
    """Names and digests of the directories that one was made from."""
    match content.kind:
        case "train":
            yield f"datasets/{content.settings['dataset']}", content.extra["dataset"]
        case "activations":
            yield f"runs/{place.run}/train", content.extra["train"]
            yield f"datasets/{content.extra['dataset']['name']}", content.extra["dataset"]["digest"]
        case _:
            yield from content.extra.get("inputs", {}).items()


def out_of_line(place: Kept) -> Iterator[Finding]:
    """Notes about checkpoints whose loss or weight norm does not go with that of their neighbours."""
    try:
        content = manifest.read(place.path, "activations")
        cells = content.extra["cells"]
        stored = arrays.open_dataset(place.path / arrays.GROUP)[["loss", "weight_norm"]].sel(part="test")
        # Its shape is the directory's own word: what was never written would fill the memory with nothing.
        if stored["loss"].shape == stored["weight_norm"].shape == (len(cells["seeds"]), len(cells["steps"])):
            stored = arrays.load(stored, f"{place.path}")
            for outlier in outliers(stored["loss"], stored["weight_norm"]):
                yield Finding(_titled(place, "", str(outlier)), note=True)
    except (StoreError, KeyError, TypeError, ValueError, AttributeError, RuntimeError, OSError):
        return  # `Check.directory` says what is wrong


def _plain_length(folder: Path, name: str, status: os.stat_result) -> int:
    """Bytes of a file, or of the one in DVC's cache that it is a link to; −1 for anything else."""
    if stat.S_ISLNK(status.st_mode) and is_plain(folder / name, folder):
        return (folder / name).stat().st_size
    return status.st_size if stat.S_ISREG(status.st_mode) else -1


def _wrong(place: Kept, content: Manifest, name: str, what: str) -> Finding:
    held = named(content, name)
    title = _titled(place, name, held if held != name else "")
    return Finding(f"{title}: {what}; {MEND}", file=place.path / name)


def _titled(place: Kept, name: str, what: str) -> str:
    """A file, its run, and what it holds."""
    told = ", ".join(filter(None, (place.run and f"run {place.run}", what)))
    return f"{place.path / name} ({told})" if told else f"{place.path / name}"


def length(place: Kept) -> int:
    """Bytes of all files in a directory, as far as they can be seen."""
    with suppress(OSError):
        return sum(status.st_size for _, status in walk(place.path))
    return 0


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


def hashed(path: Path, names: Iterable[str]) -> Iterator[tuple[str, str | None]]:
    """SHA-256 of each file in the order of the names, several at a time; None where it cannot be read."""

    def digest(name: str) -> str | None:
        try:
            return manifest.sha256(path / name)
        except OSError:
            return None

    waiting: deque[tuple[str, Future[str | None]]] = deque()
    with ThreadPoolExecutor() as pool:
        for name in names:
            waiting.append((name, pool.submit(digest, name)))
            if len(waiting) == WAITING:
                name, future = waiting.popleft()
                yield name, future.result()
        for name, future in waiting:
            yield name, future.result()
