"""Settings of the stage `probe`."""

from typing import Annotated

from pydantic import Field

from phasescope.params.classifiers import ClassifierSettings


class ProbeSettings(ClassifierSettings):
    """How the classes of the run's own dataset are read off activations."""

    #: ridge: permutations that the shuffled-label baseline is the mean of: one alone can be far from chance by chance.
    shuffles: Annotated[int, Field(ge=1, le=1000)] = 10
