"""Activations are those of the stored networks, labelled, resumable, and open with any reader."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tensorstore
import torch
import xarray as xr

import phasescope
from phasescope import activations
from phasescope.activations import calibration_samples, kept_samples
from phasescope.compute import Compute
from phasescope.data.dataset import Dataset, standardised
from phasescope.errors import UserError
from phasescope.measures import cells
from phasescope.measures.decode import decode
from phasescope.params.activations import ActivationsSettings
from phasescope.params.decode import DecodeSettings
from phasescope.params.models import ModelSettings
from phasescope.store import arrays, manifest
from phasescope.store.datasets import write_dataset
from phasescope.store.manifest import StoreError
from phasescope.store.run import StoredRun
from small import JOB, ONE, cache_of, few_digits, record, train

TAPS = ["softmax", "logits", "predense", {"name": "conv-2", "pool": 1}, "blocks.1.0"]


def settings(**changes):
    return ActivationsSettings.model_validate({"taps": TAPS, "dtype": "float32", **changes})


@pytest.fixture(scope="module")
def small() -> Dataset:
    return few_digits()


@pytest.fixture(scope="module")
def project(small, tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("project")
    write_dataset(root / "datasets" / "d", small, {})
    train(JOB, root / "datasets" / "d", root / "runs" / "r" / "train", ONE, "r")
    record_to(root, "activations", settings())
    return root


def record_to(root: Path, name: str, chosen: ActivationsSettings, compute: Compute = ONE) -> Path:
    run = root / "runs" / "r"
    record(JOB, chosen, root / "datasets" / "d", run / "train", run / name, compute, "r")
    return run / name


@pytest.fixture
def run(project):
    return phasescope.open_run(project / "runs" / "r")


def images_of(small, run):
    return torch.from_numpy(standardised(small, run.recorded["index"].values))


@pytest.mark.parametrize("step", [0, 1, 16])
def test_the_model_of_a_run_gives_its_activations_again(run, small, step):
    network = run.model(seed=5, step=step)
    assert not network.training
    with torch.no_grad():
        logits = network(images_of(small, run))
    stored = run.activations("logits").sel(seed=5, step=step)
    np.testing.assert_allclose(logits, stored.values, rtol=1e-4, atol=1e-5)
    stored = run.activations("softmax").sel(seed=5, step=step)
    np.testing.assert_allclose(logits.softmax(1), stored.values, rtol=1e-4, atol=1e-6)


def test_accuracy_and_loss_are_those_of_the_stored_logits(run):
    recorded = run.recorded
    logits = run.activations("logits")
    hits = (logits.argmax("feature") == logits["label"]).values
    for part in ("train", "test"):
        inside = (recorded["split"] == part).values
        np.testing.assert_allclose(recorded["accuracy"].sel(part=part), hits[:, :, inside].mean(-1))
        z = logits.values[:, :, inside].astype(float)
        labels = recorded["label"].values[inside]
        losses = np.log(np.exp(z).sum(-1)) - np.take_along_axis(z, labels[None, None, :, None], -1)[..., 0]
        np.testing.assert_allclose(recorded["loss"].sel(part=part), losses.mean(-1), rtol=1e-5)


def test_activations_are_labelled(run, small):
    tap = run.activations("conv-2")
    assert tap.dims == ("seed", "step", "sample", "feature")
    assert tap["step"].values.tolist() == [0, 1, 2, 4, 8, 16]
    assert set(tap["split"].values) == {"train", "test"}
    np.testing.assert_array_equal(tap["label"], small.labels[tap["index"].values])
    assert tap.attrs["feature_shape"] == [13, 1, 1]
    assert run.taps == ["softmax", "logits", "predense", "conv-2", "blocks.1.0"]
    with pytest.raises(StoreError, match=r"no tap 'conv-3' is kept; there are softmax, logits"):
        run.activations("conv-3")


def test_nothing_is_read_before_it_is_asked_for(run):
    lazy = run.activations("logits").sel(seed=3, step=4)
    assert not lazy.variable._in_memory
    assert lazy.load().variable._in_memory


def test_any_reader_opens_the_store(project):
    path = project / "runs" / "r" / "activations" / arrays.GROUP
    plain = xr.open_zarr(path)
    assert plain["predense"].dims == ("seed", "step", "sample", "predense_feature")
    assert {"label", "split", "index"} <= set(plain.coords)
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(path / "predense")}}
    array = tensorstore.open(spec).result()
    assert array.domain.labels == ("seed", "step", "sample", "predense_feature")
    np.testing.assert_array_equal(array[1, 2].read().result(), plain["predense"].values[1, 2])


def test_the_store_is_one_file_per_cell_and_few_others(project):
    read = manifest.read(project / "runs" / "r" / "activations", "activations")
    assert len([name for name in read.files if "/c." in name]) < 2 * 6 * 5 + 15
    assert not (project / "runs" / "r" / ".scratch").exists()


def test_a_run_of_3_seeds_14_steps_and_4_taps_is_few_files(project):
    job = JOB.model_copy(update={"seeds": [0, 1, 2], "iterations": 4096, "model": ModelSettings(name="f0")})
    chosen = settings(taps=["softmax", "logits", "predense", "head"])
    data, run = project / "datasets" / "d", project / "runs" / "long"
    train(job, data, run / "train", ONE, "long")
    record(job, chosen, data, run / "train", run / "activations", ONE, "long")
    stored = StoredRun("long", project)
    assert stored.recorded.sizes["step"] == 14
    measured = cells.measure(stored, "decode", decode, DecodeSettings(), cache_of(project / "decode"))
    stored.write_measure("decode", measured.result, DecodeSettings().model_dump(), measured.cached)
    results, *stores = (contents(path) for path in (project / "results" / "long", run / "train", run / "activations"))
    # The other two measures keep as few files as this one.
    assert sum(map(len, stores)) + 3 * len(results) < 400


def test_several_processes_give_the_same_bytes_as_one(project):
    path = record_to(project, "parallel", settings(), replace(ONE, workers=2))
    assert contents(path) == contents(project / "runs" / "r" / "activations")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_an_interrupted_recording_goes_on_and_ends_in_the_same_bytes(project, monkeypatch):
    forward, calls = activations.forward, []

    def interrupted(*arguments):
        calls.append(1)
        if len(calls) == 9:
            raise KeyboardInterrupt
        return forward(*arguments)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(activations, "forward", interrupted)
        record_to(project, "resumed", settings())
    assert not (project / "runs" / "r" / "resumed").exists()
    calls.clear()
    monkeypatch.setattr(activations, "forward", lambda *a: calls.append(1) or forward(*a))
    path = record_to(project, "resumed", settings())
    assert len(calls) == 2 * 6 - 8
    assert contents(path) == contents(project / "runs" / "r" / "activations")


def test_batchnorm_modes_differ_early_and_say_what_they_are(project, run, small):
    """Eval mode uses running statistics, which at step 0 are still mean 0 and variance 1."""
    opened = {}
    for mode in ("recalibrated", "eval", "batch"):
        path = record_to(project, f"mode-{mode}", settings(batchnorm=mode))
        opened[mode] = xr.open_zarr(path / arrays.GROUP)
    at_0 = {mode: dataset["predense"].sel(seed=3, step=0).values for mode, dataset in opened.items()}
    assert not np.allclose(at_0["eval"], at_0["recalibrated"], rtol=0.1)
    # On average, the statistics of batches are nearly those of all images; of each batch, they are noisy.
    np.testing.assert_allclose(at_0["batch"].mean(), at_0["recalibrated"].mean(), rtol=0.1)
    assert not np.allclose(at_0["batch"], at_0["recalibrated"], rtol=0.1)
    table = opened["eval"]["batchnorm"].attrs["table"]
    statistics = opened["eval"]["batchnorm"].sel(seed=3, step=0).values
    for entry in table:
        part = statistics[entry["offset"] : entry["offset"] + entry["length"]]
        assert (part == (1 if entry["name"].endswith("var") else 0)).all()
    assert np.isnan(opened["batch"]["batchnorm"]).all()


def test_statistics_of_batches_never_mix_training_and_test_images(project):
    """Else a test image's activations would depend on the training images that happen to be in its batch."""
    few, many = (
        xr.open_zarr(
            record_to(project, f"batch-{samples}", settings(batchnorm="batch", train_samples=samples)) / arrays.GROUP
        )
        for samples in (40, 120)
    )
    np.testing.assert_array_equal(
        few["predense"].values[:, :, few["split"].values == "test"],
        many["predense"].values[:, :, many["split"].values == "test"],
    )


