"""Settings of ridge regressions, which decoders and classifiers share."""

from typing import Annotated, Literal

from pydantic import Field

from phasescope.params.base import Section


class RidgeSettings(Section):
    """How a ridge regression is chosen and computed."""

    #: How the ridge is chosen, on training samples alone; none: least squares, without a ridge.
    selection: Literal["gcv", "loo", "none"] = "gcv"
    #: primal factors feature × feature, dual sample × sample, randomised a sketch of `rank` directions;
    #: auto takes the smaller of the first two, and the sketch where both are larger than `exact_limit`.
    solver: Literal["auto", "primal", "dual", "randomised"] = "auto"
    exact_limit: Annotated[int, Field(ge=1, le=20_000)] = 4096
    rank: Annotated[int, Field(ge=1, le=4096)] = 1024
