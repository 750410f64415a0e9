"""The state of a network as one flat vector, with a table that says where each part of it lies."""

import itertools
from typing import TypedDict

import torch
from torch import nn

from phasescope.errors import UserError


class Entry(TypedDict):
    """Where one tensor of the state lies in the flat vector: elements ``offset`` to ``offset + length``."""

    name: str
    shape: list[int]
    dtype: str
    offset: int
    length: int


def table(model: nn.Module) -> list[Entry]:
    """Entries of all weights and buffers, in the order of ``model.state_dict()``; plain JSON types."""
    return _table(model.state_dict())


def flatten(model: nn.Module) -> torch.Tensor:
    """All weights and buffers as one vector (elements,), in the order of `table`.

    It has the weights' dtype and device. The integer `num_batches_tracked` of BatchNorm is cast: in float32
    it is exact up to 2^24.
    """
    return _flatten(model, model.state_dict())


def unflatten(model: nn.Module, vector: torch.Tensor, table: list[Entry]) -> None:
    """Put a flat vector (elements,) back into the network, in place.

    Raises:
        UserError: the table is not this network's, or the vector is not of the table's length.
    """
    _unflatten(model.state_dict(), vector, table)


def batchnorm_table(model: nn.Module) -> list[Entry]:
    """Entries of the running means and variances of all BatchNorm layers."""
    return _table(_batchnorm(model))


def flatten_batchnorm(model: nn.Module) -> torch.Tensor:
    """Running means and variances as one vector (elements,), empty for a network without BatchNorm."""
    return _flatten(model, _batchnorm(model))


def unflatten_batchnorm(model: nn.Module, vector: torch.Tensor) -> None:
    """Put running means and variances (elements,) back into the network, in place.

    Raises:
        UserError: the vector is not as long as the network's statistics.
    """
    _unflatten(_batchnorm(model), vector, batchnorm_table(model))


def _batchnorm(model: nn.Module) -> dict[str, torch.Tensor]:
    state = model.state_dict()
    return {name: value for name, value in state.items() if name.endswith((".running_mean", ".running_var"))}


def _table(state: dict[str, torch.Tensor]) -> list[Entry]:
    offsets = itertools.accumulate((value.numel() for value in state.values()), initial=0)
    return [
        Entry(
            name=name,
            shape=list(value.shape),
            dtype=str(value.dtype).removeprefix("torch."),
            offset=offset,
            length=value.numel(),
        )
        for (name, value), offset in zip(state.items(), offsets, strict=False)
    ]


def _flatten(model: nn.Module, state: dict[str, torch.Tensor]) -> torch.Tensor:
    weight = next(model.parameters())
    parts = [value.reshape(-1).to(weight.dtype) for value in state.values()]
    return torch.cat([weight.new_empty(0), *parts]).detach()


def _unflatten(state: dict[str, torch.Tensor], vector: torch.Tensor, entries: list[Entry]) -> None:
    for here, there in itertools.zip_longest(_table(state), entries):
        if here != there:
            raise UserError(
                f"these weights are not this network's: it has {_told(here)} where they have {_told(there)}; "
                "build the network with the settings the weights were trained with"
            )
    length = sum(entry["length"] for entry in entries)
    if vector.shape != (length,):
        raise UserError(f"these weights are not this network's: it has {length} numbers, they {vector.numel()}")
    with torch.no_grad():
        for value, part in zip(state.values(), vector.split([entry["length"] for entry in entries]), strict=True):
            value.copy_(part.view_as(value))


def _told(entry: Entry | None) -> str:
    return f"{entry['name']} {tuple(entry['shape'])} {entry['dtype']}" if entry else "nothing"
