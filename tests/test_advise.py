"""Which checkpoint to transfer from: what is measured, against fits by hand, and advice, against a known truth."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from scipy.stats import norm
from sklearn.linear_model import RidgeClassifier
from typer.testing import CliRunner

from phasescope import activations, training
from phasescope.advice import LEAST, advise
from phasescope.advice_table import sentences
from phasescope.advise import advise as measure_and_commit
from phasescope.cli import app
from phasescope.data import sources
from phasescope.data.digits import load_digits
from phasescope.data.properties import label
from phasescope.errors import UserError
from phasescope.figures.advise import advice as figure
from phasescope.measures import advise as measure
from phasescope.measures.ridge import RIDGES, centre, factorise, fit, out_of_fold
from phasescope.measures.transfer import Target
from phasescope.params.activations import ActivationsSettings
from phasescope.params.datasets import DatasetSettings
from phasescope.params.models import ModelSettings
from phasescope.params.train import TrainJob
from phasescope.params.transfer import ReadingSettings, TransferSettings
from phasescope.run import Run
from phasescope.store.cache import CellCache
from phasescope.store.datasets import read_dataset, write_dataset
from resampling import pooled, resample, summary
from small import JOB, ONE, few_digits

SETTINGS = ReadingSettings(labels=["class"])


# --- the measure


def clouds(samples=120, features=12, classes=3):
    """Features (sample, feature) of classes that overlap, and labels (sample,)."""
    rng = np.random.default_rng(2)
    labels = rng.integers(0, classes, samples)
    values = rng.standard_normal((samples, features)) * np.logspace(0, -1, features) + rng.random(features)
    values[:, :classes] += 1.2 * np.eye(classes)[labels]
    return values, labels


def measured_of(values, labels, classes=3):
    target = Target(np.full(len(labels), True), labels[None], ["class"], [[f"c{each}" for each in range(classes)]])
    coords = {"seed": [0], "step": [0], "sample": np.arange(len(values))}
    cell = xr.DataArray(values[None, None], coords, ("seed", "step", "sample", "feature"))
    return measure.advise(cell, target, SETTINGS, ONE).merge(measure.about(target))


@pytest.mark.parametrize(
    ("samples", "features", "folds", "selection"),
    [(90, 12, 7, "gcv"), (90, 12, 3, "gcv"), (40, 70, 7, "gcv"), (40, 39, 7, "gcv"), (90, 12, 7, "none")],
    ids=["small folds", "large folds", "dual", "no sample to spare", "no ridge"],
)
def test_out_of_fold_is_what_fits_without_the_fold_predict(samples, features, folds, selection):
    values, labels = clouds(samples, features)
    targets, fold = np.eye(3)[labels], np.arange(samples) % folds
    factors = factorise(values)
    ridge = fit(factors, targets, selection).ridge
    predicted = out_of_fold(factors, centre(targets), ridge, fold)
    ridge = max(ridge, RIDGES[0] * factors.energy / min(values.shape))
    for each in range(folds):
        train = fold != each
        mean, level = values[train].mean(axis=0), targets[train].mean(axis=0)
        centred = values[train] - mean
        weights = np.linalg.solve(centred.T @ centred + ridge * np.eye(features), centred.T @ (targets[train] - level))
        np.testing.assert_allclose(predicted[~train], (values[~train] - mean) @ weights + level, atol=1e-7)


def test_a_feature_that_one_fold_alone_has_is_not_known_without_it():
    values, labels = clouds()
    values[:, 5] = 0
    values[3, 5] = 1.0
    targets, fold = np.eye(3)[labels], np.arange(len(labels)) % 10
    predicted = out_of_fold(factorise(values), centre(targets), 0.0, fold)
    without = out_of_fold(factorise(np.delete(values, 5, axis=1)), centre(targets), 0.0, fold)
    np.testing.assert_allclose(predicted[3], without[3], atol=1e-4)


def test_folds_have_as_many_of_each_class():
    labels = np.repeat([0, 1, 2], [53, 4, 40])
    folds = measure.stratified_folds(labels, 10)
    counts = np.array([np.bincount(labels[folds == fold], minlength=3) for fold in range(10)])
    assert (np.ptp(counts, axis=0) <= 1).all()
    assert np.ptp(counts.sum(axis=1)) <= 1
    np.testing.assert_array_equal(folds, measure.stratified_folds(labels, 10))
    assert (folds[:20] != np.arange(20) % 10).any()


def test_every_sample_is_held_out_once_and_the_few_are_those_of_scikit_learn():
    values, labels = clouds()
    values = values.astype(np.float16)
    result = measured_of(values, labels).isel(seed=0, step=0, label=0)
    wide = values.astype(np.float64)
    targets = np.eye(3)[labels]
    ridge = fit(factorise(values), targets, "gcv").ridge
    folds = measure.stratified_folds(labels, measure.FOLDS)
    correct = np.empty(len(labels), bool)
    for fold in range(measure.FOLDS):
        model = RidgeClassifier(alpha=ridge).fit(wide[folds != fold], labels[folds != fold])
        correct[folds == fold] = model.predict(wide[folds == fold]) == labels[folds == fold]
    np.testing.assert_array_equal(result["correct"], correct)
    assert result["accuracy"] == correct.mean()
    few = result.sel(per_class=10)
    assert few["few_accuracy"].notnull().all()
    assert (few["held_out"] >= 5).all()  # 10 of about 40 of a class are drawn, 20 times
    assert few["held_out"].sum() == 20 * (120 - 30)
    assert few["few_correct"].sum() == pytest.approx(few["few_accuracy"].mean() * 20 * 90)
    assert (few["few_correct"] <= few["held_out"]).all()
    assert 0.4 < result.sel(per_class=5)["few_accuracy"].mean() < few["few_accuracy"].mean() < result["accuracy"]
    assert result.sel(per_class=100)["few_accuracy"].isnull().all()  # there are no hundred of a class
    assert (result.sel(per_class=100)["held_out"] == 0).all()
    assert result["count"].values.tolist() == np.bincount(labels).tolist()


def test_a_fit_to_few_is_one_to_those_that_are_drawn():
    values, labels = clouds()
    result = measured_of(values, labels).isel(seed=0, step=0, label=0).sel(per_class=5)
    plan = measure._Plan.of(labels, 3)
    held_out = plan.held_out[0, 4]
    assert np.bincount(labels[~held_out]).tolist() == [5, 5, 5]
    regression = fit(factorise(values[~held_out]), np.eye(3)[labels[~held_out]], "gcv")
    guesses = regression.predict(values[held_out]).argmax(axis=1)
    assert result["few_accuracy"][4] == np.mean(guesses == labels[held_out])


# --- the advice


def drawn(truth, seeds=3, samples=1000, spread=0.0, seed=0):
    """Guesses with accuracies `truth` (step, layer), samples of differing difficulty and seeds of differing skill.

    Returns a result, and the accuracies (step, layer) of the networks that were trained, mean over seeds.
    """
    rng = np.random.default_rng(seed)
    level = norm.ppf(truth) * np.sqrt(1 + 2 * spread**2)
    skill = spread * (rng.standard_normal((seeds, 1, 1)) + rng.standard_normal((seeds, *truth.shape)))
    hard = np.sqrt(0.6) * rng.standard_normal((samples, 1, 1)) + np.sqrt(0.2) * rng.standard_normal(
        (samples, *truth.shape)
    )
    noise = np.sqrt(0.2) * rng.standard_normal((seeds, samples, *truth.shape))
    right = hard + noise < (level + skill)[:, None]
    steps, layers = truth.shape
    coords = {
        "label": np.array(["ink"], dtype=object),
        "seed": np.arange(seeds),
        "step": 2 ** np.arange(steps),
        "layer": np.array([f"l{each}" for each in range(layers)], dtype=object),
        "class_name": (("label", "class"), np.array([["less", "more"]], dtype=object)),
    }
    dims = ("label", "seed", "sample", "step", "layer")
    counts = (("label", "class"), [[samples // 2, samples - samples // 2]])
    result = xr.Dataset({"correct": (dims, right[None].astype(np.int8)), "count": counts}, coords)
    return result, norm.cdf(level + skill).mean(axis=0)


def true(truth, candidate):
    return truth[int(np.log2(candidate.step)), int(candidate.layer[1:])]


HILL = 0.6 + 0.25 * np.exp(-((np.arange(10) - 5) ** 2) / 6)[:, None] - np.array([0, 0.05, 0.2])


def test_a_clear_winner_is_found_and_the_last_costs_what_it_does():
    losses = xr.DataArray(
        np.abs(np.arange(10) - 4.0)[None, :, None] + np.ones((2, 1, 3)),
        {"step": 2 ** np.arange(10), "layer": np.array(["l0", "l1", "l2"], dtype=object)},
        ("seed", "step", "layer"),
    )
    result, trained = drawn(HILL, samples=4000, spread=0.02)
    found = advise(result, "ink", losses=losses)
    assert (found.best.step, found.best.layer, found.best.tied, found.best.cost) == (32, "l0", True, 0)
    assert (found.last.step, found.last.layer, found.last.tied, found.tie) == (512, "l0", False, False)
    low, high = found.last.cost_interval
    assert low < trained[5, 0] - trained[-1, 0] < high
    assert found.last.cost == pytest.approx(trained[5, 0] - trained[-1, 0], abs=0.02)
    assert found.minimum.candidate.step == 16
    assert found.minimum.correlation == pytest.approx(0.85, abs=0.15)
    assert found.earliest == found.best
    assert [candidate.measured for candidate in found.ranking] == sorted(
        (candidate.measured for candidate in found.ranking), reverse=True
    )
    assert len(found.ranking) == 30
    assert found.classes == {"less": 2000, "more": 2000}


@pytest.mark.parametrize("seeds", [1, 3])
def test_equal_checkpoints_are_a_tie(seeds):
    """With the same guesses, and with guesses that are as good as each other."""
    result, _ = drawn(np.full((6, 3), 0.8), seeds)
    same = result.isel(step=[2] * 6).assign_coords(step=result.step)
    found = advise(same.isel(layer=[0]), "ink")
    assert found.tie
    assert all(candidate.tied for candidate in found.ranking)
    assert (found.best.step, found.last.cost) == (1, 0)  # the cheapest of equal ones
    assert any("all 6 checkpoints and layers are tied" in line for line in sentences(found, 0.5))
    ties = [advise(drawn(np.full((6, 3), 0.8), seeds, 500, seed=each)[0], "ink") for each in range(20)]
    assert sum(each.tie for each in ties) == 20
    assert sum(candidate.tied for each in ties for candidate in each.ranking) >= 0.95 * 20 * 18


@pytest.mark.parametrize(
    ("truth", "seeds", "spread"),
    [(HILL, 1, 0.05), (np.full((10, 3), 0.8), 3, 0.05), (HILL, 2, 0.0)],
    ids=["one seed", "flat", "two seeds"],
)
def test_intervals_cover_the_truth(truth, seeds, spread):
    """Of a hundred drawings 88 to 95 %, also of the best of thirty equal ones and with few seeds; here of forty."""
    covered, anew, costs = [], [], []
    for each in range(40):
        result, trained = drawn(truth, seeds, 300, spread, each)
        found = advise(result, "ink")
        low, high = found.best.interval
        covered.append(low <= true(trained, found.best) <= high)
        if seeds > 1:
            low, high = found.best.anew_interval
            anew.append(low <= true(truth, found.best) <= high)
        low, high = found.last.cost_interval
        costs.append(low <= true(trained, found.best) - true(trained, found.last) <= high)
    assert np.mean(covered) >= 0.8
    assert np.mean(costs) >= 0.8
    assert seeds == 1 or np.mean(anew) >= 0.8


def test_of_one_seed_nothing_is_said_of_others():
    found = advise(drawn(HILL, seeds=1)[0], "ink")
    assert found.best.anew is found.best.anew_interval is None
    assert "1 seed, which says nothing of others" in sentences(found, 0.5)[0]


@pytest.mark.parametrize(
    ("change", "asked", "told"),
    [
        ({}, ("class", None), "unknown label 'class'; known: ink"),
        ({}, ("ink", 7), "7 labels per class: expected 5, 10, or none for all"),
        ({"count": [[8, 32]]}, ("ink", 10), "'ink' has 8 samples of 'less'"),
        ({"count": [[0, 40]]}, ("ink", None), "all samples have one class of 'ink', 'more'; choose another label"),
        ({"sample": 9}, ("ink", None), f"the target has 9 samples, and {LEAST} are the least"),
    ],
)
def test_what_cannot_be_told_is_one_line(change, asked, told):
    result, _ = drawn(HILL[:3], samples=40)
    result = result.assign_coords(per_class=[5, 10])
    if "count" in change:
        result["count"] = ("label", "class"), change["count"]
    with pytest.raises(UserError, match=told) as caught:
        advise(result.isel(sample=slice(change.get("sample"))), *asked)
    assert "\n" not in str(caught.value)


# --- of a run


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("project")
    write_dataset(root / "datasets" / "d", few_digits(), {})
    write_dataset(root / "datasets" / "copy", few_digits(), {"another": "name"})
    small = load_digits(8)
    write_dataset(root / "datasets" / "small", small, {})
    one = few_digits()
    write_dataset(root / "datasets" / "one", replace(one, labels=np.zeros_like(one.labels)), {})
    chosen = ActivationsSettings.model_validate({"taps": ["logits", "predense"], "dtype": "float32"})
    data, run, cache = root / "datasets" / "d", root / "runs" / "r", CellCache(root / "cache", "code")
    training.train(JOB.model_copy(update={"iterations": 4}), data, run / "train", ONE, "r", cache)
    activations.record(
        JOB.model_copy(update={"iterations": 4}), chosen, data, run / "train", run / "activations", ONE, "r", cache
    )
    return root


@pytest.fixture
def asked(made, monkeypatch):
    """What the command says."""
    monkeypatch.setenv("PHASESCOPE_CACHE", str(made / "cache"))
    monkeypatch.setenv("PHASESCOPE_WORKERS", "1")
    monkeypatch.setenv("PHASESCOPE_DEVICE", "cpu")

    def call(*arguments, run="r"):
        return CliRunner().invoke(app, ["advise", str(made / "runs" / run), *arguments])

    return call


def test_json_is_the_same_from_the_stage_as_measured_now(made, asked):
    now = asked("--target", "d", "--label", "quadrant", "--json")
    assert now.exit_code == 0, now.output
    told = json.loads(now.stdout)
    assert not (made / "results").exists()
    assert set(told) == {
        *("run", "target", "classifier", "pixel_accuracy", "label", "per_class", "labels", "classes", "seeds", "tie"),
        *("best", "earliest", "last", "last_same_layer", "minimum", "ranking", "confidence", "few"),
    }
    assert set(told["best"]) == {
        *("step", "layer", "measured", "accuracy", "interval", "anew", "anew_interval", "cost", "cost_interval", "tied")
    }
    assert (told["labels"], told["seeds"], len(told["ranking"]), told["minimum"]) == (173, 2, 2 * 4, None)
    assert sum(told["classes"].values()) == 173
    assert told["few"]["5"]["per_class"] == 5
    assert told["few"]["100"] is None
    settings = TransferSettings(run="r", dataset="d", labels=["quadrant"])
    measure_and_commit(Run("r", made), made / "datasets" / "d", settings, ONE, CellCache(made / "cache", "code"))
    try:
        assert asked("--target", "d", "--json").stdout == now.stdout
        stored = Run("r", made).measure("advise-d")
        assert stored["correct"].dims == ("seed", "step", "layer", "label", "sample")
        np.testing.assert_array_equal(stored["accuracy"], stored["correct"].mean("sample"))
        np.testing.assert_array_equal(stored["index"], np.arange(173))
        losses = xr.zeros_like(stored.accuracy.isel(label=0, drop=True)) + stored.step
        drawing = figure("r", "d", stored, losses)
        assert drawing.name == "advice-r-d"
        named = {(row["layer"], row["quantity"], row["seed"]) for row in drawing.rows if "seed" in row}
        assert ("logits", "held-out accuracy", "low 95 %") in named
        assert {row["per_class"] for row in drawing.rows if "per_class" in row} == {"5", "10"}
    finally:
        shutil.rmtree(made / "results")


def test_the_table_names_the_best_and_the_last(asked):
    told = asked("--target", "copy", "--label", "ink")
    assert told.exit_code == 0, told.output
    assert "r → copy: ink" in told.stdout
    assert "take step " in told.stdout
    assert "173 labels, 2 seeds" in told.stdout
    assert "labels" in told.stdout
    few = asked("--target", "copy", "--label", "ink", "--per-class", "10")
    assert "10 labels per class, tested on the others of 173 labels" in " ".join(few.stdout.split())


def test_the_same_images_as_another_dataset_give_the_same_advice(asked):
    own, copy = (json.loads(asked("--target", name, "--label", "ink", "--json").stdout) for name in ("d", "copy"))
    assert {**own, "target": ""} == {**copy, "target": ""}


@pytest.mark.parametrize(
    ("arguments", "run", "told"),
    [
        (["--target", "d"], "s", "no such run; "),
        (["--target", "dd"], "r", "unknown dataset 'dd'; did you mean 'd'? known: copy, d, one, small"),
        (["--target", "d"], "r", "r was trained on d: say what is to be told, --label class or ink or quadrant"),
        (["--target", "d", "--label", "colour"], "r", "d: unknown label 'colour'; known: class, ink, quadrant"),
        (["--target", "small"], "r", "small: its images have 1 channels and 8×8 pixels, and the networks of r take 1"),
        (["--target", "one"], "r", "all samples have one class of 'class', '0'; choose another label"),
        (
            ["--target", "d", "--label", "ink", "--per-class", "7"],
            "r",
            "7 labels per class: expected 5, 10, 100, or none",
        ),
        (
            ["--target", "d", "--label", "ink", "--per-class", "100"],
            "r",
            "some must be left to test with; ask for fewer",
        ),
    ],
)
def test_a_mistake_is_one_line(asked, arguments, run, told):
    done = asked(*arguments, run=run)
    assert done.exit_code == 1
    assert told in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.output


# --- held against the truth


@pytest.fixture
def no_few(monkeypatch):
    """Fits to few labels are not what is looked at, and take most of the time."""
    monkeypatch.setattr(measure, "DRAWS", {5: 1})


def vgg8(place: Path, **chosen: Any) -> Run:
    """A run of VGG-8 × 0.25 on the dataset `d` that is in a folder, trained and recorded there."""
    data, run, cache = place / "datasets" / "d", place / "runs" / "r", CellCache(place / "cache", "code")
    model = ModelSettings(name="vgg8", width=0.25)
    job = TrainJob(dataset="d", model=model, batch_size=32, **chosen)
    taps = ActivationsSettings.model_validate({"taps": ["logits", "predense", {"name": "conv-2", "pool": 2}]})
    training.train(job, data, run / "train", ONE, "r", cache)
    activations.record(job, taps, data, run / "train", run / "activations", ONE, "r", cache)
    return Run("r", place)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_advice_on_digits_and_their_dominant_quadrant(tmp_path, no_few, capsys):
    """VGG-8 of the default project. All of the 1,797 digits are labelled or left out, a thousand and 797.

    The true accuracy on 797 samples has a standard error of 1.2 points itself, and the truly best of thirty is lucky
    there; so both are told by what each checkpoint has over all drawings. At an accuracy of 80 % with as many labels no
    interval of three points can hold: 3.9 · sqrt(0.8 · 0.2 / 1000 · 0.7) is 4.1.
    """
    digits = load_digits(32)
    write_dataset(tmp_path / "datasets" / "d", digits, {})
    opened = vgg8(tmp_path, seeds=[0, 1, 2], iterations=1024, learning_rate=0.002)
    labels, classes = label(digits, "quadrant")
    found = resample(opened, opened.taps, labels, classes, 1000, 20)
    with capsys.disabled():
        print("\ndigits → quadrant:", summary(found))
    over_all = pooled(found)
    best = [each.advice.best for each in found]
    regrets = [float(over_all.max() - over_all.sel(step=one.step, layer=one.layer)) for one in best]
    assert sum(regret <= 0.01 for regret in regrets) >= 18
    truths = [float(over_all.sel(step=one.step, layer=one.layer)) for one in best]
    intervals = [one.interval for one in best]
    assert sum(low <= truth <= high for truth, (low, high) in zip(truths, intervals, strict=True)) >= 17
    assert np.median([each.width for each in found]) <= 0.045


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_advice_on_photographs_and_their_dominant_colour(tmp_path, no_few, capsys):
    """VGG-8 × 0.25 on 4,000 of CIFAR-10 kept as JPEG: 2,200 labels, and 11,800 images that are left out."""
    raw = Path(os.environ.get("PHASESCOPE_DATA", "data"))
    if not (raw / "cifar10-jpeg").is_dir():
        pytest.skip("no folder cifar10-jpeg in the data root; set PHASESCOPE_DATA")
    settings = DatasetSettings(source="image-folder", folder="cifar10-jpeg", statistics="cifar10", train_samples=4000)
    data = tmp_path / "datasets" / "d"
    write_dataset(data, sources.load(settings, raw, False), {})
    opened = vgg8(tmp_path, seeds=[0, 1], iterations=512, learning_rate=0.02)
    labels, classes = label(read_dataset(data), "colour")
    found = resample(opened, opened.taps, labels[opened.recorded["index"].values], classes, 2200, 20)
    with capsys.disabled():
        print("\nphotographs → colour:", summary(found))
    assert sum(each.regret <= 0.01 for each in found) >= 18
    assert sum(each.covers for each in found) >= 17
    assert np.median([each.width for each in found]) <= 0.03
