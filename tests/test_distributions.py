"""Class-conditional distributions, against distributions made by hand and scipy."""

import numpy as np
import pytest
import xarray as xr
from scipy.spatial.distance import jensenshannon
from sklearn.datasets import load_digits
from sklearn.feature_selection import f_classif

from phasescope.errors import UserError
from phasescope.measures import distributions
from phasescope.measures.distributions import choose_features, histograms, statistics
from phasescope.measures.samples import Samples
from phasescope.params.distributions import DistributionsSettings


def described(labels, classes=None):
    """Samples with these labels, all of them for testing but for one training sample put in front."""
    labels = np.concatenate([[0], labels])
    inputs = np.zeros((len(labels), 1), np.float32)
    return Samples(
        inputs, labels, np.arange(len(labels)) == 0, classes or int(labels.max()) + 1, (1, 1, inputs.shape[1])
    )


def cells(*features):
    """Cells of one seed, one a step, from arrays (test sample, feature); the training sample is far off."""
    values = np.stack([np.vstack([np.full((1, f.shape[1]), 1e4, f.dtype), f]) for f in features])[None]
    coords = {"seed": [0], "step": np.arange(len(features))}
    return xr.DataArray(values, dims=("seed", "step", "sample", "feature"), coords=coords)


def of(feature, labels, classes=None, **settings):
    """Statistics of a single feature."""
    column = np.asarray(feature, np.float64)[:, None]
    result = statistics(cells(column), described(labels, classes), DistributionsSettings(**settings))
    return result.isel(seed=0, step=0)


@pytest.fixture(scope="module")
def digits():
    images, labels = load_digits(return_X_y=True)
    return described(labels[:500]), images[:500].astype(np.float16)


def test_zeros():
    result = of([0, 0, 1, 2, 0, 3], [0, 0, 0, 1, 1, 1], classes=3)
    assert result["zero_fraction"].item() == 0.5
    np.testing.assert_array_equal(result["zero_fraction_class"], [2 / 3, 1 / 3, np.nan])


def test_selectivity_of_morcos():
    # Class means 6, 2, 1: (6 − 1.5) / (6 + 1.5).
    assert of([5, 7, 2, 2, 1, 1], [0, 0, 1, 1, 2, 2])["selectivity"].item() == pytest.approx(0.6)
    assert of([4, 4, 0, 0], [1, 1, 0, 0])["selectivity"].item() == 1.0
    assert of([3, 3, 3, 3], [1, 1, 0, 0])["selectivity"].item() == 0.0
    assert of([0, 0, 0, 0], [1, 1, 0, 0])["selectivity"].item() == 0.0


def test_selective_classes_counts_classes_above_twice_the_mean():
    labels = np.repeat(np.arange(5), 2)
    one = np.repeat([10.0, 1, 1, 1, 1], 2)  # overall mean 2.8: one class
    two = np.repeat([10.0, 10, 0, 0, 0], 2)  # 4: two classes
    none = np.ones(10)
    dead = np.zeros(10)
    values = np.column_stack([one, two, none, dead])
    result = statistics(cells(values), described(labels), DistributionsSettings())
    np.testing.assert_array_equal(result["selective_classes"][0, 0], [0.5, 0.25, 0.25, 0, 0, 0])


def test_strength_ratio_is_the_k_of_weak_and_strong_samples():
    labels = np.repeat([0, 1], 6)
    strong = np.r_[np.zeros(6), 1, 1, 1, 3, 3, 3.0]
    assert of(strong, labels)["strength_ratio"].item() == 3.0
    sparse = np.r_[np.zeros(6), 0, 0, 1, 3, 3, 3.0]
    assert np.isnan(of(sparse, labels)["strength_ratio"].item())
    values = np.column_stack([strong, sparse, 5 * strong])
    both = statistics(cells(values), described(labels), DistributionsSettings())
    assert both["strength_ratio"].item() == 3.0