@pytest.mark.parametrize("mode", ["batch", "eval"])
def test_the_model_follows_the_batchnorm_mode(project, small, mode, tmp_path):
    root = tmp_path
    (root / "datasets").mkdir()
    (root / "datasets" / "d").symlink_to(project / "datasets" / "d")
    (root / "runs" / "r").mkdir(parents=True)
    (root / "runs" / "r" / "train").symlink_to(project / "runs" / "r" / "train")
    record_to(root, "activations", settings(batchnorm=mode))
    run = phasescope.open_run(root / "runs" / "r")
    images, network = images_of(small, run), run.model(seed=3, step=8)
    # In batches of as many images as in training, training and test images apart, in the order that is always the same.
    parts = [
        rows
        for kept in (run.recorded["split"].values == name for name in ("train", "test"))
        for rows in np.array_split(
            np.random.default_rng(2).permutation(np.flatnonzero(kept)), -(-kept.sum() // JOB.batch_size)
        )
    ]
    logits = np.empty((len(images), 10), np.float32)
    with torch.no_grad():
        for rows in parts:
            logits[rows] = network(images[rows])
    np.testing.assert_allclose(logits, run.activations("logits").sel(seed=3, step=8).values, rtol=1e-3, atol=1e-4)


def test_kept_samples_are_bounded_and_the_same_for_every_run(small):
    few = kept_samples(small, 50, 7)
    assert small.train[few].sum() == 50
    assert (~small.train[few]).sum() == 7
    np.testing.assert_array_equal(few, kept_samples(small, 50, 7))
    np.testing.assert_array_equal(kept_samples(small, 10_000, None), np.arange(len(small.labels)))
    assert small.train[calibration_samples(small, settings())].all()


def test_float16_is_a_rounding_of_float32(project, run):
    half = xr.open_zarr(record_to(project, "half", settings(dtype="float16")) / arrays.GROUP)
    assert half["predense"].dtype == np.float16
    np.testing.assert_array_equal(half["predense"].values, run.activations("predense").values.astype(np.float16))


def test_values_too_large_for_the_dtype_are_refused(project, monkeypatch):
    large = settings(dtype="float16", taps=["logits"])
    with (
        monkeypatch.context() as patch,
        pytest.raises(UserError, match=r"tap 'logits' at seed 3, step 0 reaches .* set activations.dtype to float32"),
    ):
        patch.setattr(activations.state, "unflatten", lambda network, *_: network.head.weight.data.fill_(1e9))
        record_to(project, "large", large)


def test_a_training_with_other_settings_or_other_data_is_refused(project, small, tmp_path):
    run = project / "runs" / "r"
    other = JOB.model_copy(update={"learning_rate": 0.02})
    with pytest.raises(StoreError, match=r"learning_rate is 0.01 there and 0.02 in params.yaml"):
        record(other, settings(), project / "datasets" / "d", run / "train", run / "other", ONE, "r")
    fewer = replace(small, labels=small.labels[::-1].copy())
    write_dataset(tmp_path / "d", fewer, {})
    with pytest.raises(StoreError, match="was made with another dataset than"):
        record(JOB, settings(), tmp_path / "d", run / "train", run / "other", ONE, "r")


def test_a_measure_is_kept_and_opened_on_seed_step_layer(project, run, small):
    stored = StoredRun("r", project)
    samples = cells.samples_of(stored)
    assert samples.inputs.shape == (173, 256)
    measured = cells.measure(stored, "decode", decode, DecodeSettings(), cache_of(project / "decode"))
    stored.write_measure("decode", measured.result, DecodeSettings().model_dump(), measured.cached)
    back = run.measure("decode")
    assert back["test_mse"].dims == ("seed", "step", "layer")
    assert list(back["layer"].values) == run.taps
    assert back["error"].dims == ("seed", "step", "layer", "sample")
    assert back["baseline_mse"].dims == ()
    xr.testing.assert_equal(back["test_mse"].load().astype(float), measured.result["test_mse"])
    by_hand = decode(run.activations("predense").sel(seed=[5], step=[4]).load(), samples, DecodeSettings())
    assert back["test_mse"].sel(seed=5, step=4, layer="predense").item() == by_hand["test_mse"].item()


def test_batches_are_bounded_and_complete(run):
    tap = run.activations("predense")
    cell = tap.sizes["sample"] * tap.sizes["feature"] * tap.dtype.itemsize
    every = list(np.ndindex(2, 6))
    parts = list(cells.batches(tap, every, limit=2 * cell))
    assert max(part.nbytes for part, _ in parts) <= 2 * cell
    assert [position for _, positions in parts for position in positions] == every
    assert len(list(cells.batches(tap, every, limit=1))) == 12
    ((some, positions),) = cells.batches(tap, [(1, 0), (1, 3)])
    assert positions == [(1, 0), (1, 3)]
    xr.testing.assert_identical(some, tap.isel(seed=[1], step=[0, 3]).load())


def test_a_missing_run_or_checkpoint_is_named(run, project):
    with pytest.raises(UserError, match=r"no such run; .* holds .*r$"):
        phasescope.open_run(project / "runs" / "x")
    with pytest.raises(UserError, match=r"no checkpoint of seed 0, step 3; seeds \[3, 5\], steps"):
        run.model(seed=0, step=3)
    with pytest.raises(StoreError, match="make it with `dvc repro`, or fetch it with `dvc pull`"):
        run.measure("probe")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_the_same_activations(project, run):
    gpu = xr.open_zarr(record_to(project, "gpu", settings(), Compute("cuda", 1, 1)) / arrays.GROUP)
    for tap in run.taps:
        np.testing.assert_allclose(gpu[tap].values, run.activations(tap).values, rtol=1e-3, atol=1e-4)
