"""What the scripts in stages/ share: their command line, their paths, and how they end.

A stage reads its settings from `configs/`, calls one function, and writes one directory. Whatever goes wrong ends in
one line on stderr and an exit code other than 0.
"""

import argparse
import errno
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from phasescope import parallel
from phasescope.errors import UserError
from phasescope.params.base import Section

CONFIGS = Path("configs")
DATASETS = Path("datasets")
RUNS = Path("runs")
RESULTS = Path("results")
FIGURES = Path("figures")

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
    sys.exit(guarded(lambda: main(**given)))


def guarded(action: Callable[[], None]) -> int:
    """Do something; on a user's mistake or a fault of the machine say one line. Gives the exit code."""
    try:
        action()
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; `dvc repro` goes on from what is finished", file=sys.stderr)
        return 130
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO):
            raise
        place = f" at {error.filename}" if error.filename else ""
        print(
            f"{error.strerror}{place}: mend that and run `dvc repro` again, finished parts are kept",
            file=sys.stderr,
        )
        return 1
    return 0


def settings(path: str, model: type[T]) -> T:
    """The settings under `configs/`, as `resolve` wrote them.

    Raises:
        UserError: they are absent, or not what this version of phasescope writes.
    """
    file = CONFIGS / path
    try:
        return model.model_validate_json(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{file} is not there: run `dvc repro resolve`") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise UserError(f"{file}: {where}: {first['msg']}; run `dvc repro resolve`") from None
