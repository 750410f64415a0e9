"""The Dask scheduler that pieces of work go to, where one is configured the Dask way.

That is `DASK_SCHEDULER_ADDRESS`, or `scheduler-address` in one of Dask's own files. It is never in params.yaml: where a
thing runs must not change what DVC thinks it is.
"""

import logging
import os
import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from phasescope.errors import UserError, reason
from phasescope.progress import tell

if TYPE_CHECKING:
    from distributed import Client

VARIABLE = "DASK_SCHEDULER_ADDRESS"
#: The environment variable with an url that workers read stores from, where they do not see the project's folder.
SHARED = "PHASESCOPE_SHARED"
#: Of Dask's resources, what a worker with a graphics card is started with: `--resources GPU=1`.
GPU = "GPU"


class Capacity(NamedTuple):
    """How many pieces of work the workers of a scheduler do at the same time, of which each does one."""

    workers: int
    with_gpu: int  #: of these, those with a GPU

    def of(self, device: str) -> int:
        """How many of them there are for a device; at least one, for they may come later."""
        return max(1, self.with_gpu if device != "cpu" and self.with_gpu else self.workers)


def address() -> str | None:
    """The address of the scheduler; none where none is configured, and everything runs in processes of this machine."""
    given = os.environ.get(VARIABLE)
    if given or not _has_files():
        return given or None
    try:
        from dask.config import get
    except ImportError:
        return None
    configured: str | None = get("scheduler-address", None)
    return configured


def _has_files() -> bool:
    """Whether Dask has settings of its own here; to import it for nothing takes 0.3 s of every stage."""
    folders = [Path("/etc/dask"), Path(sys.prefix, "etc", "dask"), Path.home() / ".config" / "dask"]
    return "DASK_CONFIG" in os.environ or any(folder.is_dir() for folder in folders)


def shared() -> str | None:
    """The url that workers read stores from; None where they see the project's folder."""
    return os.environ.get(SHARED) or None


def may_write() -> bool:
    """Whether workers can write shards of a store; says so if they cannot."""
    if address() and shared():
        tell(f"workers that read from {SHARED} cannot write into this project: computed here")
        return False
    return True


@cache
def connect(where: str) -> "Client":
    """A connection to the scheduler at an address, one for this process.

    Raises:
        UserError: Dask is not installed, or nobody answers.
    """
    try:
        from distributed import Client
    except ImportError:
        raise UserError(
            f"a Dask scheduler is configured ({where}), and Dask is not installed: pip install 'phasescope[dask]', or "
            f"unset {VARIABLE}"
        ) from None
    # What Dask would say of a lost connection is told in one line by whoever waits for a result.
    for name in [name for name in logging.root.manager.loggerDict if name.partition(".")[0] == "distributed"]:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        return Client(where, name="phasescope")
    except (OSError, ValueError, TypeError) as error:
        raise UserError(
            f"no Dask scheduler can be reached at {where} ({reason(error)}): start it with `dask scheduler`, or unset "
            f"{VARIABLE} to compute here"
        ) from None


def capacity(where: str) -> Capacity:
    """What the workers of the scheduler at an address can do, of those that are there now.

    Raises:
        UserError: as `connect`.
    """
    workers = connect(where).scheduler_info(n_workers=-1)["workers"].values()
    return Capacity(len(workers), sum(bool(worker["resources"].get(GPU)) for worker in workers))
