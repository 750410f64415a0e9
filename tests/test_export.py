"""A checkpoint written as safetensors is the state_dict of the plain network, and says where it comes from."""

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from typer.testing import CliRunner

from phasescope import open_run
from phasescope.cli import app
from phasescope.models.zoo import build
from phasescope.store.datasets import write_dataset
from phasescope.store.files import StoreError
from small import JOB, ONE, few_digits, train


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("project")
    write_dataset(folder / "datasets" / "d", few_digits(), {})
    train(JOB, folder / "datasets" / "d", folder / "runs" / "r" / "train", ONE, "r")
    return open_run(folder / "runs" / "r")


def test_it_loads_into_the_plain_network_and_gives_the_stored_weights(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    told = CliRunner().invoke(app, ["export", str(run.path), "--seed", "5", "--step", "4"])
    assert told.output.strip() == "r-seed-5-step-4.safetensors"
    weights = load_file(tmp_path / told.output.strip())
    network = build(JOB.model, 1, 16, 10)
    network.load_state_dict(weights)
    stored = run.training["weights"].sel(seed=5, step=4).values
    flat = torch.cat([value.reshape(-1).float() for value in network.state_dict().values()])
    assert torch.equal(flat, torch.from_numpy(stored))
    assert weights["blocks.0.1.num_batches_tracked"].dtype == torch.int64
    with safe_open(tmp_path / told.output.strip(), "pt") as file:
        about = json.loads(file.metadata()["phasescope"])
    assert (about["run"], about["seed"], about["step"]) == ("r", 5, 4)
    assert about["training"] == JOB.model_dump()
    assert about["weights"] == run.weights_digest(5, 4)


def test_a_checkpoint_that_is_not_there_is_told(run, tmp_path, capsys):
    told = CliRunner().invoke(app, ["export", str(run.path), "--seed", "5", "--step", "3"])
    assert told.exit_code == 1
    assert "no checkpoint of seed 5, step 3; seeds [3, 5], steps [0, 1, 2, 4, 8, 16]" in told.output
    assert not list(tmp_path.iterdir())


def test_where_nothing_can_be_written_nothing_is_left(run, tmp_path):
    (tmp_path / "there").mkdir()
    command = ["export", str(run.path), "--seed", "5", "--step", "4", "--output", str(tmp_path / "there")]
    told = CliRunner().invoke(app, command)
    assert told.exit_code == 1
    assert told.output.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


@pytest.mark.parametrize("change", [{"dtype": "nothing"}, {"shape": [7]}, {"offset": "x"}])
def test_weights_that_do_not_say_what_they_are_are_told(run, monkeypatch, change):
    stored = run._weights
    table = [{**stored.attrs["table"][0], **change}]
    monkeypatch.setattr(type(run), "_weights", stored.assign_attrs(table=table))
    with pytest.raises(StoreError, match="what it says of its weights is none of phasescope's"):
        run.weights(5, 4)
