"""Settings of the stage `transfer`."""

from typing import Annotated, Literal

from pydantic import Field

from phasescope.params.base import EACH_ONCE, Name
from phasescope.params.classifiers import ClassifierSettings

Label = Literal["class", "ink", "quadrant", "colour", "colour-raw"]


class ReadingSettings(ClassifierSettings):
    """What is read off activations, and of which samples."""

    #: class: the target's own classes; ink: more ink than the median image; quadrant: the brightest quadrant; colour:
    #: the dominant colour channel of standardised images (the paper's released code), colour-raw: of raw ones (its
    #: text).
    labels: Annotated[list[Label], Field(min_length=1), EACH_ONCE]
    #: At most so many of the target's training samples are used, drawn once per dataset; all if there are fewer.
    train_samples: Annotated[int, Field(ge=2, le=10**8)] = 10_000
    #: At most so many of its test samples (none: all of them).
    test_samples: Annotated[int, Field(ge=2, le=10**8)] | None = None


class TransferSettings(ReadingSettings):
    """What else is read off the frozen activations of a run: other images, or other properties of its own."""

    run: Name
    #: The target: the images that pass through the frozen networks, which may be those of the run itself.
    dataset: Name

    @property
    def reading(self) -> ReadingSettings:
        """The settings without the names, on which no number depends."""
        return ReadingSettings.model_validate(self.model_dump(exclude={"run", "dataset"}))
