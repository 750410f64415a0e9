"""What the recorder writes is the network as it was, and the training is, to the bit, what it is without."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
import xarray as xr
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

import phasescope
from phasescope import checkpoints
from phasescope.errors import UserError
from phasescope.recorder import Recorder

IMAGES = torch.rand(6, 1, 4, 4, generator=torch.Generator().manual_seed(1))


class Tied(nn.Module):
    """Dropout, BatchNorm (a part of which is frozen), tied weights, a weight that is not contiguous, another dtype."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 8))
        self.read = nn.Linear(8, 8)
        self.read.weight = self.body[4].weight
        self.body[1].weight = nn.Parameter(torch.randn(16, 8).t())
        self.frozen = nn.BatchNorm1d(8).eval()
        self.small = nn.Parameter(torch.randn(3).bfloat16())
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def forward(self, images):
        self.calls += 1  # in eval mode too
        return self.read(self.frozen(self.body(images)))


def train(folder=None, updates=9, network=None, start=0, **given):
    """A training, which is recorded if there is a folder for it; gives all that it leaves behind."""
    torch.manual_seed(3)
    model = Tied()
    network = network(model) if network else model
    optimiser = torch.optim.Adam(model.parameters(), 0.01)
    record = Recorder(network, folder, start=start, **given) if folder else None
    states = [{name: value.clone() for name, value in model.state_dict().items()}]
    for _ in range(updates):
        optimiser.zero_grad()
        network(torch.rand(5, 1, 4, 4)).square().mean().backward()
        optimiser.step()
        if record:
            record.step()
        states.append({name: value.clone() for name, value in model.state_dict().items()})
    gradients = [weight.grad.clone() for weight in model.parameters() if weight.grad is not None]
    modes = [module.training for module in model.modules()]
    return states, gradients, modes, torch.get_rng_state(), optimiser.state_dict()["state"]


def same(left, right) -> bool:
    if isinstance(left, torch.Tensor):
        return torch.equal(left, right)
    if isinstance(left, dict):
        return list(left) == list(right) and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(same, left, right))
    return left == right


@pytest.mark.parametrize("given", [{}, {"images": IMAGES, "taps": ["logits", "body.1"]}])
def test_training_is_what_it_is_without(tmp_path, given):
    before = random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    plain, recorded = train(), train(tmp_path, **given)
    assert same(plain, recorded)
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before  # noqa: NPY002
    states = plain[0]
    files = {int(path.stem.removeprefix("step_")): path for path in (tmp_path / "seed_0").glob("*.safetensors")}
    assert sorted(files) == [0, 1, 2, 4, 8]
    for step, file in files.items():
        assert same(dict(sorted(load_file(file).items())), dict(sorted(states[step].items())))
        Tied().load_state_dict(load_file(file))
        with safe_open(file, "pt") as opened:
            about = json.loads(opened.metadata()["phasescope"])
        assert (about["seed"], about["step"]) == (0, step)


@pytest.mark.parametrize("around", [nn.DataParallel, lambda model: torch.compile(model, backend="eager")])
def test_names_are_those_of_the_plain_network(tmp_path, around):
    train(tmp_path, 1, around, images=IMAGES)
    assert set(load_file(tmp_path / "seed_0" / "step_1.safetensors")) == set(Tied().state_dict())


def test_with_several_processes_names_are_those_of_the_plain_network(tmp_path):
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        train(tmp_path, 1, lambda model: nn.parallel.DistributedDataParallel(model, find_unused_parameters=True))
    finally:
        torch.distributed.destroy_process_group()
    assert set(load_file(tmp_path / "seed_0" / "step_1.safetensors")) == set(Tied().state_dict())


