"""How long the stages take to start, beside the bare imports of the libraries that they use.

    python benchmarks/start.py [--repeats 5] [stage ...]

A start is `python` until the script of a stage is imported and its settings could be read; the bare imports are the
same modules but for phasescope's own, in the same order, in a process of its own, all of them compiled to bytecode
before. Both by turns, in seconds of the processor.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import side_by_side

STAGES = Path(__file__).parents[1] / "stages"
HEAVY = ("torch", "torch._dynamo", "torchvision", "sklearn", "matplotlib")
START = "import runpy, sys; runpy.run_path(sys.argv[1])"
NAMES = "; print('\\n'.join(sys.modules))"
BARE = "import importlib, sys\nfor name in sys.argv[1].split():\n    importlib.import_module(name)"


def imported(script: Path) -> list[str]:
    """Names of the modules that a script imports, but for the package's own, in order."""
    found = subprocess.run([sys.executable, "-c", START + NAMES, script], check=True, capture_output=True, text=True)
    at_first = subprocess.run(
        [sys.executable, "-c", "import runpy, sys" + NAMES], check=True, capture_output=True, text=True
    )
    own = set(at_first.stdout.split())
    return [name for name in found.stdout.split() if name not in own and name.split(".")[0] != "phasescope"]


def processor(*command: str | Path) -> float:
    """Seconds of a processor that a command takes."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", *command], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Compare them, with bytecode in a folder that is there for this alone."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stages", nargs="*", default=sorted(script.stem for script in STAGES.glob("*.py")))
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        os.environ["PYTHONPYCACHEPREFIX"] = folder
        compare(given.stages, given.repeats)


def compare(stages: list[str], repeats: int) -> None:
    """Print both for every stage, and which of the large libraries it imports."""
    for stage in stages:
        script = STAGES / f"{stage}.py"
        names = imported(script)
        pairs = [(processor(START, script), processor(BARE, " ".join(names))) for _ in range(repeats)]
        heavy = ", ".join(name for name in HEAVY if name in names) or "none of the large libraries"
        taken = side_by_side.Comparison(*map(list, zip(*pairs, strict=True)))
        side_by_side.tell(f"{stage} ({heavy})", taken, at_most=1.1)


if __name__ == "__main__":
    main()
