"""The networks: F0, VGG-8/11/13/16 and ResNet-10 of the learning-phases paper, perceptrons, and those that read tokens.

Every network is a sequence of named parts: ``stem`` (ResNet), ``inputs`` (perceptron) or ``embed`` (tokens),
``blocks``, ``pool`` (ResNet) or ``norm`` (transformer-2), ``flatten`` and ``head``, the last linear layer, whose
outputs are the logits. F0 has no more than ``flatten`` and ``head``.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from phasescope import own
from phasescope.errors import UserError, unknown
from phasescope.models import tokens
from phasescope.params.base import is_own
from phasescope.params.models import OF_TOKENS, ModelSettings, Nonlinearity
from phasescope.params.train import TrainJob

#: Channels and stride of each convolution. Not the VGGs of Simonyan & Zisserman: the released code of the
#: paper (Schneider & Prabhushankar 2024) shrinks the maps by strides, without max-pooling, and has one dense
#: layer.
VGG_LAYERS: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "vgg8": (
        (32, 64, 128, 256, 512),
        (2, 2, 2, 2, 2),
    ),
    "vgg11": (
        (32, 64, 128, 128, 256, 256, 512, 512),
        (2, 2, 1, 2, 1, 2, 1, 2),
    ),
    "vgg13": (
        (32, 32, 64, 128, 128, 256, 256, 512, 512, 512),
        (2, 1, 2, 1, 2, 1, 2, 1, 1, 2),
    ),
    "vgg16": (
        (32, 32, 64, 64, 128, 128, 128, 256, 256, 256, 512, 512, 512),
        (1, 2, 1, 2, 1, 1, 2, 1, 1, 2, 1, 1, 2),
    ),
}

#: Channels and stride of each of the four basic blocks. The paper's network is not released; stem and strides
#: follow from its 4×4 average pooling in front of the dense layer.
RESNET10_BLOCKS = ((64, 1), (128, 2), (256, 2), (512, 2))

#: The nonlinearities of a perceptron; the slope of a leaky ReLU below zero is PyTorch's, 0.01.
NONLINEARITIES: dict[Nonlinearity, type[nn.Module]] = {
    "linear": nn.Identity,
    "relu": nn.ReLU,
    "leaky-relu": nn.LeakyReLU,
    "swish": nn.SiLU,
    "gelu": nn.GELU,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
}


class Network(nn.Sequential):
    """A network made of named parts, which knows its own name."""

    name: str


class BasicBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut (He et al. 2016), a 1×1 convolution where the shape changes.

    Takes maps (batch, in_channels, n, n) to (batch, out_channels, ⌈n/stride⌉, ⌈n/stride⌉).
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            # A strided 1×1 convolution looks at every other pixel; so does this pooling of windows of one. Done by
            # the convolution itself it crashes in oneDNN 3.13 (channels_last, few channels, two threads: docs/log.md).
            self.shortcut = nn.Sequential(
                nn.MaxPool2d(1, stride),
                nn.Conv2d(in_channels, out_channels, 1, bias=False),
                nn.BatchNorm2d(out_channels),
            )
        self.relu2 = nn.ReLU()

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Maps (batch, in_channels, n, n) → (batch, out_channels, ⌈n/stride⌉, ⌈n/stride⌉)."""
        inner = self.relu1(self.bn1(self.conv1(maps)))
        return self.relu2(self.bn2(self.conv2(inner)) + self.shortcut(maps))


def build_for(job: TrainJob, channels: int, resolution: int, classes: int) -> nn.Module:
    """The network of a run, as `build` gives it, with one output for each class, or one that tells a number.

    Raises:
        UserError: as `build`, or the user's own code is not what it was when the run was made.
    """
    network = build(job.model, channels, resolution, job.outputs(classes))
    own.require_unchanged(job.code, job.model.name, job.loss)
    return network


