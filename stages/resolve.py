"""Stage `resolve`: check all of params.yaml, and write each stage's share of it under configs/."""

import shutil
from pathlib import Path

from phasescope import stage
from phasescope.resolve import resolve
from phasescope.store.commit import MANIFEST, canonical, write_file


def main() -> None:
    """Write one file per run and stage, so that a changed setting re-runs only the stages it concerns."""
    files = resolve(Path("params.yaml"))
    shutil.rmtree(stage.CONFIGS, ignore_errors=True)
    for name, content in files.items():
        write_file(stage.CONFIGS / name, canonical(content).encode())
    remove_stale({Path(name).parts[1] for name in files if name.startswith("runs/")})


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
