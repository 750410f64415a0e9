"""Check all settings before anything is touched, and cut them into each stage's share."""

import difflib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from phasescope.errors import UserError
from phasescope.params.models import TAPS
from phasescope.params.settings import Settings, read, shares


def resolve(path: Path) -> dict[str, dict[str, Any]]:
    """Each stage's share of params.yaml, by the name of its file under `configs/`.

    Raises:
        UserError: one line per mistake in the settings.
    """
    settings = read(path)
    mistakes = list(_unknown_taps(settings))
    if mistakes:
        raise UserError("\n".join(f"{path}: {mistake}" for mistake in mistakes))
    return shares(settings)


def _unknown_taps(settings: Settings) -> Iterator[str]:
    for name, run in settings.runs.items():
        named = TAPS[run.model.name]
        others = [tap.name for tap in run.activations.taps if tap.name not in named]
        if others:
            # Only a tap that is a module path needs the network itself, and torch with it.
            import torch

            from phasescope.models.zoo import build

            with torch.device("meta"):
                network = build(run.model, channels=1, resolution=32, classes=2)
            paths = [path for path, _ in network.named_modules() if path]
            for tap in others:
                if tap not in paths:
                    near = difflib.get_close_matches(tap, [*named, *paths], n=1)
                    hint = f"did you mean {near[0]!r}? " if near else ""
                    yield (
                        f"runs.{name}.activations.taps: {run.model.name} has no tap {tap!r}; {hint}"
                        f"known: {', '.join(named)}, and the paths of its modules such as {paths[1]!r}"
                    )