def build(settings: ModelSettings, channels: int, resolution: int, classes: int) -> nn.Module:
    """The network of ``settings``, initialised as they say, in training mode.

    It takes images (batch, channels, resolution, resolution) to logits (batch, classes). At resolution 32 and
    width 1 it is the network of the paper. VGGs at higher resolutions keep maps larger than 1×1, all of which
    the head reads; ResNet-10 averages whatever remains. To a network of tokens, channels are two one-hot tokens
    of a vocabulary that is as large as the number of classes.

    Raises:
        ValueError: the channels are no such tokens.
        UserError: a network of the user's own cannot be made.
    """
    if is_own(settings.name):
        return _own(settings, channels, resolution, classes).to(getattr(torch, settings.dtype))
    if settings.name == "f0":
        parts = _f0(channels, resolution, classes)
    elif settings.name == "mlp":
        parts = _mlp(settings, channels * resolution**2, classes)
    elif settings.name == "resnet10":
        parts = _resnet10(settings, channels, classes)
    elif settings.name in OF_TOKENS:
        parts = tokens.parts(settings, channels, classes)
    else:
        parts = _vgg(settings, channels, resolution, classes)
    network = Network(parts)
    network.name = settings.name
    network.to(getattr(torch, settings.dtype))
    _initialise(network, settings)
    return network


def outline(settings: ModelSettings, channels: int, resolution: int, classes: int) -> nn.Module:
    """The network that `build` gives, with no numbers in its weights: for what depends on their shapes alone.

    No weight is drawn or even written, and the random numbers stay as they are. What passes through is a batch of no
    images, of which all shapes are known and nothing is computed. (On torch's meta device the first weight that is
    drawn, the first BatchNorm or dense layer imports torch's compiler: 1.2 s of a processor; docs/log.md.)

    Raises:
        ValueError: as `build`.
    """
    with _Undrawn():
        return build(settings, channels, resolution, classes)


def outline_for(job: TrainJob, channels: int, resolution: int, classes: int) -> nn.Module:
    """The outline of a run's network, as `build_for` is to `build`."""
    return outline(job.model, channels, resolution, job.outputs(classes))


def place(network: nn.Module, device: torch.device) -> nn.Module:
    """Bring a network to the device, with its maps in the layout in which convolutions run fastest (docs/log.md).

    One of the user's own keeps the usual layout, for `view` needs it.
    """
    network = network.to(device)
    return network.to(memory_format=torch.channels_last) if isinstance(network, Network) else network


def name_of(network: nn.Module) -> str:
    """What a network is called: as in the settings, one of the user's own as its class."""
    return network.name if isinstance(network, Network) else type(network).__name__


def blank(network: nn.Module, channels: int, resolution: int) -> torch.Tensor:
    """Images to pass through a network where shapes alone matter: none, or two of zeros for one of the user's own.

    Those of phasescope bear an empty batch, of which nothing is computed; others need not.
    """
    weight = next(network.parameters(), None)
    if weight is None:
        raise UserError(f"{name_of(network)}: has no parameters, so there is nothing to train or to measure")
    count = 0 if isinstance(network, Network) else 2
    return torch.zeros(count, channels, resolution, resolution, dtype=weight.dtype, device=weight.device)


class _Undrawn(TorchFunctionMode):
    """Leaves tensors as they are where they would be drawn."""

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, given: tuple[Any, ...] = (), named: dict[str, Any] | None = None
    ) -> Any:
        named = named or {}
        if function is torch.Tensor.normal_ or getattr(function, "__module__", None) == nn.init.__name__:
            return named.get("tensor", given[0] if given else None)
        return function(*given, **named)


