"""Weights that others saved: read without running anything of them, and fitted to a network by name and shape.

A file is a `.safetensors`, or what `torch.save` makes: a state_dict, or a checkpoint that holds one, as Lightning's do.
"""

import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from phasescope.errors import UserError

#: Under which a checkpoint keeps the weights, in the order in which they are looked for.
KEYS = ("state_dict", "model_state_dict", "model")
#: What `torch.compile` and DataParallel put before names.
WRAPPERS = re.compile(r"(^|\.)(_orig_mod|module)\.")
#: As many names as an error tells.
TOLD = 3


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """The weights in a file, by name, as they are there.

    Raises:
        UserError: the file is absent, cut, holds no weights, or would run code when it is loaded.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    content = _safetensors(path) if path.suffix == ".safetensors" else _saved(path)
    for key in KEYS:
        if isinstance(content.get(key), Mapping):
            content = content[key]
    weights = {str(name): value for name, value in content.items() if isinstance(value, torch.Tensor)}
    if not weights:
        raise UserError(f"{path}: no weights in it; save model.state_dict()")
    return weights


def fitted(weights: Mapping[str, torch.Tensor], network: nn.Module, where: object) -> dict[str, torch.Tensor]:
    """The same by the names of a network's state_dict, all of which are there in their shapes, and lose no digits.

    Raises:
        UserError: names are missing or too many, or shapes or kinds of numbers differ; each is told.
    """
    wanted, found = network.state_dict(), named(weights, network)
    mistakes = [
        _told("missing", [name for name in wanted if name not in found]),
        _told("not in the network", [name for name in found if name not in wanted]),
        _told(
            "of another shape",
            [
                f"{name} {tuple(found[name].shape)} instead of {tuple(value.shape)}"
                for name, value in wanted.items()
                if name in found and found[name].shape != value.shape
            ],
        ),
        _told(
            "of another kind",
            [
                f"{name} {_kind(found[name])} instead of {_kind(value)}"
                for name, value in wanted.items()
                if name in found and not _fits(found[name].dtype, value.dtype)
            ],
        ),
    ]
    if any(mistakes):
        raise UserError(f"{where}: not of this network: {'; '.join(filter(None, mistakes))}")
    return {name: found[name] for name in wanted}


def named(weights: Mapping[str, torch.Tensor], network: nn.Module) -> Mapping[str, torch.Tensor]:
    """The same by the names that the network has, as far as they can be told.

    The names that wrappers put before others are taken off, and one that all names of the network have in common, such
    as that of the attribute under which a Lightning module keeps it; what else is in the file then does not count.
    """
    wanted = network.state_dict().keys()
    if wanted <= weights.keys():
        return weights
    # A network may have a module of such a name itself, so it is taken off on both sides.
    own = {WRAPPERS.sub(r"\1", name): name for name in wanted}
    plain = {WRAPPERS.sub(r"\1", name): value for name, value in weights.items()}
    if not own.keys() <= plain.keys():
        first = next(iter(own))
        fronts = [name.removesuffix(first) for name in plain if name.endswith(f".{first}")]
        whole = [front for front in fronts if all(front + name in plain for name in own)]
        if len(whole) == 1:
            return {own[name]: plain[whole[0] + name] for name in own}
    return {own.get(name, name): value for name, value in plain.items()}


def _fits(given: torch.dtype, wanted: torch.dtype) -> bool:
    """Whether numbers are of the same kind, and none loses digits: float16 as float32, but no integers, nor float64."""
    same = given.is_floating_point == wanted.is_floating_point
    return same and torch.promote_types(given, wanted) == wanted


def _kind(values: torch.Tensor) -> str:
    return str(values.dtype).removeprefix("torch.")


def _told(what: str, names: list[str]) -> str:
    """Some names and how many there are, or nothing."""
    more = f" and {len(names) - TOLD} more" if len(names) > TOLD else ""
    return f"{what}: {', '.join(names[:TOLD])}{more}" if names else ""


def _safetensors(path: Path) -> dict[str, Any]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return dict(load_file(path))
    except SafetensorError as error:
        raise UserError(f"{path}: cannot be read as safetensors ({error}); it may be cut short") from None


def _require_as_long_as_it_says(path: Path) -> None:
    """Refuse an archive that would unpack to more than it is long: torch packs nothing, and reads what others pack.

    Raises:
        UserError: it is such an archive.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(part.file_size for part in archive.infolist())
    except (zipfile.BadZipFile, OSError):  # older ones are none; the rest is told by torch
        return
    if unpacked > path.stat().st_size:
        raise UserError(f"{path}: says that it holds {unpacked:,} bytes, more than it is long; save it with torch.save")


def _saved(path: Path) -> dict[str, Any]:
    _require_as_long_as_it_says(path)
    try:
        with warnings.catch_warnings(action="ignore"):  # such as of a pickle's protocol, before it is refused
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # torch's text goes on for a page, and proposes to load it all the same.
        named = re.search(r"(?:GLOBAL|Unsupported global:|Unsupported class|type) (\S+)", str(error))
        what = f" ({named[1]})" if named else ""
        raise UserError(
            f"{path}: holds more than weights{what}, which could run code when it is loaded; nothing of it was run: "
            "save model.state_dict(), or safetensors"
        ) from None
    except Exception as error:  # what a damaged pickle ends in depends on where it is damaged
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"{path}: cannot be read as a checkpoint of torch ({reason:.100}); it may be cut short"
        ) from None
    if not isinstance(content, Mapping):
        raise UserError(f"{path}: holds a {type(content).__name__}, not weights by name; save model.state_dict()")
    return dict(content)
