"""Ours and a baseline by turns in one process: their ratio with its spread, and how far ours is from the limit.

What every benchmark here shares. Times are of the wall clock; one call of each warms up and does not count. The limit
is the longer of two times, neither of which a program can beat on the machine it runs on: that of its floating-point
operations at the rate of a large float32 matrix product, and that of the bytes it must move at the rate of a copy in
memory; both rates are measured in the same process.
"""

import argparse
import functools
import importlib.metadata
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

#: Order of the matrices multiplied, and bytes copied, for the rates of the machine.
ORDER = 2048
COPIED = 256 << 20
VERSIONS = ("phasescope", "numpy", "torch", "scikit-learn", "zarr", "numcodecs", "xarray")


@dataclass(frozen=True)
class Work:
    """What a task cannot do without."""

    flop: float = 0.0  #: floating-point operations; a multiplication and an addition are two
    bytes: float = 0.0  #: read and written


@dataclass(frozen=True)
class Rates:
    """What a machine can do at most."""

    flop: float  #: floating-point operations in a second, float32, in a matrix product
    bytes: float  #: bytes in a second, read and written, in a copy

    def least(self, work: Work) -> float:
        """Seconds that the work takes at least."""
        return max(work.flop / self.flop, work.bytes / self.bytes)


@dataclass(frozen=True)
class Comparison:
    """Seconds of each repeat, (repeat,), of two ways that took turns."""

    ours: list[float]
    baseline: list[float]

    @property
    def speedups(self) -> list[float]:
        """How many times as long the baseline took, (repeat,)."""
        return [theirs / mine for mine, theirs in zip(self.ours, self.baseline, strict=True)]

    @property
    def costs(self) -> list[float]:
        """How many times as long ours took, (repeat,)."""
        return [mine / theirs for mine, theirs in zip(self.ours, self.baseline, strict=True)]


def compare(
    ours: Callable[[], Any], baseline: Callable[[], Any], repeats: int, before: Callable[[], Any] = lambda: None
) -> Comparison:
    """Time both by turns, after one call of each that does not count; `before` runs before every call, untimed."""
    taken: tuple[list[float], list[float]] = ([], [])
    for _ in range(repeats + 1):
        for way, times in zip((ours, baseline), taken, strict=True):
            before()
            times.append(seconds(way))
    return Comparison(taken[0][1:], taken[1][1:])


def seconds(way: Callable[[], Any]) -> float:
    """What one call takes, the work that it leaves to a GPU included."""
    start = time.perf_counter()
    way()
    synchronise()
    return time.perf_counter() - start


def synchronise() -> None:
    """Wait for the GPU, if this process uses one."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.synchronize()


def spread(values: list[float], unit: str = "") -> str:
    """Median, and least to greatest."""
    return f"{statistics.median(values):.3g}{unit} ({min(values):.3g} to {max(values):.3g})"


def tell(
    what: str,
    comparison: Comparison,
    *,
    at_least: float | None = None,
    at_most: float | None = None,
    work: Work | None = None,
    rates: Rates | None = None,
) -> None:
    """Print what was measured: seconds of both, their ratio, and the limit.

    Args:
        what: the task.
        comparison: its times.
        at_least: how many times faster ours is to be; or
        at_most: how many times as long ours may take.
        work: what the task cannot do without.
        rates: of the machine.
    """
    times = f"ours {spread(comparison.ours, ' s')}, baseline {spread(comparison.baseline, ' s')}"
    print(f"{what}: {times}, {len(comparison.ours)} repeats")
    if at_most is None:
        print(f"  {spread(comparison.speedups)} times faster" + (f", {at_least:g} wanted" if at_least else ""))
    else:
        print(f"  {spread(comparison.costs)} times as long, at most {at_most:g} wanted")
    if work is not None and rates is not None:
        tell_limit(statistics.median(comparison.ours), work, rates)


def tell_limit(taken: float, work: Work, rates: Rates) -> None:
    """Print how far the seconds that were taken are from the least that the work takes."""
    least = rates.least(work)
    told = f"{work.flop / 1e9:.4g} GFLOP, {work.bytes / 1e9:.3g} GB"
    print(f"  limit {least:.3g} s ({told}): {least / taken:.0%} of the rate")


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Numerical libraries and torch on so many threads."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        with threadpool_limits(count):
            yield
    finally:
        torch.set_num_threads(before)


def rates(count: int, device: str = "cpu") -> Rates:
    """The machine's: of numpy or torch, whichever is faster, on so many threads; on a GPU those of torch."""
    import torch

    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(ORDER, ORDER, generator=generator).to(device)
    source = torch.zeros(COPIED // 4, device=device)
    target = torch.empty_like(source)
    products: list[Callable[[], Any]] = [functools.partial(torch.mm, matrix, matrix)]
    if device == "cpu":
        products.append(functools.partial(np.matmul, matrix.numpy(), matrix.numpy()))
    with threads(count):
        product = min(_best(way) for way in products)
        copy = _best(lambda: target.copy_(source))
    return Rates(2 * ORDER**3 / product, 2 * COPIED / copy)


def _best(way: Callable[[], Any], repeats: int = 8) -> float:
    """The least seconds of some calls."""
    way()
    synchronise()
    return min(seconds(way) for _ in range(repeats))


def tell_machine(used: int, device: str = "cpu") -> Rates:
    """Print what is measured on, with its rates on one thread and on those used; gives the latter."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    print(f"{_processor()}, {cores()} cores, threads used: {used}, load {load:.1f}, {platform.system()}")
    versions = [f"{name} {importlib.metadata.version(name)}" for name in VERSIONS]
    print(f"Python {platform.python_version()}, {', '.join(versions)}")
    if device != "cpu":
        import torch

        print(f"{torch.cuda.get_device_name(device)}, CUDA {torch.version.cuda}")
        found = rates(used, device)
        print(f"{device}: {found.flop / 1e9:.0f} GFLOP/s float32, copy {found.bytes / 1e9:.0f} GB/s")
        return found
    for count in sorted({1, used}):
        found = rates(count)
        told = f"{found.flop / 1e9:.0f} GFLOP/s float32, copy {found.bytes / 1e9:.1f} GB/s"
        print(f"{count} thread{'s' * (count > 1)}: {told}")
    return found


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _processor() -> str:
    """The model of the processor."""
    described = Path("/proc/cpuinfo")
    if described.exists():
        for line in described.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def parser(description: str | None, repeats: int = 5) -> argparse.ArgumentParser:
    """Command line of a benchmark: how many repeats, and on how many threads (default: one for each core)."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--repeats", type=int, default=repeats)
    made.add_argument("--threads", type=int, default=cores())
    return made
