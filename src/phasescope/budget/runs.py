"""What must be known of a dataset and of a run to tell what is kept and computed of them."""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from phasescope.measures.alignment import matrices, pairs
from phasescope.models.parts import BENT_AT_ZERO, embed, hidden_layers, pre_activations
from phasescope.models.taps import places, shapes
from phasescope.models.zoo import BasicBlock, blank, outline
from phasescope.params.activations import ActivationsSettings, Tap
from phasescope.params.settings import RunSettings
from phasescope.params.train import TrainJob
from phasescope.params.transfer import TransferSettings
from phasescope.schedule import checkpoint_steps, evaluation_steps


class Images(NamedTuple):
    """What must be known of a dataset to tell how much is kept of it."""

    channels: int
    train: int
    test: int
    classes: int
    resolution: int
    dtype: str
    ratio: float  #: bytes on the disk of a byte in memory
    values: bool = False  #: whether a number comes with every sample

    @property
    def pixels(self) -> int:
        """Values of an image."""
        return self.channels * self.resolution**2


@dataclass(frozen=True)
class Layer:
    """A tap of a run."""

    name: str
    shape: tuple[int, ...]
    content: str  #: "softmax", "dense", "averaged", "rectified", "embedded" or "image"
    trained: bool  #: whether decoders are trained on it

    @property
    def features(self) -> int:
        """Numbers kept of a sample."""
        return int(np.prod(self.shape))


class Run:
    """What must be known of a run to tell how much is kept of it, and how much is computed."""

    def __init__(self, settings: RunSettings, images: Images, job: TrainJob | None = None) -> None:
        self.settings, self.images = settings, images
        #: One for each class, or one number.
        self.outputs = settings.train.outputs(images.classes)
        self.network = outline(settings.model, images.channels, images.resolution, self.outputs).eval()
        #: Inputs of the network, and what passes through its layers: nothing is known but the shape.
        self.inputs = blank(self.network, images.channels, images.resolution)
        self.embedded = embed(self.network, self.inputs)
        kept, trained = settings.activations, settings.train
        self.seeds, self.steps = len(trained.seeds), len(checkpoint_steps(trained.iterations))
        #: Updates of a seed, and how often loss and accuracy are looked at.
        self.updates = trained.iterations
        self.evaluations = len(evaluation_steps(trained.iterations, trained.evaluate_every))
        if job is not None and job.files:  # others trained
            self.seeds, self.steps, self.updates = len(job.seeds), len(job.steps), 0
            self.evaluations = self.steps
        self.train, self.test = kept_of(images, kept)
        given = shapes(self.network, kept.taps, images.channels, images.resolution)
        pooled = [Tap(name=tap.name) for tap in kept.taps if tap.pool is not None]
        whole = given | shapes(self.network, pooled, images.channels, images.resolution) if pooled else given
        decoded = settings.decode.trained_taps
        self.layers = [
            Layer(name, shape, _content(self.network, name, shape != whole[name]), decoded is None or name in decoded)
            for name, shape in given.items()
        ]

    @property
    def cells(self) -> tuple[int, int, int]:
        """Seeds, steps, layers."""
        return self.seeds, self.steps, len(self.layers)

    @cached_property
    def weights(self) -> int:
        """Bytes of a checkpoint."""
        return sum(values.numel() for values in self.network.state_dict().values()) * self.inputs.element_size()

    @cached_property
    def moved(self) -> float:
        """The share of the parameters that have a gradient at all.

        Of a convolution of 3×3 on maps of 1×1 only the centre meets what is no padding.
        """
        met: dict[int, float] = {}

        def meet(module: nn.Module, read: tuple[torch.Tensor, ...], given: torch.Tensor) -> None:
            if isinstance(module, nn.Conv2d) and not isinstance(module.padding, str):
                met[id(module.weight)] = math.prod(
                    _met(*sides) / sides[2]
                    for sides in zip(
                        *(read[0].shape[2:], given.shape[2:], module.kernel_size),
                        *(module.stride, module.padding, module.dilation),
                        strict=True,
                    )
                )

        hooks = [module.register_forward_hook(meet) for module in self.network.modules()]
        with torch.no_grad():
            self.network(self.inputs)
        for hook in hooks:
            hook.remove()
        parameters = list(self.network.parameters())
        return sum(values.numel() * met.get(id(values), 1.0) for values in parameters) / sum(
            values.numel() for values in parameters
        )

    @cached_property
    def nonlinearities(self) -> dict[str, int]:
        """Nonlinearities of the network that bend at zero, and the numbers that each takes of a sample."""
        bent = pre_activations(self.network, self.embedded, kinds=BENT_AT_ZERO)
        return {path: values.shape[1] for path, values in bent.items()}

    @cached_property
    def hidden_layers(self) -> list[str]:
        """The layers from which the linear mapping number is taken."""
        asked = self.settings.complexity.layers
        if asked is not None:
            return asked
        return hidden_layers(self.network, [layer.name for layer in self.layers], self.embedded)

    @cached_property
    def pairs(self) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """The weights of every pair of consecutive layers of the network, as matrices."""
        return [matrices(self.network, pair) for pair in pairs(self.network, self.inputs)]

    @property
    def probes(self) -> int:
        """Test samples between which the tangent kernel is taken."""
        return min(self.settings.kernel.probes, self.test)

    @property
    def decoder_fits(self) -> int:
        """Decoders that are fitted: the exact one to every layer, those that are trained where they are asked for."""
        trained = sum(layer.trained for layer in self.layers)
        layers = sum(len(self.layers) if name == "linear" else trained for name in self.settings.decode.decoders)
        return self.seeds * self.steps * layers

    @property
    def classifier_fits(self) -> int:
        """Classifiers that are fitted to the classes of the run's own dataset."""
        return self.seeds * self.steps * len(self.layers) * len(self.settings.probe.classifiers)


def kept_of(images: Images, settings: ActivationsSettings | TransferSettings) -> tuple[int, int]:
    """Training and test samples that pass through the checkpoints."""
    return min(settings.train_samples, images.train), min(settings.test_samples or images.test, images.test)


def _met(read: int, given: int, kernel: int, stride: int, padding: int, dilation: int) -> int:
    """Places of a kernel along one side that meet what is read, and not its padding alone, somewhere."""
    ways = [[place * stride - padding + step * dilation for place in range(given)] for step in range(kernel)]
    return sum(any(0 <= at < read for at in of_step) for of_step in ways)


def _content(network: nn.Module, name: str, pooled: bool) -> str:
    """What kind of numbers a tap gives."""
    if name == "softmax":
        return name
    if name.split(".")[0] == "embed":
        return "embedded"
    module = places(network, [Tap(name=name)])[name].module
    if name == "predense":
        before = list(network.children())[:-2]
        if not before:
            return "image"
        module = before[-1]
    while isinstance(module, nn.Sequential):
        module = module[-1]
    if pooled or isinstance(module, nn.AdaptiveAvgPool2d):
        return "averaged"
    return "rectified" if isinstance(module, nn.ReLU | BasicBlock) else "dense"