def test_of_several_processes_the_first_writes(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    for rank in (1, 0):
        assert not (tmp_path / "seed_0").exists()
        monkeypatch.setattr(torch.distributed, "get_rank", lambda rank=rank: rank)
        train(tmp_path, 1)
    assert (tmp_path / "seed_0" / "step_1.safetensors").exists()


def test_activations_are_those_of_the_checkpoint(tmp_path):
    train(tmp_path, images=IMAGES, taps=["logits", "body.1"])
    kept = xr.combine_by_coords([xr.open_zarr(path / "arrays.zarr") for path in (tmp_path / "seed_0").glob("*.activ*")])
    assert kept["logits"].dims == ("seed", "step", "sample", "logits_feature")
    assert kept["step"].values.tolist() == [0, 1, 2, 4, 8]
    network = Tied()
    network.load_state_dict(load_file(tmp_path / "seed_0" / "step_4.safetensors"))
    with torch.no_grad():
        torch.testing.assert_close(torch.tensor(kept["logits"].sel(seed=0, step=4).values), network.eval()(IMAGES))
        inner = network.body[:2](IMAGES)
    torch.testing.assert_close(torch.tensor(kept["body.1"].sel(seed=0, step=4).values), inner)
    with pytest.raises(UserError, match=r"tap 'body.9': Tied has no such tap"):
        train(tmp_path / "other", images=IMAGES, taps=["body.9"])


def test_a_training_goes_on_and_another_is_refused(tmp_path):
    train(tmp_path, 5)
    folder = tmp_path / "seed_0"
    first = (folder / "step_4.safetensors").read_bytes()
    with pytest.raises(UserError, match=r"seed_0: holds checkpoints of another training, of steps 0 to 4: name anoth"):
        train(tmp_path)
    train(tmp_path, 5, start=3)
    assert (folder / "step_8.safetensors").exists()
    assert (folder / "step_4.safetensors").read_bytes() != first  # made anew, one update after the start
    train(tmp_path, 1, start=8)
    train(tmp_path / "late", 5, start=12)  # one whose beginning nobody recorded
    assert [path.name for path in (tmp_path / "late" / "seed_0").iterdir()] == ["step_16.safetensors"]
    with pytest.raises(UserError, match="of another training, of steps 16 to 16"):
        train(tmp_path / "late", 1, start=3)
    (folder / "step_2.safetensors").write_bytes((tmp_path / "late" / "seed_0" / "step_16.safetensors").read_bytes())
    with pytest.raises(UserError, match="of another training, of steps 0 to 8"):
        train(tmp_path, 1, start=8)


def test_two_trainings_at_once_do_not_mix(tmp_path):
    network = Tied()
    records = [Recorder(network, tmp_path / name) for name in "ab"]
    (tmp_path / "b" / "seed_0").rename(tmp_path / "c")
    (tmp_path / "b").rmdir()
    (tmp_path / "b").symlink_to(tmp_path / "a")
    records[0].step()
    with pytest.raises(UserError, match="step_1.safetensors: another training has written it meanwhile"):
        records[1].step()


def test_a_state_that_is_no_tensor_is_told_before_the_training(tmp_path):
    class Counting(nn.Linear):
        def get_extra_state(self):
            return {"count": 1}

    with pytest.raises(UserError, match=r"_extra_state of Counting is a dict, no plain tensor"):
        phasescope.Recorder(Counting(2, 2), tmp_path)
    assert not list(tmp_path.rglob("*.safetensors"))


def test_updates_can_be_told_by_their_number(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    record = Recorder(nn.Linear(2, 2), "checkpoints/mine", seed=7)
    for reached in (0, 1, 1, 2, 3, 5):
        record.step(reached)
    found = checkpoints.find("mine/seed_{seed}/step_{step}.safetensors")
    assert {seed: list(steps) for seed, steps in found.items()} == {"7": ["0", "1", "2"]}


KILLED = """
import sys, torch, phasescope
network = torch.nn.Sequential(*[torch.nn.Linear(400, 400) for _ in range(8)])
record = phasescope.Recorder(network, sys.argv[1], images=torch.ones(4, 400))
record.step()
print("begun", flush=True)
for power in range(1, 10**6):
    record.step(2**power)
"""


@pytest.mark.slow
def test_killed_at_any_moment_it_leaves_whole_files(tmp_path):
    for trial in range(8):
        process = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path / str(trial))], stdout=subprocess.PIPE)
        process.stdout.readline()
        time.sleep(0.03 + 0.017 * trial)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        folder = tmp_path / str(trial) / "seed_0"
        for file in folder.glob("step_*.safetensors"):
            assert len(load_file(file)) == 16
            xr.open_zarr(file.with_suffix(".activations") / "arrays.zarr").load()
        steps = [int(file.stem.removeprefix("step_")) for file in folder.glob("step_*.safetensors")]
        Recorder(nn.Linear(1, 1), tmp_path / str(trial), start=max(steps)).step()
