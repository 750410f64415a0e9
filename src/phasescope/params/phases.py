"""Settings of the stage `phases`."""

from typing import Annotated

from pydantic import Field

from phasescope.params.base import Name, Section


class PhasesSettings(Section):
    """When a phase counts as present, and how sure the numbers are."""

    #: The constant phase ends where the curve has left its start by this share of its range.
    tolerance: Annotated[float, Field(gt=0, lt=1)] = 0.1
    #: A fall or rise counts only above this share of the loss at step 0 …
    threshold: Annotated[float, Field(ge=0, lt=1)] = 0.02
    #: … and above this many standard errors.
    standard_errors: Annotated[float, Field(ge=0, le=10)] = 2.0
    #: Bootstrap resamples of the test samples.
    resamples: Annotated[int, Field(ge=10, le=100_000)] = 1000
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    #: A network has fitted where its training accuracy is as high as this, and generalises where its test accuracy is.
    fitted: Annotated[float, Field(gt=0, le=1)] = 0.999
    generalised: Annotated[float, Field(gt=0, le=1)] = 0.99
    #: After that a curve declines if it ends below its largest value by more than this share of it …
    decline: Annotated[float, Field(ge=0, lt=1)] = 0.05
    #: … from where it leaves the largest value to where it reaches the last one, within this share of their difference.
    margin: Annotated[float, Field(gt=0, lt=0.5)] = 0.1
    #: From the first step to the last, layers align where ζ rises by more than this, are rescaled where ln N changes by
    #: more, and a network learns as a kernel method where its tangent kernel changes by no more than this share.
    mechanism: Annotated[float, Field(gt=0, le=1)] = 0.05


class PhasesJob(PhasesSettings):
    """All that `phases` needs to know."""

    runs: list[Name]
