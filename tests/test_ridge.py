"""The shared ridge regression, against scikit-learn, numpy and refits by brute force."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge, RidgeCV

from phasescope.measures.ridge import centre, factorise, fit, fit_centred, widened


def problem(samples=40, width=12, targets=3, seed=0, noise=0.5):
    generator = np.random.default_rng(seed)
    features = generator.standard_normal((samples, width)) * np.logspace(0, -1, width) + 3.0
    truth = generator.standard_normal((width, targets))
    return features, features @ truth + noise * generator.standard_normal((samples, targets)) - 7.0


def exact(features, targets, ridge):
    """Predictor by the normal equations."""
    mean, offset = features.mean(axis=0), targets.mean(axis=0)
    centred = features - mean
    gram = centred.T @ centred + ridge * np.eye(features.shape[1])
    weights = np.linalg.solve(gram, centred.T @ (targets - offset))
    return lambda new: (new - mean) @ weights + offset


@pytest.mark.parametrize(("samples", "width"), [(40, 12), (12, 40), (20, 20)])
@pytest.mark.parametrize("solver", ["auto", "primal", "dual", "randomised"])
@pytest.mark.parametrize("selection", ["gcv", "loo"])
def test_predictions_are_those_of_scikit_learn(samples, width, solver, selection):
    features, targets = problem(samples, width)
    new = problem(15, width, seed=1)[0]
    ridge = fit(factorise(features, solver=solver), targets, selection)
    assert ridge.ridge > 0 or samples > width
    if ridge.ridge:
        expected = Ridge(alpha=ridge.ridge, solver="svd").fit(features, targets).predict(new)
        np.testing.assert_allclose(ridge.predict(new), expected, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(ridge.fitted(), ridge.predict(features), rtol=1e-9, atol=1e-9)
    train = np.mean((ridge.predict(features) - targets) ** 2)
    np.testing.assert_allclose(ridge.train_mse, train, rtol=1e-7, atol=1e-14)


def test_no_ridge_is_least_squares():
    features, targets = problem(noise=0.0)
    targets += 1e-3 * np.random.default_rng(1).standard_normal(targets.shape)
    factors = factorise(features)
    ridge = fit(factors, targets, "gcv")
    assert ridge.ridges[0] == 0.0
    design = np.column_stack([features, np.ones(len(features))])
    weights = np.linalg.lstsq(design, targets, rcond=None)[0]
    residual = np.sum((targets - design @ weights) ** 2)
    freedom = len(features) - 1 - features.shape[1]
    np.testing.assert_allclose(ridge.scores[0], len(features) * residual / freedom**2 / targets.shape[1])


@pytest.mark.parametrize(("samples", "width"), [(25, 6), (14, 30)])
@pytest.mark.parametrize("solver", ["primal", "dual"])
def test_path_against_brute_force(samples, width, solver):
    features, targets = problem(samples, width)
    factors = factorise(features, solver=solver)
    loo, gcv = fit(factors, targets, "loo"), fit(factors, targets, "gcv")
    centred = features - features.mean(axis=0)
    for index in range(20, len(loo.ridges), 6):  # below, the normal equations lose their digits
        ridge = loo.ridges[index]
        errors = []
        for left_out in range(samples):
            rest = np.arange(samples) != left_out
            predict = exact(features[rest], targets[rest], ridge)
            errors.append((predict(features[left_out]) - targets[left_out]) ** 2)
        np.testing.assert_allclose(loo.scores[index], np.mean(errors), rtol=1e-6)
        residual = np.sum((exact(features, targets, ridge)(features) - targets) ** 2)
        hat = centred @ np.linalg.solve(centred.T @ centred + ridge * np.eye(width), centred.T)
        freedom = samples - 1 - np.trace(hat)
        expected = samples * residual / freedom**2 / targets.shape[1]
        np.testing.assert_allclose(gcv.scores[index], expected, rtol=1e-6)


def test_leave_one_out_chooses_as_ridgecv():
    features, targets = problem(60, 30, noise=3.0)
    ours = fit(factorise(features), targets, "loo")
    theirs = RidgeCV(alphas=ours.ridges[1:], gcv_mode="svd").fit(features, targets)
    np.testing.assert_allclose(ours.ridge, theirs.alpha_)
    np.testing.assert_allclose(ours.scores[1:].min(), -theirs.best_score_, rtol=1e-9)


def test_small_ridges_of_an_interpolating_fit_keep_their_digits():
    # Minimum-norm interpolation: leave-one-out residual = (K⁻¹y)_i / (K⁻¹)_ii, K bordered by the mean.
    features, targets = problem(10, 50)
    ridge = fit(factorise(features), targets, "loo")
    assert ridge.ridges[0] > 0
    bordered = np.ones((11, 11))
    bordered[:10, :10] = features @ features.T + ridge.ridges[0] * np.eye(10)
    bordered[10, 10] = 0.0
    inverse = np.linalg.inv(bordered)[:10, :10]
    residuals = inverse @ targets / np.diag(inverse)[:, None]
    np.testing.assert_allclose(ridge.scores[0], np.mean(residuals**2), rtol=1e-6)


def test_randomised_subspace_holds_decaying_features():
    generator = np.random.default_rng(0)
    left = np.linalg.qr(generator.standard_normal((200, 120)))[0]
    right = np.linalg.qr(generator.standard_normal((150, 120)))[0]
    features = (left * np.logspace(0, -6, 120)) @ right.T
    targets = features @ generator.standard_normal((150, 2)) + 0.01 * generator.standard_normal((200, 2))
    whole = fit(factorise(features), targets, "gcv")
    sketch = fit(factorise(features, exact_limit=100, rank=60), targets, "gcv")
    assert sketch.weights.shape[0] == 60
    np.testing.assert_allclose(sketch.predict(features), whole.predict(features), atol=1e-3)


@pytest.mark.parametrize("solver", ["auto", "primal", "dual", "randomised"])
@pytest.mark.parametrize("value", [0.0, 0.1, 1e5])
@pytest.mark.parametrize("selection", ["gcv", "loo"])
def test_constant_features_predict_the_mean(solver, value, selection):
    features = np.full((30, 5), value, dtype=np.float32)
    targets = np.random.default_rng(0).standard_normal((30, 2))
    ridge = fit(factorise(features, solver=solver), targets, selection)
    assert ridge.ridge == 0.0
    np.testing.assert_array_equal(ridge.predict(features + 1), np.tile(targets.mean(axis=0), (30, 1)))
    np.testing.assert_allclose(ridge.train_mse, targets.var(axis=0).mean())


def test_repeated_features_are_one_direction_each():
    features = problem(40, 6)[0]
    twice = np.hstack([features, features])
    for solver in ("primal", "dual"):
        np.testing.assert_allclose(factorise(twice, solver=solver).values, np.sqrt(2) * factorise(features).values)


def test_a_sample_of_leverage_one_rules_out_no_ridge():
    features, targets = problem(30, 4)
    alone = np.zeros((30, 1))
    alone[7] = 1.0
    ridge = fit(factorise(np.hstack([features, alone])), targets, "loo")
    assert ridge.scores[0] == np.inf
    assert ridge.ridge > 0


def test_wide_features_are_factored_by_samples():
    features = np.random.default_rng(0).standard_normal((8, 20_000)).astype(np.float16)
    factors = factorise(features)
    assert factors.dual
    assert factors.basis.shape == (8, 7)


def test_scale_and_offset_of_features_do_not_matter():
    features, targets = problem(50, 20)
    plain = fit(factorise(features), targets, "gcv")
    moved = fit(factorise(1e-6 * features + 5.0), targets, "gcv")
    np.testing.assert_allclose(plain.predict(features), moved.predict(1e-6 * features + 5.0), rtol=1e-5)


def test_rounding_of_a_constant_feature_is_no_direction():
    """Equal probabilities that were summed in different orders differ in their last digit, and tell nothing apart."""
    equal = np.full((40, 10), 0.1)
    rounded = equal + np.random.default_rng(0).choice([-1, 0, 1], equal.shape) * np.spacing(0.1)
    assert len(factorise(rounded).values) == 0
    apart = rounded + 1e-11 * np.random.default_rng(1).standard_normal(equal.shape)
    assert len(factorise(apart).values) == 10


def test_without_selection_it_is_least_squares():
    rng = np.random.default_rng(2)
    features, targets = rng.standard_normal((50, 6)), rng.standard_normal((50, 3))
    found = fit(factorise(features), targets, "none")
    columns = np.column_stack([features, np.ones(50)])
    solution = np.linalg.lstsq(columns, targets)[0]
    np.testing.assert_allclose(found.predict(features), columns @ solution, rtol=1e-12, atol=1e-12)
    assert found.ridge == 0
    assert found.train_mse == pytest.approx(np.square(targets - columns @ solution).mean(), rel=1e-12)


@pytest.mark.parametrize(("samples", "width"), [(200, 60), (60, 200)])
@pytest.mark.parametrize("decay", [-1, -6])
def test_targets_in_single_precision_give_the_same_to_its_rounding(samples, width, decay):
    """Also along directions that are a millionth as long as others, which products of features would not keep."""
    rng = np.random.default_rng(0)
    features = rng.standard_normal((samples, width)) * np.logspace(0, decay, width) + 3.0
    targets = features @ rng.standard_normal((width, 20)) + 0.1 * rng.standard_normal((samples, 20))
    targets = targets.astype(np.float32)
    factors = factorise(features)
    double, single = (fit_centred(factors, centre(each), "gcv") for each in (targets.astype(np.float64), targets))
    assert single.predict(features).dtype == np.float32
    assert single.ridge == double.ridge
    variance = targets.var(axis=0, dtype=np.float64).mean()
    np.testing.assert_allclose(single.scores, double.scores, rtol=1e-6, atol=1e-6 * variance)
    np.testing.assert_allclose(single.train_mse, double.train_mse, rtol=1e-6, atol=1e-6 * variance)
    apart = single.predict(features) - double.predict(features)
    assert np.abs(apart).max() < 1e-5 * np.sqrt(variance)


def test_half_precision_is_widened_to_the_bit():
    every = np.arange(2**16, dtype=np.uint16).view(np.float16)
    finite = every[np.isfinite(every)]
    np.testing.assert_array_equal(widened(finite).view(np.uint32), finite.astype(np.float32).view(np.uint32))
    matrix = finite[:-2].reshape(-1, 2)[:, ::-1].T
    np.testing.assert_array_equal(widened(matrix), matrix.astype(np.float32))
    assert widened(np.float32([1, np.inf])).tolist() == [1, np.inf]
