"""Settings of the stage `figures`."""

from typing import Annotated, Literal

from pydantic import Field

from phasescope.params.base import Name, Section


class FiguresSettings(Section):
    """How figures look, and what they show."""

    dpi: Annotated[int, Field(ge=20, le=1200)] = 150
    formats: Annotated[list[Literal["svg", "png", "pdf"]], Field(min_length=1)] = ["svg", "png"]
    #: Runs that are drawn together, by the name that their figures end in; all runs in one set without a name if none.
    sets: dict[Name, Annotated[list[Name], Field(min_length=1)]] = {}
    #: The tap of Figures 1, 6 and 7 (the first of these that a run has).
    headline: list[str] = ["logits", "predense", "softmax"]
    #: Steps shown as columns of Figure 4 (the nearest kept ones), spread evenly over the run if none are given.
    columns: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)] | None = None
    #: The tap whose features Figure 4 shows.
    features: str = "predense"


class SolvedRun(Section):
    """The parameters of the feature-strength model that a run is trained on as the theory has it."""

    outputs: int
    strength: float
    inputs: int
    learning_rate: float


class ScaledRun(Section):
    """A run that there are others beside which differ in the scale of their initial weights, and which these are."""

    #: The words for all of them.
    family: str
    scale: float


class FiguresJob(FiguresSettings):
    """All that `figures` needs to know."""

    runs: list[Name]
    #: The dataset that each run is trained on.
    datasets: dict[Name, Name]
    #: The datasets that each run is transferred to.
    transfers: dict[Name, list[Name]]
    #: The measures of the user's own of each run.
    measured: dict[Name, list[Name]]
    #: The runs that theory knows the reconstruction loss of.
    solved: dict[Name, SolvedRun]
    #: The runs that belong to a family of initialisation scales.
    scaled: dict[Name, ScaledRun]
