"""A piece of work as a worker of a cluster does it: in the project's folder, or in an empty one.

A worker is a process that lives long and may serve several projects, one piece after the other. So each piece finds
out whether this process has loaded the code that it was made by, runs in the folder of its project, and leaves nothing
of it behind. What it writes goes into a folder of its own, from which the stage takes it when the piece has come to its
end: a worker that dies, or that is taken for dead and goes on, leaves nothing in what is kept.
"""

import importlib
import os
import pickle
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any
from uuid import uuid4

from phasescope import imports, own
from phasescope.errors import UserError

#: Seconds between two words on the progress of a piece.
INTERVAL = 0.2
#: Libraries that must be the same everywhere: results are computed with them, or arguments are of their kinds.
LIBRARIES = ("numpy", "scipy", "scikit-learn", "torch", "xarray", "zarr")
#: Where cells are kept by workers that do not see the project.
CELLS = Path("cells")
#: What of a group of arrays is not numbers.
METADATA = "zarr.json"

#: What the modules of phasescope were when this process loaded them, or may have: SHA-256 by name.
_loaded: dict[str, str] = {}
#: When packages were last installed or removed, as this process found it: by folder of `sys.path`.
_installed: dict[str, int] = {}


class OutdatedError(Exception):
    """A worker has loaded other code than its files have now, and must be started anew."""


@dataclass(frozen=True)
class Call:
    """What all pieces of one stage have in common."""

    name: str
    project: Path  #: where the stage runs
    #: Where pieces write, which is gone when nobody waits for them any more. None where the workers do not see the
    #: project, and write nothing.
    meeting: Path | None
    trust: bool  #: whether functions of the user's own may run
    own: dict[str, bytes]  #: their files, where the workers do not see the project
    versions: dict[str, str]  #: of libraries, by name
    code: dict[str, str]  #: SHA-256 of the modules of phasescope that are reached, by name


@dataclass(frozen=True)
class Done:
    """What a piece gives back."""

    result: Any
    progress: int  #: how far it came
    written: Path | None  #: the group with the arrays that it wrote into
    files: list[str]  #: what it wrote there, for the stage to take
    cells: dict[str, bytes]  #: finished cells, where the workers do not see the project


def versions() -> dict[str, str]:
    """Versions of Python and of libraries in this process."""
    return {"Python": ".".join(map(str, sys.version_info[:2])), **{name: version(name) for name in LIBRARIES}}


def code() -> dict[str, str]:
    """SHA-256 of all modules of phasescope that are loaded here, and of those that they may import, by name."""
    return {name: imports.digest(file) for name, file in imports.reached(list(sys.modules)).items()}


def run(call: Call, index: int, content: bytes) -> Done:
    """Do one piece in this worker.

    Args:
        call: what it is a piece of.
        index: of the piece.
        content: a pickle of the function, its arguments, and that of these which is the group of arrays that it writes
            into, or None.

    Raises:
        UserError: this worker cannot do it, for it has other versions or does not see the project; or as the function.
        OutdatedError: this process has to be started anew first.
        CancelledError: nobody waits for it.
    """
    from distributed import get_worker

    worker, reached, told = get_worker(), 0, 0.0
    task = worker.state.tasks[worker.get_current_task()]

    def advance(done: int) -> None:
        nonlocal reached, told
        if task.state == "cancelled":
            raise CancelledError
        _require_seen(call, worker.address)
        reached = done
        if time.monotonic() - told > INTERVAL:
            told = time.monotonic()
            worker.log_event(call.name, (index, done))

    if worker.state.nthreads != 1:
        raise UserError(f"worker {worker.address} has {worker.state.nthreads} threads: start it with --nthreads 1")
    _require_alike(call, worker.address)
    with ExitStack() as stack:
        folder = stack.enter_context(_folder(call, worker.address))
        stack.enter_context(_inside(folder))
        stack.enter_context(own.trusted(call.trust))
        stack.callback(_forget_own, folder)
        function, arguments, group = pickle.loads(content)  # noqa: S301 - from the stage, over Dask's own connection
        written = None
        if group is not None and call.meeting is not None:
            written = call.meeting / f"{index}-{uuid4().hex}" / group.name
            _copy_metadata(group, written)
        given = [written if isinstance(each, Path) and each == group else each for each in arguments]
        result = function(advance, *given)
        if call.meeting is None:
            return Done(result, reached, None, [], {name: Path(CELLS, name).read_bytes() for name in _files(CELLS)})
        return Done(result, reached, written, _files(written) if written else [], {})


def _require_alike(call: Call, worker: str) -> None:
    """Refuse to compute with other versions, which would give other bits under the same name."""
    mine = versions()
    others = [f"{name} {mine[name]} instead of {other}" for name, other in call.versions.items() if mine[name] != other]
    if others:
        raise UserError(f"worker {worker} has {', '.join(others)}: give it the same environment as the stage")
    for name, wanted in call.code.items():
        file = imports.source(name)
        if file is None or imports.digest(file) != wanted:
            raise UserError(f"worker {worker} has another {name}: give it the same version of phasescope")
    edited = any(_loaded.setdefault(name, wanted) != wanted for name, wanted in call.code.items())
    if edited or _installed != _last_installed():
        raise OutdatedError(worker)


def _require_seen(call: Call, worker: str) -> None:
    if call.meeting is not None and not call.meeting.is_dir():
        raise UserError(
            f"worker {worker} does not see {call.project}: mount it there, or set PHASESCOPE_SHARED to an url that "
            "workers can read (docs/scale.md)"
        )


def _last_installed() -> dict[str, int]:
    return {entry: Path(entry).stat().st_mtime_ns for entry in sys.path if entry.endswith("-packages")}


@contextmanager
def _folder(call: Call, worker: str) -> Iterator[Path]:
    """Where a piece works: the project's folder, or one with nothing but the user's own modules."""
    if call.meeting is not None:
        _require_seen(call, worker)
        yield call.project
        return
    with tempfile.TemporaryDirectory(prefix="phasescope-") as name:
        for file, content in call.own.items():
            path = Path(name, file)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        yield Path(name)


@contextmanager
def _inside(folder: Path) -> Iterator[None]:
    """As `contextlib.chdir`, also where the folder that a worker was started in is gone."""
    try:
        before = Path.cwd()
    except FileNotFoundError:
        before = Path("/")
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def _copy_metadata(group: Path, target: Path) -> None:
    def numbers(folder: str, names: list[str]) -> list[str]:
        return [name for name in names if name != METADATA and not Path(folder, name).is_dir()]

    shutil.copytree(group, target, ignore=numbers)


def _files(folder: Path) -> list[str]:
    """What was written into a folder, metadata that were there before left out."""
    found = (path for path in folder.rglob("*") if path.is_file() and path.name != METADATA)
    return sorted(path.relative_to(folder).as_posix() for path in found)


def _forget_own(folder: Path) -> None:
    """Forget the user's own modules: another project has others, and this one may have them edited tomorrow."""
    place = str((folder / own.FOLDER).resolve())
    for name, module in list(sys.modules.items()):
        spec = getattr(module, "__spec__", None)
        # A package without __init__.py has no file.
        places = (getattr(spec, "origin", None), *(getattr(spec, "submodule_search_locations", None) or ()))
        if any(str(each).startswith(place + os.sep) for each in places):
            del sys.modules[name]
    sys.path[:] = [entry for entry in sys.path if entry != place]
    imports.imported.cache_clear()
    importlib.invalidate_caches()


_loaded.update(code())
_installed.update(_last_installed())
