"""Settings of a network, and which taps each network has by name."""

from typing import Annotated, Literal

from pydantic import Field

from phasescope.params.base import Section

ModelName = Literal[
    "f0", "vgg8", "vgg11", "vgg13", "vgg16", "resnet10", "embedding-mlp", "transformer-1", "transformer-2"
]
Initialisation = Literal["default", "normal", "equal"]

#: Networks of convolutions, which have BatchNorm.
CONVOLUTIONAL: tuple[ModelName, ...] = ("vgg8", "vgg11", "vgg13", "vgg16", "resnet10")
#: Networks that read a pair of tokens.
OF_TOKENS: tuple[ModelName, ...] = ("embedding-mlp", "transformer-1", "transformer-2")

#: Taps that have a name of their own; any other tap is a module path of the network.
TAPS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("f0", *OF_TOKENS), ("softmax", "logits", "predense")),
    **dict.fromkeys(CONVOLUTIONAL, ("softmax", "logits", "predense", "conv-2")),
}


class ModelSettings(Section):
    """Which network."""

    name: ModelName
    #: Factor on the number of channels of every convolution, for small machines; 1 is the paper's network. Of networks
    #: of tokens, on the units of every layer; a transformer keeps its four heads, which become narrower or wider.
    width: Annotated[float, Field(gt=0, le=16)] = 1.0
    #: Of the weights of dense layers and convolutions. default: PyTorch's; normal: N(0, 1/fan-in), biases 0; equal: all
    #: 1/fan-in (f0 alone: units of a hidden layer would stay alike).
    initialisation: Initialisation = "default"
    #: Of weights, inputs and all that is computed with them.
    dtype: Literal["float32", "float64"] = "float32"

    def scaled(self, units: int) -> int:
        """So many channels or units times `width`, one at least."""
        return max(1, round(units * self.width))
