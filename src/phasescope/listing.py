"""What a project has of each run, at a glance: from the manifests and the phases, without reading any array."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from phasescope.errors import UserError
from phasescope.store import manifest
from phasescope.store.manifest import Manifest, StoreError

MISSING = "–"


@dataclass(frozen=True)
class Listed:
    """A run as far as it is there: no part of it is None."""

    name: str
    train: Manifest | None
    activations: Manifest | None
    results: list[Manifest]
    #: What is there and cannot be read.
    damaged: list[str]


def listed(project: Path) -> Iterator[Listed]:
    """The runs of a project.

    Raises:
        UserError: there are none.
    """
    folders = [project / "runs", project / "results"]
    names = sorted({path.name for folder in folders for path in folder.glob("*") if path.is_dir()})
    names = [name for name in names if not name.startswith(".")]
    if not names:
        raise UserError(f"{project} has no runs/: name a project's folder, or run `dvc repro` or `dvc pull` in it")
    for name in names:
        found: dict[Path, Manifest] = {}
        damaged = []
        for path in sorted(path for folder in folders for path in (folder / name).glob("*")):
            if path.is_dir() and not path.name.startswith("."):
                try:
                    found[path] = manifest.read(path)
                except StoreError as error:
                    damaged.append(str(error))
        train, activations = (found.pop(folders[0] / name / part, None) for part in ("train", "activations"))
        yield Listed(name, train, activations, list(found.values()), damaged)


def table(runs: list[Listed], phases: Mapping[str, Any]) -> Table:
    """A row for each run: what it is, which checkpoints and taps there are, all bytes, and its phases.

    Args:
        runs: as `listed` gives them.
        phases: what the stage `phases` wrote, by run and layer; those of the first layer are shown.
    """
    shown = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for heading in ("run", "dataset", "network"):
        shown.add_column(heading, no_wrap=True)
    for heading in ("seeds", "steps", "bytes"):
        shown.add_column(heading, justify="right", no_wrap=True)
    shown.add_column("taps")
    shown.add_column("phases of the first", no_wrap=True)
    for run in runs:
        try:
            # As texts: a name that is markup is none.
            shown.add_row(*map(Text, _row(run, phases.get(run.name, {}))))
        except (AttributeError, IndexError, KeyError, TypeError):
            shown.add_row(run.name, "not to be read: another version wrote it, or it is damaged")
    return shown


def _row(run: Listed, layers: Mapping[str, Any]) -> list[str]:
    checkpoints = _entry(run.train or run.activations, "extra.cells", dict)
    steps, seeds = checkpoints.get("steps", []), checkpoints.get("seeds", [])
    there = [each for each in (run.train, run.activations, *run.results) if each is not None]
    return [
        run.name,
        _entry(run.train, "settings", dict).get("dataset", MISSING),
        _entry(run.train, "settings.model", dict).get("name", MISSING),
        str(len(seeds)) if seeds else MISSING,
        f"{steps[0]}–{steps[-1]} ({len(steps)})" if steps else MISSING,
        decimal(sum(each.bytes for each in there)),
        ", ".join(tap["name"] for tap in _entry(run.activations, "settings.taps", list)) or MISSING,
        next((of_layer.get("phases", MISSING) for of_layer in layers.values()), MISSING),
    ]


def _entry(found: Manifest | None, where: str, kind: type) -> Any:
    """What a manifest has at a place; empty if it has nothing there."""
    value: Any = {} if found is None else {"settings": found.settings, "extra": found.extra}
    for key in where.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return value if isinstance(value, kind) else kind()
