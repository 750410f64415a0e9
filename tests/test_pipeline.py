"""The pipeline under DVC: what is affected runs, and nothing else; what was killed goes on."""

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from closure import ROOT
from phasescope import own
from phasescope.params.settings import shares
from phasescope.resolve import resolve
from phasescope.store.manifest import canonical
from pipeline import FOLDERS, files
from projects import PARAMS, PER_RUN, Project, contents, wait_for

STAGES = sorted(path.stem for path in (ROOT / "stages").glob("*.py"))


def stages(folder: str) -> dict[str, dict]:
    """All stages of a folder, by name."""
    found = {}
    for file in ("dvc.yaml", "stages/dvc.yaml" if folder == "." else "watch/dvc.yaml"):
        found |= YAML(typ="safe").load((ROOT / folder / file).read_text())["stages"]
    return {name: entry.get("do", entry) for name, entry in found.items()}


def test_the_pipeline_is_as_the_code_and_its_description_say():
    for name, text in files().items():
        assert (ROOT / name).read_text() == text, f"{name}: run `python tools/pipeline.py`"


@pytest.mark.parametrize("folder", [".", *FOLDERS])
def test_every_stage_script_is_a_stage_of_its_name(folder):
    assert sorted(stages(folder)) == STAGES
    for name, entry in stages(folder).items():
        command = entry["cmd"].split()
        assert command[:2] == ["exec", "python"]
        where = ROOT / folder / ("watch" if name == "watch" else ".") / entry.get("wdir", ".")
        assert (where / command[2]).resolve() == ROOT / "stages" / f"{name}.py"
        assert command[3:] in ([], ["${key}"])  # nothing else from params.yaml reaches a command line


@pytest.mark.parametrize("folder", [".", *FOLDERS])
def test_configs_in_git_are_those_of_the_settings(folder, monkeypatch):
    monkeypatch.chdir(ROOT / folder)  # where own/ and checkpoints/ are
    monkeypatch.setenv(own.TRUST, "1")
    configs = ROOT / folder / "configs"
    wanted = {name: canonical(content) for name, content in shares(resolve(ROOT / folder / "params.yaml")).items()}
    assert {path.relative_to(configs).as_posix(): path.read_text() for path in configs.rglob("*.json")} == wanted


def test_a_folder_with_settings_of_its_own_runs_the_same_scripts_and_is_nothing_to_the_project(project):
    paper = project.path / "paper"
    shutil.copytree(ROOT / "paper", paper, ignore=shutil.ignore_patterns("configs", "params.yaml", "tmp", "cache"))
    (paper / "params.yaml").write_text(PARAMS.replace("resolution: 8", "resolution: 4"))
    told = project.call("dvc", "--cd", "paper", "repro", "prepare@digits")
    assert re.findall(r"Running stage '(.*)'", told) == ["resolve", "prepare@digits"]
    untracked = project.call("git", "status", "--short", "--untracked-files=all", "paper")
    assert "paper/configs/datasets/digits.json" in untracked
    assert "paper/datasets" not in untracked
    assert (paper / ".gitignore").read_text() == (ROOT / "paper" / ".gitignore").read_text()
    assert project.repro() == []
    assert "paper" not in project.call("dvc", "status")


@pytest.fixture
def project(made, tmp_path) -> Project:
    return made.copy(tmp_path / "project")


def test_a_second_repro_has_nothing_to_do(project):
    assert "Data and pipelines are up to date." in project.call("dvc", "repro")


def test_the_figures_are_on_the_page_of_plots_once_each_and_the_phases_are_metrics(project):
    project.call("dvc", "plots", "show")
    page = (project.path / "dvc_plots" / "index.html").read_text()
    shown = sorted(
        Path(name).name.removeprefix("workspace_figures_png_") for name in re.findall(r'<img src="(.*?)"', page)
    )
    names = ["alignment", "complexity", "distributions", "figure-1", "figure-2", "figure-4-beta", "figure-7"]
    names += [
        "advice-alpha-digits",
        "information",
        "information-plane",
        "kernel",
        "probes",
        "time-scales",
        "two-phases",
    ]
    names += [f"linear-network-{name}" for name in ("alignment", "mechanisms", "phases")]
    names += [f"theory-{name}" for name in ("curve", "figure-3", "figure-5", "phases", "regimes", "scaling")]
    assert shown == sorted(f"{name}.png" for name in names)
    assert sorted(path.stem for path in (project.path / "figures" / "png").glob("*")) == sorted(names)
    assert '"constant_until"' in project.call("dvc", "metrics", "show", "--json")


