"""Stage `resolve`: check all of params.yaml, write each stage its share, and say what will be kept."""

import shutil
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from phasescope import stage
from phasescope.budget import budget, table
from phasescope.imports import digests
from phasescope.params.base import is_own
from phasescope.params.datasets import EMBEDDED
from phasescope.params.settings import shares
from phasescope.progress import wide_console
from phasescope.resolve import recorded, resolve
from phasescope.store.adopt import adopt
from phasescope.store.commit import write_file
from phasescope.store.manifest import MANIFEST, StoreError, canonical

#: What the results of a run are called that have names of their own begin with.
NAMED = ("transfer-", "advise-", "measure-")


def main() -> None:
    """Write one file per run and stage, so that a changed setting re-runs only the stages it concerns.

    The code of a stage is one file too: DVC would parse its hundred entries in `dvc.lock` for each run of it.
    """
    settings = resolve(Path("params.yaml"))
    files = shares(settings, recorded(stage.CONFIGS))
    adopt_all()
    replace(stage.CONFIGS, files)
    scripts = [script for script in Path(__file__).parent.glob("*.py") if script.stem not in ("resolve", "watch")]
    replace(stage.CODE, {f"{script.stem}.json": digests(script) for script in scripts})
    for source in {*EMBEDDED, *filter(is_own, (dataset.source for dataset in settings.datasets.values()))}:
        note_unwatched(source, {name for name, dataset in settings.datasets.items() if dataset.source == source})
    named = {(to.run, f"{name}-{to.dataset}") for to in settings.transfer.values() for name in ("transfer", "advise")}
    named |= {(measure.run, f"measure-{name}") for name, measure in settings.measures.items()}
    remove_stale(set(settings.runs), named)
    wide_console().print(table(budget(settings, stage.DATASETS, jobs=recorded(stage.CONFIGS))))


def replace(folder: Path, files: Mapping[str, Any]) -> None:
    """Write a folder of JSON files, which takes the place of the one that was there once it is whole."""
    with tempfile.TemporaryDirectory(prefix=f".{folder}-", suffix=".part", dir=folder.parent) as draft:
        for name, content in files.items():
            write_file(Path(draft, folder.name, name), canonical(content).encode())
        shutil.rmtree(folder, ignore_errors=True)
        Path(draft, folder.name).rename(folder)


def adopt_all() -> None:
    """Keep the cells of all that is there, for DVC removes what is to be made anew before it lets that be done."""
    for path, cache in stage.kept():
        with suppress(StoreError):  # whoever needs it says what is wrong
            adopt(path, cache)


def note_unwatched(source: str, names: set[str]) -> None:
    """Write what `watch` writes of other datasets, for those without raw files, so that it need not run for them."""
    folder = stage.WATCH / source
    stage.keep_folder(folder)
    for name in names:
        write_file(folder / f"{name}.json", canonical({}).encode())
    for file in folder.glob("*.json"):
        if file.stem not in names:
            file.unlink()


def remove_stale(runs: set[str], named: set[tuple[str, str]]) -> None:
    """Remove results of runs that params.yaml no longer has, and those that are not `named` of what has names there.

    `phases`, `figures` and `report` depend on all results.

    Only directories that phasescope completed go; DVC's cache still has them, and the run's stores stay.
    """
    for folder in stage.RESULTS.glob("*"):
        if folder.is_dir():
            for result in folder.iterdir():
                wanted = not result.name.startswith(NAMED) or (folder.name, result.name) in named
                if not (folder.name in runs and wanted) and (result / MANIFEST).exists():
                    shutil.rmtree(result)
            if not any(folder.iterdir()):
                folder.rmdir()


if __name__ == "__main__":
    stage.run(main)
