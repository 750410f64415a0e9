"""Settings of a network, and which taps each network has by name."""

from typing import Annotated, Any, Literal

from pydantic import Field, JsonValue, model_validator

from phasescope.params.base import EITHER, KNOWN, OWN, OwnName, Section, is_own

ModelName = Literal[
    "f0", "mlp", "vgg8", "vgg11", "vgg13", "vgg16", "resnet10", "embedding-mlp", "transformer-1", "transformer-2"
]
Initialisation = Literal["default", "normal", "xavier", "equal"]
Nonlinearity = Literal["linear", "relu", "leaky-relu", "swish", "gelu", "sigmoid", "tanh"]

#: Networks of convolutions, which have BatchNorm.
CONVOLUTIONAL: tuple[ModelName, ...] = ("vgg8", "vgg11", "vgg13", "vgg16", "resnet10")
#: Networks that read a pair of tokens.
OF_TOKENS: tuple[ModelName, ...] = ("embedding-mlp", "transformer-1", "transformer-2")

#: Taps that have a name of their own; any other tap is a module path of the network.
TAPS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("f0", "mlp", *OF_TOKENS), ("softmax", "logits", "predense")),
    **dict.fromkeys(CONVOLUTIONAL, ("softmax", "logits", "predense", "conv-2")),
}
#: Settings of `mlp` alone.
_OF_MLP = ("depth", "units", "nonlinearity", "bias")
#: Settings of the networks that come with phasescope.
_OF_OURS = ("width", "initialisation", "initialisation_scale")


class ModelSettings(Section):
    """Which network."""

    #: Or `module:function`, which gives a network of one's own; `torchvision:resnet18` is torchvision's of that name.
    name: Annotated[Annotated[ModelName, KNOWN] | Annotated[OwnName, OWN], EITHER]
    #: Only for a network of one's own: what its function is called with besides `channels`, `resolution`, `outputs`.
    arguments: dict[str, JsonValue] = {}
    #: Factor on the number of channels of every convolution, for small machines; 1 is the paper's network. Of networks
    #: of tokens, on the units of every layer; a transformer keeps its four heads, which become narrower or wider.
    width: Annotated[float, Field(gt=0, le=16)] = 1.0
    #: Only for `mlp`: dense layers, the last of which gives the logits.
    depth: Annotated[int, Field(ge=2, le=100)] = 2
    #: Only for `mlp`: units of each hidden layer.
    units: Annotated[int, Field(ge=1, le=100_000)] = 256
    #: Only for `mlp`: of each hidden layer. linear: none; leaky-relu: slope 0.01 below zero; swish: x · sigmoid(x).
    nonlinearity: Nonlinearity = "relu"
    #: Only for `mlp`: whether its layers have biases.
    bias: bool = True
    #: Of the weights of dense layers and convolutions. default: PyTorch's; normal: N(0, 1/fan-in), biases 0; xavier:
    #: N(0, 2/(fan-in + fan-out)), biases 0; equal: all 1/fan-in, biases 0 (f0 alone: units of a hidden layer would stay
    #: alike).
    initialisation: Initialisation = "default"
    #: Factor on these weights.
    initialisation_scale: Annotated[float, Field(gt=0, le=1000)] = 1.0
    #: Of weights, inputs and all that is computed with them.
    dtype: Literal["float32", "float64"] = "float32"

    def scaled(self, units: int) -> int:
        """So many channels or units times `width`, one at least."""
        return max(1, round(units * self.width))

    @model_validator(mode="after")
    def _as_its_network_needs(self) -> "ModelSettings":
        fields = type(self).model_fields
        for name in _OF_MLP if self.name != "mlp" else ():
            if getattr(self, name) != fields[name].default:
                raise ValueError(f"`{name}` is for the network mlp alone; leave it out")
        for name in _OF_OURS if is_own(self.name) else ():
            if getattr(self, name) != fields[name].default:
                raise ValueError(f"`{name}` is not for networks of your own: give its function `arguments`")
        if self.arguments and not is_own(self.name):
            raise ValueError(f"`arguments` are for networks of your own, `module:function`; {self.name} takes none")
        return self

    @model_validator(mode="before")
    @classmethod
    def _by_name_alone(cls, given: Any) -> Any:
        return {"name": given} if isinstance(given, str) else given
