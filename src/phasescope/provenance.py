"""What made a result: code, library versions, machine, device, threads.

Kept beside a result and never inside it, so that the same arrays stay the same bytes whoever made them.
"""

import ast
import hashlib
import platform
import sys
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_info

from phasescope.imports import reached
from phasescope.store.commit import write_file
from phasescope.store.manifest import canonical

FOLDER = Path("provenance")
LIBRARIES = (
    "phasescope",
    "numpy",
    "scipy",
    "scikit-learn",
    "torch",
    "torchvision",
    "xarray",
    "zarr",
    "numcodecs",
    "matplotlib",
    "dvc",
)
#: Those of them that results are computed with.
COMPUTING = ("numpy", "scipy", "scikit-learn", "torch")


@cache
def code_digest() -> str:
    """SHA-256 of what the code of this process does, and of the versions of what it computes with.

    Comments, docstrings and layout do not count: what a cell holds does not depend on them.
    """
    sources = code()
    digest = hashlib.sha256(" ".join(f"{name} {version(name)}" for name in COMPUTING).encode())
    for name in sorted(sources):
        digest.update(f"{name} {_meaning(sources[name].read_text(encoding='utf-8'))}".encode())
    return digest.hexdigest()


def code() -> dict[str, Path]:
    """The files of all loaded phasescope modules, and of those that they import when they come to it, by name."""
    return reached(list(sys.modules))


def _meaning(source: str) -> str:
    """A module's syntax tree without docstrings, as text."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:]
    return ast.dump(tree)


def write(name: str, **more: Any) -> None:
    """Record what made a result, as `provenance/<name>.json`."""
    write_file(FOLDER / f"{name}.json", canonical(describe(**more)).encode())


def describe(**more: Any) -> dict[str, Any]:
    """Everything about this process that can change a result's bits, as JSON values."""
    return {
        "code": code_digest(),
        "python": platform.python_version(),
        "libraries": {name: version(name) for name in LIBRARIES},
        "machine": platform.machine(),
        "system": platform.system(),
        "processor": _processor(),
        "blas": sorted(
            {(pool["internal_api"], pool["version"] or "", pool["num_threads"]) for pool in threadpool_info()}
        ),
        **_gpu(),
        **more,
    }


def _gpu() -> dict[str, Any]:
    """Name of the GPU and versions of its libraries, where torch is loaded and has one."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return {}
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {"gpus": names, "cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")),
        platform.processor(),
    )
