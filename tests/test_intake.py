"""A folder of checkpoints becomes a run: all of it or nothing, and params.yaml stays as its author wrote it."""

import os
import re
from pathlib import Path

import pytest
import torch
from ruamel.yaml import YAML
from safetensors.torch import save_file
from typer.testing import CliRunner

from closure import ROOT
from phasescope import checkpoints, intake, own
from phasescope.budget import budget, images_of
from phasescope.budget.runs import Run
from phasescope.cli import app
from phasescope.errors import UserError
from phasescope.models.zoo import build
from phasescope.params.models import ModelSettings
from phasescope.params.settings import jobs, read, shares

PARAMS = """\
# mine, and nobody else's
datasets:
    digits: {source: digits,  resolution: 8}   # eight
    own: {source: image-folder, folder: nowhere, resolution: 8, grey: true}
runs:
    first:   # the first one
        dataset: digits
        model: {name: mlp, units: 7}

    # a thought about it

# what all have in common
train: {iterations: 4000, seeds: [0]}
activations:
    taps: [ logits ]
"""
MODEL = {"name": "mlp", "units": 5}


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """A project in the present folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(own.TRUST, raising=False)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "params.yaml").write_text(PARAMS)
    return tmp_path


def weights(outputs: int = 10, **more) -> dict[str, torch.Tensor]:
    return build(ModelSettings(**MODEL, **more), 1, 8, outputs).state_dict()


def save(folder: Path, *names: str, outputs: int = 10) -> Path:
    for name in names:
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        (save_file if file.suffix == ".safetensors" else torch.save)(weights(outputs), file)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def call(*arguments: str):
    return CliRunner().invoke(app, ["import", *arguments], env={"PHASESCOPE_TRUST": None})


def test_a_run_is_made_and_the_rest_of_params_is_as_it_was(project):
    folder = save(project / "saved", "epoch_0.pt", "epoch_1.pt", "epoch_10.pt", "last.pt")
    told = call("mine", str(folder), "--dataset", "digits", "--model", "{name: mlp, units: 5}", "--tap", "predense")
    assert told.exit_code == 0, told.output
    assert "mine: 3 checkpoints, seeds [0], steps [0, 1, 10]" in told.output
    assert "left out: 1\n" in told.output
    assert told.output.endswith("now: dvc repro\n")
    added = [
        "    mine:",
        "      dataset: digits",
        "      model: {name: mlp, units: 5}",
        "      train: {checkpoints: 'mine/seed_{seed}/step_{step}.pt'}",
        "      activations: {taps: [predense]}",
    ]
    lines = PARAMS.splitlines()
    at = lines.index("        model: {name: mlp, units: 7}") + 1
    assert (project / "params.yaml").read_text().splitlines() == [*lines[:at], *added, *lines[at:]]
    for step in (0, 1, 10):
        kept = project / "checkpoints" / "mine" / "seed_0" / f"step_{step}.pt"
        assert kept.samefile(folder / f"epoch_{step}.pt")
    settings = read(project / "params.yaml")
    job = jobs(settings)["mine"]
    assert (job.seeds, job.steps, job.iterations) == ([0], [0, 1, 10], 10)
    assert shares(settings)["runs/mine/activations.json"]["taps"][0]["name"] == "predense"


def test_what_is_in_checkpoints_already_stays_there(project):
    save(
        project / "checkpoints" / "rec", *(f"seed_{seed}/step_{step}.safetensors" for seed in (1, 2) for step in (0, 4))
    )
    before = contents(project / "checkpoints")
    taken = intake.take("mine", "checkpoints/rec", {"dataset": "digits", "model": MODEL})
    assert (taken.pattern, taken.seeds, taken.steps) == ("rec/seed_{seed}/step_{step}.safetensors", [1, 2], [0, 4])
    assert contents(project / "checkpoints") == before


def test_where_no_link_can_be_made_the_files_are_copied(project, monkeypatch):
    def fail(*_):
        raise OSError("another file system")

    monkeypatch.setattr(os, "link", fail)
    folder = save(project / "saved", "0.ckpt", "1.ckpt")
    intake.take("mine", str(folder), {"dataset": "digits", "model": MODEL})
    kept = project / "checkpoints" / "mine" / "seed_0"
    assert contents(kept) == {f"step_{step}.ckpt": (folder / f"{step}.ckpt").read_bytes() for step in (0, 1)}


@pytest.mark.parametrize(
    ("names", "pattern"),
    [
        (["step_1.pt", "step_20.pt"], "step_{step}.pt"),
        (["epoch=0-step=100.ckpt", "epoch=1-step=200.ckpt", "last.ckpt"], "epoch=*-step={step}.ckpt"),
        (
            ["v2/epoch=0-step=9-loss=0.31.ckpt", "v2/epoch=0-step=8-loss=1.2.ckpt"],
            "v2/epoch=0-step={step}-loss=*.*.ckpt",
        ),
        (["seed-1/vgg8_iter5.pth", "seed-2/vgg8_iter5.pth"], "seed-{seed}/vgg8_iter{step}.pth"),
        (["seed_0/3.pt", "seed_1/3.pt", "seed_0/4.pt", "seed_1/4.pt"], "seed_{seed}/{step}.pt"),
        (["resnet18-00100.pt", "resnet18-00200.pt"], "resnet18-{step}.pt"),
        (["step_3.pt"], "step_{step}.pt"),
    ],
)
def test_the_step_is_found_in_the_names(tmp_path, names, pattern):
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert intake.guessed(tmp_path) == pattern
    assert checkpoints.paths(tmp_path, pattern)


@pytest.mark.parametrize(
    ("names", "told"),
    [
        ([], "no .safetensors, .pt, .pth, .ckpt in this folder"),
        (
            ["last.pt"],
            "there is no number in 'last.pt' that could be the step; say which number is the step with --pat",
        ),
        (["a1-b2.pt", "a2-b3.pt"], "it is not clear which number in 'a1-b2.pt' is the step; say which"),
        (["vgg8.pt"], "it is not clear which number in 'vgg8.pt' is the step"),
        (["vgg8-v2.pt"], "it is not clear which number in 'vgg8-v2.pt' is the step"),
        (["a1.pt", "a2.pt", "b1.pt"], "'a1.pt' and 'b1.pt' are named differently; say which"),
    ],
)
def test_names_without_a_clear_step_are_told(tmp_path, names, told):
    for name in names:
        (tmp_path / name).touch()
    with pytest.raises(UserError, match=re.escape(told)):
        intake.guessed(tmp_path)


def test_if_anything_is_wrong_nothing_is_changed(project, monkeypatch):
    folder = save(project / "saved", "epoch_0.pt", "epoch_1.pt")
    torch.save(weights(depth=3), folder / "other_1.pt")
    (folder / "cut_1.pt").write_bytes((folder / "epoch_1.pt").read_bytes()[:700])
    torch.save({name: value / 0 for name, value in weights().items()}, folder / "infinite_1.pt")
    before = contents(project)

    def told(name="mine", pattern="epoch_{step}.pt", model="{name: mlp, units: 5}", dataset="digits", *more) -> str:
        done = call(name, f"saved/{pattern}", "--dataset", dataset, "--model", model, *more)
        assert done.exit_code == 1
        assert done.output.count("\n") == 1, done.output
        assert contents(project) == before
        return done.output

    assert "saved/cut_1.pt: cannot be read as a checkpoint of torch" in told(pattern="cut_{step}.pt")
    assert "saved/other_1.pt: not of this network: not in the network: blocks.1.0" in told(pattern="other_{step}.pt")
    assert re.search(r"infinite_1.pt: \S+ is not finite; leave this", told(pattern="infinite_{step}.pt"))
    assert "no file is like 'x_{step}.pt'" in told(pattern="x_{step}.pt")
    assert "params.yaml: there is a run 'first' already; choose another name" in told("first")
    assert "'Mine' is no name" in told("Mine")
    assert "params.yaml: runs.mine.dataset: unknown dataset 'digit'; did you mean 'digits'?" in told(dataset="digit")
    assert "runs.mine.model.units: expected a whole number" in told(model="{name: mlp, units: wide}")
    assert "--model: '{name' is not readable as YAML" in told(model="{name")
    assert "has a pattern in it; leave out --pattern" in told("mine", "{step}.pt", "mlp", "digits", "--pattern", "a")
    assert "tap 'deep': mlp has no such tap" in told(
        "mine", "epoch_{step}.pt", "{name: mlp, units: 5}", "digits", "--tap", "deep"
    )
    assert "absent: no such folder" in call("mine", "absent", "--dataset", "digits", "--model", "mlp").output

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(
        intake, "write_file", lambda path, data: full() if path.name == "params.yaml" else None or real(path, data)
    )
    assert "No space left" in told()


real = intake.write_file


def test_the_number_of_classes_of_images_that_are_not_prepared_is_that_of_the_files(project):
    folder = save(project / "saved", "1.pt", "2.pt", outputs=7)
    intake.take("mine", str(folder), {"dataset": "own", "model": MODEL})
    torch.save(weights(6), folder / "2.pt")
    with pytest.raises(
        UserError, match=r"2.pt: not of this network: of another shape: head.weight \(6, 5\) instead of"
    ):
        intake.take("other", str(folder), {"dataset": "own", "model": MODEL})


def test_every_layout_of_params_that_can_be_kept_is(tmp_path):
    params = tmp_path / "params.yaml"
    run = {"dataset": "d", "model": "f0"}
    for text in (
        (ROOT / "params.yaml").read_text(),
        (ROOT / "paper" / "params.yaml").read_text(),
        "runs:\n  a: {dataset: d}",
        "runs:\r\n  a: {dataset: d}\r\n\r\ntrain: {}\r\n",
        "train: {}\nruns:   # none yet\n\n\n# the end\n",
        "runs:\n# odd\n      a:\n         dataset: d\n# odd\n",
    ):
        params.write_bytes(text.encode())
        written = intake.with_run(params, "zz", run)
        before, after = (YAML(typ="safe").load(each) for each in (text, written))
        assert after["runs"].pop("zz") == run
        assert {**after, "runs": after["runs"] or None} == before
        kept = [line for line in written.split("\n") if line in text.split("\n")]
        assert kept == text.split("\n") or kept == [*text.split("\n"), ""]
    for text in ("runs: {a: {dataset: d}}\n", "a: &r\n  b: 1\nruns: *r\n"):
        params.write_text(text)
        with pytest.raises(UserError, match=r"params.yaml: write `runs` with a line for each run, or add this one"):
            intake.with_run(params, "zz", run)


def test_the_budget_of_such_a_run_is_of_its_files(project):
    folder = save(project / "saved", *(f"s{seed}/seed_{seed}_{step}.pt" for seed in (1, 2) for step in (0, 3, 9)))
    intake.take("mine", f"{folder}/s*/seed_{{seed}}_{{step}}.pt", {"dataset": "digits", "model": MODEL})
    settings = read(project / "params.yaml")
    found = budget(settings, project / "datasets", jobs=jobs(settings)).runs["mine"]
    assert found.checkpoints == 6
    (train, _) = found.part("train")
    assert train.store.arrays["loss"].shape == (2, 0)
    assert train.store.arrays["weights"].shape[:2] == (2, 3)
    images = images_of(settings.datasets["digits"], project)
    assert Run(settings.runs["mine"], images, jobs(settings)["mine"]).updates == 0


def test_a_number_of_a_pattern_is_whole(tmp_path):
    for step in (1, 12, 24):
        (tmp_path / f"run_{step}.pt").touch()
    assert checkpoints.paths(tmp_path, "*{step}.pt") == {0: {step: f"run_{step}.pt" for step in (1, 12, 24)}}


@pytest.mark.parametrize("name", ["123", "", "A", "../x"])
def test_a_name_that_is_none_is_told_first(project, name):
    with pytest.raises(UserError, match="is no name; names are lower-case letters, digits and dashes, a letter first"):
        intake.take(name, "nowhere", {})


@pytest.mark.parametrize("runs", ["[a]", "hello", "3"])
def test_runs_that_are_no_runs_are_told_in_a_line(tmp_path, runs):
    path = tmp_path / "params.yaml"
    path.write_text(f"datasets: {{d: {{source: digits}}}}\nruns: {runs}\n")
    with pytest.raises(UserError, match="runs: expected names, each with a group of settings"):
        intake.with_run(path, "mine", {})
