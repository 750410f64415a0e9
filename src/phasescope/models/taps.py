"""Taps: places in a network whose outputs are read while it runs."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Self

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from phasescope.errors import UserError
from phasescope.models.zoo import Network, blank, name_of
from phasescope.params.activations import Tap
from phasescope.params.models import TAPS


@dataclass(frozen=True)
class Place:
    """Where a tap reads: what a module gives, or what it is given."""

    module: nn.Module
    before: bool = False


def places(model: nn.Module, taps: Sequence[Tap]) -> dict[str, Place]:
    """Where each tap reads, by the name of the tap.

    ``logits`` is what the network gives, ``softmax`` the softmax of it, ``predense`` the input of the last linear
    layer, ``conv-2`` the output of the second last block; any other name is the path of a module.
    (Logits, predense and conv-2 are layers -1, -2 and -3 in the text of Schneider & Prabhushankar 2024; in
    its released code, -1 is predense.)

    Raises:
        UserError: the network has no such tap.
    """
    paths = {path: Place(module) for path, module in model.named_modules() if path}
    named = {"softmax": Place(model), "logits": Place(model)}
    dense = [module for module in model.modules() if isinstance(module, nn.Linear)]
    if isinstance(model, Network):
        named["predense"] = Place(model.get_submodule("flatten"))
    elif dense:
        named["predense"] = Place(dense[-1], before=True)
    if isinstance(model, Network) and "conv-2" in TAPS[model.name]:
        named["conv-2"] = Place(list(model.get_submodule("blocks").children())[-2])
    known = paths | named
    for tap in taps:
        if tap.name not in known:
            nearest = difflib.get_close_matches(tap.name, [*named, *paths], n=1, cutoff=0.0)[0]
            raise UserError(
                f"tap {tap.name!r}: {name_of(model)} has no such tap (nearest: {nearest!r}); name one of "
                f"{', '.join(named)} or the path of a module such as {list(paths)[min(1, len(paths) - 1)]!r}"
            )
    return {tap.name: known[tap.name] for tap in taps}


class Capture:
    """Keeps the outputs at ``taps`` of the last forward pass of ``model``, within a ``with`` block.

    The network computes what it would compute without; its hooks are gone after the block::

        with Capture(model, taps) as capture:
            model(images)
            activations = capture.read()

    Raises:
        UserError: the network has no such tap.
    """

    def __init__(self, model: nn.Module, taps: Sequence[Tap]):
        self._model = model
        self._taps = list(taps)
        self._places = places(model, taps)
        self._outputs: dict[str, object] = {}
        self._hooks: list[RemovableHandle] = []

    def __enter__(self) -> Self:
        for name, place in self._places.items():
            keep = partial(self._keep, name)
            if place.before:
                self._hooks.append(place.module.register_forward_pre_hook(lambda _, given, keep=keep: keep(given[0])))
            else:
                self._hooks.append(place.module.register_forward_hook(lambda *given, keep=keep: keep(given[-1])))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()
        self._outputs.clear()

    def read(self) -> dict[str, torch.Tensor]:
        """Activations of the last forward pass by tap name, each (batch, features), on their device.

        Raises:
            UserError: the module's output is no tensor, no map that can be pooled as the tap asks for, or no sequence
                that has the position.
        """
        return {name: activations.flatten(1) for name, activations in self._selected().items()}

    def _keep(self, name: str, value: object) -> None:
        if isinstance(value, torch.Tensor):
            value = value.detach()
            if not isinstance(self._model, Network):  # whose next module may write into it
                value = value.clone()
        self._outputs[name] = value

    def _selected(self) -> dict[str, torch.Tensor]:
        unseen = [tap.name for tap in self._taps if tap.name not in self._outputs]
        if unseen:
            raise UserError(f"tap {unseen[0]!r}: {name_of(self._model)} has it, and does not run it; name another")
        return {tap.name: _value(self._model, tap, self._outputs[tap.name]) for tap in self._taps}


def shapes(model: nn.Module, taps: Sequence[Tap], channels: int, resolution: int) -> dict[str, tuple[int, ...]]:
    """Shape of what each tap reads of one image, such as (512,), (channel, row, column) or (position, feature).

    That is after pooling, and of one position (feature,) where a tap asks for one.

    The network, its buffers and the random numbers stay as they are.

    Raises:
        UserError: as `Capture` and `Capture.read`.
    """
    buffers = {name: value.clone() for name, value in model.named_buffers()}
    images = blank(model, channels, resolution)
    with torch.no_grad(), torch.random.fork_rng([]), Capture(model, taps) as capture:
        try:
            torch.func.functional_call(model, buffers, images)
        except Exception as error:  # others' networks fail as they like
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise UserError(
                f"{name_of(model)} takes no images of {channels}×{resolution}×{resolution}: {reason}"
            ) from None
        return {name: tuple(activations.shape[1:]) for name, activations in capture._selected().items()}


def _value(model: nn.Module, tap: Tap, output: object) -> torch.Tensor:
    where = f"tap {tap.name!r} of {name_of(model)}"
    if not isinstance(output, torch.Tensor):
        raise UserError(f"{where}: the module gives a {type(output).__name__}, not a tensor; tap one inside it")
    if tap.name == "softmax":
        output = output.softmax(dim=1)
    if tap.position is not None:
        if output.ndim != 3:
            raise UserError(f"{where}: position is {tap.position}, but this output is no sequence; leave it out")
        length = output.shape[1]
        if not -length <= tap.position < length:
            raise UserError(
                f"{where}: position is {tap.position}, but the sequence has {length}: choose one of 0 to {length - 1}, "
                "or -1 for the last"
            )
        output = output[:, tap.position]
    if tap.pool is None:
        return output
    if output.ndim != 4:
        raise UserError(f"{where}: pool is {tap.pool}, but this output has no maps to pool; leave `pool` out")
    rows, columns = output.shape[2:]
    if tap.pool > min(rows, columns):
        raise UserError(f"{where}: pool is {tap.pool}, but the maps are {rows}×{columns}; ask for no more")
    return nn.functional.adaptive_avg_pool2d(output, tap.pool)
