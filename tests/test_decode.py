"""Exact decoders, against principal components, least squares and scikit-learn."""

import numpy as np
import pytest
import xarray as xr
from sklearn.datasets import load_digits
from sklearn.linear_model import Ridge

from phasescope.errors import UserError
from phasescope.measures import samples as samples_module
from phasescope.measures.decode import decode
from phasescope.measures.samples import Samples
from phasescope.params.decode import DecodeSettings


def cells(*features, steps=(0,)):
    """Cells of one layer from arrays (sample, feature), in order of seed and step."""
    values = np.stack(features)
    seeds = np.arange(len(features) // len(steps))
    return xr.DataArray(
        values.reshape(len(seeds), len(steps), *values.shape[1:]),
        dims=("seed", "step", "sample", "feature"),
        coords={"seed": seeds, "step": list(steps), "sample": 10 * np.arange(values.shape[1])},
    )


@pytest.fixture(scope="module")
def digits():
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(images))[:600]
    images, labels = images[order], labels[order]
    inputs = ((images - images.mean()) / images.std()).astype(np.float32)
    return Samples(inputs, labels.astype(np.int64), np.arange(600) % 3 > 0, 10, (1, 8, 8))


@pytest.fixture(scope="module")
def features(digits):
    """Random ReLU features of digits, float16 as they are stored."""
    weights = np.random.default_rng(1).standard_normal((64, 100)) / 8
    return np.maximum(digits.inputs @ weights, 0).astype(np.float16)


@pytest.mark.parametrize("rank", [1, 10, 40])
def test_principal_components_give_the_pca_residual(digits, rank):
    images = digits.inputs.astype(np.float64)
    mean = images[digits.train].mean(axis=0)
    axes = np.linalg.svd(images[digits.train] - mean, full_matrices=False)[2][:rank]
    components = (images - mean) @ axes.T
    result = decode(cells(components), digits, DecodeSettings())
    # The ridge chosen shrinks each component by a known factor …
    energy = np.sum(components[digits.train] ** 2, axis=0)
    shrunk = components * energy / (energy + result["ridge"].item())
    error = np.mean((images - mean - shrunk @ axes) ** 2, axis=1)
    np.testing.assert_allclose(result["error"][0, 0], error[digits.test], rtol=1e-6)
    np.testing.assert_allclose(result["train_mse"].item(), error[digits.train].mean(), rtol=1e-9)
    # … and so little that the residual is that of the principal components, which none can beat.
    bound = np.mean((images - mean - components @ axes)[digits.train] ** 2)
    assert bound <= result["train_mse"].item() * (1 + 1e-12)
    np.testing.assert_allclose(result["train_mse"].item(), bound, rtol=1e-3)


def test_an_invertible_map_of_the_inputs_loses_nothing():
    generator = np.random.default_rng(0)
    inputs = generator.standard_normal((300, 30)).astype(np.float32)
    seen = Samples(inputs, np.zeros(300, np.int64), np.arange(300) < 200, 1, (1, 5, 6))
    result = decode(cells(inputs @ generator.standard_normal((30, 30)) + 3.0), seen, DecodeSettings())
    assert result["fvu"].item() < 1e-14
    assert result["train_mse"].item() < 1e-14


def test_errors_are_those_of_scikit_learn(digits, features):
    result = decode(cells(features), digits, DecodeSettings())
    wide = features.astype(np.float64)
    model = Ridge(alpha=result["ridge"].item()).fit(wide[digits.train], digits.inputs[digits.train])
    error = (model.predict(wide) - digits.inputs) ** 2
    np.testing.assert_allclose(result["error"][0, 0], error[digits.test].mean(axis=1), rtol=1e-6)
    np.testing.assert_allclose(result["test_mse"].item(), error[digits.test].mean(), rtol=1e-9)
    np.testing.assert_allclose(result["train_mse"].item(), error[digits.train].mean(), rtol=1e-9)


def test_pixels_and_their_rotation_give_the_same(digits, features, monkeypatch):
    rotated = decode(cells(features), digits, DecodeSettings())
    monkeypatch.setattr(samples_module, "ROTATION_LIMIT", 10)
    plain = Samples(digits.inputs, digits.labels, digits.train, 10, (1, 8, 8))
    assert plain.targets.train.mean.size == 64
    assert digits.targets.train.mean.size < 64
    xr.testing.assert_allclose(rotated, decode(cells(features), plain, DecodeSettings()), rtol=1e-6)