def test_class_variance_is_the_f_statistic(digits):
    samples, images = digits
    varying = images.std(axis=0) > 0
    f_values = f_classif(images[:, varying].astype(float), samples.labels[1:])[0]
    expected = 9 * f_values / (9 * f_values + len(images) - 10)
    result = statistics(cells(images[:, varying] - np.float16(8)), samples, DistributionsSettings())
    np.testing.assert_allclose(result["class_variance"].item(), expected.mean(), rtol=1e-9)
    assert of(np.full(6, 0.1), [0, 0, 0, 1, 1, 1])["class_variance"].item() == 0.0


def test_divergence_of_known_histograms():
    labels = np.repeat(np.arange(4), 5)
    apart = np.repeat([0.0, 1, 2, 3], 5)
    assert of(apart, labels)["js_divergence"].item() == pytest.approx(2.0)  # log2(4 classes)
    assert of(apart, labels)["js_divergence_shuffled"].item() < 1.5
    assert of(np.tile([0.0, 1, 2, 3, 4], 4), labels)["js_divergence"].item() == pytest.approx(0.0, abs=1e-12)
    assert of(np.full(20, 7.0), labels)["js_divergence"].item() == pytest.approx(0.0, abs=1e-12)
    # Unequal class sizes weigh alike: scipy's distance is the square root of the divergence of two.
    values = np.r_[0.0, 0, 0, 1, 1, 1, 1, 1, 2, 2, 0, 1]
    expected = jensenshannon([0.3, 0.5, 0.2], [0.5, 0.5, 0.0], base=2) ** 2
    assert of(values, np.repeat([0, 1], [10, 2]), bins=3)["js_divergence"].item() == pytest.approx(expected)


def test_divergence_of_real_features_by_plain_loops(digits):
    samples, images = digits
    for shift in (0, 8):
        values = images.astype(float) - shift
        divergences = []
        for feature in values.T:
            low, high = np.quantile(feature, [0.001, 0.999])
            low = low if feature.min() < 0 else 0.0
            high = high if high > low else max(feature.max(), low + 1)
            shares = [
                np.histogram(np.clip(feature[samples.labels[1:] == c], low, high), 30, (low, high))[0]
                for c in range(10)
            ]
            shares = np.array([s / s.sum() for s in shares])
            entropy = lambda p: -sum(x * np.log2(x) for x in p if x > 0)  # noqa: E731
            divergences.append(entropy(shares.mean(axis=0)) - np.mean([entropy(s) for s in shares]))
        result = statistics(cells(values), samples, DistributionsSettings(bins=30))
        np.testing.assert_allclose(result["js_divergence"].item(), np.mean(divergences), rtol=1e-9)


def test_negative_features_have_no_selectivity(digits):
    samples, images = digits
    signed = statistics(cells(images - np.float16(1)), samples, DistributionsSettings())
    for name in ("selectivity", "selective_classes", "strength_ratio"):
        assert np.isnan(signed[name]).all()
    for name in ("class_variance", "js_divergence", "zero_fraction"):
        assert signed[name].item() > 0


def test_neither_blocks_nor_batches_change_the_result(digits, monkeypatch):
    samples, images = digits
    alone = [statistics(cells(f), samples, DistributionsSettings()) for f in (images, images**2)]
    batch = statistics(cells(images, images**2), samples, DistributionsSettings())
    for step, result in enumerate(alone):
        for name in batch.data_vars:
            np.testing.assert_array_equal(batch[name].values[:, step], result[name].values[:, 0])
    monkeypatch.setattr(distributions, "BLOCK", 3000)
    xr.testing.assert_allclose(statistics(cells(images), samples, DistributionsSettings()), alone[0])


def test_labels_of_the_statistics(digits):
    samples, images = digits
    result = statistics(cells(images), samples, DistributionsSettings())
    assert result["zero_fraction_class"].dims == ("seed", "step", "class")
    assert result["selective_classes"].dims == ("seed", "step", "count")
    assert result["selective_classes"].sum().item() == pytest.approx(1.0)
    np.testing.assert_array_equal(result["count"], np.arange(11))
    for variable in result.data_vars.values():
        assert set(variable.attrs) == {"long_name", "units"}