def _initialise(network: Network, settings: ModelSettings) -> None:
    """Draw the weights of all dense layers and convolutions anew, unless they are to be PyTorch's, and scale them.

    A scale multiplies what is drawn, so that networks of one seed differ by that factor alone.
    """
    for module in network.modules():
        if not isinstance(module, nn.Linear | nn.Conv2d):
            continue
        match settings.initialisation:
            case "normal":
                nn.init.normal_(module.weight, std=module.weight[0].numel() ** -0.5)
            case "xavier":
                nn.init.xavier_normal_(module.weight)
            case "equal":
                nn.init.constant_(module.weight, 1 / module.weight[0].numel())
        if settings.initialisation != "default" and module.bias is not None:
            nn.init.zeros_(module.bias)
        with torch.no_grad():
            module.weight *= settings.initialisation_scale


def _own(settings: ModelSettings, channels: int, resolution: int, outputs: int) -> nn.Module:
    module, _, name = settings.name.partition(":")
    if module == "torchvision":
        from torchvision import models

        classifiers = models.list_models(module=models)
        if name not in classifiers:
            raise UserError(unknown(name, classifiers, "network of torchvision"))
        if any(key.startswith("weights") for key in settings.arguments):
            raise UserError(f"{settings.name}: networks begin untrained: leave `weights` out, or import a checkpoint")
        with own.telling(settings.name):
            network = models.get_model(name, **{"num_classes": outputs, **settings.arguments})
    else:
        known = {"channels": channels, "resolution": resolution, "outputs": outputs}
        network = own.call(settings.name, known, settings.arguments)
    if not isinstance(network, nn.Module):
        raise UserError(f"{settings.name}: gives a {type(network).__name__}, where a torch.nn.Module is expected")
    network.register_forward_pre_hook(_in_the_usual_layout)
    return network.train()


def _in_the_usual_layout(module: nn.Module, given: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    """Images as everybody has them, of which a network may take views; ours lie as convolutions are fastest on.

    Images of one channel are both at once to `contiguous`, and what a convolution makes of them then is not.
    """
    return tuple(part.flatten(1).view(part.shape) for part in given)


def _f0(channels: int, resolution: int, classes: int) -> OrderedDict[str, nn.Module]:
    return OrderedDict(flatten=nn.Flatten(), head=nn.Linear(channels * resolution**2, classes, bias=False))


def _mlp(settings: ModelSettings, inputs: int, classes: int) -> OrderedDict[str, nn.Module]:
    blocks = nn.Sequential()
    for features in [inputs, *[settings.units] * (settings.depth - 2)]:
        dense = nn.Linear(features, settings.units, settings.bias)
        blocks.append(nn.Sequential(dense, NONLINEARITIES[settings.nonlinearity]()))
    head = nn.Linear(settings.units, classes, settings.bias)
    return OrderedDict(inputs=nn.Flatten(), blocks=blocks, flatten=nn.Flatten(), head=head)


def _vgg(settings: ModelSettings, channels: int, resolution: int, classes: int) -> OrderedDict[str, nn.Module]:
    blocks = nn.Sequential()
    for width, stride in zip(*VGG_LAYERS[settings.name], strict=True):
        blocks.append(_conv_block(channels, settings.scaled(width), stride))
        channels = settings.scaled(width)
        resolution = -(-resolution // stride)
    head = nn.Linear(channels * resolution**2, classes)
    return OrderedDict(blocks=blocks, flatten=nn.Flatten(), head=head)


def _resnet10(settings: ModelSettings, channels: int, classes: int) -> OrderedDict[str, nn.Module]:
    width = settings.scaled(64)
    stem = _conv_block(channels, width, stride=1)
    blocks = nn.Sequential()
    for block_width, stride in RESNET10_BLOCKS:
        blocks.append(BasicBlock(width, settings.scaled(block_width), stride))
        width = settings.scaled(block_width)
    # The paper's 4×4 average pooling leaves 1×1 maps at resolution 32; so does this at any resolution.
    pool = nn.AdaptiveAvgPool2d(1)
    return OrderedDict(stem=stem, blocks=blocks, pool=pool, flatten=nn.Flatten(), head=nn.Linear(width, classes))


def _conv_block(in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
    # ReLU makes a new tensor: in place, it would overwrite the BatchNorm output that a tap may hold.
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(),
    )
