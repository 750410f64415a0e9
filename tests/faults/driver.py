"""Kill or fail the file operations of a small train, activations and decode, and look at what is left.

Run with the shim preloaded, as tests/test_faults.py does: `driver.py FOLDER [--seconds S --seed N --kills-first]`.
FOLDER holds `project`, with stages/ and params.yaml. One warm process has imported everything and has one thread. Each
attempt gets a copy of the project as it is before a stage and two processes forked from the warm one: the first runs
the stage until the fault, the second reads what is there and runs the stage again. When that leaves the same files as
an undisturbed run, everything after it is the same too. Operations are counted from 1 in each stage.
"""

import argparse
import ctypes
import errno
import functools
import gc
import json
import math
import os
import random
import runpy
import shutil
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import xarray as xr

# Everything that the stages load, before forking.
from phasescope import activations, importing, provenance, resolve, stage, training  # noqa: F401
from phasescope.data import sources  # noqa: F401
from phasescope.measures import cells, decode  # noqa: F401
from phasescope.store import arrays, datasets, manifest, run  # noqa: F401

RUN = "tiny"
#: Each stage with the directory it makes.
STAGES = {"train": f"runs/{RUN}/train", "activations": f"runs/{RUN}/activations", "decode": f"results/{RUN}/decode"}
FAULTS = {"kill": 0, "ENOSPC": errno.ENOSPC, "EIO": errno.EIO, "EACCES": errno.EACCES}
#: What may fail and the stage go on: tidying up after everything is in place, a link, where a copy will do, and making
#: a folder that another thread makes at the same moment.
DISPENSABLE = ("unlink", "rmdir", "link", "mkdir")
#: Finished cells, for going on with. They may stay, and must not change a result.
CACHE = ".phasescope"
#: One of these begins each place that a message can name.
FOLDERS = ("runs", "results", "provenance")
#: Attempts at a time.
LANES = 2

Tree = dict[str, bytes | None]


@dataclass(frozen=True)
class Attempt:
    """A fault at the k-th operation of a stage."""

    stage: str
    k: int
    fault: str


