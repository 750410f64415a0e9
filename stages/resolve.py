"""Stage `resolve`: check all of params.yaml, write each stage its share, and say what will be kept."""

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from phasescope import stage
from phasescope.budget import budget, table
from phasescope.imports import digests
from phasescope.params.base import is_own
from phasescope.params.datasets import EMBEDDED
from phasescope.params.settings import shares
from phasescope.params.train import TrainJob
from phasescope.progress import wide_console
from phasescope.resolve import resolve
from phasescope.store.adopt import adopt
from phasescope.store.commit import write_file
from phasescope.store.manifest import MANIFEST, StoreError, canonical


def main() -> None:
    """Write one file per run and stage, so that a changed setting re-runs only the stages it concerns.

    The code of a stage is one file too: DVC would parse its hundred entries in `dvc.lock` for each run of it.
    """
    settings = resolve(Path("params.yaml"))
    files = shares(settings, dict(recorded()))
    adopt_all()
    replace(stage.CONFIGS, files)
    scripts = [script for script in Path(__file__).parent.glob("*.py") if script.stem not in ("resolve", "watch")]
    replace(stage.CODE, {f"{script.stem}.json": digests(script) for script in scripts})
    for source in {*EMBEDDED, *filter(is_own, (dataset.source for dataset in settings.datasets.values()))}:
        note_unwatched(source, {name for name, dataset in settings.datasets.items() if dataset.source == source})
    remove_stale(set(settings.runs), {(to.run, to.dataset) for to in settings.transfer.values()})
    wide_console().print(table(budget(settings, stage.DATASETS)))


def replace(folder: Path, files: Mapping[str, Any]) -> None:
    """Write a folder of JSON files, which takes the place of the one that was there once it is whole."""
    with tempfile.TemporaryDirectory(prefix=f".{folder}-", suffix=".part", dir=folder.parent) as draft:
        for name, content in files.items():
            write_file(Path(draft, folder.name, name), canonical(content).encode())
        shutil.rmtree(folder, ignore_errors=True)
        Path(draft, folder.name).rename(folder)


def recorded() -> Iterator[tuple[str, TrainJob]]:
    """What `configs/` says of the trainings so far."""
    for file in stage.CONFIGS.glob("runs/*/train.json"):
        with suppress(ValueError):  # of another version
            yield file.parent.name, TrainJob.model_validate_json(file.read_bytes())


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


def remove_stale(runs: set[str], transfers: set[tuple[str, str]]) -> None:
    """Remove results of runs and targets that params.yaml no longer has; `phases` and `figures` depend on all.

    Only directories that phasescope completed go; DVC's cache still has them, and the run's stores stay.
    """
    for folder in stage.RESULTS.glob("*"):
        if folder.is_dir():
            for result in folder.iterdir():
                stage_name, _, target = result.name.partition("-")
                wanted = stage_name not in ("transfer", "advise") or (folder.name, target) in transfers
                if not (folder.name in runs and wanted) and (result / MANIFEST).exists():
                    shutil.rmtree(result)
            if not any(folder.iterdir()):
                folder.rmdir()


if __name__ == "__main__":
    stage.run(main)
