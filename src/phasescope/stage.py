"""What the scripts in stages/ share: their command line, their paths, and how they end.

A stage reads its settings from `configs/`, calls one function, and writes one directory. Whatever goes wrong ends in
one line on stderr and an exit code other than 0.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from pydantic import ValidationError
from threadpoolctl import threadpool_limits

from phasescope import own, parallel, provenance
from phasescope.compute import count_threads, keep_memory
from phasescope.errors import UserError
from phasescope.imports import changed
from phasescope.params.base import Section
from phasescope.store.cache import CellCache

CONFIGS = Path("configs")
CODE = Path("code")
WATCH = Path("watch")
DATASETS = Path("datasets")
RUNS = Path("runs")
RESULTS = Path("results")
THEORY = Path("theory")
FIGURES = Path("figures")
REPORT = Path("report.html")
METRICS = Path("metrics/phases.json")
TIME_SCALES = Path("metrics/timescales.json")
MECHANISMS = Path("metrics/mechanisms.json")

#: Finished cells, beside what DVC manages; PHASESCOPE_CACHE names another folder, which several projects may share.
CACHE = Path(".phasescope/cache")

INTERRUPTED = "interrupted; `dvc repro` goes on from what is finished"

T = TypeVar("T", bound=Section)


def run(main: Callable[..., None], *arguments: str, **options: type) -> None:
    """Run a stage's `main` with its arguments and typed options of the command line, and end as a stage should."""
    parser = argparse.ArgumentParser(description=sys.modules["__main__"].__doc__)
    for argument in arguments:
        parser.add_argument(argument)
    for option, kind in options.items():
        parser.add_argument(f"--{option}", type=kind)
    given = vars(parser.parse_args())
    parallel.end_with_parent()
    own.trust()  # what params.yaml names is the project's
    keep_memory()

    def action() -> None:
        _require_code_of_record()
        with threadpool_limits(count_threads(given.get("threads"))):
            main(**given)

    sys.exit(guarded(action))


def _require_code_of_record() -> None:
    """Refuse to run code that is not the one DVC takes it for: somebody edits it while the stages before it run.

    Raises:
        UserError: a file was changed since `resolve` wrote its digest, or what it wrote is damaged.
    """
    script = Path(str(sys.modules["__main__"].__file__))
    record = CODE / f"{script.stem}.json"
    try:
        recorded = json.loads(record.read_bytes())
    except FileNotFoundError:  # nothing is recorded that could be wrong
        return
    except ValueError:
        raise damaged(record) from None
    edited = changed(script, recorded)
    if edited:
        raise UserError(f"{', '.join(edited)}: changed since `dvc repro` began; run `dvc repro` again")


def guarded(action: Callable[[], None]) -> int:
    """Do something; on a user's mistake or a fault of the machine say one line. Gives the exit code."""
    try:
        action()
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(INTERRUPTED, file=sys.stderr)
        return 130
    except (MemoryError, RuntimeError) as error:
        # torch says so in a RuntimeError, of its own kind only on a GPU.
        if isinstance(error, RuntimeError) and "allocate" not in str(error):
            raise
        print("not enough memory: set PHASESCOPE_WORKERS=1, or ask for less in params.yaml", file=sys.stderr)
        return 1
    except OSError as error:
        place = f" at {error.filename}" if error.filename else ""
        what = error.strerror or str(error)
        print(f"{what}{place}: mend that and run `dvc repro` again; finished parts are kept", file=sys.stderr)
        return 1
    return 0


def _tell_uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Ctrl-C while a script still imports, which takes seconds, is one line too."""
    if kind is KeyboardInterrupt:
        print(INTERRUPTED, file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


sys.excepthook = _tell_uncaught


def settings(path: str, model: type[T]) -> T:
    """The settings under `configs/`, as `resolve` wrote them.

    Raises:
        UserError: they are absent, or not what this version of phasescope writes.
    """
    file = CONFIGS / path
    try:
        return model.model_validate_json(file.read_bytes())
    except FileNotFoundError:
        raise UserError(
            f"{file} is not there: run this in the project's folder, with a name that params.yaml has, after "
            "`dvc repro resolve`"
        ) from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "all"
        raise UserError(f"{file}: {where}: {first['msg']}; run `dvc repro resolve`") from None


def cache(project: Path = Path()) -> CellCache:
    """The cache of finished cells that this code makes."""
    return CellCache(_cache_folder(project), provenance.code_digest())


def _cache_folder(project: Path) -> Path:
    given = os.environ.get("PHASESCOPE_CACHE")
    return Path(given) if given else project / CACHE


def kept(project: Path = Path()) -> Iterator[tuple[Path, CellCache]]:
    """The directories with cells that a project has, each with the cache of the code that made it."""
    for folder in (RUNS, RESULTS):
        for path in sorted(project.glob(f"{folder}/*/*")):
            made = project / provenance.FOLDER / RUNS / path.parent.name / f"{path.name}.json"
            with suppress(OSError, ValueError, KeyError, TypeError):
                yield path, CellCache(_cache_folder(project), str(json.loads(made.read_bytes())["code"]))


def keep_folder(folder: Path) -> None:
    """Make a folder that git keeps also while it is empty, so that a clone has every output that DVC looks for."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ".gitkeep").touch()


def phases(project: Path = Path(), file: Path = METRICS) -> dict[str, Any]:
    """What the stage `phases` wrote to a file: numbers by run and layer, or the time scales by run.

    Raises:
        UserError: the file is absent or damaged.
    """
    path = project / file
    try:
        results = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise UserError(f"{path} is not there: run `dvc repro`, or `dvc pull`") from None
    except (ValueError, RecursionError):
        raise damaged(path) from None
    if not isinstance(results, dict):
        raise damaged(path)
    return results


def damaged(path: Path) -> UserError:
    """The error to raise where a file is not what a stage wrote."""
    return UserError(f"{path} is damaged: remove it and run `dvc repro`, or `dvc pull`")
