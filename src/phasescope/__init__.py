"""phasescope: the learning phases of neural networks, from checkpoints and activations at iterations 0 and 2^i."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from phasescope.errors import UserError
    from phasescope.recorder import Recorder
    from phasescope.run import Run, open_run

__all__ = ["Recorder", "Run", "UserError", "open_run"]

# Names are looked up when they are used: a stage must not pay for imports it does not need.
_HOMES = {
    "Recorder": "phasescope.recorder",
    "Run": "phasescope.run",
    "UserError": "phasescope.errors",
    "open_run": "phasescope.run",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'phasescope' has no attribute {name!r}")
