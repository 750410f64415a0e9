"""Checkpoints that others saved become a run whose numbers are those of the training that made them."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from safetensors.torch import save_file

from phasescope import checkpoints
from phasescope.errors import UserError
from phasescope.importing import import_seed
from phasescope.models import state
from phasescope.models.zoo import build
from phasescope.params.activations import ActivationsSettings, Tap
from phasescope.store import arrays
from phasescope.store.datasets import write_dataset
from phasescope.training import EVALUATIONS, train
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
    stored = xr.open_zarr(made / "run" / "train" / arrays.GROUP)
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
    return JOB.model_copy(update={"checkpoints": pattern, "files": files, "seeds": [int(seed) for seed in files]})


@pytest.mark.parametrize("kind", list(SAVED))
def test_every_measure_is_that_of_the_training(made, kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    job = imported(save(made, kind))
    assert job.steps == [0, 1, 2, 4, 8, 16]
    train(job, made / "data", tmp_path / "run" / "train", ONE, "r", cache_of(tmp_path / "run"), import_seed)
    record(job, TAPS, made / "data", tmp_path / "run" / "train", tmp_path / "run" / "activations", ONE, "r")
    for part, names in (("train", ["weights", *EVALUATIONS]), ("activations", ["logits", "predense"])):
        mine, theirs = (xr.open_zarr(folder / "run" / part / arrays.GROUP) for folder in (tmp_path, made))
        for name in names:
            np.testing.assert_array_equal(mine[name].values, theirs[name].values, err_msg=name)


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
