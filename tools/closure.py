"""Which modules of the package each stage's script reaches, read from the sources without running them."""

import ast
from pathlib import Path

import grimp

ROOT = Path(__file__).parents[1]


def reached(script: Path) -> set[str]:
    """Files of the package (relative to the repository) that a script imports, directly or not."""
    graph = grimp.build_graph("phasescope", cache_dir=None, exclude_type_checking_imports=True)
    modules: set[str] = set()
    for node in ast.walk(ast.parse(script.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            # `from package import name`: the name is a module or something inside the package.
            modules |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    direct = modules & graph.modules
    everything = direct | {up for module in direct for up in graph.find_upstream_modules(module)}
    # Importing a module runs the packages around it.
    packages = {".".join(name.split(".")[:depth]) for name in everything for depth in range(1, name.count(".") + 1)}
    return {_file(name) for name in everything | packages}


def _file(module: str) -> str:
    path = Path("src", *module.split("."))
    file = path / "__init__.py" if (ROOT / path).is_dir() else path.with_suffix(".py")
    return file.as_posix()
