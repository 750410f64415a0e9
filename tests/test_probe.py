"""Linear probes, against scikit-learn and known answers."""

import numpy as np
import pytest
import xarray as xr
from sklearn.datasets import load_digits
from sklearn.linear_model import RidgeClassifier, RidgeClassifierCV

from phasescope.errors import UserError
from phasescope.measures.probe import majority_accuracy
from phasescope.measures.probe import probe as probe_with
from phasescope.measures.samples import Samples
from phasescope.params.probe import ProbeSettings
from small import ONE


def probe(activations, samples, settings):
    return probe_with(activations, samples, settings, ONE)


def cells(*features):
    """Cells of one seed from arrays (sample, feature), one a step."""
    values = np.stack(features)[None]
    coords = {"seed": [3], "step": np.arange(len(features)), "sample": np.arange(values.shape[2])}
    return xr.DataArray(values, dims=("seed", "step", "sample", "feature"), coords=coords)


@pytest.fixture(scope="module")
def digits():
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(images))[:900]
    inputs = ((images[order] - images.mean()) / images.std()).astype(np.float32)
    return Samples(inputs, labels[order].astype(np.int64), np.arange(900) < 600, 10, (1, 8, 8))


@pytest.fixture(scope="module")
def features(digits):
    """Random ReLU features of digits, float16 as they are stored."""
    weights = np.random.default_rng(1).standard_normal((64, 150)) / 8
    return np.maximum(digits.inputs @ weights, 0).astype(np.float16)


def test_classes_are_those_of_scikit_learn(digits, features):
    result = probe(cells(features), digits, ProbeSettings())
    wide = features.astype(np.float64)
    model = RidgeClassifier(alpha=result["ridge"].item()).fit(wide[digits.train], digits.labels[digits.train])
    expected = model.predict(wide[digits.test]) == digits.labels[digits.test]
    np.testing.assert_array_equal(result["correct"][0, 0], expected)
    assert result["accuracy"].item() == expected.mean() > 0.9
    assert result["train_accuracy"].item() == model.score(wide[digits.train], digits.labels[digits.train])


def test_chooses_as_ridgeclassifiercv(digits, features):
    wide = features.astype(np.float64)
    ours = probe(cells(features), digits, ProbeSettings())["ridge"].item()
    grid = ours * np.logspace(-3, 3, 25)
    theirs = RidgeClassifierCV(alphas=grid).fit(wide[digits.train], digits.labels[digits.train])
    np.testing.assert_allclose(ours, theirs.alpha_)


def test_the_label_itself_is_read_off(digits):
    one_hot = np.eye(10)[digits.labels]
    result = probe(cells(one_hot), digits, ProbeSettings())
    assert result["accuracy"].item() == result["train_accuracy"].item() == 1.0


def test_shuffled_labels_are_at_chance(digits, features):
    assert probe(cells(features), digits, ProbeSettings())["shuffled_accuracy"].item() == pytest.approx(0.1, abs=0.03)
    result = probe(cells(features), digits, ProbeSettings(shuffles=1))
    shuffled = digits.labels.copy()
    train = np.flatnonzero(digits.train)
    shuffled[train] = np.random.default_rng(0).permuted(digits.labels[train])
    by_hand = probe(cells(features), Samples(digits.inputs, shuffled, digits.train, 10, (1, 8, 8)), ProbeSettings())
    assert result["shuffled_accuracy"].item() == by_hand["accuracy"].item()


def test_the_baseline_stays_at_chance_where_each_class_is_one_point(digits):
    # A single permutation can give every class a wrong label, and the baseline an accuracy of zero.
    one_hot = np.eye(10)[digits.labels]
    result = probe(cells(one_hot), digits, ProbeSettings(shuffles=200))
    assert result["shuffled_accuracy"].item() == pytest.approx(0.1, abs=0.03)


def test_no_features_no_better_than_the_majority(digits):
    result = probe(cells(np.zeros((900, 4), np.float16)), digits, ProbeSettings())
    majority = np.bincount(digits.labels[digits.train]).argmax()
    assert result["accuracy"].item() == np.mean(digits.labels[digits.test] == majority)
    assert result["accuracy"].item() == majority_accuracy(digits)


def test_a_class_without_training_samples_is_never_named(digits, features):
    train = digits.train & (digits.labels != 4)
    result = probe(cells(features), Samples(digits.inputs, digits.labels, train, 10, (1, 8, 8)), ProbeSettings())
    of_class = digits.labels[~train] == 4
    assert result["correct"][0, 0].values[of_class].sum() == 0


def test_solvers_agree(digits, features):
    primal = probe(cells(features), digits, ProbeSettings(solver="primal"))
    for settings in (ProbeSettings(solver="dual"), ProbeSettings(exact_limit=100, rank=150)):
        xr.testing.assert_allclose(probe(cells(features), digits, settings), primal)
    gcv = probe(cells(features), digits, ProbeSettings(selection="gcv"))
    assert gcv["accuracy"].item() == pytest.approx(primal["accuracy"].item(), abs=0.01)


def test_the_ridge_never_sees_the_test_part(digits, features):
    changed = features.copy()
    changed[digits.test] *= -1
    before, after = (probe(cells(f), digits, ProbeSettings()) for f in (features, changed))
    assert before["ridge"].item() == after["ridge"].item()
    assert before["accuracy"].item() > after["accuracy"].item()


def test_cells_do_not_depend_on_their_batch(digits, features):
    layers = [features, features**2, np.roll(features, 1, axis=0)]
    batch = probe(cells(*layers), digits, ProbeSettings())
    for step, layer in enumerate(layers):
        alone = probe(cells(layer), digits, ProbeSettings())
        for name in batch.data_vars:
            np.testing.assert_array_equal(batch[name].values[:, step], alone[name].values[:, 0])


def test_labels_of_the_result(digits, features):
    result = probe(cells(features), digits, ProbeSettings())
    assert result["correct"].dims == ("seed", "step", "sample")
    assert result["correct"].dtype == np.int8
    np.testing.assert_array_equal(result["sample"], np.flatnonzero(digits.test))
    for variable in result.data_vars.values():
        assert set(variable.attrs) == {"long_name", "units"}


def test_what_is_not_finite_is_named(digits, features):
    broken = features.copy()
    broken[0, 0] = -np.inf
    with pytest.raises(UserError, match="seed 3, step 1 "):
        probe(cells(features, broken), digits, ProbeSettings())
