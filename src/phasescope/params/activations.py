"""Settings of the stage `activations`."""

from typing import Annotated, Literal

from pydantic import Field, field_validator

from phasescope.params.base import Section

TapName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$", max_length=200)]

#: What a store calls something else than activations.
TAKEN = (
    *("seed", "step", "sample", "label", "index", "split", "part"),
    *("loss", "accuracy", "weight_norm", "batchnorm", "statistic"),
)


class Tap(Section):
    """A place in the network whose output is kept."""

    #: `softmax`, `logits`, `predense`, `conv-2`, or a module path of the network such as `blocks.1.0`.
    name: TapName
    #: Average-pool the maps to this height and width (none: keep the maps whole).
    pool: Annotated[int, Field(ge=1, le=1024)] | None = None
    #: Of a sequence (position, feature), keep this position alone, −1 the last (none: keep all of them).
    position: Annotated[int, Field(ge=-1024, le=1023)] | None = None

    @field_validator("name")
    @classmethod
    def _free(cls, name: str) -> str:
        if name in TAKEN:
            raise ValueError(f"{name} is what a store calls something else; tap a module inside that one, or around it")
        return name


class ActivationsSettings(Section):
    """What is kept of the activations, and in which mode BatchNorm is when they are taken."""

    taps: Annotated[list[Tap], Field(min_length=1, max_length=100)] = [
        Tap(name="softmax"),
        Tap(name="logits"),
        Tap(name="predense"),
    ]
    #: recalibrated: statistics recomputed on training images at that checkpoint; batch: those of each batch
    #: (the paper's released code); eval: the running ones, which lag behind the weights at early steps.
    batchnorm: Literal["recalibrated", "batch", "eval"] = "recalibrated"
    dtype: Literal["float16", "float32", "float64"] = "float16"
    #: At most so many training samples are kept, drawn once per dataset; all if there are fewer.
    train_samples: Annotated[int, Field(ge=2, le=10**8)] = 10_000
    #: At most so many test samples are kept (none: all of them).
    test_samples: Annotated[int, Field(ge=2, le=10**8)] | None = None

    @field_validator("taps", mode="before")
    @classmethod
    def _name_alone_will_do(cls, taps: object) -> object:
        if isinstance(taps, list):
            return [{"name": tap} if isinstance(tap, str) else tap for tap in taps]
        return taps

    @field_validator("taps")
    @classmethod
    def _each_once(cls, taps: list[Tap]) -> list[Tap]:
        names = [tap.name for tap in taps]
        if len(set(names)) != len(names):
            raise ValueError("a tap is listed twice")
        return taps
