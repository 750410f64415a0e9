"""Which of phasescope's modules a script or a module imports, directly or not, read without running them.

Late imports count, those for type checkers alone do not.
"""

import ast
import hashlib
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parent


def reached(modules: Iterable[str]) -> dict[str, Path]:
    """The files of modules, of all that they import and of the packages around them, by name.

    Names that are no modules of phasescope are passed over.
    """
    todo, found = list(modules), dict[str, Path]()
    while todo:
        name = todo.pop()
        file = source(name)
        if name in found or file is None:
            continue
        found[name] = file
        todo += [name.rpartition(".")[0], *imported(file)]
    return found


def digests(script: Path) -> dict[str, str]:
    """SHA-256 of a script in `stages/` and of all modules that it reaches, by name."""
    files = {f"{script.parent.name}/{script.name}": script, **reached(imported(script))}
    return {name: digest(files[name]) for name in sorted(files)}


def changed(script: Path, recorded: dict[str, str]) -> list[str]:
    """Names of those of a script's files, as `digests` told, that are no longer what they were."""
    files = {name: script if "/" in name else source(name) for name in recorded}
    return [name for name, file in files.items() if file is None or digest(file) != recorded[name]]


def digest(file: Path) -> str:
    """SHA-256 of a file."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


def source(module: str) -> Path | None:
    """The source of a phasescope module; none for what is no module, or another's."""
    package, *parts = module.split(".")
    path = PACKAGE.joinpath(*parts)
    candidates = (path / "__init__.py", path.with_suffix(".py")) if package == "phasescope" else ()
    return next((file for file in candidates if file.is_file()), None)


@cache
def imported(file: Path) -> frozenset[str]:
    """What a file imports; of `from a import b` both `a` and `a.b`, for `b` may be a module or something inside `a`."""
    names: set[str] = set()
    for node in _run(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return frozenset(names)


def _run(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes of a syntax tree, but for what `if TYPE_CHECKING:` keeps from being run."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            node = ast.Module(node.orelse, [])
        yield node
        yield from _run(node)
