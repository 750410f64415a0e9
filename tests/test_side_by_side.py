"""Several runs at once, as the documentation tells it: the commands that are run here are read from there."""

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

import psutil
import pytest
from ruamel.yaml import YAML

from closure import ROOT
from projects import PER_RUN, Project, contents, wait_for

PAGE = ROOT / "docs" / "scale.md"


def blocks(heading: str) -> list[str]:
    """The commands of a section of the page."""
    section = PAGE.read_text().partition(f"## {heading}\n")[2].partition("\n## ")[0]
    return re.findall(r"^```bash\n(.*?)^```$", section, flags=re.MULTILINE | re.DOTALL)


RUNS, TRANSFERS, REST, TORN = blocks("Several runs at once")
(QUEUE,) = blocks("Several settings at once")
KEPT = ("runs", "results", "datasets", "figures", "metrics")
LOCK = "dvc.lock"
FAILED = 123  # of xargs: one of its commands has failed


@pytest.fixture
def project(made, tmp_path) -> Project:
    """A project of two runs whose trainings nobody remembers; what follows from them is there."""
    project = made.copy(tmp_path / "project")
    shutil.rmtree(project.path / ".phasescope")
    shutil.rmtree(project.path / ".dvc" / "cache" / "runs")
    yaml = YAML()
    lock = yaml.load(project.path / LOCK)
    for run in ("alpha", "beta"):
        del lock["stages"][f"train@{run}"]
        shutil.rmtree(project.path / "runs" / run / "train")
    yaml.dump(lock, project.path / LOCK)
    return project


@dataclass
class Started:
    """The documented commands at work, with alpha's training stopped in the middle."""

    shell: subprocess.Popen
    stage: psutil.Process


@pytest.fixture
def started(project) -> Iterator[Started]:
    command = ["bash", "-e", "-c", RUNS]
    shell = subprocess.Popen(command, cwd=project.path, env=project.environment, stdout=subprocess.DEVNULL)
    wait_for((project.path / "runs" / "alpha" / ".scratch" / "train").exists, seconds=300)
    words = {"stages/train.py", "alpha"}
    (stage,) = [
        process
        for process in psutil.process_iter(["cmdline", "cwd"])
        if process.info["cwd"] == str(project.path) and words <= set(process.info["cmdline"] or [])
    ]
    stage.send_signal(signal.SIGSTOP)
    assert not (project.path / "runs" / "alpha" / "train").exists()
    yield Started(shell, stage)
    with suppress(psutil.NoSuchProcess):
        stage.kill()
    shell.wait(timeout=300)


def said(project: Project, name: str) -> str:
    return (project.path / ".phasescope" / "log" / f"{name}.txt").read_text()


def ran(text: str) -> list[str]:
    return re.findall(r"Running stage '(.*)'", text)


def is_whole(project: Project, made: Project) -> None:
    """All is as one `dvc repro` has made it, the lock file knows it, and nothing is to do."""
    for folder in KEPT:
        assert contents(project.path / folder) == contents(made.path / folder)
    assert locked(project).keys() == locked(made).keys()
    assert "Data and pipelines are up to date." in project.call("dvc", "repro")


def locked(project: Project) -> dict[str, dict]:
    return YAML(typ="safe").load(project.path / LOCK)["stages"]


def test_the_documented_command_names_every_stage_of_a_run():
    assert tuple(re.findall(r"(\w+)@RUN", RUNS)) == PER_RUN


