"""Empirical neural tangent kernel (Jacot et al. 2018): how far a step on one sample moves the logits of another.

K(x, x') = J(x) J(x')ᵀ with the Jacobian J of the logits by all parameters, each counted alike: what learning rates
would weigh them by is not in it. J is as large as the network for every sample and output, so it is not made. K is a
sum over modules, and for one with weights W it follows from what goes in (u) and what comes back (g = ∂logit/∂output):
W is applied at places p, its part of J is Σ_p g_p u_pᵀ, and

    J(x)·J(x') = Σ_pq (u_p·u'_q) (g_p·g'_q),

which for few places is far less than the gradients themselves (Novak, Sohl-Dickstein & Schoenholz 2022,
arXiv:2206.08720). For many places it is these gradients that are made, of some input channels at a time.
"""

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.func import functional_call, vjp, vmap
from torch.nn import functional

from phasescope.params.kernel import Outputs

#: Bytes of an intermediate result, about, by kind of device.
BLOCK = {"cpu": 64 << 20, "cuda": 1 << 30}
NORMALISATIONS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.LayerNorm, nn.GroupNorm)
#: What came into a module and what it gave, each time that it was called.
Calls = list[tuple[torch.Tensor, torch.Tensor]]
#: Gradients by what a module gave, (row, output, sample, …) for every call → its part of the kernel (row, sample, row,
#: sample), in which the outputs of a row are summed over.
Rule = Callable[[list[torch.Tensor]], torch.Tensor]


def tangent_kernel(
    network: nn.Module, inputs: torch.Tensor, outputs: Outputs = "mean", limit: int | None = None
) -> torch.Tensor:
    """The kernel of samples at the weights of a network, float64, of gradients in the network's own precision.

    Args:
        network: (sample, …) → logits (sample, output), in eval mode, a function of each sample alone. BatchNorm's
            statistics are constants to it; what BatchNorm multiplies by and adds are parameters.
        inputs: (sample, …).
        outputs: "mean": 1/C Σ_c J_c(x) J_c(x')ᵀ over the C outputs, (sample, sample); "full": J_c(x) J_c'(x')ᵀ,
            (sample, output, sample, output).
        limit: bytes of an intermediate result (none: what suits the device); nothing but rounding depends on it.
    """
    limit = BLOCK[inputs.device.type] if limit is None else limit
    logits, calls = _run(network, inputs)
    count = logits.shape[1]
    if outputs == "full":
        # The gradients of all outputs are needed at once, but those of no two modules.
        rows, together, groups = count, count, [[module] for module in calls]
    else:
        held = sum(given.nbytes for of_module in calls.values() for _, given in of_module)
        rows, together, groups = 1, max(1, limit // held), [list(calls)]
    kernel = torch.zeros(rows, len(inputs), rows, len(inputs), dtype=torch.float64, device=inputs.device)
    for modules in groups:
        rules = [_rule(module, calls[module], rows, limit) for module in modules]
        for some in torch.arange(count).split(together):
            gradients = _gradients(logits, [calls[module] for module in modules], some.tolist())
            for rule, found in zip(rules, gradients, strict=True):
                kernel += rule([of_call.unflatten(0, (rows, -1)) for of_call in found])
    kernel = (kernel + kernel.permute(2, 3, 0, 1)).cpu() / 2  # exactly symmetric, which it is but for rounding
    return kernel.permute(1, 0, 3, 2) if outputs == "full" else kernel[0, :, 0] / count


def _run(network: nn.Module, inputs: torch.Tensor) -> tuple[torch.Tensor, dict[nn.Module, Calls]]:
    """The logits, and what passed every module that has parameters of its own."""
    calls: dict[nn.Module, Calls] = {}
    with ExitStack() as hooks, torch.enable_grad():
        for module in network.modules():
            if any(True for _ in module.parameters(recurse=False)):
                calls[module] = []
                hooks.enter_context(module.register_forward_hook(lambda m, i, o: calls[m].append((i[0].detach(), o))))
        logits = network(inputs)
    return logits, {module: of_module for module, of_module in calls.items() if of_module}


def _gradients(logits: torch.Tensor, modules: list[Calls], outputs: list[int]) -> list[list[torch.Tensor]]:
    """Of some outputs by what modules gave, (output, sample, …) for each module and call.

    The gradient of the sum over samples is every sample's own, for they pass alone.
    """
    given = [output for calls in modules for _, output in calls]
    found = [
        torch.autograd.grad(logits[:, output].sum(), given, retain_graph=True, materialize_grads=True)
        for output in outputs
    ]
    stacked = iter([torch.stack(of_call) for of_call in zip(*found, strict=True)])
    return [[next(stacked) for _ in calls] for calls in modules]


def _rule(module: nn.Module, calls: Calls, rows: int, limit: int) -> Rule:
    reads = [read for read, _ in calls]
    if isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and _is_plain(module)):
        return _dense(module, reads, rows, limit)
    return partial(_normalised if isinstance(module, NORMALISATIONS) else _explicit, module, reads)


def _is_plain(module: nn.Conv2d) -> bool:
    return module.groups == 1 and module.padding_mode == "zeros" and not isinstance(module.padding, str)


def _products_of(jacobian: torch.Tensor) -> torch.Tensor:
    """(row, output, sample, parameter) → (row, sample, row, sample)."""
    rows, _, samples, _ = jacobian.shape
    flat = jacobian.transpose(1, 2).flatten(2).flatten(0, 1)
    return (flat @ flat.T).view(rows, samples, rows, samples)