def test_a_new_tap_does_not_train_again(project):
    project.change("params.yaml", ("taps: [logits, predense]", "taps: [logits, predense, conv-2]"))
    assert sorted(project.repro("phases")) == sorted(["resolve", *(f"{stage}@beta" for stage in PER_RUN[1:]), "phases"])


def test_a_figure_setting_reruns_figures_alone(project):
    project.change("params.yaml", ("dpi: 40", "dpi: 50"))
    assert project.repro() == ["resolve", "figures", "report"]


def test_a_comment_or_another_order_of_the_settings_reruns_nothing_but_the_check(project):
    project.change("params.yaml", ("# a small project", "# the same project"))
    assert project.repro() == ["resolve"]


def test_a_comment_in_a_decoder_reruns_decode_and_nothing_after_it(project):
    project.change("src/phasescope/measures/decode.py", ("from collections", "# a remark\nfrom collections"))
    assert sorted(project.repro()) == ["decode@alpha", "decode@beta", "resolve"]


def test_code_edited_since_the_check_is_not_taken_for_what_was_checked(project):
    """DVC knows the code of a stage by what `resolve` wrote; an edit during a long pipeline must not pass for that."""
    project.change("src/phasescope/report/page.py", ("The page: one", "Edited. The page: one"))
    told = project.call("python", "stages/report.py", fails=True)
    assert told.strip() == "phasescope.report.page: changed since `dvc repro` began; run `dvc repro` again"
    assert project.repro() == ["resolve", "report"]


def test_a_changed_run_and_a_new_one_are_all_that_is_trained(project):
    change = ("learning_rate: 0.01,", "learning_rate: 0.03,")
    project.change("params.yaml", change, ("train:\n  seeds", THIRD + "train:\n  seeds"))
    first = ("train", "activations", "decode")
    assert sorted(project.repro("decode")) == sorted(
        ["resolve", *(f"{stage}@{run}" for run in ("beta", "gamma") for stage in first)]
    )


@pytest.mark.slow
def test_a_changed_run_and_a_new_one_come_to_the_figures(project):
    change = ("learning_rate: 0.01,", "learning_rate: 0.03,")
    project.change("params.yaml", change, ("train:\n  seeds", THIRD + "train:\n  seeds"))
    rest = ["resolve", "phases", "figures", "report"]
    measured = [f"{stage}@{run}" for run in ("beta", "gamma") for stage in PER_RUN]
    assert sorted(project.repro()) == sorted([*rest, *measured])
    assert (project.path / "figures" / "png" / "figure-4-gamma.png").exists()


THIRD = """\
  gamma:
    dataset: digits
    model: {name: vgg8, width: 0.05}
    train: {learning_rate: 0.02, iterations: 4}
"""


def test_a_removed_run_leaves_nothing_in_the_figures(project):
    text = project.path / "params.yaml"
    text.write_text(re.sub(r"  beta:\n(    .*\n)+", "", text.read_text()))
    assert project.repro() == ["resolve", "phases", "figures", "report"]
    figures = project.path / "figures"
    assert not (figures / "png" / "figure-4-beta.png").exists()
    assert not [path for path in figures.glob("*.csv") if "beta" in path.read_text()]
    assert "beta" not in (project.path / "metrics" / "phases.json").read_text()
    assert not (project.path / "results" / "beta").exists()
    assert project.repro() == []
    # And it comes back from the cache when the run does.
    text.write_text(PARAMS)
    assert project.repro() == ["resolve"]
    assert (figures / "png" / "figure-4-beta.png").exists()


def test_a_label_more_reruns_that_transfer_and_a_removed_transfer_leaves_no_results(project):
    project.change("params.yaml", ("labels: [ink]", "labels: [ink, quadrant]"))
    assert project.repro("phases") == ["resolve", "transfer@ink", "advise@ink", "phases"]
    entry = "transfer:\n  ink: {run: alpha, dataset: digits, labels: [ink, quadrant]}"
    project.change("params.yaml", (entry, "transfer: {}"))
    assert project.repro("phases") == ["resolve", "phases"]
    assert not list((project.path / "results" / "alpha").glob("*-digits"))
    assert (project.path / "results" / "alpha" / "probe").exists()
    assert project.repro("phases") == []


