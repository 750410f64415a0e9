"""What tests share: settings and their mistakes, a small project whose stages have all run, and the option --slow."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from filelock import FileLock

import projects
from phasescope.errors import UserError
from phasescope.params.settings import read, shares
from phasescope.store.commit import write_file
from phasescope.store.manifest import canonical
from projects import PER_RUN, SMALL_THEORY

ROOT = Path(__file__).parents[1]

pytest.register_assert_rewrite("loading")  # what fails in its checks is told with its values

# No test reports to anyone, asks for a GPU by itself, or depends on where and how the tests are run.
for name in [name for name in os.environ if name.startswith("PHASESCOPE_") and name != "PHASESCOPE_DATA"]:
    del os.environ[name]
for name in [name for name in os.environ if name.startswith("DASK_")]:
    del os.environ[name]
os.environ |= {"DVC_NO_ANALYTICS": "1", "OMP_NUM_THREADS": "1", "PHASESCOPE_DEVICE": "cpu", "PHASESCOPE_WORKERS": "1"}
# Stages run as processes of their own: without compiled modules each takes two seconds more to import torch.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

PARAMS = (
    """\
datasets:
  digits: {source: digits, resolution: 8}
runs:
  small:
    dataset: digits
    model: {name: vgg8, width: 0.05}
  flat:
    dataset: digits
    model: {name: f0}
train: {seeds: [0, 1], iterations: 16, batch_size: 32}
activations: {taps: [logits, predense], train_samples: 100, test_samples: 50}
distributions: {bins: 5, fixed: [0], selective: 1}
complexity: {line_samples: 4, points: 3}
kernel: {probes: 8}
phases: {resamples: 20}
figures: {formats: [png], dpi: 40}
"""
    + SMALL_THEORY
)

# The fewest settings that there can be.
BARE = """\
datasets:
  digits: {source: digits}
runs:
  small:
    dataset: digits
    model: {name: vgg8}
"""

STAGES = [
    ("resolve",),
    ("prepare", "digits"),
    *((stage, run) for run in ("small", "flat") for stage in PER_RUN),
    ("phases",),
    ("theory",),
    ("figures",),
    ("report",),
]

# Runs the scripts one after the other in one process, which imports torch once.
RUN_ALL = """\
import runpy, sys
for line in sys.stdin:
    sys.argv = line.split()
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as end:
        if end.code:
            sys.exit(f"{line.strip()} ended with {end.code}")
"""


def changed(old: str, new: str) -> str:
    """PARAMS with a piece replaced that is there once."""
    assert PARAMS.count(old) == 1
    return PARAMS.replace(old, new)


@pytest.fixture
def params(tmp_path) -> Callable[[str | bytes], Path]:
    """Writes a params.yaml, and gives its path."""

    def write(text: str | bytes) -> Path:
        path = tmp_path / "params.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


@pytest.fixture
def mistakes(params) -> Callable[[str | bytes], list[str]]:
    """The lines that `resolve` says of a params.yaml, without the file's name."""
    from phasescope.resolve import resolve  # imports torch, which must find the environment above

    def told(text: str | bytes) -> list[str]:
        path = params(text)
        with pytest.raises(UserError) as caught:
            resolve(path)
        lines = str(caught.value).split("\n")
        assert all(line.startswith(f"{path}: ") for line in lines)
        return [line.removeprefix(f"{path}: ") for line in lines]

    return told


@dataclass
class Project:
    """A folder with stages/ and params.yaml, as a user has one."""

    path: Path

    def write_params(self, text: str) -> None:
        (self.path / "params.yaml").write_text(text, encoding="utf-8")

    def change_params(self, old: str, new: str) -> None:
        """Replace a piece of PARAMS, and write configs/ as the stage `resolve` does (which takes seconds)."""
        assert old in PARAMS
        self.write_params(PARAMS.replace(old, new))
        shutil.rmtree(self.path / "configs", ignore_errors=True)
        for name, content in shares(read(self.path / "params.yaml")).items():
            write_file(self.path / "configs" / name, canonical(content).encode())

    def command(self, stage: str, *arguments: str) -> list[str]:
        return [sys.executable, f"stages/{stage}.py", *arguments]

    def run_stage(self, stage: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run the script of a stage as a process of its own, with more variables in its environment."""
        return self.call(self.command(stage, *arguments), **environment)

    def call(self, command: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, **environment}
        return subprocess.run(command, cwd=self.path, capture_output=True, text=True, timeout=300, env=environment)


def new_project(path: Path, params: str = PARAMS) -> Project:
    path.mkdir(parents=True)
    shutil.copytree(ROOT / "stages", path / "stages", ignore=shutil.ignore_patterns("__pycache__"))
    project = Project(path)
    project.write_params(params)
    return project


@pytest.fixture
def bare_project(tmp_path) -> Project:
    """A project in which nothing has run yet."""
    return new_project(tmp_path / "project")


def once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """The folder that `make` fills, once for all processes of pytest."""
    shared = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    path = shared / name
    with FileLock(shared / f"{name}.lock"):
        if not path.exists():
            draft = shared / f"{name}.part"
            make(draft)
            draft.rename(path)
    return path


def run_all(path: Path) -> None:
    run_stages(new_project(path), STAGES)


def run_stages(project: Project, stages: Sequence[tuple[str, ...]]) -> None:
    """Run the scripts of stages, each with its arguments, one after the other."""
    scripts = "\n".join(" ".join((f"stages/{stage}.py", *arguments)) for stage, *arguments in stages)
    process = subprocess.run(
        [sys.executable, "-c", RUN_ALL], input=scripts, cwd=project.path, capture_output=True, text=True
    )
    assert process.returncode == 0, process.stderr


@pytest.fixture(scope="session")
def complete(tmp_path_factory) -> Path:
    """A project in which every stage has run, made once for all processes of pytest; copy it, never change it."""
    return once(tmp_path_factory, "complete", run_all)


@pytest.fixture(scope="session")
def made(tmp_path_factory) -> projects.Project:
    """A project under DVC whose pipeline has run, made once for all processes of pytest; copy it, never change it."""
    return projects.Project(once(tmp_path_factory, "made", projects.make))


@pytest.fixture
def project(complete, tmp_path) -> Project:
    """A project in which every stage has run, for one test alone."""
    shutil.copytree(complete, tmp_path / "project")
    return Project(tmp_path / "project")


@pytest.fixture
def tiny(tmp_path) -> Path:
    """The kept project of one run, for one test alone."""
    shutil.copytree(ROOT / "tests" / "stores" / "format-1", tmp_path / "tiny")
    return tmp_path / "tiny"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="run the tests marked slow as well")


#: Files whose tests take longest: begun first, they leave short ones to share out at the end.
LONGEST = (
    "test_pipeline.py",
    "test_sharing.py",
    "test_side_by_side.py",
    "test_cluster.py",
    "test_budget.py",
    "test_raw.py",
)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.name not in LONGEST)
    if not config.getoption("--slow"):
        skip = pytest.mark.skip(reason="takes minutes, or needs data that is not in the repository: run with --slow")
        for item in items:
            if "slow" in item.keywords:
                item.add_marker(skip)
