"""Settings of a network, and which taps each network has by name."""

from typing import Annotated, Literal

from pydantic import Field

from phasescope.params.base import Section

ModelName = Literal["f0", "vgg8", "vgg11", "vgg13", "vgg16", "resnet10"]
Initialisation = Literal["default", "normal", "equal"]

#: Taps that have a name of their own; any other tap is a module path of the network.
TAPS: dict[str, tuple[str, ...]] = {
    "f0": ("softmax", "logits", "predense"),
    **dict.fromkeys(("vgg8", "vgg11", "vgg13", "vgg16", "resnet10"), ("softmax", "logits", "predense", "conv-2")),
}


class ModelSettings(Section):
    """Which network."""

    name: ModelName
    #: Factor on the number of channels of every convolution, for small machines; 1 is the paper's network.
    width: Annotated[float, Field(gt=0, le=16)] = 1.0
    #: Of the weights of dense layers and convolutions. default: PyTorch's; normal: N(0, 1/fan-in), biases 0; equal: all
    #: 1/fan-in (f0 alone: units of a hidden layer would stay alike).
    initialisation: Initialisation = "default"
    #: Of weights, inputs and all that is computed with them.
    dtype: Literal["float32", "float64"] = "float32"
