"""Where and how things are computed: device, threads, processes.

All of it comes from the environment or the command line and none from params.yaml: where a thing runs must not change
what DVC thinks it is. What was used is recorded beside each result.
"""

import ctypes
import os
import re
import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from phasescope import scheduler
from phasescope.errors import UserError

if TYPE_CHECKING:
    import torch

#: Freed memory that a process keeps for what it needs next, at most; larger arrays are given back one by one.
KEPT_BYTES = 1 << 30


@dataclass(frozen=True)
class Compute:
    """The device, the threads of one worker, and the number of workers (processes, or threads over cells)."""

    device: str
    threads: int
    workers: int
    cluster: bool = False  #: whether the workers are those of a Dask scheduler (`scheduler.address`)

    def here(self) -> "Compute":
        """For what is computed in this process beside the pieces that workers do, who may have GPUs of their own."""
        return replace(self, device="cpu", workers=1, cluster=False) if self.cluster else self

    def start(self) -> "torch.device":
        """Set this process up, and give the device.

        Raises:
            UserError: the device is not known to torch, or not there.
        """
        import torch

        torch.set_num_threads(self.threads)
        keep_memory()
        try:
            device = torch.device(self.device)
            torch.zeros(1, device=device).item()
        except (RuntimeError, AssertionError) as error:
            reason = str(error).splitlines()[0][:200]
            raise UserError(f"device {self.device!r} cannot be used ({reason}); set PHASESCOPE_DEVICE=cpu") from None
        if device.type == "cuda":
            # TensorFloat-32 keeps 10 bits of the mantissa: the curves would differ from those of the CPU.
            torch.backends.cuda.matmul.allow_tf32 = False
            torch.backends.cudnn.allow_tf32 = False
        return device


def choose(
    device: str | None = None, threads: int | None = None, workers: int | None = None, *, cluster: bool = True
) -> Compute:
    """What the command line says, else the environment, else what suits the machine, or the workers of a cluster.

    PHASESCOPE_DEVICE: `cpu`, `cuda`, `cuda:1` … (default: cuda where there is one); PHASESCOPE_THREADS: threads of one
    process (default 1: small networks gain nothing from more, and the bits do not depend on the machine's cores);
    PHASESCOPE_WORKERS: pieces of work at the same time, in processes, or in threads where measures have a closed form
    (default: one for each core that the threads leave; one on a GPU).

    Where a Dask scheduler is configured, its workers count instead of what this machine has, unless `cluster` is False.

    Raises:
        UserError: a value is no positive whole number, or no scheduler answers at the address that is configured.
    """
    if device is None:
        device = os.environ.get("PHASESCOPE_DEVICE") or None
    address = scheduler.address() if cluster else None
    elsewhere = scheduler.capacity(address) if address else None
    if device is None and elsewhere:
        device = "cuda" if elsewhere.with_gpu else "cpu"
    if device is None:
        import torch

        device = "cuda" if torch.cuda.is_available() else "cpu"
    if not re.fullmatch(r"cpu|cuda(:\d+)?", device):
        raise UserError(f"device {device!r}: expected cpu, cuda, cuda:1 …; set PHASESCOPE_DEVICE=cpu")
    count = count_threads(threads)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    fitting = elsewhere.of(device) if elsewhere else max(1, cores // count) if device == "cpu" else 1
    return Compute(device, count, _positive("workers", workers) or fitting, elsewhere is not None)


def count_threads(given: int | None = None) -> int:
    """Threads of one process: what the command line says, else PHASESCOPE_THREADS, else 1.

    Raises:
        UserError: that is no positive whole number.
    """
    return _positive("threads", given) or 1


def keep_memory() -> None:
    """Let this process take freed memory again instead of giving it back to the system (glibc; elsewhere nothing).

    By default glibc gives every large array back, and the system fills the pages of the next one with zeros: a network
    that sees 512 images at a time spends up to half of its time on that (docs/log.md). Numbers stay the same.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        trim_threshold, mmap_threshold = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of malloc.h
        for parameter in (trim_threshold, mmap_threshold):
            mallopt(parameter, KEPT_BYTES)


def _positive(name: str, given: int | None) -> int | None:
    """What was given on the command line, else what the environment says."""
    variable = f"PHASESCOPE_{name.upper()}"
    text = os.environ.get(variable) if given is None else str(given)
    if not text:
        return None
    if not text.isdecimal() or int(text) == 0:
        where = f"{variable}={text!r}" if given is None else f"--{name} {text}"
        raise UserError(f"{where}: expected a whole number of at least 1")
    return int(text)
