"""Weights of others: read without running anything, and fitted by name and shape or refused in one line."""

import copy
import io
import json
import pickle
import struct
import zipfile

import pytest
import torch
from torch import nn

from phasescope.errors import UserError
from phasescope.models.foreign import fitted, read_weights

safetensors = pytest.importorskip("safetensors.torch")


class Malicious:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3))


def same(weights, model) -> bool:
    wanted = model.state_dict()
    return list(weights) == list(wanted) and all(torch.equal(weights[name], wanted[name]) for name in wanted)


def lightning(model, front="network.") -> dict:
    """What Lightning's ModelCheckpoint writes, in its outline."""
    state = {front + name: value for name, value in model.state_dict().items()}
    state["metric.total"] = torch.zeros(())
    return {"epoch": 3, "global_step": 120, "pytorch-lightning_version": "2.5", "state_dict": state, "loops": {}}


@pytest.mark.parametrize(
    "content",
    [
        lambda model: model.state_dict(),
        lambda model: {"step": 3, "model": model.state_dict(), "optimizer": {"lr": 0.1}},
        lambda model: {"model_state_dict": model.state_dict()},
        lambda model: {"module." + name: value for name, value in model.state_dict().items()},
        lambda model: {"_orig_mod." + name: value for name, value in model.state_dict().items()},
        lambda model: {"module._orig_mod." + name: value for name, value in model.state_dict().items()},
        lightning,
        lambda model: lightning(model, "network._orig_mod."),
    ],
)
def test_what_torch_saves_is_read(tmp_path, content):
    model = network()
    torch.save(content(model), tmp_path / "step_1.pt")
    assert same(fitted(read_weights(tmp_path / "step_1.pt"), model, "x"), model)


def test_safetensors_are_read(tmp_path):
    model = network()
    safetensors.save_file(model.state_dict(), tmp_path / "a.safetensors")
    assert same(fitted(read_weights(tmp_path / "a.safetensors"), model, "x"), model)


def test_a_pickle_that_runs_code_is_refused_and_nothing_runs(tmp_path):
    made = tmp_path / "made"
    torch.save({"state_dict": network().state_dict(), "extra": Malicious(made)}, tmp_path / "a.pt")
    (tmp_path / "b.pt").write_bytes(pickle.dumps(Malicious(made)))
    for name in ("a.pt", "b.pt"):
        with pytest.raises(UserError, match=rf"{name}: holds more than weights.*nothing of it was run"):
            read_weights(tmp_path / name)
    assert not made.exists()


