"""Linear classifiers: each against another library, or a bare loop."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.special import log_softmax
from sklearn.datasets import load_digits

from phasescope.measures.classifiers import Task, classify, logistic, settings_of
from phasescope.params.probe import ProbeSettings
from small import ONE


@pytest.fixture(scope="module")
def digits():
    """Training and test features (sample, 64), and their labels."""
    images, labels = load_digits(return_X_y=True)
    images = (images / 16).astype(np.float32)
    return images[:500], images[500:800], labels[:500].astype(np.int64), labels[500:800].astype(np.int64)


@pytest.mark.parametrize("classes", [10, 2])
def test_logistic_regression_is_at_the_optimum_that_scipy_finds(digits, classes):
    """Also for two classes, where scikit-learn's penalty would be that of one vector and not of two."""
    train, test, labels, _ = digits
    labels = labels % classes
    settings = ProbeSettings(penalty=0.01)
    found = logistic(train, test, Task(labels, classes), settings)
    assert found.gradient < 2e-6

    mean = train.mean(axis=0, dtype=np.float64)
    scale = np.sqrt(np.square(train - mean).mean())
    inputs, one_hot = (train - mean) / scale, np.eye(classes)[labels]

    def loss(vector):
        weights, bias = vector[:-classes].reshape(classes, -1), vector[-classes:]
        logs = log_softmax(inputs @ weights.T + bias, axis=1)
        residuals = (np.exp(logs) - one_hot) / len(inputs)
        gradient = np.concatenate([(residuals.T @ inputs + 0.01 * weights).ravel(), residuals.sum(axis=0)])
        return -(one_hot * logs).sum() / len(inputs) + 0.005 * np.square(weights).sum(), gradient

    options = {"gtol": 1e-8, "maxiter": 5000}
    best = minimize(loss, np.zeros(65 * classes), jac=True, method="L-BFGS-B", options=options).x
    scores = (test - mean) / scale @ best[:-classes].reshape(classes, -1).T + best[-classes:]
    np.testing.assert_array_equal(found.test, scores.argmax(axis=1))


def test_logistic_regression_does_not_depend_on_the_scale_of_features(digits):
    train, test, labels, _ = digits
    plain = logistic(train, test, Task(labels, 10), ProbeSettings())
    scaled = logistic(1000 * train + 7, 1000 * test + 7, Task(labels, 10), ProbeSettings())
    assert np.mean(plain.test != scaled.test) < 0.01


def test_two_classes_and_one(digits):
    train, test, labels, truth = digits
    two = logistic(train, test, Task(labels % 2, 2), ProbeSettings())
    assert np.mean(two.test == truth % 2) > 0.85
    assert two.gradient < 2e-6
    for classifier in ("ridge", "logistic", "sgd"):
        (one,) = classify(classifier, train, test, [Task(np.full(500, 3), 5)], ProbeSettings(), ONE)
        assert (one.test == 3).all()
    # A class that training samples do not have is never named.
    few = np.where(labels == 4, 5, labels)
    for classifier in ("ridge", "logistic"):
        (missing,) = classify(classifier, train, test, [Task(few, 10)], ProbeSettings(), ONE)
        assert 4 not in missing.test


def test_sgd_is_a_linear_layer_trained_as_the_paper_trains_it(digits):
    train, test, labels, truth = digits
    (found,) = classify("sgd", train, test, [Task(labels, 10)], ProbeSettings(epochs=4, batch_size=50), ONE)
    torch.manual_seed(0)
    layer = torch.nn.Linear(64, 10)
    optimiser = torch.optim.SGD(layer.parameters(), lr=0.01, momentum=0.9)
    inputs, targets = torch.from_numpy(train), torch.from_numpy(labels)
    for epoch in range(4):
        optimiser.param_groups[0]["lr"] = 0.01 if epoch < 2 else 0.001
        for rows in np.split(np.random.default_rng([0, epoch]).permutation(500), 10):
            loss = torch.nn.functional.cross_entropy(layer(inputs[rows]), targets[rows])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    np.testing.assert_array_equal(found.test, layer(torch.from_numpy(test)).argmax(dim=1).numpy())
    (longer,) = classify("sgd", train, test, [Task(labels, 10)], ProbeSettings(), ONE)
    assert np.mean(longer.test == truth) > 0.5


def test_several_tasks_are_as_each_alone(digits):
    train, test, labels, _ = digits
    tasks = [Task(labels, 10), Task(labels % 2, 2)]
    for classifier in ("ridge", "logistic", "sgd"):
        both = classify(classifier, train, test, tasks, ProbeSettings(), ONE)
        for task, found in zip(tasks, both, strict=True):
            (alone,) = classify(classifier, train, test, [task], ProbeSettings(), ONE)
            np.testing.assert_array_equal(found.test, alone.test)


def test_what_other_classifiers_are_set_to_does_not_tell_cells_apart():
    one = ProbeSettings(classifiers=["ridge", "sgd"], epochs=3, penalty=0.1, shuffles=5)
    assert settings_of("ridge", one) == settings_of("ridge", ProbeSettings(shuffles=5))
    assert settings_of("logistic", one) == settings_of("logistic", ProbeSettings(penalty=0.1))
    assert settings_of("sgd", one) == settings_of("sgd", ProbeSettings(epochs=3))
    assert settings_of("sgd", one) != settings_of("sgd", ProbeSettings(epochs=4))