def test_more_pixels_than_training_samples(features):
    generator = np.random.default_rng(0)
    inputs = (features.astype(np.float32) @ generator.standard_normal((100, 300))).astype(np.float32)[:60]
    few = Samples(inputs, np.zeros(60, np.int64), np.arange(60) < 40, 1, (1, 15, 20))
    assert few.targets.train.mean.size == 39
    result = decode(cells(features[:60, :5]), few, DecodeSettings())
    centred = inputs[:40] - inputs[:40].mean(axis=0)
    design = np.column_stack([features[:60, :5].astype(float), np.ones(60)])
    weights = np.linalg.lstsq(design[:40], inputs[:40], rcond=None)[0]
    expected = np.mean((design[40:] @ weights - inputs[40:]) ** 2)
    assert result["test_mse"].item() == pytest.approx(expected, rel=0.05)
    assert result["train_mse"].item() <= np.mean(centred**2)


def test_solvers_agree(digits, features):
    primal = decode(cells(features), digits, DecodeSettings(solver="primal"))
    for other in (DecodeSettings(solver="dual"), DecodeSettings(exact_limit=99, rank=100)):
        xr.testing.assert_allclose(decode(cells(features), digits, other), primal, rtol=1e-5)
    sketched = decode(cells(features), digits, DecodeSettings(solver="randomised", rank=80))
    np.testing.assert_allclose(sketched["test_mse"], primal["test_mse"], rtol=0.3)
    loo = decode(cells(features), digits, DecodeSettings(selection="loo"))
    np.testing.assert_allclose(loo["test_mse"], primal["test_mse"], rtol=0.01)


def test_the_ridge_never_sees_the_test_part(digits, features):
    changed = features.copy()
    changed[digits.test] = changed[digits.test][::-1] + 1
    first = decode(cells(features), digits, DecodeSettings())
    second = decode(cells(changed), digits, DecodeSettings())
    assert first["ridge"].item() == second["ridge"].item()
    assert first["train_mse"].item() == second["train_mse"].item()
    assert first["test_mse"].item() != second["test_mse"].item()


def test_cells_do_not_depend_on_their_batch(digits, features):
    layers = [features, (features * 2) ** 2, np.roll(features, 1, axis=1) + 1, features[:, ::-1]]
    batch = decode(cells(*layers, steps=(0, 1)), digits, DecodeSettings())
    for index, layer in enumerate(layers):
        alone = decode(cells(layer), digits, DecodeSettings())
        for name in ("test_mse", "train_mse", "fvu", "ridge", "error"):
            np.testing.assert_array_equal(batch[name].values[index // 2, index % 2], alone[name].values[0, 0])


def test_labels_of_the_result(digits, features):
    result = decode(cells(features, features, steps=(4, 8)), digits, DecodeSettings())
    assert result["error"].dims == ("seed", "step", "sample")
    assert result["error"].dtype == np.float32
    np.testing.assert_array_equal(result["step"], [4, 8])
    np.testing.assert_array_equal(result["sample"], 10 * np.flatnonzero(digits.test))
    for variable in result.data_vars.values():
        assert set(variable.attrs) == {"long_name", "units"}
    mean = digits.inputs[digits.train].mean(axis=0, dtype=np.float64)
    baseline = np.mean((digits.inputs[digits.test] - mean) ** 2, axis=1)
    np.testing.assert_allclose(result["baseline_error"], baseline, rtol=1e-6)
    np.testing.assert_allclose(result["fvu"], result["test_mse"] / baseline.mean())
    np.testing.assert_allclose(result["error"].mean("sample"), result["test_mse"], rtol=1e-6)


def test_constant_features_decode_to_the_mean_image(digits):
    result = decode(cells(np.full((600, 7), 0.3, np.float32)), digits, DecodeSettings())
    np.testing.assert_allclose(result["fvu"], 1.0, rtol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_what_is_not_finite_is_named(digits, features, value, dtype):
    whole = features.astype(dtype)
    broken = whole.copy()
    broken[5, 5] = value
    with pytest.raises(UserError, match="seed 0, step 8 hold NaN or infinite") as raised:
        decode(cells(whole, broken, steps=(4, 8)), digits, DecodeSettings())
    assert "\n" not in str(raised.value)