def test_a_mistake_in_the_settings_loses_nothing(project):
    kept = ("configs", "figures", "runs")
    before = [sizes(project.path / folder) for folder in kept]
    project.change("params.yaml", ("learning_rate: 0.01,", "learning_rate: -1,"))
    told = project.call("dvc", "repro", fails=True)
    assert "params.yaml: runs.beta.train.learning_rate" in told
    assert "Traceback" not in told
    assert [sizes(project.path / folder) for folder in kept] == before


def sizes(folder: Path) -> dict[str, int]:
    return {str(p): p.stat().st_size for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize(
    ("victim", "shell"),
    [("dvc", "sh"), *(pytest.param(victim, "bash", marks=pytest.mark.slow) for victim in ("stage", "dvc"))],
)
def test_a_killed_training_goes_on_and_ends_in_the_same_bytes(project, made, victim, shell):
    # DVC runs a stage in the user's shell, or in sh where SHELL is not set.
    project.environment["SHELL"] = shutil.which(shell) or "/bin/sh"
    scratch = project.path / "runs" / "alpha" / ".scratch"
    for _ in range(10):
        kill_while_training(project, victim)
        # Nobody goes on training beside the next attempt.
        wait_for(lambda: unchanged(scratch))
        if not (project.path / "runs" / "alpha" / "train").exists():
            break
        # The last updates came before the signal: once more.
    assert not (project.path / "runs" / "alpha" / "train").exists()
    assert list(states(project))
    project.repro("--force", "--single-item", "train@alpha")
    assert contents(project.path / "runs" / "alpha" / "train") == contents(made.path / "runs" / "alpha" / "train")
    assert not scratch.exists()


def states(project: Project) -> Iterator[Path]:
    return project.path.glob(".phasescope/cache/train-states/*/*")


def kill_while_training(project: Project, victim: str) -> None:
    shutil.rmtree(project.path / "runs" / "alpha" / "train")
    shutil.rmtree(project.path / ".phasescope")
    shutil.rmtree(project.path / ".dvc" / "tmp", ignore_errors=True)
    command = ["dvc", "repro", "--force", "--single-item", "train@alpha"]
    running = subprocess.Popen(
        command, cwd=project.path, env=project.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    wait_for(lambda: list(states(project)))
    if victim == "dvc":
        running.send_signal(signal.SIGKILL)
    else:
        children = subprocess.run(
            ["pgrep", "--parent", str(running.pid)], capture_output=True, text=True
        ).stdout.split()
        assert children
        for child in children:
            os.kill(int(child), signal.SIGKILL)
    running.wait()


def test_only_new_cells_are_computed_where_a_seed_a_step_and_a_tap_were_added(project):
    """Also where the stores were pulled, and there are no cells of the training that made them."""
    shutil.rmtree(project.path / ".phasescope")
    project.change(
        "params.yaml",
        ("seeds: [0, 1]", "seeds: [0, 1, 2]"),
        ("iterations: 8}", "iterations: 16}"),
        ("taps: [logits,", "taps: [softmax, logits,"),
    )
    told = project.call("dvc", "repro", "decode@beta")
    for line in (
        "train beta: 8 of 18 cells computed, the others were known",
        "activations beta: 34 of 54 cells computed, the others were known",
        "decode beta: 34 of 54 cells computed, the others were known",
    ):
        assert line in told
    assert "train alpha" not in told


def test_damage_is_mended_also_in_the_cache_of_dvc(project, made):
    """DVC believes its cache, so that forcing the stage to run again would bring the damage back."""
    shard = project.path / "runs" / "beta" / "activations" / "arrays.zarr" / "predense" / "c.0.3.0.0"
    whole = shard.read_bytes()
    objects = [path for path in (project.path / ".dvc" / "cache").rglob("*") if path.is_file()]
    (same,) = [path for path in objects if path.read_bytes() == whole]
    for path in (shard, same):
        path.unlink()
        path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert "(run beta, predense of seed 0, step 4)" in project.call("phasescope", "verify", "--full", fails=True)
    assert "1 damaged files removed here, 1 in DVC's cache" in project.call("phasescope", "verify", "--mend")
    told = project.call("dvc", "repro")
    assert re.findall(r"Running stage '(.*)'", told) == ["activations@beta"]
    assert "activations beta: 0 of 20 cells computed" in told
    assert "all well" in project.call("phasescope", "verify", "--full")
    assert contents(project.path / "runs") == contents(made.path / "runs")


def unchanged(folder: Path) -> bool:
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}
    time.sleep(1.0)
    return before == {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}
