"""Settings of the stage `probe`."""

from typing import Annotated, Literal

from pydantic import Field

from phasescope.params.base import Section


class ProbeSettings(Section):
    """How classes are read off activations."""

    selection: Literal["gcv", "loo"] = "loo"
    solver: Literal["auto", "primal", "dual", "randomised"] = "auto"
    exact_limit: Annotated[int, Field(ge=1, le=20_000)] = 4096
    rank: Annotated[int, Field(ge=1, le=4096)] = 1024
    #: Seed of the permutation of the shuffled-label baseline.
    shuffle_seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
