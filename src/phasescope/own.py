"""Functions of the user's own, named `module:function`: in the project's folder `own/`, or in an installed package.

Nothing of them is imported unless this process was told that it may: a store from elsewhere can name anything. The
stages may, for they run in a project with its settings; `open_run` may if it is told to trust the run.
"""

import difflib
import hashlib
import importlib
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import packages_distributions, version
from pathlib import Path
from typing import Any

from phasescope.errors import UserError
from phasescope.imports import imported

FOLDER = Path("own")
#: Set where functions of one's own may be run: of the environment, so that it holds in workers too.
TRUST = "PHASESCOPE_TRUST"


def trust() -> None:
    """Let this process, and those that it starts, run functions of the user's own."""
    os.environ[TRUST] = "1"


@contextmanager
def trusted(yes: bool) -> Iterator[None]:
    """The same within a `with` block, if `yes`."""
    before = os.environ.get(TRUST)
    if yes:
        trust()
    try:
        yield
    finally:
        if before is not None:
            os.environ[TRUST] = before
        elif yes:
            del os.environ[TRUST]


def load(name: str) -> Callable[..., Any]:
    """The function that `module:function` names.

    Raises:
        UserError: this process may not run it, there is no such module or function, or the import fails.
    """
    if os.environ.get(TRUST) != "1":
        raise UserError(
            f"{name} is code that came with this run, and is not run unless you trust it: open_run(…, trust=True), or "
            f"{TRUST}=1"
        )
    module, _, attribute = name.partition(":")
    folder = str(FOLDER.resolve())
    if FOLDER.is_dir() and folder not in sys.path:
        sys.path.append(folder)  # last, so that nothing installed is taken from there
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise _failed(name, error) from None
        raise UserError(f"{name}: there is no {_file(module)}, and no package {module!r} is installed") from None
    except (Exception, SystemExit) as error:
        raise _failed(name, error) from None
    there = getattr(found, "__file__", None)
    if _file(module).is_file() and (there is None or Path(there).resolve() != _file(module).resolve()):
        raise UserError(f"{name}: {_file(module)} has the name of {there or 'a part of Python'}; rename it")
    function = getattr(found, attribute, None)
    if not callable(function):
        known = [each for each, value in vars(found).items() if callable(value) and not each.startswith("_")]
        near = difflib.get_close_matches(attribute, known, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise UserError(f"{name}: {module} has no function {attribute!r}{hint}")
    loaded: Callable[..., Any] = function
    return loaded


def call(name: str, known: Mapping[str, Any], arguments: Mapping[str, Any]) -> Any:
    """Call a function of the user's own with what it takes of what is known by name, and all `arguments`.

    Raises:
        UserError: as `load`; or the arguments do not fit, or it fails; with the place in its file.
    """
    function = load(name)
    with telling(name):
        signature = inspect.signature(function)
    takes = signature.parameters
    everything = any(parameter.kind is parameter.VAR_KEYWORD for parameter in takes.values())
    given = {key: value for key, value in known.items() if everything or key in takes} | dict(arguments)
    try:
        signature.bind(**given)
    except TypeError as error:
        raise UserError(f"{name}: {error}; it is called with {', '.join(given) or 'nothing'}") from None
    with telling(name):
        return function(**given)


@contextmanager
def telling(name: str) -> Iterator[None]:
    """Turn what goes wrong in a function of the user's own into a UserError that says where in its file."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise _failed(name, error) from None


def digests(name: str) -> dict[str, str]:
    """What the code of a function is: SHA-256 of its file in `own/` and of those it imports there, or a version.

    Nothing of a name that is none of the user's own.
    """
    module, colon, _ = name.partition(":")
    if not colon:
        return {}
    if not _file(module).is_file():
        package = module.partition(".")[0]
        return {each: version(each) for each in packages_distributions().get(package, [])}
    todo, found = [module], dict[str, str]()
    while todo:
        each = todo.pop()
        top = FOLDER / each.partition(".")[0]
        # Of a package all files count: which of them its modules import of each other need not be told apart.
        for file in sorted(top.rglob("*.py")) if top.is_dir() else [_file(each)]:
            if file.as_posix() not in found and file.is_file():
                found[file.as_posix()] = hashlib.sha256(file.read_bytes()).hexdigest()
                todo += imported(file)
    return dict(sorted(found.items()))


def require_unchanged(recorded: Mapping[str, str], *names: str) -> None:
    """Refuse functions whose files in `own/` are not those that are recorded: what they give would pass for theirs.

    Raises:
        UserError: a file is another, is new or is gone.
    """
    now = {file: digest for name in names for file, digest in digests(name).items()}
    edited = [file for file in sorted({*now, *recorded}) if now.get(file) != recorded.get(file)]
    edited = [file for file in edited if file.startswith(f"{FOLDER}/")]
    if edited:
        raise UserError(f"{', '.join(edited)}: not as when this was made; run `dvc repro`, or bring the file back")


def _file(module: str) -> Path:
    """Where a module of the user's own would be."""
    path = FOLDER.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _failed(name: str, error: BaseException) -> UserError:
    """What an exception in the user's code says, and where, in one line."""
    folder = str(FOLDER.resolve())
    places = [place for place in traceback.extract_tb(error.__traceback__) if place.filename.startswith(folder)]
    where = f"{FOLDER}/{Path(places[-1].filename).relative_to(folder)}, line {places[-1].lineno}: " if places else ""
    reason = (str(error).splitlines() or [""])[0]
    return UserError(f"{name}: {where}{type(error).__name__}: {reason:.200}")
