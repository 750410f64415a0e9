"""Layer alignment: how much of what one layer gives is read by the next, beside what random layers would.

ζ = |W₂ W₁| / (|W₂| |W₁|) with Frobenius norms, for two layers that share h channels: the first gives what the second
reads. In the two-layer linear network of arXiv:2401.07085 that is |u·w| / (|u| |w|), and what the network gives is the
product N = |W₂| |W₁| of the norms times ζ. ζ lies between 0 and 1, which it reaches where both layers have a single
direction, and the same one. If one layer is turned at random, E ζ² = 1/h, whatever both of them are.
"""

from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

Layer = nn.Linear | nn.Conv2d


@dataclass(frozen=True)
class Pair:
    """Two layers of a network one of which reads what the other gives, by their module paths."""

    first: str
    second: str

    @property
    def name(self) -> str:
        """As figures and tables call it."""
        return f"{self.first} to {self.second}"


def alignment(first: torch.Tensor, second: torch.Tensor) -> tuple[float, float]:
    """ζ and the product of the norms of matrices (channel, in) and (out, channel); ζ is NaN if one of them is zero.

    ζ² = tr(W₂ᵀW₂ W₁W₁ᵀ) / (tr W₂ᵀW₂ · tr W₁W₁ᵀ), in float64.
    """
    given, read = first.double(), second.double()
    given, read = given @ given.T, read.T @ read
    norms = given.trace() * read.trace()
    product = (given * read).sum()
    return float((product / norms).sqrt()), float(norms.sqrt())


def matrices(network: nn.Module, pair: Pair) -> tuple[torch.Tensor, torch.Tensor]:
    """The weights of a pair as (channel, in) and (out, channel), with all else that they have as rows and columns.

    Of convolutions these are places of the kernel. A dense layer behind maps or a sequence reads each channel at
    several places, which are in front of the channels in a sequence and behind them in maps, as flattening leaves them.
    """
    before, behind = (network.get_submodule(path) for path in (pair.first, pair.second))
    first, second = _weight(before).flatten(1), _weight(behind)
    channels = len(first)
    if isinstance(behind, nn.Linear):
        maps = isinstance(before, nn.Conv2d)
        second = second.unflatten(1, (channels, -1) if maps else (-1, channels)).movedim(1 if maps else 2, 1)
    return first, second.movedim(1, -1).reshape(-1, channels)


def pairs(network: nn.Module, inputs: torch.Tensor) -> list[Pair]:
    """The pairs of consecutive layers on the main path of a network, from its input to its logits.

    Layers are dense ones and convolutions. One reads another if what goes into it depends on what the other gives
    directly, past no third one. The main path is the longest from the last layer back to the input, so it leads through
    blocks and not past them; where several are as long, through the layer that is used last, which in attention is that
    of the values: W₂ W₁ of its pair with the layer behind the heads is the sum over heads of what each would write
    into the stream if it attended to a single position. Two of the path whose channels do not fit are no pair.

    Args:
        network: in eval mode.
        inputs: (sample, …), of which the first is looked at.
    """
    reads = _reads(network, inputs)
    depth: dict[str, int] = {}
    for path, read in reads.items():  # in the order in which they are used
        depth[path] = 1 + max((depth[other] for other in read), default=0)
    order = list(reads)
    path, found = order[-1] if order else "", list[Pair]()
    while path and reads[path]:
        before = max(reads[path], key=lambda other: (depth[other], order.index(other)))
        found.append(Pair(before, path))
        path = before
    return [pair for pair in reversed(found) if _fit(network, pair)]


def _reads(network: nn.Module, inputs: torch.Tensor) -> dict[str, list[str]]:
    """Of every layer, in the order of use, the layers that it reads directly."""
    given: dict[str, torch.Tensor] = {}
    reads: dict[str, list[str]] = {}

    def before(module: nn.Module, read: tuple[torch.Tensor, ...], path: str) -> None:
        found: tuple[torch.Tensor | None, ...] = (None,) * len(given)
        if given and read[0].requires_grad:  # embeddings require gradients before any layer has given something
            found = torch.autograd.grad(read[0].sum(), list(given.values()), retain_graph=True, allow_unused=True)
        reads[path] = [other for other, gradient in zip(given, found, strict=True) if gradient is not None]

    def behind(module: nn.Module, read: object, output: torch.Tensor, path: str) -> torch.Tensor:
        given[path] = output.detach().requires_grad_()
        return given[path]

    with ExitStack() as hooks, torch.enable_grad():
        for path, module in network.named_modules():
            if isinstance(module, Layer):
                hooks.enter_context(module.register_forward_pre_hook(partial(before, path=path)))
                hooks.enter_context(module.register_forward_hook(partial(behind, path=path)))
        network(inputs[:1])
    return reads


def _fit(network: nn.Module, pair: Pair) -> bool:
    before, behind = (network.get_submodule(path) for path in (pair.first, pair.second))
    channels, read = len(_weight(before)), _weight(behind).shape[1]
    return read == channels or (isinstance(behind, nn.Linear) and read % channels == 0)


def _weight(module: nn.Module) -> torch.Tensor:
    assert isinstance(module, Layer)
    return module.weight.detach()
