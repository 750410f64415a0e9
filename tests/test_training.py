"""Training is reproducible, goes on where it was killed, and is not disturbed by being looked at."""

import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from scipy.special import log_softmax
from torch.nn import functional

from phasescope import activations, training
from phasescope.compute import Compute
from phasescope.data.dataset import Dataset, standardised
from phasescope.errors import UserError
from phasescope.models import state
from phasescope.models.zoo import build
from phasescope.params.activations import ActivationsSettings, Tap
from phasescope.params.models import ModelSettings
from phasescope.schedule import checkpoint_steps
from phasescope.store import arrays, manifest
from phasescope.store.datasets import read_dataset, write_dataset
from phasescope.training import batches, write_curves
from small import JOB, ONE, cache_of, few_digits, train

VGG = JOB.model_copy(update={"iterations": 40})
F0 = VGG.model_copy(update={"model": ModelSettings(name="f0"), "learning_rate": 0.001})
ADAMW = F0.model_copy(
    update={"optimiser": "adamw", "learning_rate": 0.003, "weight_decay": 1.0, "warmup": 10, "evaluate_every": 5}
)


@pytest.fixture(scope="module")
def small() -> Dataset:
    return few_digits()


@pytest.fixture(scope="module")
def prepared(small, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("data") / "d"
    write_dataset(path, small, {})
    return path


@pytest.fixture(scope="module")
def trained(prepared, tmp_path_factory) -> Path:
    target = tmp_path_factory.mktemp("run") / "train"
    train(VGG, prepared, target, ONE, "vgg")
    return target


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_checkpoints_are_at_0_and_the_powers_of_two():
    assert checkpoint_steps(1) == [0, 1]
    assert checkpoint_steps(64) == [0, 1, 2, 4, 8, 16, 32, 64]
    assert checkpoint_steps(100) == [0, 1, 2, 4, 8, 16, 32, 64]


def drawn(samples, batch_size, start, end, sampling="epochs"):
    """The batches of updates `start` to `end`."""
    job = VGG.model_copy(update={"batch_size": batch_size, "iterations": end, "sampling": sampling})
    return list(batches(job, 7, samples, start))


def test_with_replacement_samples_come_back():
    counts = np.bincount(np.concatenate(drawn(50, 16, 0, 1000, "replacement")), minlength=50)
    # Each of 16,000 draws is one of 50 samples: 320 ± 18 of each, all within five standard deviations.
    assert np.abs(counts - 320).max() < 90
    assert all(len(batch) == 16 for batch in drawn(50, 16, 0, 4, "replacement"))
    assert any(len(set(batch.tolist())) < 16 for batch in drawn(50, 16, 0, 10, "replacement"))


def test_each_epoch_visits_every_sample_once_in_an_order_of_its_own():
    epochs = [np.concatenate(drawn(50, 16, start, start + 4)) for start in (0, 4)]
    for epoch in epochs:
        assert sorted(epoch) == list(range(50))
    assert not np.array_equal(*epochs)
    assert [len(batch) for batch in drawn(50, 16, 0, 4)] == [16, 16, 16, 2]


def test_a_sample_left_over_alone_joins_the_batch_before_it():
    assert [len(batch) for batch in drawn(49, 16, 0, 4)] == [16, 16, 17, 16]
    assert [len(batch) for batch in drawn(3, 1, 0, 4)] == [1, 1, 1, 1]
    assert [len(batch) for batch in drawn(3, 100, 0, 2)] == [3, 3]


@pytest.mark.parametrize("sampling", ["epochs", "replacement"])
def test_any_step_can_be_found_again(sampling):
    whole = drawn(50, 16, 0, 20, sampling)
    for step, batch in enumerate(drawn(50, 16, 9, 20, sampling), start=9):
        np.testing.assert_array_equal(batch, whole[step])


def test_the_same_seed_gives_the_same_bytes(trained, prepared, tmp_path):
    train(VGG, prepared, tmp_path / "again", ONE, "vgg")
    assert contents(tmp_path / "again") == contents(trained)


def test_several_processes_give_the_same_bytes_as_one(trained, prepared, tmp_path):
    train(VGG, prepared, tmp_path / "parallel", replace(ONE, workers=2), "vgg")
    assert contents(tmp_path / "parallel") == contents(trained)


def test_looking_at_the_network_does_not_disturb_its_training(trained, small):
    """The reference is a bare loop that never stops to look: same weights, bit for bit, at the end."""
    torch.set_num_threads(1)
    torch.manual_seed(3)
    network = build(VGG.model, 1, 16, 10).to(memory_format=torch.channels_last).train()
    optimiser = torch.optim.SGD(network.parameters(), lr=VGG.learning_rate, momentum=VGG.momentum)
    samples = np.flatnonzero(small.train)
    images = torch.from_numpy(standardised(small, samples)).to(memory_format=torch.channels_last)
    labels = torch.from_numpy(small.labels[samples])
    losses = []
    for batch in batches(VGG.model_copy(update={"iterations": 32}), 3, len(samples), 0):
        optimiser.zero_grad()
        loss = functional.cross_entropy(network(images[batch]), labels[batch])
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    stored = xr.open_zarr(trained / arrays.GROUP, chunks=None)
    np.testing.assert_array_equal(stored["weights"].sel(seed=3, step=32).values, state.flatten(network).numpy())
    np.testing.assert_array_equal(stored["loss"].sel(seed=3).values[:32], np.array(losses, np.float32))


def test_momentum_and_weight_decay_reach_the_optimiser(prepared, tmp_path):
    weights = {}
    for name, change in [("plain", {"momentum": 0.0}), ("momentum", {}), ("decay", {"weight_decay": 1.0})]:
        train(F0.model_copy(update=change), prepared, tmp_path / name, ONE, name)
        weights[name] = xr.open_zarr(tmp_path / name / arrays.GROUP, chunks=None)["weights"].sel(seed=3)
    for name in ("momentum", "decay"):
        np.testing.assert_array_equal(weights["plain"].sel(step=0), weights[name].sel(step=0))
        assert not np.allclose(weights["plain"].sel(step=32), weights[name].sel(step=32), atol=1e-5)
    assert np.abs(weights["decay"].sel(step=32)).mean() < np.abs(weights["momentum"].sel(step=32)).mean()


def test_adamw_is_that_of_torch_with_a_linear_warm_up(prepared, small, tmp_path):
    train(ADAMW, prepared, tmp_path / "adamw", ONE, "adamw")
    torch.manual_seed(3)
    network = build(ADAMW.model, 1, 16, 10).train()
    optimiser = torch.optim.AdamW(network.parameters(), lr=0.003, betas=(0.9, 0.98), weight_decay=1.0)
    schedule = torch.optim.lr_scheduler.LinearLR(optimiser, 1 / 10, 1, total_iters=9)
    samples = np.flatnonzero(small.train)
    images = torch.from_numpy(standardised(small, samples)).to(memory_format=torch.channels_last)
    labels = torch.from_numpy(small.labels[samples])
    for batch in batches(ADAMW.model_copy(update={"iterations": 32}), 3, len(samples), 0):
        optimiser.zero_grad()
        functional.cross_entropy(network(images[batch]), labels[batch]).backward()
        optimiser.step()
        schedule.step()
    stored = xr.open_zarr(tmp_path / "adamw" / arrays.GROUP, chunks=None)["weights"].sel(seed=3, step=32)
    # The rates of the two schedules differ in their last digit.
    np.testing.assert_allclose(stored, state.flatten(network), rtol=0, atol=1e-6)


def test_loss_and_accuracy_are_looked_at_as_often_as_asked(prepared, small, tmp_path):
    train(ADAMW, prepared, tmp_path / "often", ONE, "often")
    write_curves("often", tmp_path / "often", tmp_path / "curves")
    curves = xr.open_zarr(tmp_path / "curves" / arrays.GROUP, chunks=None)
    steps = [0, 1, 2, 4, 5, 8, 10, 15, 16, 20, 25, 30, 32, 35, 40]
    assert curves.step.values.tolist() == steps
    assert curves["test_loss"].dims == ("seed", "step")
    stored = xr.open_zarr(tmp_path / "often" / arrays.GROUP, chunks=None)
    network = build(ADAMW.model, 1, 16, 10)
    for seed, step in ((3, 0), (5, 16), (5, 32)):
        weights = torch.from_numpy(stored["weights"].sel(seed=seed, step=step).values)
        state.unflatten(network, weights, state.table(network))
        for part, chosen in (("train", small.train), ("test", ~small.train)):
            logits = network(torch.from_numpy(standardised(small, np.flatnonzero(chosen))))
            labels = torch.from_numpy(small.labels[chosen])
            found = curves.sel(seed=seed, step=step)
            loss, accuracy = functional.cross_entropy(logits, labels), (logits.argmax(1) == labels).double().mean()
            assert found[f"{part}_loss"].item() == pytest.approx(loss.item(), rel=1e-5)
            assert found[f"{part}_accuracy"].item() == pytest.approx(accuracy.item(), abs=1e-12)
    assert manifest.read(tmp_path / "curves", "training").extra["inputs"].keys() == {"runs/often/train"}


def test_the_hinge_loss_is_what_is_minimised_logged_and_recorded(prepared, tmp_path):
    logits = ActivationsSettings(taps=[Tap(name="logits")], dtype="float32")
    stores, trained = {}, {}
    cache = cache_of(tmp_path / "both")
    for loss in ("hinge", "cross-entropy"):
        job = F0.model_copy(update={"loss": loss, "seeds": [3]})
        folder = tmp_path / loss
        train(job, prepared, folder / "train", ONE, "f0")
        paths = (prepared, folder / "train", folder / "activations")
        activations.record(job, logits, *paths, ONE, "f0", cache)
        trained[loss] = xr.open_zarr(folder / "train" / arrays.GROUP, chunks=None).sel(seed=3)
        stores[loss] = xr.open_zarr(folder / "activations" / arrays.GROUP, chunks=None).sel(seed=3)

    hinge = stores["hinge"].isel(sample=stores["hinge"]["split"].values == "test")
    outputs, rows, labels = hinge["logits"].sel(step=32).values, np.arange(43), hinge["label"].values
    margins = np.maximum(0, 1 - outputs[rows, labels][:, None] + outputs)
    margins[rows, labels] = 0
    reference = pytest.approx(margins.sum(axis=1).mean() / 10, rel=1e-5)
    assert hinge["loss"].sel(step=32, part="test").item() == reference
    assert trained["hinge"]["test_loss"].sel(evaluation=32).item() == reference
    assert trained["hinge"]["test_loss"].sel(evaluation=32) < trained["hinge"]["test_loss"].sel(evaluation=0)

    # At step 0 both have the same weights, and a loss of their own.
    np.testing.assert_array_equal(stores["hinge"]["logits"].sel(step=0), stores["cross-entropy"]["logits"].sel(step=0))
    nats = -log_softmax(hinge["logits"].sel(step=0).values, axis=1)[rows, labels].mean()
    recorded = stores["cross-entropy"]["loss"]
    assert recorded.sel(step=0, part="test").item() == pytest.approx(nats, rel=1e-5)
    assert [store["loss"].attrs["units"] for store in stores.values()] == ["1", "nat"]
    assert [log["loss"].attrs["units"] for log in trained.values()] == ["1", "nat"]


def test_the_store_says_what_it_holds(trained):
    stored = xr.open_zarr(trained / arrays.GROUP, chunks=None)
    assert stored["weights"].dims == ("seed", "step", "parameter")
    assert stored["step"].values.tolist() == checkpoint_steps(40)
    assert stored["seed"].values.tolist() == [3, 5]
    assert stored["loss"].dims == stored["accuracy"].dims == ("seed", "iteration")
    assert stored.sizes["iteration"] == 40
    assert not np.isnan(stored["test_accuracy"]).any()
    read = manifest.read(trained, "train")
    assert read.extra["weights"].keys() == {"3", "5"}
    assert len(set(read.extra["weights"]["3"].values())) == 7
    # One file for each checkpoint's weights, few for everything else.
    shards = [name for name in read.files if name.startswith(f"{arrays.GROUP}/weights/c.")]
    assert len(shards) == 2 * 7
    assert len(read.files) < len(shards) + 36


def test_training_learns(prepared, tmp_path):
    job = F0.model_copy(update={"iterations": 256, "seeds": [0]})
    train(job, prepared, tmp_path / "run", ONE, "f0")
    stored = xr.open_zarr(tmp_path / "run" / arrays.GROUP, chunks=None)
    assert stored["test_accuracy"].values[0, 0] < 0.35
    assert stored["test_accuracy"].values[0, -1] > 0.7


class StopHereError(Exception):
    pass


@pytest.mark.parametrize(
    "job", [VGG, VGG.model_copy(update={"momentum": 0.0}), ADAMW], ids=["momentum", "plain", "adamw"]
)
@pytest.mark.parametrize("stop", [0, 1, 5, 32, 39])
def test_an_interrupted_training_ends_in_the_same_bytes(job, stop, prepared, trained, tmp_path, monkeypatch):
    """Interrupted in the second seed, at a step where it has saved and one where it has not since a while."""
    if job is not VGG:
        train(job, prepared, tmp_path / "whole", ONE, "vgg")
        trained = tmp_path / "whole"
    update = training._SeedTraining.update

    def interrupt(self, batch):
        if self.seed == 5 and self.step == stop:
            raise StopHereError
        update(self, batch)

    with monkeypatch.context() as patch, pytest.raises(StopHereError):
        patch.setattr(training._SeedTraining, "update", interrupt)
        train(job, prepared, tmp_path / "run", ONE, "vgg")
    assert not (tmp_path / "run").exists()
    made = []
    monkeypatch.setattr(
        training._SeedTraining, "update", lambda self, batch: made.append(self.seed) or update(self, batch)
    )
    train(job, prepared, tmp_path / "run", ONE, "vgg")
    assert set(made) <= {5}  # the first seed was finished
    assert len(made) <= 40 - (1 << stop.bit_length() >> 1)  # goes on from the last checkpoint at the latest
    assert contents(tmp_path / "run") == contents(trained)
    assert not (tmp_path / ".scratch").exists()


TRAIN = """
import sys
from pathlib import Path
from phasescope.compute import Compute
from phasescope.params.train import TrainJob
from phasescope.store.cache import CellCache
from phasescope.training import train
if __name__ == "__main__":
    job, dataset, target, threads, workers = sys.argv[1:]
    where = Compute("cpu", int(threads), int(workers))
    cache = CellCache(Path(target).parent / "cache" / Path(target).name, "code")
    train(TrainJob.model_validate_json(job), Path(dataset), Path(target), where, "x", cache)
"""


def test_a_killed_training_ends_in_the_same_bytes(prepared, trained, tmp_path):
    """SIGKILL of the process that trains, with two workers, wherever it happens to be."""
    job = VGG.model_copy(update={"iterations": 512})
    target = tmp_path / "run"
    arguments = [sys.executable, "-c", TRAIN, job.model_dump_json(), str(prepared), str(target), "1", "2"]
    child = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("cache/run/train-states/*/*")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(0.5)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert not target.exists()
    # The workers end with it, as soon as they are given a turn: nobody goes on writing beside the next attempt.
    before, deadline = {}, time.monotonic() + 10
    while sizes(tmp_path) != before:
        assert time.monotonic() < deadline
        before = sizes(tmp_path)
        time.sleep(1.0)
    train(job, prepared, target, ONE, "vgg")
    train(job, prepared, tmp_path / "whole", ONE, "vgg")
    assert contents(target) == contents(tmp_path / "whole")


def sizes(folder: Path) -> dict[str, int]:
    return {str(p): p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}


def test_a_checkpoint_lost_in_a_crash_is_made_again(prepared, trained, tmp_path, monkeypatch):
    update = training._SeedTraining.update

    def interrupt(self, batch):
        if self.seed == 5 and self.step == 20:
            raise StopHereError
        update(self, batch)

    with monkeypatch.context() as patch, pytest.raises(StopHereError):
        patch.setattr(training._SeedTraining, "update", interrupt)
        train(VGG, prepared, tmp_path / "run", ONE, "vgg")
    shards = sorted(tmp_path.glob("cache/run/train-weights/*/*"))
    assert len(shards) == 7 + 6
    for shard in shards[::3]:
        shard.write_bytes(shard.read_bytes()[:-1])
    train(VGG, prepared, tmp_path / "run", ONE, "vgg")
    assert contents(tmp_path / "run") == contents(trained)


def test_two_threads_train_narrow_residual_networks(prepared, tmp_path):
    """A strided 1×1 convolution of few channels crashed the process in its backward pass."""
    job = VGG.model_copy(update={"model": ModelSettings(name="resnet10", width=0.125), "seeds": [0], "iterations": 16})
    arguments = [job.model_dump_json(), str(prepared), str(tmp_path / "run"), "2", "1"]
    subprocess.run([sys.executable, "-c", TRAIN, *arguments], check=True, capture_output=True)


def test_a_diverging_training_says_so(prepared, tmp_path):
    job = VGG.model_copy(update={"learning_rate": 1000.0})
    with pytest.raises(
        UserError, match=r"seed 3 diverged before step \d+: .* lower train.learning_rate \(now 1000.0\)"
    ):
        train(job, prepared, tmp_path / "run", ONE, "vgg")
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_the_same_curves(prepared, trained, tmp_path):
    train(VGG, prepared, tmp_path / "gpu", Compute("cuda", 1, 1), "vgg")
    here, there = (xr.open_zarr(path / arrays.GROUP, chunks=None) for path in (trained, tmp_path / "gpu"))
    np.testing.assert_array_equal(here["weights"].sel(step=0), there["weights"].sel(step=0))
    np.testing.assert_allclose(here["weights"].sel(step=32), there["weights"].sel(step=32), atol=1e-2)
    np.testing.assert_allclose(here["loss"], there["loss"], rtol=1e-2, atol=1e-3)


def test_the_dataset_comes_back_as_it_was(prepared, small):
    back = read_dataset(prepared)
    for field in ("images", "labels", "train", "mean", "std"):
        np.testing.assert_array_equal(getattr(back, field), getattr(small, field))
    assert back.classes == small.classes
