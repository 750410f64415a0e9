"""The reduced recursion and the closed forms against full gradient descent and least squares."""

import numpy as np
import pytest
from scipy.special import softmax

from phasescope.theory.feature_strength import descent, reconstruction, recursion
from phasescope.theory.feature_strength.model import FeatureStrength, samples

#: (l, d, k, λ) and the last step of the parameter sets at which the reduction was checked first.
SETS = [
    ((3, 12, 2, 0.1), 400),
    ((10, 100, 2, 0.05), 2000),
    ((10, 1000, 5, 0.01), 1000),
    ((20, 400, 3, 0.1), 1000),
    ((50, 500, 2, 0.2), 1500),
    ((10, 100, 2, 50), 50),
]


def least_squares(features, targets):
    """Mean squared error by numpy's least squares with a bias, for one matrix of features."""
    columns = np.hstack([features, np.ones((len(features), 1))])
    return np.mean((targets - columns @ np.linalg.lstsq(columns, targets)[0]) ** 2)


@pytest.mark.parametrize(("given", "last"), SETS)
def test_full_gradient_descent_is_the_reduced_recursion(given, last):
    outputs, inputs, strength, rate = given
    model = FeatureStrength(outputs, strength, inputs, rate)
    steps = np.unique(np.r_[0:20, np.linspace(20, last, 20).astype(int)])
    found = descent.descend(model, descent.start(model), steps)
    gap = recursion.gaps(model, steps)

    own = np.kron(np.eye(outputs), np.ones(inputs // outputs)) == 1
    expected = recursion.weights(gap, outputs, inputs)
    np.testing.assert_allclose(found[:, own], np.tile(expected.own[:, None], own.sum()), rtol=0, atol=1e-12)
    np.testing.assert_allclose(found[:, ~own], np.tile(expected.other[:, None], (~own).sum()), rtol=0, atol=1e-12)
    np.testing.assert_allclose(expected.own + (outputs - 1) * expected.other, outputs / inputs, rtol=1e-12)
    np.testing.assert_allclose(found[:, own].sum(axis=1) / outputs, recursion.own_sum(gap, outputs), rtol=1e-12)

    data = samples(model)
    first_class = softmax(data.inputs @ found.swapaxes(1, 2), axis=-1)[:, [0, outputs, 1, outputs + 1], 0]
    np.testing.assert_allclose(first_class, np.transpose(recursion.probabilities(gap, outputs, strength)), atol=1e-12)

    errors = [least_squares(softmax(data.inputs @ one.T, axis=1), data.inputs) for one in found]
    np.testing.assert_allclose(errors, reconstruction.optimal(gap, outputs, strength), rtol=0, atol=1e-12)
    np.testing.assert_allclose(descent.from_softmax(model, found), errors, rtol=0, atol=1e-12)
    logits = descent.from_logits(model, found)
    np.testing.assert_allclose(logits, reconstruction.from_logits(gap, outputs, strength), rtol=0, atol=1e-12)
    assert (logits[1:] < 1e-24).all()


def test_noise_on_the_probability_that_the_decoder_reads():
    model, noise = FeatureStrength(10, 2.0, 1000, 1e-4), 0.01
    steps = [0, 1, 64, 1024]
    gap = recursion.gaps(model, steps)
    found = descent.descend(model, descent.start(model), steps)
    # On all probabilities independently it has to be larger to do as much.
    errors = descent.from_softmax(model, found, noise * np.sqrt(10 / 9))
    np.testing.assert_allclose(errors, reconstruction.optimal(gap, 10, 2.0, noise), rtol=1e-10)


def test_noise_is_that_of_decoders_fitted_to_noisy_samples():
    model, noise, copies = FeatureStrength(3, 2.0, 3, 0.5), 0.1, 20_000
    weights = descent.descend(model, descent.start(model), [20])[0]
    data = samples(model)
    features = np.tile(softmax(data.inputs @ weights.T, axis=1), (copies, 1))
    noisy = features + np.random.default_rng(0).normal(scale=noise, size=features.shape)
    measured = least_squares(noisy, np.tile(data.inputs, (copies, 1)))
    assert measured == pytest.approx(descent.from_softmax(model, weights, noise), rel=0.01)


def test_noise_makes_a_constant_phase():
    # R times 10⁴ at steps 0, 1, 2, 4, …, as the specification of the method has it.
    model = FeatureStrength(10, 2.0, 1000, 1e-4)
    gap = recursion.gaps(model, [0] + [2**i for i in range(17)])
    noisy = [2275, 2275, 2275, 2273, 2268, 2245, 2158, 1849, 1123, 393, 118, 65, 35, 41, 102, 168, 209, 231]
    np.testing.assert_allclose(1e4 * reconstruction.optimal(gap, 10, 2.0, 0.01), noisy, atol=0.6)
    exact = [2275, 25, 25, 25, 25, 25, 25.1, 25.5, 26.9, 31.6, 42.8, 48.7, 29.1, 37.1, 99, 165, 207, 229]
    np.testing.assert_allclose(1e4 * reconstruction.optimal(gap, 10, 2.0), exact, atol=0.6)


def test_sums_over_blocks_descend_by_themselves():
    model = FeatureStrength(5, 3.0, 40, 0.3)
    weights = descent.start(model, seed=0)
    sums = weights.reshape(5, 5, 8).sum(axis=2)
    steps = [0, 1, 5, 200]
    full, condensed = descent.descend(model, weights, steps), descent.descend(model.condensed(), sums, steps)
    np.testing.assert_allclose(full.reshape(4, 5, 5, 8).sum(axis=3), condensed, rtol=0, atol=1e-12)
    errors = descent.from_softmax(model, full)
    np.testing.assert_allclose(errors, descent.from_softmax(model.condensed(), condensed), rtol=1e-9)


def test_random_weights_have_three_phases():
    # l = 10, k = 2, λd/(2l²) = 0.005, mean of three seeds: l times R at steps 0, 1, 2, 4, …
    model = FeatureStrength(10, 2.0, 10, 0.1)
    steps = [0] + [2**i for i in range(12)]
    weights = [descent.descend(model, descent.start(model, seed), steps) for seed in range(3)]
    errors = 10 * np.mean([descent.from_softmax(model, one) for one in weights], axis=0)
    expected = [0.344, 0.341, 0.335, 0.318, 0.291, 0.233, 0.174, 0.070, 0.045, 0.027, 0.055, 0.124, 0.182]
    np.testing.assert_allclose(errors, expected, atol=6e-4)
    assert (descent.from_logits(model, weights[0]) < 1e-24).all()


def test_random_weights_start_low_for_many_classes():
    # About l^(−3/2), not k²/l as from equal weights: the random logits tell the samples apart.
    classes = [5, 10, 20, 40, 80]
    models = [FeatureStrength(one, 2.0, one, 0.1) for one in classes]
    errors = [np.mean([descent.from_softmax(m, descent.start(m, seed)) for seed in range(20)]) for m in models]
    slope = np.polyfit(np.log(classes), np.log(errors), 1)[0]
    assert slope == pytest.approx(-1.48, abs=0.06)