def main() -> int:
    """Try what the command line asks for; gives the exit code."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seconds", type=float, default=math.inf, help="no new fault after so long")
    parser.add_argument("--seed", type=int, default=0, help="of the order")
    parser.add_argument("--kills-first", action="store_true", help="errors after all kills")
    given = parser.parse_args()
    began = time.monotonic()
    folder = given.folder.resolve()
    warm_up()
    operations = undisturbed(folder)
    after = dict(zip(STAGES, map(tree, (before(folder, name) for name in [*STAGES, None][1:])), strict=True))
    attempts = [Attempt(s, k, fault) for fault in FAULTS for s in STAGES for k in range(1, len(operations[s]) + 1)]
    random.Random(given.seed).shuffle(attempts)
    if given.kills_first:
        attempts.sort(key=lambda attempt: attempt.fault != "kill")
    end = time.monotonic() + given.seconds
    kinds = Counter(line.split()[0] for lines in operations.values() for line in lines)
    print(
        f"{sum(kinds.values())} operations ({', '.join(f'{len(lines)} in {s}' for s, lines in operations.items())}; "
        f"{', '.join(f'{count} {name}' for name, count in kinds.most_common())}), {len(attempts)} faults",
        f"seed {given.seed}",
        flush=True,
    )
    lanes = [os.fork() or leave(lane(folder, index, attempts[index::LANES], after, end)) for index in range(LANES)]
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in lanes]
    outcomes: Counter[str] = Counter()
    for index in range(LANES):
        outcomes.update(json.loads((folder / f"lane-{index}" / "outcomes.json").read_bytes()))
    print(f"{outcomes.total()} of {len(attempts)} faults tried in {time.monotonic() - began:.0f} s:", flush=True)
    for outcome in sorted(outcomes):
        print(f"{outcomes[outcome]:6} {outcome}", flush=True)
    return int(any(codes))


def warm_up() -> None:
    """Do once what every process would do once, and nothing that starts a thread."""
    os.environ.pop("LD_PRELOAD", None)
    network = torch.nn.Linear(4, 4)
    torch.nn.functional.cross_entropy(network(torch.zeros(2, 4)), torch.zeros(2, dtype=torch.long)).backward()
    torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9).step()
    xr.Variable((), 0)  # with the first of which xarray imports Dask, where that is installed
    # Most of a stage's time here; neither the installed versions nor the code changes.
    provenance.version = functools.cache(provenance.version)
    provenance.code_digest()
    provenance.describe()
    # Forked processes share what is never written to.
    gc.collect()
    gc.freeze()
    assert len(list(Path("/proc/self/task").iterdir())) == 1, "a process with several threads cannot be forked"


def undisturbed(folder: Path) -> dict[str, list[str]]:
    """Keep the project as it is before each stage and at the end; gives each stage's operations, "name path".

    Threads take turns as they like, so the number varies a little: the longest of three runs.
    """
    project = folder / "project"
    for script in (("resolve",), ("prepare", "digits")):
        code, said = forked(lambda script=script: run_script(*script), project, folder)
        assert code == 0, said
    shutil.rmtree(project / "provenance")
    operations = {}
    for name in STAGES:
        project.rename(before(folder, name))
        runs = []
        for _ in range(3):
            copy(before(folder, name), project)
            code, said = forked(lambda name=name: run_stage(name), project, folder, (0, 0))
            assert code == 0, said
            runs.append((folder / "operations").read_text().splitlines())
        operations[name] = max(runs, key=len)
        assert operations[name], "nothing is counted: does the shim stand between Python and libc?"
    project.rename(before(folder, None))
    return operations


def before(folder: Path, name: str | None) -> Path:
    """The project as it is before a stage, or at the end."""
    return folder / f"before-{name or 'nothing'}"


def lane(folder: Path, index: int, attempts: list[Attempt], after: dict[str, Tree], end: float) -> int:
    """Make attempts one after the other until `end`; gives an exit code."""
    place = folder / f"lane-{index}"
    project = place / "project"
    place.mkdir()
    outcomes: Counter[str] = Counter()
    wrong = 0
    told_at = time.monotonic()
    for number, attempt in enumerate(attempts):
        if time.monotonic() > end:
            break
        if time.monotonic() - told_at > 60:
            print(f"{number} of {len(attempts)} in lane {index}", flush=True)
            told_at = time.monotonic()
        copy(before(folder, attempt.stage), project)
        fault = (attempt.k, FAULTS[attempt.fault])
        code, said = forked(lambda name=attempt.stage: run_stage(name), project, place, fault)
        operation = (place / "operations").read_text().strip()
        lost = differences(tree(project), after[attempt.stage], more=False)
        outcome, problem = judge(attempt, operation, code, said, lost)
        problems = [problem] if problem else []
        problems += recover(attempt.stage, project, place, after)
        outcomes[f"{attempt.fault}: {outcome}{', then WRONG' * bool(problems)}"] += 1
        if problems:
            wrong += 1
            told = f"{attempt.stage} k={attempt.k} {attempt.fault} at {operation or 'nothing'}:"
            print(told, *problems, sep="\n    ", flush=True)
    (place / "outcomes.json").write_text(json.dumps(outcomes))
    return int(wrong > 0)


def judge(attempt: Attempt, operation: str, code: int, said: str, lost: list[str]) -> tuple[str, str]:
    """How a disturbed stage ended, and what is wrong with that or nothing; `lost` is what it should have made."""
    ended = f"ended with {code}: {said.strip() or 'no word'}; {', '.join(lost)}"
    if not operation:
        return "not reached", "" if code == 0 and not lost else ended
    if attempt.fault == "kill":
        return "killed", "" if code == -signal.SIGKILL else ended
    if code == 0:
        harmless = operation.split()[0] in DISPENSABLE and not said and not lost
        return "went on", "" if harmless else ended
    if code != 1 or said.count("\n") != 1:
        return "more than a line", ended
    if not any(folder in said for folder in (*FOLDERS, CACHE)):
        return "one line, and no place", ended
    return "one line", ""


def recover(name: str, project: Path, place: Path, after: dict[str, Tree]) -> list[str]:
    """What is wrong with what a reader sees after a fault, or with what the stage then makes when it runs again."""
    there = (project / STAGES[name]).exists()
    if there:
        copy(project, place / "left")
    problems = run_again(name, project, place, after)
    if there:
        # DVC removes what a stage makes before it runs it; by hand it is still there.
        copy(place / "left", project)
        shutil.rmtree(project / STAGES[name])
        (project / "provenance" / "runs" / RUN / f"{name}.json").unlink()
        problems += [f"with its outputs removed first: {line}" for line in run_again(name, project, place, after)]
    return problems


def run_again(name: str, project: Path, place: Path, after: dict[str, Tree]) -> list[str]:
    """Read the project and run a stage, and those after it where they may find something new; gives what is wrong."""
    code, said = forked(lambda: read_and_run(name, after["decode"]), project, place)
    if code != 0:
        return [said.strip()]
    names = list(STAGES)
    for later in names[names.index(name) + 1 :]:
        if below(CACHE, tree(project)) == below(CACHE, after[name]):
            break
        code, said = forked(lambda later=later: run_stage(later), project, place)
        if code != 0:
            return [f"{later}: {said.strip()}"]
        name = later
    return differences(tree(project), after[name])


def read_and_run(name: str, expected: Tree) -> None:
    """Read as a user would what a fault left, and run a stage."""
    there = tree(Path())
    for kind, place in STAGES.items():
        try:
            manifest.read(Path(place), kind)
        except manifest.StoreError as error:
            if Path(place).exists():
                sys.exit(f"{place} is neither absent nor complete: {error}")
            continue
        xr.open_zarr(Path(place) / arrays.GROUP, consolidated=True, chunks=None).load()
        wrong = differences(below(place, there), below(place, expected))
        if wrong:
            sys.exit(f"{place} reads as complete, and {'; '.join(wrong)}")
    for file, content in below("provenance", there).items():
        if file.endswith(".json") and content != expected[file]:
            sys.exit(f"{file} is not whole")
    run_stage(name)


def run_stage(name: str) -> None:
    run_script(name, RUN)


def run_script(name: str, *arguments: str) -> None:
    """Run the script of a stage as the main program; it ends with SystemExit."""
    sys.argv = [f"stages/{name}.py", *arguments]
    runpy.run_path(sys.argv[0], run_name="__main__")


def forked(
    work: Callable[[], None], project: Path, place: Path, fault: tuple[int, int] | None = None
) -> tuple[int, str]:
    """Do `work` in a process of its own in the folder `project`; gives its exit code and what it said on stderr.

    `fault` is the number of the operation and the errno (0: a kill), as the shim takes them. What the shim reports, and
    stdout and stderr, go into files in `place`.
    """
    pid = os.fork()
    if pid == 0:
        os.chdir(project)
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND
        report, out, err = (os.open(place / name, flags) for name in ("operations", "stdout", "stderr"))
        os.dup2(out, 1)
        os.dup2(err, 2)
        if fault is not None:
            number, error = fault
            ctypes.CDLL(None).faults_arm(os.fsencode(project), ctypes.c_long(number), error, report)
        leave(code_of(work))
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return code, (place / "stderr").read_text()


def code_of(work: Callable[[], None]) -> int:
    """Do `work`; gives the exit code that Python would end with, after saying what Python would say."""
    try:
        work()
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
            return 1
        return end.code or 0
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def leave(code: int) -> int:
    """End this process here, with nothing done that its parent will do."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def copy(project: Path, to: Path) -> None:
    shutil.rmtree(to, ignore_errors=True)
    shutil.copytree(project, to)


def tree(project: Path) -> Tree:
    """Every file of a project with its content, and every folder."""
    found: Tree = {}
    for folder, folders, files in os.walk(project):
        inside = Path(folder).relative_to(project)
        found |= {str(inside / name): None for name in folders}
        found |= {str(inside / name): Path(folder, name).read_bytes() for name in files}
    return found


def below(folder: str, files: Tree) -> Tree:
    return {name: content for name, content in files.items() if name.startswith(f"{folder}/")}


def differences(there: Tree, expected: Tree, more: bool = True) -> list[str]:
    """What is missing, not the same, and with `more` what is left over, finished cells apart."""
    found = [f"{name} is missing" for name in expected.keys() - there.keys() - below(CACHE, expected).keys()]
    finished = {name for name in below(CACHE, there) if not name.endswith((".part", ".partial", ".tmp"))} | {CACHE}
    found += [f"{name} is left over" for name in there.keys() - expected.keys() - finished if more]
    shared = expected.keys() & there.keys()
    found += [f"{name} has other bytes" for name in shared - finished if there[name] != expected[name]]
    return sorted(found)[:5]


if __name__ == "__main__":
    # Not sys.exit: torch's libraries would complain of what gc.freeze keeps.
    leave(main())