def _explicit(module: nn.Module, reads: list[torch.Tensor], gradients: list[torch.Tensor]) -> torch.Tensor:
    """Any module: its part of J for each sample and output, by a vector-Jacobian product each."""
    parameters = {name: parameter.detach() for name, parameter in module.named_parameters(recurse=False)}
    buffers = dict(module.named_buffers(recurse=False))

    def of_sample(read: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        """What was read of a sample (…), gradients (output, …) → (output, parameter)."""
        back = vjp(lambda given: functional_call(module, (given, buffers), read[None])[0], parameters)[1]
        found = vmap(back)(gradient)[0]
        return torch.cat([part.flatten(1) for part in found.values()], dim=1)

    jacobian = torch.zeros(())
    for read, gradient in zip(reads, gradients, strict=True):
        found = vmap(of_sample, in_dims=(0, 1), out_dims=1)(read, gradient.flatten(0, 1))
        jacobian = jacobian.to(found) + found.unflatten(0, gradient.shape[:2])
    return _products_of(jacobian)


def _normalised(module: nn.Module, reads: list[torch.Tensor], gradients: list[torch.Tensor]) -> torch.Tensor:
    """A layer that multiplies each unit or channel of what it has normalised by a weight, and adds a bias.

    As `_explicit`, whose first use takes two seconds to import what torch has for it.
    """
    parameters = {name: parameter.detach() for name, parameter in module.named_parameters(recurse=False)}
    neutral = {name: torch.full_like(value, float(name == "weight")) for name, value in parameters.items()}
    buffers = dict(module.named_buffers(recurse=False))
    units = parameters["weight"].numel()

    def by_place(values: torch.Tensor) -> torch.Tensor:
        """(…, sample, …) → (row, output, sample, place, unit)."""
        if isinstance(module, nn.LayerNorm):
            return values.reshape(*values.shape[:3], -1, units)
        return values.reshape(*values.shape[:3], units, -1).transpose(3, 4)

    jacobian = torch.zeros(())
    for read, gradient in zip(reads, gradients, strict=True):
        normalised = by_place(functional_call(module, (neutral, buffers), read)[None, None])
        back = by_place(gradient)
        found = [(back * normalised).sum(dim=3)] + [back.sum(dim=3)] * ("bias" in parameters)
        jacobian = jacobian.to(back) + torch.cat(found, dim=-1)
    return _products_of(jacobian)


def _dense(module: nn.Linear | nn.Conv2d, reads: list[torch.Tensor], rows: int, limit: int) -> Rule:
    """A dense layer, or a convolution, which is one at every place of the map."""
    moved: dict[str, Any] = {name: getattr(module, name, None) for name in ("dilation", "padding", "stride")}

    def places(first: int, last: int) -> torch.Tensor:
        """What the weights of some input channels are applied to, (sample, place, column); those of all calls."""
        if isinstance(module, nn.Linear):
            return torch.cat([read[..., first:last].reshape(len(read), -1, last - first) for read in reads], dim=1)
        maps = [functional.unfold(read[:, first:last], module.kernel_size, **moved) for read in reads]
        return torch.cat([each.transpose(1, 2) for each in maps], dim=1)

    channels, columns = module.weight.shape[1], module.weight[0].numel()
    samples, count, _ = places(0, 1).shape
    # Bytes of a channel: of what is read at all places, and of the gradients by its weights for one output.
    gradient = reads[0].element_size() * (columns // channels) * samples
    read = gradient * count

    def slices(held: int) -> list[tuple[int, int]]:
        step = max(1, limit // held)
        return [(first, min(first + step, channels)) for first in range(0, channels, step)]

    # Operations for each unit of the output: of products of places, and of gradients and their products.
    products, gradients_too = (rows * samples * count) ** 2, rows * samples * (count + rows * samples) * columns
    if products <= gradients_too and products * reads[0].element_size() <= limit:
        # A bias is the weight of one more column, of ones.
        alike = reads[0].new_full((samples * count,) * 2, 0.0 if module.bias is None else 1.0)
        for ends in slices(read):
            part = places(*ends).flatten(0, 1)
            alike += part @ part.T
        return lambda gradients: _products(alike, _by_place(module, gradients))

    def by_gradients(gradients: list[torch.Tensor]) -> torch.Tensor:
        back = _by_place(module, gradients)
        kernel = back.new_zeros(rows, samples, rows, samples)
        for ends in slices(max(read, gradient * rows * back.shape[3])):
            kernel += _products_of((back.transpose(2, 3) @ places(*ends)).flatten(2)[:, None])
        if module.bias is not None:
            kernel += _products_of(back.sum(dim=2)[:, None])
        return kernel

    return by_gradients


def _by_place(module: nn.Linear | nn.Conv2d, gradients: list[torch.Tensor]) -> torch.Tensor:
    """Gradients (row, output, sample, …) of all calls → (row, sample, place, unit), units of all outputs of a row."""
    channel = -1 if isinstance(module, nn.Linear) else 3
    found = [gradient.movedim(channel, -1) for gradient in gradients]
    found = [gradient.reshape(*gradient.shape[:3], -1, gradient.shape[-1]) for gradient in found]
    return torch.cat(found, dim=3).permute(0, 2, 3, 1, 4).flatten(3)


def _products(alike: torch.Tensor, back: torch.Tensor) -> torch.Tensor:
    """Σ_pq (u_p·u'_q)(g_p·g'_q), (row, sample, row, sample).

    Args:
        alike: u_p·u'_q, (sample · place, sample · place).
        back: g, (row, sample, place, unit).
    """
    rows, samples, places, _ = back.shape
    flat = back.flatten(0, 2)
    products = (flat @ flat.T).view(rows, samples, places, rows, samples, places)
    return (products * alike.view(samples, places, 1, samples, places)).sum(dim=(2, 5))
