"""Settings of the stage `distributions`."""

from typing import Annotated

from pydantic import Field

from phasescope.params.base import Section


class DistributionsSettings(Section):
    """Class-conditional distributions of single features (Figure 4 of the learning-phases paper)."""

    bins: Annotated[int, Field(ge=2, le=10_000)] = 60
    #: Features shown whatever they do, by index.
    fixed: list[Annotated[int, Field(ge=0)]] = [0, 1, 2]
    #: How many of the most class-selective features at the last step are shown besides.
    selective: Annotated[int, Field(ge=0, le=100)] = 3
