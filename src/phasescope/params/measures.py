"""Settings of measures of the user's own (section `measures` of params.yaml)."""

from typing import Annotated

from pydantic import AfterValidator, Field, JsonValue

from phasescope.params.base import EACH_ONCE, Name, OwnName, Section


def _free(name: str) -> str:
    if name in ("seed", "step", "layer"):
        raise ValueError(f"{name!r} is what every number has anyway; call it something else")
    return name


#: Name of a number.
Value = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=64), AfterValidator(_free)]


class OwnMeasure(Section):
    """What a measure of the user's own depends on."""

    #: `module:function`, which takes the activations of a cell and gives numbers.
    function: OwnName
    #: What it is called with besides what is known of the samples.
    arguments: dict[str, JsonValue] = {}
    #: Names of the numbers that it gives as a mapping; none: it gives one number, which is called `value`.
    values: Annotated[list[Value], EACH_ONCE] = []

    @property
    def names(self) -> list[str]:
        """Names of the numbers."""
        return self.values or ["value"]


class MeasureSettings(OwnMeasure):
    """A measure of the user's own, of one run."""

    run: Name


class OwnMeasureJob(OwnMeasure):
    """The same with its code, on which its numbers depend too."""

    #: Digests of the files that its function is in (`own.digests`).
    code: dict[str, str]


class MeasureJob(OwnMeasureJob, MeasureSettings):
    """All that `measure` needs to know."""

    @property
    def measure(self) -> OwnMeasureJob:
        """The settings without the name of the run, on which no number depends."""
        return OwnMeasureJob.model_validate(self.model_dump(exclude={"run"}))
