"""The worked example goes through the pipeline as it stands, and what its script records is what it holds."""

import re
import shutil
import subprocess
import sys

import pytest
from safetensors.torch import load_file

from closure import ROOT
from projects import Project

FOLDER = "examples/own-network"


@pytest.mark.slow
def test_the_example_runs_and_then_has_nothing_to_do(tmp_path):
    project = Project(tmp_path / "project")
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "stages", "src", FOLDER]
    for name in subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines():
        (project.path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, project.path / name)
    project.call("git", "init", "--quiet")
    project.call("dvc", "--cd", FOLDER, "repro")
    example = project.path / FOLDER
    for name in ("figure-1-shapes.svg", "figure-2-shapes.svg", "complexity-shapes.svg"):
        assert "<svg" in (example / "figures" / name).read_text()
    again = re.findall(r"Running stage '(.*)'", project.call("dvc", "--cd", FOLDER, "repro"))
    assert [name.split(":")[-1] for name in again] == ["watch"]  # which looks at the images each time

    recorded = example / "checkpoints" / "elsewhere"
    shutil.rmtree(recorded)
    project.call(sys.executable, f"{FOLDER}/train_elsewhere.py")
    kept = {path.relative_to(recorded): load_file(path) for path in recorded.rglob("*.safetensors")}
    assert len(kept) == 20
    for name, weights in kept.items():
        if name.name == "step_1.safetensors":  # later, other machines differ by more and more
            for key, value in load_file(ROOT / FOLDER / "checkpoints" / "elsewhere" / name).items():
                assert value.allclose(weights[key], atol=1e-4), (name, key)
