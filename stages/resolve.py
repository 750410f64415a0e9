"""Stage `resolve`: check all of params.yaml, write each stage its share, and say what will be kept."""

import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

from phasescope import stage
from phasescope.budget import budget, table
from phasescope.params.settings import shares
from phasescope.progress import wide_console
from phasescope.resolve import resolve
from phasescope.store.adopt import adopt
from phasescope.store.commit import write_file
from phasescope.store.manifest import MANIFEST, StoreError, canonical


def main() -> None:
    """Write one file per run and stage, so that a changed setting re-runs only the stages it concerns."""
    settings = resolve(Path("params.yaml"))
    files = shares(settings)
    adopt_all()
    with tempfile.TemporaryDirectory(prefix=".configs-", suffix=".part", dir=stage.CONFIGS.parent) as draft:
        for name, content in files.items():
            write_file(Path(draft, "configs", name), canonical(content).encode())
        shutil.rmtree(stage.CONFIGS, ignore_errors=True)
        Path(draft, "configs").rename(stage.CONFIGS)
    remove_stale(set(settings.runs))
    wide_console().print(table(budget(settings, stage.DATASETS)))


def adopt_all() -> None:
    """Keep the cells of all that is there, for DVC removes what is to be made anew before it lets that be done."""
    for path, cache in stage.kept():
        with suppress(StoreError):  # whoever needs it says what is wrong
            adopt(path, cache)


def remove_stale(runs: set[str]) -> None:
    """Remove results of runs that params.yaml no longer has; `phases` and `figures` depend on the whole folder.

    Only directories that phasescope completed go; DVC's cache still has them, and the run's stores stay.
    """
    for folder in stage.RESULTS.glob("*"):
        if folder.is_dir() and folder.name not in runs:
            for result in folder.iterdir():
                if (result / MANIFEST).exists():
                    shutil.rmtree(result)
            if not any(folder.iterdir()):
                folder.rmdir()


if __name__ == "__main__":
    stage.run(main)
