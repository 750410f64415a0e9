"""Checkpoints that others saved become a run whose numbers are those of the training that made them."""

import re
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from safetensors.torch import save_file
from torch import nn
from typer.testing import CliRunner

from conftest import new_project, run_stages
from phasescope import checkpoints, open_run, own
from phasescope.cli import app
from phasescope.errors import UserError
from phasescope.importing import import_seed
from phasescope.models import state
from phasescope.models.zoo import build
from phasescope.params.activations import ActivationsSettings, Tap
from phasescope.params.train import TrainJob
from phasescope.store import arrays
from phasescope.store.datasets import write_dataset
from phasescope.store.manifest import canonical
from phasescope.training import EVALUATIONS, train
from projects import PER_RUN, SMALL_THEORY
from small import JOB, ONE, cache_of, few_digits, record

TAPS = ActivationsSettings(taps=[Tap(name="logits"), Tap(name="predense")], dtype="float32")


def lightning(weights: dict) -> dict:
    kept = {f"network.{name}": value for name, value in weights.items()}
    return {"state_dict": kept, "global_step": 3, "hyper_parameters": {"rate": 0.1}}


def compiled(weights: dict) -> dict:
    return {f"_orig_mod.{name}": value for name, value in weights.items()}


SAVED = {
    "pt": ("seed-{seed}/step_{step}.pt", torch.save),
    "ckpt": ("{seed}/epoch=1-step={step}.ckpt", lambda weights, path: torch.save(lightning(weights), path)),
    "compiled": ("{seed}-{step}.pth", lambda weights, path: torch.save(compiled(weights), path)),
    "safetensors": ("{seed}/{step}.safetensors", save_file),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A dataset and a training with its activations."""
    folder = tmp_path_factory.mktemp("made")
    write_dataset(folder / "data", few_digits(), {})
    run = folder / "run"
    train(JOB, folder / "data", run / "train", ONE, "r", cache_of(run))
    record(JOB, TAPS, folder / "data", run / "train", run / "activations", ONE, "r")
    return folder


def save(made: Path, kind: str) -> str:
    """Save all checkpoints of the training below the present folder; gives the pattern of their names."""
    pattern, write = SAVED[kind]
    stored = xr.open_zarr(made / "run" / "train" / arrays.GROUP, chunks=None)
    network = build(JOB.model, 1, 16, 10)
    for seed in JOB.seeds:
        for step in stored["step"].values.tolist():
            vector = torch.from_numpy(stored["weights"].sel(seed=seed, step=step).values)
            state.unflatten(network, vector, state.table(network))
            path = checkpoints.FOLDER / pattern.format(seed=seed, step=step)
            path.parent.mkdir(parents=True, exist_ok=True)
            write({name: value.clone() for name, value in network.state_dict().items()}, path)
    return pattern


def imported(pattern: str):
    files = checkpoints.find(pattern)
    job = JOB.model_copy(update={"checkpoints": pattern, "files": files, "seeds": [int(seed) for seed in files]})
    return TrainJob.model_validate_json(canonical(job.model_dump()))  # as a stage reads it


@pytest.mark.parametrize("kind", list(SAVED))
def test_every_measure_is_that_of_the_training(made, kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    job = imported(save(made, kind))
    assert job.steps == [0, 1, 2, 4, 8, 16]
    train(job, made / "data", tmp_path / "run" / "train", ONE, "r", cache_of(tmp_path / "run"), import_seed)
    record(job, TAPS, made / "data", tmp_path / "run" / "train", tmp_path / "run" / "activations", ONE, "r")
    for part, names in (("train", ["weights", *EVALUATIONS]), ("activations", ["logits", "predense"])):
        mine, theirs = (xr.open_zarr(folder / "run" / part / arrays.GROUP, chunks=None) for folder in (tmp_path, made))
        for name in names:
            np.testing.assert_array_equal(mine[name].values, theirs[name].values, err_msg=name)


TEN = f"""\
datasets:
  digits: {{source: digits, resolution: 8}}
runs:
train: {{seeds: [0], iterations: 256, batch_size: 32, learning_rate: 0.01}}
activations: {{taps: [softmax, logits, predense], train_samples: 100, test_samples: 50}}
decode: {{decoders: [linear, linear-adam], epochs: 2}}
probe: {{classifiers: [ridge, logistic, sgd], epochs: 2}}
distributions: {{bins: 5, fixed: [0], selective: 1}}
information: {{estimators: [gaussian, binned-pca]}}
complexity: {{line_samples: 4, points: 3}}
kernel: {{probes: 8}}
transfer:
  labels: {{run: same, dataset: digits, labels: [ink, quadrant]}}
{SMALL_THEORY}"""


@pytest.fixture(scope="module")
def inside(tmp_path_factory) -> Path:
    """A training and all its measures, in a project of its own."""
    path = tmp_path_factory.mktemp("ten") / "inside"
    made_here = "runs:\n  same:\n    dataset: digits\n    model: {name: vgg8, width: 0.05}\n"
    run_stages(new_project(path, TEN.replace("runs:\n", made_here)), EVERYTHING)
    return path


EVERYTHING = [("resolve",), ("prepare", "digits"), *((stage, "same") for stage in PER_RUN), ("transfer", "labels")]


def save_lightning(network: nn.Module, path: Path) -> None:
    with warnings.catch_warnings(action="ignore"):
        from lightning.pytorch import LightningModule, Trainer

        module = LightningModule()
        module.network = network
        quiet = dict.fromkeys(("logger", "enable_progress_bar", "enable_model_summary"), False)
        trainer = Trainer(accelerator="cpu", **quiet)
        trainer.strategy.connect(module)
        trainer.save_checkpoint(path)


SAVE = {
    "step_{step}.pt": lambda network, path: torch.save(network.state_dict(), path),
    "{step}.safetensors": lambda network, path: save_file(network.state_dict(), path),
    "epoch=0-step={step}.ckpt": save_lightning,
}


@pytest.mark.slow
@pytest.mark.parametrize("pattern", list(SAVE))
def test_ten_checkpoints_of_others_have_all_measures_of_the_same_training(inside, pattern, tmp_path, monkeypatch):
    project = new_project(tmp_path / "project", TEN)
    for folder in ("saved", "checkpoints"):
        (project.path / folder).mkdir()
    run = open_run(inside / "runs" / "same")
    assert run.steps == [0, *(2**power for power in range(9))]
    for step in run.steps:
        network = build(run.trained_with.model, 1, 8, 10)
        network.load_state_dict(run.weights(0, step))
        SAVE[pattern](network, project.path / "saved" / pattern.format(step=step))
    monkeypatch.chdir(project.path)
    monkeypatch.delenv(own.TRUST, raising=False)
    told = CliRunner().invoke(
        app, ["import", "same", "saved", "--dataset", "digits", "--model", "{name: vgg8, width: 0.05}"]
    )
    assert "same: 10 checkpoints" in told.output, told.output
    run_stages(project, EVERYTHING)
    folders = [f"runs/same/{part}" for part in ("train", "activations")]
    folders += [f"results/same/{path.name}" for path in (inside / "results" / "same").iterdir()]
    assert len(folders) == 2 + 1 + 6 + 1  # the stores, what was logged, six measures, transfer
    for folder in folders:
        mine, theirs = (
            xr.open_zarr(root / folder / arrays.GROUP, chunks=None).load() for root in (project.path, inside)
        )
        if folder == "runs/same/train":  # nobody knows what was logged of each update, or where the optimiser stood
            mine, theirs = (found[["weights", "last_weights", "sha256", *EVALUATIONS]] for found in (mine, theirs))
        xr.testing.assert_equal(mine, theirs)


def test_files_are_found_by_seed_and_step(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in ("a/1/step_10.pt", "a/1/step_2.pt", "a/2/step_10.pt", "a/2/step_2.pt", "a/2/last.pt", "b/step_010.pt"):
        file = checkpoints.FOLDER / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(path)
    found = checkpoints.find("a/{seed}/step_{step}.pt")
    assert {seed: {step: path for step, (path, _) in steps.items()} for seed, steps in found.items()} == {
        "1": {"2": "a/1/step_2.pt", "10": "a/1/step_10.pt"},
        "2": {"2": "a/2/step_2.pt", "10": "a/2/step_10.pt"},
    }
    assert list(checkpoints.find("b/step_{step}.pt")) == ["0"]
    assert checkpoints.find("c/{step}.pt") == {}
    with pytest.raises(UserError, match=re.escape("'a/1/last.pt': name the files with {step} where")):
        checkpoints.find("a/1/last.pt")
    (checkpoints.FOLDER / "b" / "step_10.pt").touch()
    with pytest.raises(UserError, match="step_010.pt and b/step_10.pt in checkpoints/ are both of step 10"):
        checkpoints.find("b/step_{step}.pt")
    (checkpoints.FOLDER / "a" / "2" / "step_2.pt").unlink()
    with pytest.raises(UserError, match=r"seed 2 has no file of step 2 in checkpoints/, and others have"):
        checkpoints.find("a/{seed}/step_{step}.pt")
    (tmp_path / "mine.pt").touch()
    (checkpoints.FOLDER / "b" / "step_10.pt").unlink()
    (checkpoints.FOLDER / "b" / "step_11.pt").symlink_to(tmp_path / "mine.pt")
    with pytest.raises(UserError, match=r"checkpoints/b/step_11.pt is a link out of checkpoints/; put the file itself"):
        checkpoints.find("b/*_{step}.pt")


def test_what_is_wrong_with_a_file_is_told_and_nothing_is_left(made, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    job = imported(save(made, "pt"))
    file = checkpoints.FOLDER / "seed-3" / "step_4.pt"
    whole = file.read_bytes()
    network = build(JOB.model.model_copy(update={"width": 0.1}), 1, 16, 10)

    def told() -> str:
        with pytest.raises(UserError) as error:
            train(job, made / "data", tmp_path / "run" / "train", ONE, "r", cache_of(tmp_path / "run"), import_seed)
        assert not (tmp_path / "run" / "train").exists()
        return str(error.value)

    file.write_bytes(whole[: len(whole) // 2])
    assert "step_4.pt: cannot be read as a checkpoint of torch" in told()
    torch.save(network.state_dict(), file)
    assert "changed since `dvc repro` began" in told()
    job = imported("seed-{seed}/step_{step}.pt")
    assert "step_4.pt: not of this network: of another shape: blocks.0.0.weight (3, 1, 3, 3) instead of (2, 1" in told()
    weights = torch.load(checkpoints.FOLDER / "seed-3" / "step_2.pt")
    broken = {name: value * torch.nan if value.is_floating_point() else value for name, value in weights.items()}
    torch.save(broken, file)
    job = imported("seed-{seed}/step_{step}.pt")
    assert "step_4.pt: weights that are not finite" in told()
