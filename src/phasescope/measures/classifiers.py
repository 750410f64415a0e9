"""Linear classifiers on activations: ridge, converged logistic regression, and the paper's layer trained by SGD."""

from typing import NamedTuple, TypeVar

import numpy as np

from phasescope.compute import Compute
from phasescope.measures.ridge import Factors, factors_of
from phasescope.measures.ridge import fit as fit_ridge
from phasescope.params.classifiers import Classifier, ClassifierSettings
from phasescope.params.ridge import RidgeSettings

#: Largest derivative of the loss at which logistic regression stops, and the iterations it may take to get there.
TOLERANCE = 1e-6
ITERATIONS = 20_000


S = TypeVar("S", bound=ClassifierSettings)


class Task(NamedTuple):
    """What is to be told apart."""

    labels: np.ndarray  #: (training sample,) int64
    classes: int


class Fit(NamedTuple):
    """A fitted classifier's guesses, and what it was fitted with."""

    train: np.ndarray  #: (training sample,) int64
    test: np.ndarray  #: (test sample,) int64
    #: ridge: the ridge that the training samples chose; else NaN.
    ridge: float = np.nan
    #: logistic: the largest derivative of the loss where it stopped; else NaN.
    gradient: float = np.nan


def ridge(factors: Factors, test: np.ndarray, task: Task, settings: RidgeSettings) -> Fit:
    """Least squares on one-hot labels with the ridge that the training samples choose; test samples do not touch it."""
    regression = fit_ridge(factors, np.eye(task.classes)[task.labels], settings.selection)
    guesses = [outputs.argmax(axis=1) for outputs in (regression.fitted(), regression.predict(test))]
    return Fit(guesses[0], guesses[1], ridge=regression.ridge)


def logistic(train: np.ndarray, test: np.ndarray, task: Task, settings: ClassifierSettings) -> Fit:
    """Multinomial logistic regression at its optimum, which is unique: mean cross-entropy + penalty/2 · ‖W‖².

    Features are centred and divided by the root of their mean square over all samples and features, so that the penalty
    means the same for every layer and step.
    """
    from sklearn.linear_model import LogisticRegression  # seconds to import

    present = np.unique(task.labels)
    if len(present) == 1:
        return Fit(np.full(len(train), present[0]), np.full(len(test), present[0]), gradient=0.0)
    mean = train.mean(axis=0, dtype=np.float64)
    inputs = train - mean
    scale = np.sqrt(np.square(inputs).mean()) or 1.0
    inputs /= scale
    # For two classes scikit-learn fits the difference of their vectors, whose square is twice that of the two.
    penalty = settings.penalty / (2 if len(present) == 2 else 1)
    model = LogisticRegression(C=1 / (penalty * len(train)), tol=TOLERANCE, max_iter=ITERATIONS)
    model.fit(inputs, task.labels)
    # For two classes one vector stands for both.
    columns = present[-len(model.coef_) :]
    residuals = model.predict_proba(inputs)[:, -len(columns) :] - (task.labels[:, None] == columns)
    gradient = residuals.T @ inputs / len(train) + penalty * model.coef_
    guesses = [model.predict(part) for part in (inputs, (test - mean) / scale)]
    return Fit(guesses[0], guesses[1], gradient=float(np.abs(gradient).max()))


def sgd(train: np.ndarray, test: np.ndarray, task: Task, settings: ClassifierSettings, compute: Compute) -> Fit:
    """A linear layer trained on cross-entropy by SGD, as the paper's released code has it (no weight decay)."""
    import torch  # seconds to import
    from torch.nn import functional

    from phasescope.measures import fitting

    device = compute.start()
    layer = fitting.initialised(lambda: torch.nn.Linear(train.shape[1], task.classes), device)
    inputs, others = (torch.from_numpy(part.astype(np.float32)).to(device) for part in (train, test))
    labels = torch.from_numpy(task.labels).to(device)
    update = fitting.sgd(layer, settings.momentum)
    rates = [settings.learning_rate * (0.1 if 2 * epoch >= settings.epochs else 1) for epoch in range(settings.epochs)]
    fitting.fit(layer, inputs, labels, functional.cross_entropy, update, settings.batch_size, rates)
    guesses = [fitting.outputs(layer, part).argmax(dim=1).cpu().numpy() for part in (inputs, others)]
    return Fit(guesses[0], guesses[1])


def classify(
    classifier: Classifier,
    train: np.ndarray,
    test: np.ndarray,
    tasks: list[Task],
    settings: ClassifierSettings,
    compute: Compute,
) -> list[Fit]:
    """Fit a classifier to features (sample, feature) for each of several tasks; ridges share one factorisation."""
    if classifier == "ridge":
        factors = factors_of(train, settings)
        return [ridge(factors, test, task, settings) for task in tasks]
    if classifier == "logistic":
        return [logistic(train, test, task, settings) for task in tasks]
    return [sgd(train, test, task, settings, compute) for task in tasks]


def settings_of(classifier: Classifier, settings: S) -> S:
    """The settings with those of all other classifiers at their defaults, so that these do not tell cells apart."""
    mine = {
        "ridge": {*RidgeSettings.model_fields, "shuffles"},
        "logistic": {"penalty"},
        "sgd": {"epochs", "learning_rate", "momentum", "batch_size"},
    }[classifier]
    fields = set(type(settings).model_fields)
    common = fields - {*ClassifierSettings.model_fields, "shuffles"}
    return settings.only(mine | common, classifiers=[classifier])
