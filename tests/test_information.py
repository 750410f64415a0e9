"""The information plane, against formulas written out, closed forms, numerical integration, numpy and scikit-learn."""

from itertools import pairwise
from typing import get_args

import numpy as np
import pytest
import xarray as xr
from scipy.special import logsumexp
from scipy.stats import entropy
from sklearn.decomposition import PCA
from sklearn.metrics import mutual_info_score

from phasescope import open_run
from phasescope.errors import UserError
from phasescope.measures.estimators import Classes, through_noise
from phasescope.measures.information import information, settings_of
from phasescope.measures.samples import Samples
from phasescope.params.information import Estimator, InformationSettings

VALUES = ("i_x", "i_x_lower", "i_x_upper", "i_y", "i_y_lower", "i_y_upper")
ALL = get_args(Estimator)


def settings(estimator="gaussian", **more):
    return InformationSettings(estimators=[estimator], **more)


def measured(points, labels, chosen=None, train=None):
    """Of one seed and, for points (sample, feature) or (step, sample, feature), one or more steps."""
    steps = points if points.ndim == 3 else points[None]
    samples = steps.shape[1]
    coords = {"seed": [3], "step": np.arange(len(steps)), "sample": np.arange(samples)}
    activations = xr.DataArray(steps[None], dims=("seed", "step", "sample", "feature"), coords=coords)
    train = np.full(samples, True) if train is None else train
    known = Samples(np.zeros((samples, 1), np.float32), np.asarray(labels), train, int(np.max(labels)) + 1, (1, 1, 1))
    return information(activations, known, chosen or settings())


def numbers(result, names=VALUES):
    return np.array([result[name].values.ravel() for name in names]).squeeze()


@pytest.fixture(scope="module")
def layer():
    """A layer that is neither at the ceiling nor collapsed: ReLU features of noisy clusters, and their classes."""
    rng = np.random.default_rng(11)
    labels = rng.integers(0, 5, 240)
    centres = rng.standard_normal((5, 20))
    return np.maximum(centres[labels] + 0.5 * rng.standard_normal((240, 20)), 0), labels


# --- through noise: the formulas


def written_out(points, labels, variance, noise):
    """The formulas of methods 2.2 as they stand, with all differences, in extended precision."""
    points, noise = np.longdouble(points), np.longdouble(noise)

    def bound(chosen, factor):
        squares = np.square(points[chosen, None] - points[None, chosen]).sum(axis=2)
        return -np.mean(logsumexp(-squares / (2 * factor * variance), axis=1) - np.log(np.longdouble(len(chosen))))

    def value(chosen):
        squares = np.square(points[chosen, None] + noise[chosen, None] - points[None, chosen]).sum(axis=2)
        sums = logsumexp(-squares / (2 * variance), axis=1) - np.log(np.longdouble(len(chosen)))
        return np.mean(-sums - np.square(noise[chosen]).sum(axis=1) / (2 * variance))

    def within(of_class):
        return sum(np.mean(labels == k) * of_class(np.flatnonzero(labels == k)) for k in np.unique(labels))

    everyone = np.arange(len(points))
    x, lower, upper = value(everyone), bound(everyone, 4), bound(everyone, 1)
    of_y = (lower - within(lambda c: bound(c, 1)), upper - within(lambda c: bound(c, 4)))
    label_entropy = entropy(np.bincount(labels))
    return x, lower, upper, x - within(value), max(of_y[0], 0), min(of_y[1], label_entropy)


@pytest.mark.parametrize("shift", [0.0, 100.0])
def test_the_formulas_written_out(layer, shift):
    points, labels = layer
    labels = np.sort(labels)
    result = measured(points + shift, labels)
    variance = result["noise_variance"].item()
    total = np.square(points[:, None] - points[None]).sum(axis=2).mean() / 2
    assert result["total_variance"].item() == pytest.approx(total, rel=1e-10)
    assert variance == pytest.approx(0.03 * total, rel=1e-10)
    noise = np.random.default_rng((0, 1)).standard_normal(points.shape) * np.sqrt(variance)
    # Beside 100 the points themselves are rounded to 1e-14.
    rounding = 1e-11 if shift else 1e-12
    np.testing.assert_allclose(numbers(result), written_out(points, labels, variance, noise), rtol=0, atol=rounding)


