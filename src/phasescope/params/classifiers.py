"""Settings of the linear classifiers that `probe` and `transfer` fit to activations."""

from typing import Annotated, Literal

from pydantic import Field

from phasescope.params.base import EACH_ONCE
from phasescope.params.ridge import RidgeSettings

Classifier = Literal["ridge", "logistic", "sgd"]


class ClassifierSettings(RidgeSettings):
    """How classes are read off activations; the settings of a ridge are those of the classifier `ridge`."""

    #: ridge: least squares on one-hot labels, in closed form; logistic: multinomial logistic regression, converged;
    #: sgd: the linear layer of the paper's released code. Figures show the first.
    classifiers: Annotated[list[Classifier], Field(min_length=1), EACH_ONCE] = ["ridge"]
    #: logistic: weight of the squared norm of the coefficients, of features scaled to a mean square of 1.
    penalty: Annotated[float, Field(gt=0, le=1000)] = 0.001
    #: sgd: passes over the training samples, with a tenth of the learning rate in the second half of them.
    epochs: Annotated[int, Field(ge=1, le=10_000)] = 20
    learning_rate: Annotated[float, Field(gt=0, le=100)] = 0.01
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    batch_size: Annotated[int, Field(ge=1, le=10**6)] = 128
