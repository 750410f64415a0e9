"""The callback in real trainings of Lightning: the same weights as a plain loop, and nothing disturbed."""

import warnings

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from phasescope.errors import UserError
from phasescope.recorder import Recorder

with warnings.catch_warnings(action="ignore"):
    lightning = pytest.importorskip("lightning.pytorch")
    import pytorch_lightning

    from phasescope.lightning import LightningRecorder

pytestmark = pytest.mark.filterwarnings("ignore::Warning")  # Lightning has many, of workers, loggers and its own parts

IMAGES = torch.rand(20, 6, generator=torch.Generator().manual_seed(1))
LABELS = torch.arange(20) % 3


def network() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Dropout(0.5), nn.Linear(5, 3))


def batches() -> DataLoader:
    return DataLoader(TensorDataset(IMAGES, LABELS), batch_size=4, shuffle=True)


def module(package):
    class Module(package.LightningModule):
        def __init__(self):
            super().__init__()
            self.network = network()

        def training_step(self, batch, _):
            return nn.functional.cross_entropy(self.network(batch[0]), batch[1])

        def configure_optimizers(self):
            return torch.optim.SGD(self.network.parameters(), 0.1, 0.9)

    return Module()


def fit(folder, package=lightning, callbacks=(), epochs=2, resumed=None, **given):
    quiet = dict.fromkeys(("logger", "enable_progress_bar", "enable_model_summary", "enable_checkpointing"), False)
    trainer = package.Trainer(
        accelerator="cpu", max_epochs=epochs, callbacks=[*callbacks], default_root_dir=folder, **quiet, **given
    )
    made = module(package)
    trainer.fit(made, batches(), ckpt_path=resumed)
    return trainer, made.network.state_dict(), torch.get_rng_state()


def same(left, right) -> bool:
    return list(left) == list(right) and all(torch.equal(left[name], right[name]) for name in left)


@pytest.mark.parametrize("package", [lightning, pytorch_lightning])
def test_weights_are_those_of_a_plain_loop_and_the_training_is_as_without(tmp_path, package):
    record = LightningRecorder(tmp_path / "mine", seed=4, network="network", images=IMAGES[:2], taps=["logits"])
    _, weights, state = fit(tmp_path, package, [record])
    _, without, its_state = fit(tmp_path, package)
    assert same(weights, without)
    assert torch.equal(state, its_state)

    plain = network()
    optimiser = torch.optim.SGD(plain.parameters(), 0.1, 0.9)
    record = Recorder(plain, tmp_path / "plain", seed=4)
    for _ in range(2):
        for images, labels in batches():
            optimiser.zero_grad()
            nn.functional.cross_entropy(plain(images), labels).backward()
            optimiser.step()
            record.step()
    files = {path.name: load_file(path) for path in (tmp_path / "mine" / "seed_4").glob("*.safetensors")}
    assert sorted(files) == [f"step_{step}.safetensors" for step in (0, 1, 2, 4, 8)]
    for name, found in files.items():
        assert same(found, load_file(tmp_path / "plain" / "seed_4" / name)), name
    assert same(weights, plain.state_dict())


def test_the_step_is_that_of_the_trainer(tmp_path):
    """Two batches an update, and a training that goes on from a checkpoint of Lightning."""
    trainer, *_ = fit(tmp_path, callbacks=[LightningRecorder(tmp_path / "mine")], epochs=2, accumulate_grad_batches=2)
    assert trainer.global_step == 6
    folder = tmp_path / "mine" / "seed_0"
    steps = {int(path.stem.removeprefix("step_")) for path in folder.glob("*.safetensors")}
    assert steps == {0, 1, 2, 4}
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    again = LightningRecorder(tmp_path / "mine")
    fit(tmp_path, callbacks=[again], epochs=3, resumed=tmp_path / "last.ckpt", accumulate_grad_batches=2)
    assert {path.stem for path in folder.glob("*.safetensors")} == {f"step_{step}" for step in (0, 1, 2, 4, 8)}
    assert set(load_file(folder / "step_8.safetensors")) == {f"network.{name}" for name in network().state_dict()}
    with pytest.raises(UserError, match="holds checkpoints of another training"):
        fit(tmp_path, callbacks=[LightningRecorder(tmp_path / "mine")])
