"""Parts of a network: from inputs to what is continuous, into its nonlinearities, and from a layer to the logits.

Networks are in eval mode, with BatchNorm statistics that do not depend on the batch, so that what a part gives of one
sample is a function of that sample alone.
"""

import copy
from collections.abc import Callable, Sequence
from contextlib import ExitStack

import torch
from torch import nn

from phasescope.errors import UserError
from phasescope.models.taps import places
from phasescope.models.zoo import name_of
from phasescope.params.activations import Tap

#: Those that bend at zero: where a unit is zero, a piece of the network ends. Swish and GELU have no kink, but curve
#: most there (second derivatives ½ and √(2/π)). Only modules are seen, not functions that a `forward` calls.
BENT_AT_ZERO = (nn.ReLU, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU)
#: Sigmoid and tanh are straightest at zero, where their second derivative is 0: they bend on both sides of it.
NONLINEARITIES = (*BENT_AT_ZERO, nn.Sigmoid, nn.Tanh)


def embed(network: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    """The continuous input of the first layer, (sample, …): what the child `embed` gives, or the inputs themselves."""
    module = dict(network.named_children()).get("embed")
    embedded: torch.Tensor = inputs if module is None else module(inputs)
    return embedded


def behind_embedding(network: nn.Module) -> nn.Module:
    """The network from there on, with the same weights: what `embed` gives → logits (sample, class)."""
    if "embed" not in dict(network.named_children()):
        return network
    rest = copy.copy(network)
    rest._modules = {**network._modules, "embed": nn.Identity()}
    return rest


def pre_activations(
    network: nn.Module,
    embedded: torch.Tensor,
    read: Callable[[torch.Tensor], torch.Tensor] = lambda values: values,
    kinds: tuple[type[nn.Module], ...] = NONLINEARITIES,
) -> dict[str, torch.Tensor]:
    """What goes into every nonlinearity, (sample, unit), by its module path, in the order in which they are passed.

    Every number that a nonlinearity takes is a unit, in the order in which they lie in memory.

    Args:
        network: in eval mode.
        embedded: what `embed` gives.
        read: what is kept of them, (…, unit), so that those of all nonlinearities need not be held at once.
        kinds: of which nonlinearities.
    """
    found: dict[str, list[torch.Tensor]] = {}

    def keep(path: str) -> Callable[[nn.Module, tuple[torch.Tensor, ...]], None]:
        def hook(module: nn.Module, given: tuple[torch.Tensor, ...]) -> None:
            found.setdefault(path, []).append(read(_flat(given[0])))

        return hook

    with ExitStack() as hooks:
        for path, module in _nonlinearities(network, kinds):
            hooks.enter_context(module.register_forward_pre_hook(keep(path)))
        behind_embedding(network)(embedded)
    # A module that is used several times has as many times its units.
    return {path: torch.cat(given, dim=-1) if len(given) > 1 else given[0] for path, given in found.items()}


def activations(network: nn.Module, tap: str, embedded: torch.Tensor) -> torch.Tensor:
    """What the module at a tap gives, (sample, …), as `from_layer` takes it.

    Raises:
        UserError: as `from_layer`.
    """
    module = _tapped(network, tap)
    if tap == "embed":
        return embedded
    found: list[torch.Tensor] = []
    with module.register_forward_hook(lambda module, inputs, output: found.append(output)):
        behind_embedding(network)(embedded)
    return found[-1]


def from_layer(network: nn.Module, tap: str, embedded: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    """The network from a tap on: what the tapped module gives, (sample, …) → logits (sample, class).

    In a chain of modules that is the rest of the chain. Elsewhere the network runs as a whole, and what the module
    gives is replaced: right where the logits depend on the inputs through it alone, and refused where they do not.

    Args:
        network: in eval mode.
        tap: `logits`, `predense`, `conv-2`, or the path of a module.
        embedded: what `embed` gives of at least one sample; nothing depends on its values.

    Raises:
        UserError: there is no such tap, or the logits are no function of what it gives.
    """
    module = _tapped(network, tap)
    whole = behind_embedding(network)
    if tap == "embed":
        return whole
    rest = _rest_of_chain(network, module)
    if rest is not None:
        return nn.Sequential(*rest)
    if not _is_cut(whole, module, embedded):
        raise UserError(
            f"layer {tap!r}: the logits of {name_of(network)} depend on more than it; name one they pass whole"
        )

    def replaced(activations: torch.Tensor) -> torch.Tensor:
        with module.register_forward_hook(lambda *_: activations):
            logits: torch.Tensor = whole(embedded[:1].expand(len(activations), *embedded.shape[1:]))
        return logits

    return replaced


def hidden_layers(network: nn.Module, taps: Sequence[str], embedded: torch.Tensor) -> list[str]:
    """The first hidden layer, and those of the taps from which on the network is not linear; none if it is altogether.

    The first hidden layer is what the first nonlinearity gives, or the smallest module around it that all of the
    network's input passes, such as a residual block; where the network is linear from there on, as behind the only
    block of a transformer, what is embedded.
    """
    path = next(iter(pre_activations(network, embedded[:1])), None)
    if path is None:
        return []
    modules = dict(network.named_modules())
    while "." in path and not _is_cut(behind_embedding(network), modules[path], embedded):
        path = path.rpartition(".")[0]
    if why_not_hidden(network, path, embedded) is not None:
        path = "embed" if "embed" in modules else ""
    taps = [path, *taps] if path else list(taps)
    return list(dict.fromkeys(tap for tap in taps if why_not_hidden(network, tap, embedded) is None))


def why_not_hidden(network: nn.Module, tap: str, embedded: torch.Tensor) -> str | None:
    """Why the way from a tap to the logits does not tell how far from linear the network is; None if it does."""
    try:
        from_layer(network, tap, embedded)
    except UserError as error:
        return str(error)
    behind: list[str] = []
    with ExitStack() as hooks:
        for path, module in _nonlinearities(network):
            hooks.enter_context(module.register_forward_pre_hook(lambda *_, path=path: behind.append(path)))
        hooks.enter_context(_tapped(network, tap).register_forward_hook(lambda *_: behind.clear()))
        behind_embedding(network)(embedded[:1])
    return None if behind else f"layer {tap!r}: {name_of(network)} is linear from there on; name an earlier one"


def _nonlinearities(
    network: nn.Module, kinds: tuple[type[nn.Module], ...] = NONLINEARITIES
) -> list[tuple[str, nn.Module]]:
    return [(path, module) for path, module in network.named_modules() if isinstance(module, kinds)]


def _flat(values: torch.Tensor) -> torch.Tensor:
    """(sample, …) → (sample, unit), without a copy also of maps whose channels come last."""
    if values.ndim == 4 and values.is_contiguous(memory_format=torch.channels_last):
        values = values.movedim(1, -1)
    return values.flatten(1)


def _tapped(network: nn.Module, tap: str) -> nn.Module:
    (place,) = places(network, [Tap(name=tap)]).values()
    if tap == "softmax":
        raise UserError("layer 'softmax': the logits are no function of it, for it forgets their sum; name another")
    if tap.startswith("embed."):
        raise UserError(f"layer {tap!r} lies in front of what is continuous; name embed, or a later one")
    if place.before:
        raise UserError(f"layer {tap!r}: {name_of(network)} is linear from there on; name an earlier one")
    return place.module


def _rest_of_chain(chain: nn.Module, module: nn.Module) -> list[nn.Module] | None:
    """What comes after a module in a chain of modules and chains; None if it is not a link of it."""
    if chain is module:
        return []
    if not isinstance(chain, nn.Sequential) or type(chain).forward is not nn.Sequential.forward:
        return None
    links = list(chain)
    for place, link in enumerate(links):
        rest = _rest_of_chain(link, module)
        if rest is not None:
            return [*rest, *links[place + 1 :]]
    return None


def _is_cut(whole: nn.Module, module: nn.Module, embedded: torch.Tensor) -> bool:
    """Whether the logits depend on the input through a module alone: no gradient gets past it."""
    weights = whole.state_dict()  # which need no gradient themselves
    given = embedded[:1].detach().requires_grad_()
    with torch.enable_grad(), module.register_forward_hook(lambda module, inputs, output: output.detach()):
        logits: torch.Tensor = torch.func.functional_call(whole, weights, given)
    return not logits.requires_grad
