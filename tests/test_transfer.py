"""What is read off frozen networks, against scikit-learn and against networks that are driven by hand."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from sklearn.linear_model import RidgeClassifier

import phasescope
from phasescope import activations, target_cells, training, transfer
from phasescope.data.dataset import Dataset, standardised
from phasescope.data.properties import label
from phasescope.data.resample import resample
from phasescope.errors import UserError
from phasescope.measures import classifiers
from phasescope.measures import transfer as measure
from phasescope.measures.transfer import Target
from phasescope.models.taps import Capture
from phasescope.params.activations import ActivationsSettings
from phasescope.params.transfer import ReadingSettings, TransferSettings
from phasescope.store import manifest
from phasescope.store.adopt import adopt
from phasescope.store.cache import CellCache
from phasescope.store.datasets import write_dataset
from phasescope.store.manifest import StoreError
from phasescope.store.verify import Check, in_project
from small import JOB as LONG
from small import ONE, few_digits

JOB = LONG.model_copy(update={"iterations": 2})
TAPS = ["logits", "predense", {"name": "conv-2", "pool": 1}]
LABELS = ["ink", "quadrant", "class"]


# --- the measure


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return few_digits()


@pytest.fixture(scope="module")
def features(digits):
    """Random ReLU features, float16 as they are stored."""
    weights = np.random.default_rng(1).standard_normal((256, 60)) / 16
    inputs = standardised(digits).reshape(len(digits.labels), -1)
    return np.maximum(inputs @ weights, 0).astype(np.float16)


def cell_of(values):
    """One cell of activations (sample, feature)."""
    coords = {"seed": [3], "step": [0], "sample": np.arange(len(values))}
    return xr.DataArray(values[None, None], coords, ("seed", "step", "sample", "feature"))


def reading(**changes) -> ReadingSettings:
    return ReadingSettings(labels=LABELS, **changes)


def target_of(dataset: Dataset) -> Target:
    return Target.of(dataset, np.arange(len(dataset.labels)), LABELS)


@pytest.fixture
def ridges(monkeypatch) -> list[float]:
    """The ridges that are chosen."""
    fit, chosen = classifiers.fit_ridge, []

    def watched(*arguments):
        regression = fit(*arguments)
        chosen.append(regression.ridge)
        return regression

    monkeypatch.setattr(classifiers, "fit_ridge", watched)
    return chosen


def test_predictions_are_those_of_scikit_learn_at_the_same_ridge(digits, features, ridges):
    result = measure.transfer(cell_of(features), target_of(digits), reading(), ONE)
    assert result["correct"].dims == ("seed", "step", "label", "sample")
    assert result["label"].values.tolist() == LABELS
    wide, train = features.astype(np.float64), digits.train
    for name, ridge in zip(LABELS, ridges, strict=True):
        labels, _ = label(digits, name)
        model = RidgeClassifier(alpha=ridge).fit(wide[train], labels[train])
        one = result.sel(seed=3, step=0, label=name)
        np.testing.assert_array_equal(one["correct"], model.predict(wide[~train]) == labels[~train])
        assert one["accuracy"].item() == model.score(wide[~train], labels[~train])
        assert one["train_accuracy"].item() == model.score(wide[train], labels[train])
    assert result["accuracy"].min() > 0.5


def test_all_labels_share_one_factorisation(digits, features, monkeypatch):
    factorise, calls = classifiers.factors_of, []
    monkeypatch.setattr(classifiers, "factors_of", lambda *a, **k: calls.append(1) or factorise(*a, **k))
    measure.transfer(cell_of(features), target_of(digits), reading(), ONE)
    assert len(calls) == 1


@pytest.mark.parametrize("selection", ["gcv", "loo"])
def test_test_samples_choose_nothing(digits, features, ridges, selection):
    target = target_of(digits)
    before = measure.transfer(cell_of(features), target, reading(selection=selection), ONE)
    labels, others = target.labels.copy(), features.copy()
    labels[:, ~digits.train] = (labels[:, ~digits.train] + 1) % 2
    others[~digits.train] *= -3
    after = measure.transfer(cell_of(others), replace(target, labels=labels), reading(selection=selection), ONE)
    assert ridges[:3] == ridges[3:]
    np.testing.assert_array_equal(before["train_accuracy"], after["train_accuracy"])
    assert (before["accuracy"] != after["accuracy"]).any()


def test_baselines(digits):
    target = target_of(digits)
    result = measure.baselines(target)
    for index, name in enumerate(LABELS):
        labels, classes = label(digits, name)
        counts = [np.sum(labels[digits.train] == number) for number in range(len(classes))]
        prior = result["prior"].values[index]
        np.testing.assert_allclose(prior[: len(classes)], np.array(counts) / 130)
        assert np.isnan(prior[len(classes) :]).all()
        assert result["class_name"].values[index].tolist() == [*classes, *[""] * (10 - len(classes))]
        expected = np.mean(labels[~digits.train] == np.argmax(counts))
        assert result["majority_accuracy"].values[index] == expected


def test_nan_is_refused(digits, features):
    broken = features.copy()
    broken[3, 3] = np.nan
    with pytest.raises(UserError, match="the activations at seed 3, step 0 hold NaN or infinite values"):
        measure.transfer(cell_of(broken), target_of(digits), reading(), ONE)


# --- a run and a target


def blobs() -> Dataset:
    """Like MNIST: 28×28 grey images, brought to 16×16, with constants of their own."""
    rng = np.random.default_rng(5)
    raw = np.zeros((90, 1, 28, 28), np.uint8)
    for image in raw:
        row, column = rng.integers(2, 18, 2)
        image[0, row : row + 8, column : column + 8] = rng.integers(60, 255)
    labels = rng.integers(0, 2, 90)
    train = np.arange(90) < 60
    return Dataset(resample(raw, 16, scale=255), labels, train, ["a", "b"], np.array([0.13]), np.array([0.31]))


class Project:
    """A small run on the digits, other images, and the transfers between them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.cache = CellCache(root / "cache", "code")

    def make(self, job=JOB, taps=TAPS, **changes) -> None:
        chosen = ActivationsSettings.model_validate({"taps": taps, "dtype": "float32", **changes})
        data, run = self.root / "datasets" / "d", self.root / "runs" / "r"
        training.train(job, data, run / "train", ONE, "r", self.cache)
        activations.record(job, chosen, data, run / "train", run / "activations", ONE, "r", self.cache)

    @property
    def run(self) -> phasescope.Run:
        return phasescope.Run("r", self.root)

    def transfer(self, dataset: str, labels=LABELS, compute=ONE, **changes) -> xr.Dataset:
        settings = TransferSettings(run="r", dataset=dataset, labels=labels, **changes)
        transfer.transfer(self.run, self.root / "datasets" / dataset, settings, compute, self.cache)
        return self.run.measure(f"transfer-{dataset}").load()

    def contents(self) -> dict[str, bytes]:
        results = self.root / "results"
        return {str(p.relative_to(self.root)): p.read_bytes() for p in results.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def made(digits, tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("project")
    write_dataset(root / "datasets" / "d", digits, {})
    write_dataset(root / "datasets" / "copy", digits, {"another": "name"})
    write_dataset(root / "datasets" / "blobs", blobs(), {})
    Project(root).make()
    return root


@pytest.fixture
def project(made, tmp_path) -> Project:
    shutil.copytree(made, tmp_path / "p")
    return Project(tmp_path / "p")


@pytest.fixture
def passes(monkeypatch) -> list[list[str]]:
    """The taps at which each forward pass takes activations."""
    forward, taken = activations.forward, []

    def watched(network, dtype, taps, *arguments):
        taken.append([tap.name for tap in taps])
        return forward(network, dtype, taps, *arguments)

    monkeypatch.setattr(target_cells, "forward", watched)
    return taken


def test_of_its_own_dataset_the_stored_activations_will_do(project, digits, passes):
    result = project.transfer("d")
    assert not passes
    assert result["accuracy"].dims == ("seed", "step", "layer", "label", "classifier")
    assert result["layer"].values.tolist() == ["logits", "predense", "conv-2"]
    np.testing.assert_array_equal(result["index"], np.flatnonzero(~digits.train))
    stored = project.run.activations("predense").sel(seed=[5], step=[2]).load()
    by_hand = measure.transfer(stored, target_of(digits), reading(), ONE)
    for name in by_hand:
        one = result[name].sel(seed=5, step=2, layer="predense", classifier="ridge")
        np.testing.assert_array_equal(one, by_hand[name][0, 0])
    assert result["correct"].dims == ("seed", "step", "layer", "label", "classifier", "sample")
    np.testing.assert_array_equal(result["accuracy"], result["correct"].mean("sample"))


@pytest.mark.parametrize("mode", ["recalibrated", "batch", "eval"])
def test_the_same_images_as_another_dataset_give_the_same(project, mode, passes):
    """What passes through the networks is then what is stored."""
    shutil.rmtree(project.root / "runs")
    project.make(batchnorm=mode)
    own, copy = project.transfer("d"), project.transfer("copy")
    assert passes == [["logits", "predense", "conv-2"]] * 6
    xr.testing.assert_equal(own, copy)


@pytest.mark.parametrize("mode", ["recalibrated", "batch"])
def test_other_images_pass_through_the_networks_of_the_run(project, mode, monkeypatch):
    shutil.rmtree(project.root / "runs")
    project.make(batchnorm=mode)
    function, measured = transfer.measure, []
    monkeypatch.setattr(transfer, "measure", lambda cell, *a: measured.append(cell) or function(cell, *a))
    result, target = project.transfer("blobs"), blobs()
    images = torch.from_numpy(standardised(target))  # by the constants of the target
    run, cells = project.run, iter(measured)
    length = run.trained_with.batch_size if mode == "batch" else len(images)
    apart = [target.train, ~target.train] if mode == "batch" else [np.full(len(images), True)]
    shuffled = [np.random.default_rng(2).permutation(np.flatnonzero(part)) for part in apart]
    parts = [rows for part in shuffled for rows in np.array_split(part, -(-len(part) // length))]
    for seed, step in [(seed, step) for seed in run.seeds for step in run.steps]:
        network = run.model(seed, step)
        with torch.no_grad(), Capture(network, run.recorded_with.taps) as capture:
            read = []
            for rows in parts:
                network(images[rows])
                read.append(capture.read())
            order = np.argsort(np.concatenate(parts))
            for tap, by_hand in ((tap, torch.cat([part[tap] for part in read])[order]) for tap in read[0]):
                cell = next(cells)
                np.testing.assert_allclose(cell[0, 0], by_hand, rtol=1e-3, atol=1e-4)
                expected = function(cell, target_of(target), reading(), ONE)
                for name in expected:
                    np.testing.assert_array_equal(
                        result[name].sel(seed=seed, step=step, layer=tap, classifier="ridge"), expected[name][0, 0]
                    )
    np.testing.assert_array_equal(result["index"], np.arange(60, 90))


@pytest.mark.parametrize("dataset", ["d", "blobs"])
def test_pixels_are_read_as_a_layer_would_be(project, dataset, digits):
    images = digits if dataset == "d" else blobs()
    inputs = standardised(images).reshape(len(images.labels), -1)
    by_hand = measure.transfer(cell_of(inputs), target_of(images), reading(), ONE)["accuracy"]
    pixels = project.transfer(dataset)["pixel_accuracy"].sel(classifier="ridge")
    np.testing.assert_array_equal(pixels, by_hand[0, 0])


def test_another_classifier_leaves_those_that_are_known(project, passes, capsys):
    """Nor does a setting of one concern the other, or a limit on samples that there are not as many of."""
    for dataset in ("blobs", "d"):
        alone = project.transfer(dataset)
        passes.clear()
        capsys.readouterr()
        both = project.transfer(dataset, classifiers=["ridge", "logistic"], penalty=0.1)
        told = capsys.readouterr().out
        xr.testing.assert_equal(both.sel(classifier=["ridge"]), alone)
        assert both["accuracy"].sel(classifier="logistic").notnull().all()
        count = "18 of 36" if dataset == "blobs" else "transfer r: 0 of 18"
        assert count in told
    passes.clear()
    project.transfer("blobs", train_samples=20_000)
    assert not passes


def test_the_network_that_images_pass_through_is_frozen(project, monkeypatch):
    """Its BatchNorm statistics are those that the run's activations were taken with, also after the pass."""
    forward, states = activations.forward, []

    def watched(network, *arguments):
        before = {name: value.clone() for name, value in network.state_dict().items()}
        result = forward(network, *arguments)
        assert not network.training
        assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
        states.append(before)
        return result

    monkeypatch.setattr(target_cells, "forward", watched)
    project.transfer("blobs")
    expected = project.run.model(5, 2).state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in states[-1].items())


def test_the_kept_samples_are_those_of_the_settings(project, digits):
    few = {"train_samples": 40, "test_samples": 20}
    kept = activations.kept_samples(digits, 40, 20)
    own, copy = project.transfer("d", **few), project.transfer("copy", **few)
    np.testing.assert_array_equal(own["index"], kept[~digits.train[kept]])
    np.testing.assert_array_equal(own["index"], copy["index"])
    np.testing.assert_array_equal(own["prior"], copy["prior"])
    # What a label compares is the whole dataset's: the median is that of all training images, not of the 40.
    ink = label(digits, "ink")[0][kept[digits.train[kept]]]
    np.testing.assert_allclose(own["prior"].values[0, :2], [1 - ink.mean(), ink.mean()])
    # Through other batches than the stored ones, so not the same bits.
    np.testing.assert_allclose(own["accuracy"], copy["accuracy"], atol=1.5 / 20)


def test_no_more_samples_than_the_run_keeps(project, digits):
    shutil.rmtree(project.root / "runs")
    project.make(train_samples=50, test_samples=30)
    kept = activations.kept_samples(digits, 50, 30)
    np.testing.assert_array_equal(project.transfer("d")["index"], kept[50:])
    fewer = project.transfer("d", train_samples=10, test_samples=5)["index"]
    np.testing.assert_array_equal(fewer, activations.kept_samples(digits, 10, 5)[10:])


def test_several_processes_give_the_same_bytes_as_one(project):
    project.transfer("blobs")
    before = project.contents()
    project.cache = CellCache(project.root / "other", "code")
    project.transfer("blobs", compute=replace(ONE, workers=2))
    assert project.contents() == before


def test_no_cell_is_computed_twice(project, passes, capsys):
    first = project.transfer("blobs")
    assert len(passes) == 2 * 3
    passes.clear()
    xr.testing.assert_identical(project.transfer("blobs"), first)
    assert not passes
    assert "transfer r to blobs: 0 of 18 cells computed" in capsys.readouterr().out
    project.transfer("blobs", ["ink"])
    assert len(passes) == 2 * 3


def test_an_interrupted_transfer_goes_on_and_ends_in_the_same_bytes(project, passes, monkeypatch):
    watched = target_cells.forward

    def interrupted(*arguments):
        if len(passes) == 4:
            raise KeyboardInterrupt
        return watched(*arguments)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(target_cells, "forward", interrupted)
        project.transfer("blobs")
    assert not project.contents()
    passes.clear()
    project.transfer("blobs")
    assert len(passes) == 2
    resumed = project.contents()
    project.cache = CellCache(project.root / "empty", "code")
    project.transfer("blobs")
    assert project.contents() == resumed


def test_a_new_seed_and_a_new_tap_compute_what_is_new(project, passes, capsys):
    project.transfer("blobs")
    project.transfer("d")
    passes.clear()
    capsys.readouterr()
    shutil.rmtree(project.root / "runs")
    shutil.rmtree(project.root / "results")
    project.make(JOB.model_copy(update={"seeds": [3, 4, 5]}), [*TAPS, "softmax"])
    project.transfer("blobs")
    assert passes.count([tap if isinstance(tap, str) else tap["name"] for tap in [*TAPS, "softmax"]]) == 3
    assert passes.count(["softmax"]) == 6
    assert len(passes) == 9
    project.transfer("d")
    told = capsys.readouterr().out
    assert "transfer r to blobs: 18 of 36 cells computed" in told
    assert "transfer r: 18 of 36 cells computed" in told
    extended = project.contents()
    project.cache = CellCache(project.root / "empty", "code")
    project.transfer("blobs")
    project.transfer("d")
    assert project.contents() == extended


def test_what_was_pulled_is_not_computed_again(project, passes):
    for dataset in ("d", "blobs"):
        before = project.transfer(dataset)
        project.cache = CellCache(project.root / f"of-{dataset}", "code")
        assert adopt(project.root / "results" / "r" / f"transfer-{dataset}", project.cache) == 18
        passes.clear()
        contents = project.contents()
        xr.testing.assert_identical(project.transfer(dataset), before)
        assert not passes
        assert project.contents() == contents


def test_its_manifest_names_both_datasets(project):
    for dataset in ("d", "blobs"):
        project.transfer(dataset)
        path = project.root / "results" / "r" / f"transfer-{dataset}"
        names = {"datasets/d", f"datasets/{dataset}", "runs/r/train", "runs/r/activations"}
        found = manifest.read(path, f"transfer-{dataset}").extra["inputs"]
        assert found == {name: manifest.read(project.root / name).digest for name in names}
    check, places = Check(full=True), in_project(project.root)
    assert [f for place in places for f in (*check.directory(place), *check.references(place))] == []


def test_the_images_that_the_run_was_trained_on_need_not_be_there(project):
    shutil.rmtree(project.root / "datasets" / "d")
    assert project.transfer("blobs")["accuracy"].notnull().all()


def test_another_dataset_of_the_runs_own_name_is_refused(project):
    shutil.rmtree(project.root / "datasets" / "d")
    write_dataset(project.root / "datasets" / "d", blobs(), {})
    with pytest.raises(StoreError, match="is not the dataset that the run was made with; run `dvc repro`"):
        project.transfer("d")


def test_values_too_large_for_the_dtype_name_checkpoint_and_target(project):
    shutil.rmtree(project.root / "runs")
    project.make(dtype="float16")
    write_dataset(project.root / "datasets" / "bright", replace(blobs(), std=np.array([1e-6])), {})
    with pytest.raises(UserError, match=r"^tap 'logits' at seed 3, step 0 for bright reaches .*to float32$"):
        project.transfer("bright")


def test_settings_of_stores_are_read(project):
    assert project.run.trained_with == JOB
    assert project.run.recorded_with.dtype == "float32"
    path = project.root / "runs" / "r" / "activations" / manifest.MANIFEST
    content = json.loads(path.read_text())
    content["settings"]["dtype"] = "float8"
    path.write_text(manifest.sealed(content))
    with pytest.raises(StoreError, match="its settings are not those of this version of phasescope"):
        project.transfer("blobs")
