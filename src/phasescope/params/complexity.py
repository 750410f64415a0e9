"""Settings of the stage `complexity`."""

from typing import Annotated, Literal

from pydantic import Field

from phasescope.params.activations import TapName
from phasescope.params.base import EACH_ONCE, Section

ComplexityMeasure = Literal["linear-mapping-number", "local-complexity"]


class ComplexitySettings(Section):
    """How far from linear the networks are."""

    #: None of them where a run is not to be measured, as one whose BatchNorm has the statistics of each batch.
    measures: Annotated[list[ComplexityMeasure], EACH_ONCE] = ["linear-mapping-number", "local-complexity"]
    #: linear-mapping-number: from which layers to the logits (none: from the first hidden layer, and from the run's
    #: taps behind which there is a nonlinearity).
    layers: Annotated[list[TapName], Field(min_length=1), EACH_ONCE] | None = None
    #: linear-mapping-number: training samples that lines are drawn between. It depends on how many there are.
    line_samples: Annotated[int, Field(ge=2, le=4096)] = 64
    #: local-complexity: training samples, test samples and random points, so many of each (at most).
    points: Annotated[int, Field(ge=2, le=10**6)] = 256
    #: local-complexity: directions around each point (at most as many as an input has dimensions).
    directions: Annotated[int, Field(ge=1, le=4096)] = 25
    #: local-complexity: how far the vertices are, as a share of the mean distance of these samples from their mean.
    radius: Annotated[float, Field(gt=0, le=100)] = 0.05