def test_fixed_features_then_the_most_selective_of_the_others():
    labels = np.repeat([0, 1], 3)
    values = np.array([1.0, 1, 1, 3, 3, 3])[:, None] ** [0, 4, 1, 2, 1]  # more selective with the exponent
    settings = DistributionsSettings(fixed=[1, 99, 0, 1], selective=3)
    chosen = choose_features(cells(values)[0, 0], described(labels), settings)
    assert chosen == [1, 0, 3, 2, 4]
    alike = np.tile(labels[:, None].astype(float), 50)
    assert choose_features(cells(alike)[0, 0], described(labels), settings) == [1, 0, 2, 3, 4]
    noise = np.random.default_rng(0).standard_normal((6, 5)) * [1, 1, 1, 1, 0]
    signed = np.where(labels == 1, 5.0, -5.0)[:, None] * [0, 1, 2, 3, 0] + noise
    settings = DistributionsSettings(fixed=[], selective=1)
    variance = [f_classif(signed[:, [i]], labels)[0][0] for i in range(4)]
    assert choose_features(cells(signed)[0, 0], described(labels), settings) == [int(np.argmax(variance))]


def test_histograms_integrate_to_what_is_not_zero(digits):
    samples, images = digits
    steps = cells(images[:, 20:24], images[:, 20:24] * 2)[0]
    result = histograms(steps, samples, DistributionsSettings(bins=20))
    assert result["density"].dims == ("feature", "step", "class", "bin")
    assert result["density"].shape == (4, 2, 10, 20)
    integral = (result["density"].values * np.diff(result["edge"].values)[:, None, None]).sum(axis=-1)
    np.testing.assert_allclose(integral + result["zero"], 1.0)
    share = np.mean(images[samples.labels[1:] == 3, 21] == 0)
    np.testing.assert_allclose(result["zero"].sel({"class": 3}).values[1], share)


def test_histograms_are_those_of_numpy(digits):
    samples, images = digits
    values = images[:, 28].astype(float) + 0.5
    result = histograms(cells(values[:, None])[0], samples, DistributionsSettings(bins=12))
    edges = np.linspace(0, np.quantile(values, 0.999), 13)
    np.testing.assert_allclose(result["edge"][0], edges)
    for label in range(10):
        inside = np.minimum(values[samples.labels[1:] == label], edges[-1])
        expected = np.histogram(inside, edges, density=True)[0]
        np.testing.assert_allclose(result["density"][0, 0, label], expected, atol=1e-12)


def test_bins_are_common_to_all_steps():
    generator = np.random.default_rng(0)
    early, late = generator.standard_normal((1000, 1)), 10 * generator.standard_normal((1000, 1))
    labels = np.arange(1000) % 2
    result = histograms(cells(early, late)[0], described(labels, classes=3), DistributionsSettings())
    both = np.concatenate([early, late])
    np.testing.assert_allclose(result["edge"][0, [0, -1]], np.quantile(both, [0.001, 0.999]))
    assert np.isnan(result["density"].sel({"class": 2})).all()


@pytest.mark.parametrize("value", [0.0, 2.0, -3.0])
def test_constant_features_have_histograms(value):
    labels = np.repeat([0, 1], 5)
    result = histograms(cells(np.full((10, 1), value))[0], described(labels), DistributionsSettings(bins=4))
    assert np.all(np.diff(result["edge"].values) > 0)
    assert np.isfinite(result["density"]).all()
    np.testing.assert_array_equal(result["zero"].values.ravel(), float(value == 0))


def test_what_is_not_finite_is_named(digits):
    samples, images = digits
    broken = images.copy()
    broken[3, 3] = np.nan
    with pytest.raises(UserError, match="seed 0, step 1 "):
        statistics(cells(images, broken), samples, DistributionsSettings())
    with pytest.raises(UserError, match="histograms"):
        histograms(cells(broken)[0], samples, DistributionsSettings())
    with pytest.raises(UserError, match="features are chosen"):
        choose_features(cells(broken)[0, 0], samples, DistributionsSettings())
