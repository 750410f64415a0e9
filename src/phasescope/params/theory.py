"""Settings of the stage `theory`: the models that are solved, a section for each."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, ValidationInfo, field_validator

from phasescope.params.base import EACH_ONCE, Section


def _increasing(ends: list[float]) -> list[float]:
    if not ends[0] < ends[1]:
        raise ValueError("expected the lower end, then the higher one")
    return ends


def _square_of_a_number(noise: float) -> float:
    if 0 < noise < _LEAST_NOISE:
        raise ValueError(f"expected 0, or {_LEAST_NOISE:g} and more")
    return noise


#: Below this, the square of a noise is no number any more.
_LEAST_NOISE = 1e-100
#: For a range, given by its two ends.
_ENDS = (Field(min_length=2, max_length=2), AfterValidator(_increasing))

Outputs = Annotated[int, Field(ge=2, le=10**6)]
Strength = Annotated[float, Field(gt=1, le=100)]
Rate = Annotated[float, Field(gt=0, le=10**12)]
Stage = Literal["initial", "first-minimum", "bump", "second-minimum", "end"]


class FeatureStrengthSettings(Section):
    """The feature-strength model of the learning-phases paper, and what it is compared with."""

    #: l, the number of classes.
    outputs: Outputs = 10
    #: k, what the attributes of a strong sample are; those of a weak one are 1.
    strength: Strength = 2.0
    #: d, the number of attributes.
    inputs: Annotated[int, Field(ge=2, le=10**9, validate_default=True)] = 1000
    #: λ, from the phases that come one after the other to a leap over all of them; Figure 5 tells steps at the first.
    learning_rates: Annotated[list[Rate], Field(min_length=1, max_length=6), EACH_ONCE] = [1e-4, 1e-3, 0.01, 0.1, 0.5]
    #: The last step; nothing is trained, so that there may be many.
    iterations: Annotated[int, Field(ge=1, le=10**12)] = 65_536
    #: σ of noise on the probability that the decoder reads, for the curves with a constant phase; 0 leaves them out.
    noise: Annotated[float, Field(ge=0, le=1), AfterValidator(_square_of_a_number)] = 0.01
    #: The panels of Figure 5, in the order of time.
    stages: Annotated[list[Stage], Field(min_length=1), EACH_ONCE] = [
        *("initial", "first-minimum", "bump", "second-minimum", "end")
    ]
    #: Other l and k, for the families of curves, the map, the scaling, and the tables.
    compared_outputs: Annotated[list[Outputs], Field(min_length=1, max_length=4), EACH_ONCE] = [10, 100, 1000]
    compared_strengths: Annotated[list[Strength], Field(min_length=1, max_length=4), EACH_ONCE] = [2.0, 3.0, 5.0]
    #: Lowest and highest l and λ d of the map, and how many of each it has; l of the scaling.
    map_outputs: Annotated[list[Outputs], *_ENDS] = [3, 1000]
    map_rates: Annotated[list[Rate], *_ENDS] = [0.01, 1e7]
    map_points: Annotated[int, Field(ge=2, le=100)] = 48

    @field_validator("inputs")
    @classmethod
    def _whole_blocks(cls, inputs: int, given: ValidationInfo) -> int:
        outputs = given.data.get("outputs")  # not there if it is a mistake itself
        if outputs is not None and inputs % outputs:
            near = max(outputs, inputs - inputs % outputs)
            raise ValueError(f"expected a multiple of outputs, which is {outputs}, such as {near}")
        return inputs


Deviation = Annotated[float, Field(gt=0, le=10)]
Activation = Literal["linear", "relu", "leaky-relu", "swish", "sigmoid"]


class LinearNetworkSettings(Section):
    """The two-layer linear network, and networks that are held to it."""

    #: Units, data and training of the networks whose alignment is shown over time; they learn y = x.
    width: Annotated[int, Field(ge=1, le=10_000)] = 1000
    activations: Annotated[list[Activation], Field(min_length=1), EACH_ONCE] = [
        *("linear", "relu", "leaky-relu", "swish", "sigmoid")
    ]
    samples: Annotated[int, Field(ge=2, le=1000)] = 8
    learning_rate: Annotated[float, Field(gt=0, le=10)] = 0.005
    iterations: Annotated[int, Field(ge=1, le=100_000)] = 2048
    seed: Annotated[int, Field(ge=0)] = 0
    #: σ of the weights of small and of large initialisation, and the correlation of the layers of the large one.
    small: Deviation = 0.02
    large: Deviation = 0.1
    alignment: Annotated[float, Field(ge=-1, le=1)] = 0.3
    #: Widths at which the parametrisations are drawn, and how often.
    widths: Annotated[list[Annotated[int, Field(ge=1, le=10**12)]], Field(min_length=2), EACH_ONCE] = [
        *(100, 1000, 10_000, 100_000, 1_000_000)
    ]
    draws: Annotated[int, Field(ge=1, le=1000)] = 5
    #: Of the map of the phases: values of each exponent, width of the networks, steps of gradient descent.
    map_points: Annotated[int, Field(ge=2, le=200)] = 81
    map_width: Annotated[int, Field(ge=1, le=10**12)] = 1_000_000
    map_steps: Annotated[int, Field(ge=1, le=100_000)] = 256
    #: ε of the mechanisms: changes of no more are none.
    tolerance: Annotated[float, Field(gt=0, le=1)] = 0.05


class TheorySettings(Section):
    """What is known of a model without training it."""

    feature_strength: FeatureStrengthSettings = FeatureStrengthSettings()
    linear_network: LinearNetworkSettings = LinearNetworkSettings()
