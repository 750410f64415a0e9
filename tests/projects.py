"""A project under DVC, as a user has one, and how the tests make and drive it."""

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

from closure import ROOT

PER_RUN = ("train", "activations", "decode", "probe", "distributions", "information", "complexity", "kernel")

#: A section for where the theory is not the matter.
SMALL_THEORY = """\
theory:
  feature_strength: {compared_outputs: [10], compared_strengths: [2.0], map_points: 8}
  linear_network: {width: 50, iterations: 32, widths: [100, 1000], draws: 2, map_points: 9, map_steps: 8}
"""

PARAMS = (
    """\
# a small project
datasets:
  digits: {source: digits, resolution: 8}
runs:
  alpha:
    dataset: digits
    model: {name: f0}
    train: {learning_rate: 0.001, iterations: 2048}
    activations: {taps: [softmax, logits]}
  beta:
    dataset: digits
    model: {name: vgg8, width: 0.05}
    train: {learning_rate: 0.01, iterations: 8}
train:
  seeds: [0, 1]
  batch_size: 16
activations:
  taps: [logits, predense]
complexity: {line_samples: 4, points: 3}
kernel: {probes: 8}
transfer:
  ink: {run: alpha, dataset: digits, labels: [ink]}
measures: {}
figures: {formats: [png], dpi: 40}
"""
    + SMALL_THEORY
)


class Project:
    """A project of its own, with the repository's pipeline and sources."""

    def __init__(self, path: Path) -> None:
        self.path = path
        site = path.parent / f"{path.name}-site"
        self.environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(path / "src"),
            "DVC_NO_ANALYTICS": "1",
            "DVC_GLOBAL_CONFIG_DIR": str(site / "global"),
            "DVC_SYSTEM_CONFIG_DIR": str(site / "system"),
            "DVC_SITE_CACHE_DIR": str(site / "cache"),
            **{
                f"GIT_{who}_{what}": "tester@localhost" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
            },
        }

    def call(self, *command: str, fails: bool = False) -> str:
        done = subprocess.run(command, cwd=self.path, env=self.environment, capture_output=True, text=True)
        assert (done.returncode != 0) == fails, done.stdout + done.stderr
        return done.stdout + done.stderr

    def repro(self, *options: str) -> list[str]:
        """Run `dvc repro`; gives the names of the stages that ran."""
        return re.findall(r"Running stage '(.*)'", self.call("dvc", "repro", *options))

    def change(self, file: str, *replacements: tuple[str, str]) -> None:
        path = self.path / file
        text = path.read_text()
        for old, new in replacements:
            assert old in text
            text = text.replace(old, new)
        path.write_text(text)

    def copy(self, path: Path) -> "Project":
        shutil.copytree(self.path, path, symlinks=True)
        return Project(path)


def make(path: Path) -> Project:
    """A project whose pipeline has run once."""
    project = Project(path)
    project.path.mkdir()
    for name in ("stages", "src"):
        shutil.copytree(ROOT / name, project.path / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for name in ("dvc.yaml", ".gitignore", ".dvcignore"):
        shutil.copy(ROOT / name, project.path)
    for name in ("own", "checkpoints"):
        (project.path / name).mkdir()
        (project.path / name / ".gitkeep").touch()  # a clone has them too
    (project.path / "params.yaml").write_text(PARAMS)
    project.call("git", "init", "--quiet")
    project.call("dvc", "init", "--quiet")
    shutil.copy(ROOT / ".dvc" / "config", project.path / ".dvc" / "config")
    ran = project.repro()
    assert sorted(ran) == sorted(
        [
            "resolve",
            "prepare@digits",
            *(f"{stage}@{run}" for run in ("alpha", "beta") for stage in PER_RUN),
            "transfer@ink",
            "advise@ink",
            "phases",
            "theory",
            "figures",
            "report",
        ]
    )
    return project


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def wait_for(condition, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
