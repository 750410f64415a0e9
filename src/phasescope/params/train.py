"""Settings of the stage `train`."""

from typing import Annotated, Literal

from pydantic import Field

from phasescope.params.base import EACH_ONCE, Name, Section
from phasescope.params.models import ModelSettings

Seed = Annotated[int, Field(ge=0, lt=2**31)]
Loss = Literal["cross-entropy", "hinge"]
Rate = Annotated[float, Field(ge=0, lt=1)]


class TrainSettings(Section):
    """How a network is trained; by default stochastic gradient descent as the learning-phases paper uses it."""

    seeds: Annotated[list[Seed], Field(min_length=1, max_length=1000), EACH_ONCE] = [0, 1, 2]
    iterations: Annotated[int, Field(ge=1, le=10**7)] = 65_536
    #: All training samples where there are no more: full-batch gradient descent.
    batch_size: Annotated[int, Field(ge=1, le=10**6)] = 128
    #: epochs: each epoch visits every sample once; replacement: every batch is drawn anew from all samples.
    sampling: Literal["epochs", "replacement"] = "epochs"
    learning_rate: Annotated[float, Field(gt=0, le=1000)] = 0.002
    #: hinge: the multi-class hinge loss with margin 1, as torch has it.
    loss: Loss = "cross-entropy"
    #: Updates over which the learning rate rises linearly to its value.
    warmup: Annotated[int, Field(ge=0, le=10**7)] = 0
    optimiser: Literal["sgd", "adamw"] = "sgd"
    #: sgd: the paper does not mention momentum; its released code has 0.9.
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    #: adamw: decay rates of the averages of the gradient and of its square.
    betas: Annotated[list[Rate], Field(min_length=2, max_length=2)] = [0.9, 0.98]
    #: sgd: added to the gradient; adamw: decoupled from it.
    weight_decay: Annotated[float, Field(ge=0, le=10)] = 0.0
    #: Besides at checkpoints, look at the loss and accuracy of training and test samples after every so many updates.
    evaluate_every: Annotated[int, Field(ge=1, le=10**7)] | None = None


class TrainJob(TrainSettings):
    """All that `train` needs to know of a run."""

    dataset: Name
    model: ModelSettings