@pytest.mark.parametrize("name", ["a.pt", "a.safetensors"])
def test_a_file_that_is_cut_or_absent_is_told(tmp_path, name):
    whole = io.BytesIO()
    torch.save(network().state_dict(), whole)
    data = whole.getvalue() if name == "a.pt" else safetensors.save(network().state_dict())
    for length in (0, 10, len(data) // 2, len(data) - 1):
        (tmp_path / name).write_bytes(data[:length])
        with pytest.raises(UserError, match="may be cut short"):
            read_weights(tmp_path / name)
    with pytest.raises(UserError, match="no such file"):
        read_weights(tmp_path / f"other-{name}")


def test_a_file_that_unpacks_to_more_than_it_is_or_says_so_is_refused(tmp_path):
    torch.save({"a": torch.zeros(1_000_000)}, tmp_path / "plain.pt")
    with zipfile.ZipFile(tmp_path / "plain.pt") as plain:
        parts = {part: plain.read(part) for part in plain.namelist()}
    with zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as bomb:
        for part, content in parts.items():
            bomb.writestr(part, content)
    assert (tmp_path / "bomb.pt").stat().st_size < 10_000
    with pytest.raises(UserError, match=r"bomb.pt: says that it holds 4,00\d,\d+ bytes, more than it is long"):
        read_weights(tmp_path / "bomb.pt")
    for about in ({"shape": [2**40], "data_offsets": [0, 2**42]}, {"shape": [2**40], "data_offsets": [0, 4]}):
        header = json.dumps({"a": {"dtype": "F32", **about}}).encode()
        (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + b"\0\0\0\0")
        with pytest.raises(UserError, match="a.safetensors: cannot be read as safetensors"):
            read_weights(tmp_path / "a.safetensors")
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", 2**60) + b"{}")
    with pytest.raises(UserError, match="a.safetensors: cannot be read as safetensors"):
        read_weights(tmp_path / "a.safetensors")


def test_a_tensor_that_is_larger_than_what_is_stored_of_it_is_of_no_network(tmp_path):
    weights = network().state_dict()
    torch.save({**weights, "3.bias": torch.zeros(1).expand(2**40)}, tmp_path / "a.pt")
    with pytest.raises(UserError, match=r"of another shape: 3.bias \(1099511627776,\) instead of \(3,\)"):
        fitted(read_weights(tmp_path / "a.pt"), network(), "a.pt")


def test_numbers_are_of_a_kind_that_loses_nothing(tmp_path):
    model = network()
    for dtype in (torch.float16, torch.bfloat16):
        torch.save(copy.deepcopy(model).to(dtype).state_dict(), tmp_path / "a.pt")
        other = network()
        other.load_state_dict(fitted(read_weights(tmp_path / "a.pt"), other, "a.pt"))
        assert all(weight.dtype == torch.float32 for weight in other.parameters())
        assert torch.equal(other[3].weight, model[3].weight.to(dtype).float())
    for value, told in ((model[3].bias.double(), "float64"), (torch.zeros(3, dtype=torch.int8), "int8")):
        with pytest.raises(
            UserError, match=f"a.pt: not of this network: of another kind: 3.bias {told} instead of float32"
        ):
            fitted({**model.state_dict(), "3.bias": value}, model, "a.pt")
    wide = copy.deepcopy(model).double()
    assert same(fitted(wide.state_dict(), wide, "a.pt"), wide)


def test_tensors_of_a_gpu_are_read_without_one(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.serialization, "location_tag", lambda storage: "cuda:3")
    model = network()
    torch.save(model.state_dict(), tmp_path / "a.pt")
    weights = fitted(read_weights(tmp_path / "a.pt"), model, "a.pt")
    assert same(weights, model)
    assert all(value.device.type == "cpu" for value in weights.values())


def test_a_module_may_be_called_like_a_wrapper():
    class Holder(nn.Module):
        def __init__(self):
            super().__init__()
            self.module = network()
            self.head = nn.Linear(3, 2)

    model = Holder()
    for front in ("", "module.", "_orig_mod.", "model."):
        assert same(fitted({front + name: value for name, value in model.state_dict().items()}, model, "x"), model)


def test_what_holds_no_weights_is_told(tmp_path):
    for content, told in (([1, 2], "holds a list, not weights"), ({"epoch": 3}, "no weights in it")):
        torch.save(content, tmp_path / "a.pt")
        with pytest.raises(UserError, match=told):
            read_weights(tmp_path / "a.pt")


def test_weights_of_another_network_are_told_by_name():
    model, weights = network(), network().state_dict()
    weights["4.weight"] = weights.pop("3.bias")
    weights["0.weight"] = torch.zeros(2, 3, 3, 3)
    with pytest.raises(UserError) as told:
        fitted(weights, model, "a.pt")
    assert str(told.value) == (
        "a.pt: not of this network: missing: 3.bias; not in the network: 4.weight; "
        "of another shape: 0.weight (2, 3, 3, 3) instead of (2, 1, 3, 3)"
    )


def test_a_pickle_damaged_anywhere_is_told_in_a_line(tmp_path):
    path = tmp_path / "old.pt"
    torch.save({"a": torch.arange(3.0)}, path, _use_new_zipfile_serialization=False)
    whole = path.read_bytes()
    damaged = [whole[:length] for length in (1, 18, 72)]
    damaged += [whole[:at] + bytes([whole[at] ^ 255]) + whole[at + 1 :] for at in range(20, 200, 20)]
    told = []
    for content in damaged:
        path.write_bytes(content)
        try:
            read_weights(path)  # a flipped bit may be in a number
        except UserError as error:
            told.append(str(error))
    assert len(told) > 3
    assert not any("\n" in one for one in told)
