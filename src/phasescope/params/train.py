"""Settings of the stage `train`."""

from typing import Annotated, Literal

from pydantic import Field

from phasescope.params.base import EACH_ONCE, Name, Section
from phasescope.params.models import ModelSettings

Seed = Annotated[int, Field(ge=0, lt=2**31)]
Loss = Literal["cross-entropy", "hinge"]


class TrainSettings(Section):
    """Stochastic gradient descent as the paper uses it (batch 128, constant learning rate)."""

    seeds: Annotated[list[Seed], Field(min_length=1, max_length=1000), EACH_ONCE] = [0, 1, 2]
    iterations: Annotated[int, Field(ge=1, le=10**7)] = 65_536
    batch_size: Annotated[int, Field(ge=1, le=10**6)] = 128
    learning_rate: Annotated[float, Field(gt=0, le=1000)] = 0.002
    #: hinge: the multi-class hinge loss with margin 1, as torch has it.
    loss: Loss = "cross-entropy"
    #: The paper does not mention momentum; its released code has 0.9.
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    weight_decay: Annotated[float, Field(ge=0, le=10)] = 0.0


class TrainJob(TrainSettings):
    """All that `train` needs to know of a run."""

    dataset: Name
    model: ModelSettings
