"""Settings of the stage `train`."""

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from phasescope.checkpoints import Files
from phasescope.params.base import EACH_ONCE, EITHER, KNOWN, OWN, Name, OwnName, Section, is_own
from phasescope.params.models import ModelSettings
from phasescope.schedule import checkpoint_steps, evaluation_steps

Seed = Annotated[int, Field(ge=0, lt=2**31)]
Loss = Literal["cross-entropy", "hinge", "mse", "half-squared-error"]
Target = Literal["class", "ink", "value"]
Rate = Annotated[float, Field(ge=0, lt=1)]

#: Losses of numbers, and of classes as the numbers 0 and 1.
SQUARED: tuple[Loss, ...] = ("mse", "half-squared-error")


class TrainSettings(Section):
    """How a network is trained; by default stochastic gradient descent as the learning-phases paper uses it."""

    seeds: Annotated[list[Seed], Field(min_length=1, max_length=1000), EACH_ONCE] = [0, 1, 2]
    iterations: Annotated[int, Field(ge=1, le=10**7)] = 65_536
    #: All training samples where there are no more: full-batch gradient descent.
    batch_size: Annotated[int, Field(ge=1, le=10**6)] = 128
    #: epochs: each epoch visits every sample once; replacement: every batch is drawn anew from all samples.
    sampling: Literal["epochs", "replacement"] = "epochs"
    learning_rate: Annotated[float, Field(gt=0, le=1000)] = 0.002
    #: hinge: the multi-class hinge loss with margin 1, as torch has it; mse: (f − y)², mean over outputs;
    #: half-squared-error: half the sum of (f − y)² over outputs. Both are means over samples, and of a class y is 1 at
    #: its own output and 0 at the others.
    #: `module:function`: one of one's own, which takes `outputs` and `targets` and gives the loss of each sample.
    loss: Annotated[Annotated[Loss, KNOWN] | Annotated[OwnName, OWN], EITHER] = "cross-entropy"
    #: What the network learns to tell. class: of the dataset; ink: how much of it a grey image has, standardised over
    #: the training images; value: the number that comes with a sample of linear-regression.
    target: Target = "class"
    #: Updates over which the learning rate rises linearly to its value.
    warmup: Annotated[int, Field(ge=0, le=10**7)] = 0
    optimiser: Literal["sgd", "adamw"] = "sgd"
    #: sgd: the paper does not mention momentum; its released code has 0.9.
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    #: adamw: decay rates of the averages of the gradient and of its square.
    betas: Annotated[list[Rate], Field(min_length=2, max_length=2)] = [0.9, 0.98]
    #: sgd: added to the gradient; adamw: decoupled from it.
    weight_decay: Annotated[float, Field(ge=0, le=10)] = 0.0
    #: Train nothing, but take checkpoints that others saved: their paths in checkpoints/, with {step} for the number of
    #: updates, and {seed} if there are several. What is left then of this section: `loss` and `target`.
    checkpoints: Annotated[str, Field(min_length=1, max_length=1000)] | None = None
    #: Besides at checkpoints, look at the loss and accuracy of training and test samples after every so many updates.
    evaluate_every: Annotated[int, Field(ge=1, le=10**7)] | None = None

    @field_validator("target")
    @classmethod
    def _numbers_have_squared_errors(cls, target: Target, known: ValidationInfo) -> Target:
        loss = known.data.get("loss")  # not there if it is a mistake itself
        if target != "class" and loss is not None and loss not in SQUARED and not is_own(loss):
            raise ValueError(f"{loss} is a loss of classes: set `loss` to {' or '.join(SQUARED)} for a number")
        return target

    def outputs(self, classes: int) -> int:
        """Outputs of the network: one for each of the `classes`, or one that tells a number."""
        return classes if self.target == "class" else 1


class TrainJob(TrainSettings):
    """All that `train` needs to know of a run."""

    dataset: Name
    model: ModelSettings
    #: Of a network and a loss of the user's own: digests of the files that they are in (`own.digests`).
    code: dict[str, str] = {}

    #: Of checkpoints that others saved: path and SHA-256 of every file, by seed and step.
    files: Files = {}

    @property
    def steps(self) -> list[int]:
        """The steps of the checkpoints."""
        if self.files:
            return sorted(map(int, next(iter(self.files.values()))))  # JSON has them in the order of texts
        return checkpoint_steps(self.iterations)

    @property
    def evaluations(self) -> list[int]:
        """The steps at which loss and accuracy are looked at."""
        return self.steps if self.files else evaluation_steps(self.iterations, self.evaluate_every)

    @property
    def network(self) -> dict[str, Any]:
        """All that decides what the network is."""
        return {**self.model.model_dump(), "code": self.code}
