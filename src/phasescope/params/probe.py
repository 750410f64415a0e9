"""Settings of the stage `probe`."""

from typing import Annotated, Literal

from pydantic import Field

from phasescope.params.base import Section


class ProbeSettings(Section):
    """How classes are read off activations."""

    #: How the ridge is chosen, on training samples alone.
    selection: Literal["gcv", "loo"] = "gcv"
    solver: Literal["auto", "primal", "dual", "randomised"] = "auto"
    exact_limit: Annotated[int, Field(ge=1, le=20_000)] = 4096
    rank: Annotated[int, Field(ge=1, le=4096)] = 1024
    #: Permutations that the shuffled-label baseline is the mean of: one alone can be far from chance by chance.
    shuffles: Annotated[int, Field(ge=1, le=1000)] = 10
