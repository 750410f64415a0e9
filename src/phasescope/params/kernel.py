"""Settings of the stage `kernel`."""

from typing import Annotated, Literal

from pydantic import Field

from phasescope.params.base import EACH_ONCE, Section

KernelMeasure = Literal["tangent-kernel", "layer-alignment"]
Outputs = Literal["mean", "full"]


class KernelSettings(Section):
    """The tangent kernel of the networks, and how far their layers are aligned."""

    #: None of them where a run is not to be measured, as one whose BatchNorm has the statistics of each batch.
    measures: Annotated[list[KernelMeasure], EACH_ONCE] = ["tangent-kernel", "layer-alignment"]
    #: tangent-kernel: test samples that it is taken between (at most), of all classes alike.
    probes: Annotated[int, Field(ge=4, le=1024)] = 32
    #: tangent-kernel: mean: over the logits, a number for two probes; full: a number for two probes and two logits.
    outputs: Outputs = "mean"