def test_how_many_rows_are_done_at_once_does_not_matter(layer):
    points, labels = layer
    centred, classes = points - points.mean(axis=0), Classes(np.sort(labels))
    whole, *others = (
        list(through_noise(centred, classes, 0.2, np.random.default_rng(0), block).values())
        for block in (2**20, 1, 7 * 240, 239 * 240)
    )
    for other in others:
        np.testing.assert_allclose(other, whole, rtol=0, atol=1e-12)


def test_the_scale_of_a_layer_does_not_matter(layer):
    points, labels = layer
    expected = numbers(measured(points, labels))
    for factor in (10, 1e-9, 1e9):
        np.testing.assert_allclose(numbers(measured(factor * points, labels)), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("estimator", ["gaussian", "gaussian-absolute"])
def test_the_value_lies_between_the_bounds(layer, estimator):
    points, labels = layer
    lower, upper = [], []
    for spread in (0.1, 0.3, 1, 3):
        result = measured(spread * points, labels, settings(estimator))
        x, x_lower, x_upper, y, y_lower, y_upper = numbers(result)
        assert x_lower <= x <= x_upper <= result["h_x"].item()
        assert 0 <= y_lower <= y <= y_upper <= result["h_y"].item()
        lower.append(x_lower)
        upper.append(x_upper)
    if estimator == "gaussian-absolute":
        assert result["noise_variance"].item() == 0.1
        assert all(near < far for bound in (lower, upper) for near, far in pairwise(bound))


def test_bounds_about_the_class_hold_where_differences_of_like_bounds_do_not():
    """Three points on a line; the exact value comes from integrating the densities."""
    counts = np.array([[76, 92, 539], [248, 24, 21]])
    places = np.array([0.494, 2.565, 5.709])
    grid = np.linspace(-10, 16, 5001)
    density = np.exp(-np.square(grid[:, None] - places) / 2) / np.sqrt(2 * np.pi)

    def of(shares):
        mixture = density @ (shares / shares.sum())
        return -np.trapezoid(mixture * np.log(mixture), grid)

    exact = of(counts.sum(axis=0)) - sum(part.sum() / 1000 * of(part) for part in counts)
    points = np.concatenate([np.repeat(places, part) for part in counts])[:, None]
    labels = np.repeat([0, 1], counts.sum(axis=1))
    result = measured(points, labels, settings("gaussian-absolute", variance=1.0))
    value, lower, upper = numbers(result, ("i_y", "i_y_lower", "i_y_upper"))
    assert lower < exact < upper
    # Standard deviation over 40 draws: 0.006.
    assert value == pytest.approx(exact, abs=0.03)

    def lower_bound(part):
        shares = part / part.sum()
        return -shares @ np.log(np.exp(-np.square(places[:, None] - places) / 8) @ shares)

    alike = lower_bound(counts.sum(axis=0)) - sum(part.sum() / 1000 * lower_bound(part) for part in counts)
    assert alike > exact + 0.005


# --- through noise: what is known


def test_points_far_apart_tell_everything():
    labels = np.arange(60) % 4
    points = np.eye(60)  # squared distances of 2, 67 times the variance of the noise
    result = measured(points, labels)
    np.testing.assert_allclose(numbers(result)[[0, 2]], np.log(60), atol=1e-4)
    np.testing.assert_allclose(numbers(result)[[3, 5]], np.log(4), atol=1e-4)
    fine = numbers(measured(points, labels, settings(noise=0.001)))
    np.testing.assert_allclose(fine, np.log([60] * 3 + [4] * 3), atol=1e-12)


def test_tight_clusters_tell_which_one():
    clusters = np.repeat(np.arange(8), [5, 10, 20, 40, 5, 10, 20, 40])
    rng = np.random.default_rng(1)
    points = 10 * np.eye(8)[clusters] + 1e-4 * rng.standard_normal((150, 8))
    result = measured(points, clusters // 2, settings(noise=0.001))
    expected = entropy(np.bincount(clusters))
    np.testing.assert_allclose(numbers(result)[:3], expected, atol=1e-3)
    # The classes are unions of clusters: T tells all there is of them.
    assert result["h_y"].item() == pytest.approx(entropy(np.bincount(clusters // 2)), abs=1e-12)
    np.testing.assert_allclose(numbers(result)[3:], result["h_y"].item(), atol=1e-3)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_a_collapsed_layer_tells_nothing(dtype):
    labels = np.arange(300) % 3
    rng = np.random.default_rng(2)
    one = 1 + rng.standard_normal(50)
    for points in (np.zeros((300, 50)), np.tile(one, (300, 1))):
        np.testing.assert_allclose(numbers(measured(points.astype(dtype), labels)), 0, atol=1e-6)
    # What is the same but for rounding, of a network in float32 and of the dtype it is stored in.
    rounding = max(np.finfo(dtype).eps / 4, 1e-6)
    nearly = (one * (1 + rounding * rng.standard_normal((300, 50)))).astype(dtype)
    assert np.ptp(nearly, axis=0).max() > 0
    assert abs(numbers(measured(nearly, labels))).max() < 0.15


def test_a_gaussian_channel_has_its_capacity():
    """Gaussian inputs through Gaussian noise: I = ½ Σ ln(1 + s²/σ²) of the variances s² along the axes.

    The n points are a sample of the input, of which exp(I) = 20 to 21 are told apart, few beside 4,000: over samples
    and draws the value is 0.015 below the capacity on average, with a standard deviation of 0.020 (40 of each).
    """
    scales = np.array([1.0, 0.5, 0.2])
    for seed in (0, 1, 2):
        points = scales * np.random.default_rng((seed, 7)).standard_normal((4000, 3))
        result = measured(points, np.zeros(4000, int), settings(samples=4000))
        variance = result["noise_variance"].item()
        assert variance == pytest.approx(0.03 * np.square(scales).sum(), rel=0.1)
        capacity = np.log1p(np.square(scales) / variance).sum() / 2
        value, lower, upper = numbers(result)[:3]
        assert value == pytest.approx(capacity, abs=0.08)
        assert lower < capacity < upper


def test_without_a_class_or_without_clusters_the_class_is_not_told():
    points = np.random.default_rng(3).standard_normal((2000, 2))
    one = measured(points, np.zeros(2000, int))
    assert one["h_y"].item() == 0
    np.testing.assert_allclose(numbers(one)[3:], 0, atol=1e-12)
    # Labels at random: exp(I(T;X)) = 17 regions of 2,000 points differ a little in their labels, which tells 0.013
    # with a standard deviation of 0.003 (20 samples).
    chance = measured(points, np.arange(2000) % 2)
    assert chance["i_y"].item() < 0.03


# --- bins


def information_of(symbols, labels):
    return entropy(np.unique(symbols, return_counts=True)[1]), mutual_info_score(symbols, labels)


def test_bins_along_principal_components_are_those_of_numpy(layer):
    points, labels = layer
    found = PCA(3).fit_transform(points)
    counts, edges = np.histogramdd(found, 6)
    places = [np.clip(np.searchsorted(e, f, side="right") - 1, 0, 5) for e, f in zip(edges, found.T, strict=True)]
    expected = information_of(np.ravel_multi_index(places, (6, 6, 6)), labels)
    assert expected[0] == pytest.approx(entropy(counts.ravel()))
    result = measured(points, labels, settings("binned-pca", bins=6))
    np.testing.assert_allclose(numbers(result, ("i_x", "i_y")), expected, atol=1e-12)
    # As many features as samples or more: the same from the other Gram matrix.
    wide = np.concatenate([points, np.zeros((240, 300))], axis=1)
    result = measured(wide, labels, settings("binned-pca", bins=6))
    np.testing.assert_allclose(numbers(result, ("i_x", "i_y")), expected, atol=1e-12)


def test_directions_without_variance_have_no_bins():
    labels = np.repeat([0, 1, 2], 50)
    line = np.outer(labels, [1.0, -2.0, 0.3, 7.0]) / 3
    for points in (line, line.astype(np.float16), line[:, :1]):
        result = measured(points, labels, settings("binned-pca"))
        np.testing.assert_allclose(numbers(result, ("i_x", "i_y")), np.log(3), atol=1e-12)
    result = measured(np.full((150, 4), 0.1, np.float32), labels, settings("binned-pca"))
    np.testing.assert_allclose(numbers(result, ("i_x", "i_y")), 0, atol=1e-12)


@pytest.mark.parametrize("bin_width", [0.5, 2.0])
def test_bins_of_one_width(layer, bin_width):
    points, labels = layer[0][:, :3] - 1, layer[1]
    _, symbols = np.unique(np.floor(points / bin_width), axis=0, return_inverse=True)
    result = measured(points, labels, settings("binned-full", bin_width=bin_width))
    np.testing.assert_allclose(numbers(result, ("i_x", "i_y")), information_of(symbols, labels), atol=1e-12)


def test_zero_and_minus_zero_are_in_one_bin():
    points = np.array([[0.0], [-0.0], [1.0]])
    result = measured(points, [0, 0, 1], settings("binned-full", bin_width=1.0))
    assert result["i_x"].item() == pytest.approx(entropy([2, 1]))


def test_levels_lie_between_the_ends_of_the_layer(layer):
    points, labels = layer[0][:, :3], layer[1]
    ladder = np.linspace(points.min(), points.max(), 4)
    nearest = np.abs(points[:, :, None] - ladder).argmin(axis=2)
    result = measured(points, labels, settings("quantised", bits=2))
    expected = information_of(np.ravel_multi_index(tuple(nearest.T), (4, 4, 4)), labels)
    np.testing.assert_allclose(numbers(result, ("i_x", "i_y")), expected, atol=1e-12)
    constant = measured(np.full((240, 3), 2.0), labels, settings("quantised"))
    assert numbers(constant, ("i_x", "i_y")).tolist() == [0, 0]


def test_features_by_themselves(layer):
    points, labels = layer[0].copy(), layer[1]
    points[:, 4] = 0.3
    expected = []
    for feature in points.T:
        edges = np.histogram_bin_edges(feature, 9)
        bins = np.clip(np.searchsorted(edges, feature, side="right") - 1, 0, 8)
        expected.append(information_of(bins, labels) if np.ptp(feature) else (0, 0))
    result = measured(points, labels, settings("neuron-mean", bins=9))
    np.testing.assert_allclose(numbers(result, ("i_x", "i_y")), np.mean(expected, axis=0), atol=1e-12)


@pytest.mark.parametrize("estimator", ["binned-full", "quantised"])
def test_a_wide_layer_is_at_the_ceiling_of_bins_in_every_feature(estimator):
    rng = np.random.default_rng(4)
    labels = rng.integers(0, 3, 200)
    result = measured(rng.standard_normal((200, 50)), labels, settings(estimator))
    assert result["i_x"].item() == pytest.approx(result["h_x"].item(), abs=1e-12)
    assert result["i_y"].item() == pytest.approx(result["h_y"].item(), abs=1e-12)


# --- cells, samples, settings


@pytest.mark.parametrize("estimator", ALL)
def test_cells_do_not_depend_on_their_batch(layer, estimator):
    points, labels = layer
    steps = np.stack([points, np.roll(points, 1, axis=0), points**2])
    together = measured(steps, labels, settings(estimator))
    for step in range(3):
        alone = measured(steps[step], labels, settings(estimator))
        for name in ("i_x", "i_y"):
            assert together[name].values[0, step] == alone[name].item()


@pytest.mark.parametrize("estimator", ALL)
def test_the_dtype_that_activations_are_stored_in(layer, estimator):
    points, labels = layer[0].astype(np.float16), layer[1]
    half, single, double = (
        numbers(measured(points.astype(dtype), labels, settings(estimator)), ("i_x", "i_y"))
        for dtype in ("float16", "float32", "float64")
    )
    np.testing.assert_array_equal(half, double)
    np.testing.assert_array_equal(single, double)


def test_rounding_to_float16_hardly_changes_the_value(layer):
    points, labels = layer
    exact, rounded = (numbers(measured(p, labels)) for p in (points, points.astype(np.float16)))
    np.testing.assert_allclose(rounded, exact, atol=1e-3)


def test_the_samples_are_a_fixed_draw_of_one_part(layer):
    points, labels = layer
    train = np.arange(240) % 4 > 0
    few = measured(np.stack([points, points]), labels, settings(samples=100), train)
    assert (few["h_x"].item(), few["h_x"].attrs["samples"]) == (np.log(100), 100)
    np.testing.assert_array_equal(numbers(few)[:, 0], numbers(few)[:, 1])
    other = measured(points, labels, settings(samples=100, draw_seed=1), train)
    assert other["i_x"].item() != few["i_x"].values[0, 0]
    assert other["h_x"].attrs["draw_seed"] == 1
    # What the other part is makes no difference, and all samples of a part are its training or its test samples.
    changed = np.where(train[:, None], points, 0)
    np.testing.assert_array_equal(numbers(measured(changed, labels, settings(samples=100), train)), numbers(few)[:, 0])
    test = measured(points, labels, settings(part="test"), train)
    assert (test["h_x"].attrs["samples"], test["h_x"].attrs["part"]) == (60, "test")
    np.testing.assert_allclose(numbers(test), numbers(measured(points[~train], labels[~train])), atol=1e-12)


def test_what_a_value_depends_on_is_stored_with_it(layer):
    result = measured(*layer)
    assert set(result.data_vars) == {*VALUES, "h_x", "h_y", "noise_variance", "total_variance"}
    for variable in result.data_vars.values():
        assert {"long_name", "units"} <= set(variable.attrs)
    assert {result[name].attrs["units"] for name in (*VALUES, "h_x", "h_y")} == {"nat"}
    assert result["h_x"].attrs.items() >= {"samples": 240, "part": "train", "draw_seed": 0}.items()
    assert result["h_y"].item() == pytest.approx(entropy(np.bincount(layer[1])), abs=1e-12)
    binned = measured(*layer, settings("binned-pca"))
    assert set(binned.data_vars) == {"i_x", "i_y", "h_x", "h_y"}


def test_the_stage_keeps_every_cell_with_its_settings(complete):
    run = open_run(complete / "runs" / "small")
    kept = run.measure("information")
    assert kept["i_x"].dims == ("seed", "step", "layer", "estimator")
    assert kept["estimator"].values.tolist() == ["gaussian"]
    assert kept.attrs == InformationSettings().model_dump()
    layer = run.activations("predense").isel(seed=[1], step=[3]).load()
    labels, train = layer["label"].values, layer["split"].values == "train"
    known = Samples(np.zeros((len(labels), 1), np.float32), labels, train, 10, (1, 8, 8))
    again = information(layer, known, settings())
    for name in again.data_vars:
        place = {"seed": 1, "step": 3, "layer": run.taps.index("predense")}
        cell = kept[name].isel(place, missing_dims="ignore").squeeze()
        np.testing.assert_allclose(cell, again[name].squeeze(), rtol=0, atol=1e-12)


def test_settings_of_other_estimators_do_not_tell_cells_apart():
    several = InformationSettings(estimators=list(ALL), noise=0.1, bins=7, bits=3, samples=50)
    for estimator in ALL:
        mine = settings_of(estimator, several)
        assert (mine.estimators, mine.samples) == ([estimator], 50)
        assert (mine.noise == 0.1) == (estimator == "gaussian")
        assert (mine.bins == 7) == (estimator in ("binned-pca", "neuron-mean"))
        assert (mine.bits == 3) == (estimator == "quantised")


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("estimator", ["gaussian", "binned-pca"])
def test_what_is_not_finite_is_named(layer, value, estimator):
    broken = layer[0].copy()
    broken[0, 0] = value
    with pytest.raises(UserError, match="seed 3, step 1 "):
        measured(np.stack([layer[0], broken]), layer[1], settings(estimator))