def test_two_runs_trained_at_once_are_those_trained_one_after_the_other(project, started, made):
    wait_for((project.path / "runs" / "beta" / "train").exists, seconds=300)  # trained from beginning to end meanwhile
    started.stage.send_signal(signal.SIGCONT)
    assert started.shell.wait(timeout=300) == 0
    for run in ("alpha", "beta"):
        assert ran(said(project, run)) == [f"train@{run}"]
        assert f"Stage 'kernel@{run}' didn't change, skipping" in said(project, run)
    project.call("bash", "-e", "-c", TRANSFERS)
    for stage in ("transfer", "advise"):
        assert f"Stage '{stage}@ink' didn't change, skipping" in said(project, "ink")
    assert ran(project.call("bash", "-e", "-c", REST)) == []
    is_whole(project, made)
    assert "Data and pipelines are up to date." in project.call("dvc", "status", *locked(project))
    assert "all well" in project.call("phasescope", "verify", "--full")


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["stage", "dvc"])
def test_a_kill_of_one_run_does_nothing_to_the_other_and_is_made_up_for(project, started, made, victim):
    killed = started.stage if victim == "stage" else started.stage.parent()
    killed.kill()
    if victim == "dvc":
        started.stage.send_signal(signal.SIGCONT)  # to hear that its parent has ended
    assert started.shell.wait(timeout=300) == FAILED
    assert ran(said(project, "beta")) == ["train@beta"]
    assert contents(project.path / "runs" / "beta") == contents(made.path / "runs" / "beta")
    assert not (project.path / "runs" / "alpha" / "train").exists()
    assert ran(project.call("bash", "-e", "-c", REST)) == ["train@alpha"]
    is_whole(project, made)


def test_no_two_processes_have_one_gpu_and_one_that_fails_stops_no_other(tmp_path):
    """With a stand-in for dvc, which holds the GPU that it is given for a moment."""
    runs = [f"run-{number}" for number in range(20)]
    for run in runs:
        (tmp_path / "configs" / "runs" / run).mkdir(parents=True)
    stand_in = tmp_path / "bin" / "dvc"
    stand_in.parent.mkdir()
    stand_in.write_text(STAND_IN)
    stand_in.chmod(0o755)
    environment = {**os.environ, "PATH": f"{stand_in.parent}{os.pathsep}{os.environ['PATH']}"}
    assert subprocess.run(["bash", "-c", RUNS], cwd=tmp_path, env=environment).returncode == FAILED
    told = {run: (tmp_path / ".phasescope" / "log" / f"{run}.txt").read_text() for run in runs}
    assert set(told.values()) == {f"alone on {number}\n" for number in range(8)}


STAND_IN = """\
#!/bin/sh
[ "$1" = --wait-for-lock ] || exit 0
mkdir gpu-$CUDA_VISIBLE_DEVICES && echo alone on $CUDA_VISIBLE_DEVICES
until [ -e gpu-7 ] || [ -e all ]; do sleep 0.01; done
touch all
rmdir gpu-$CUDA_VISIBLE_DEVICES
[ $4 != train@run-3 ] || exit 255
"""


@pytest.mark.slow
def test_a_torn_lock_file_loses_nothing(made, tmp_path):
    """As a kill of dvc leaves it that comes while it writes the file, which it does in place."""
    project = made.copy(tmp_path / "project")
    lock = project.path / LOCK
    text = lock.read_text()
    lock.write_text(text[: text.index("hash: md5", len(text) // 2) + 3])
    assert "is invalid" in project.call("bash", "-e", "-c", RUNS, fails=True)
    assert ran(project.call("bash", "-e", "-c", TORN)) == ["resolve"]
    is_whole(project, made)


@pytest.mark.slow
def test_settings_tried_at_once_in_the_queue_leave_one_that_can_be_kept(made, tmp_path):
    project = made.copy(tmp_path / "project")
    project.call("git", "add", "--all")
    project.call("git", "commit", "--quiet", "--message", "Results")
    try:
        project.call("bash", "-e", "-c", QUEUE.replace("digits-vgg8", "beta"))
        wait_for(lambda: not re.search("Running|Queued", project.call("dvc", "queue", "status")), seconds=900)
    finally:
        project.call("dvc", "queue", "stop", "--kill")
    assert len(re.findall("Success", project.call("dvc", "queue", "status"))) == 2
    for name, rate in (("slow", "0.001"), ("fast", "0.004")):
        project.call("dvc", "exp", "apply", name)
        assert f"learning_rate: {rate}" in (project.path / "params.yaml").read_text()
        assert "Data and pipelines are up to date." in project.call("dvc", "repro")
        assert "all well" in project.call("phasescope", "verify", "--full")
