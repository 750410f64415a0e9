"""What checking every byte costs: the time to read all activations of a store, with the check and without.

    python benchmarks/reading.py --megabytes 300 --repeats 5

Makes a store of random half-precision numbers in a temporary folder, rectified as behind a ReLU, and reads it cell by
cell, by turns through `open_verified` and through `xarray.open_zarr`. Files are in the page cache.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import xarray as xr

from phasescope.store import arrays, commit, manifest
from phasescope.store.verified import open_verified

SEEDS, STEPS, FEATURES = 2, 8, 512


def make(target: Path, megabytes: int) -> None:
    """Write a directory with one array of about so many megabytes of numbers."""
    with commit.scratch(target) as scratch:
        fill(scratch.path, megabytes)
        scratch.commit("benchmark", {})


def fill(store: Path, megabytes: int) -> None:
    """The group of that directory."""
    samples = megabytes * 1_000_000 // (SEEDS * STEPS * FEATURES * 2)
    group = arrays.create_group(store / arrays.GROUP)
    dims = ("seed", "step", "sample", "feature")
    array = arrays.create(group, "tap", dims, (SEEDS, STEPS, samples, FEATURES), np.float16, cell=2)
    rng = np.random.default_rng(0)
    for cell in np.ndindex(SEEDS, STEPS):
        arrays.write_cell(array, cell, np.maximum(rng.standard_normal((samples, FEATURES)), 0).astype(np.float16))
    arrays.write(group, "seed", ("seed",), np.arange(SEEDS))
    arrays.write(group, "step", ("step",), np.arange(STEPS))
    arrays.finish(store / arrays.GROUP)


def seconds(opened: Callable[[], xr.Dataset]) -> tuple[float, float]:
    """The time to open a store and read all of it, a cell at a time: on the clock, and of all processors."""
    start, worked = time.perf_counter(), time.process_time()
    tap = opened()["tap"]
    for seed, step in np.ndindex(SEEDS, STEPS):
        tap.isel(seed=seed, step=step).load()
    return time.perf_counter() - start, time.process_time() - worked


def main() -> None:
    """Print the time of every repeat, and the ratio of the two ways."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=300)
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "store"
        make(store, given.megabytes)
        ways = {
            "checked": lambda: open_verified(manifest.read(store)),
            "plain": lambda: xr.open_zarr(store / arrays.GROUP, chunks=None),
        }
        taken: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
        for _ in range(given.repeats + 1):
            for way, opened in ways.items():
                taken[way].append(seconds(opened))
    for position, clock in enumerate(("on the clock", "of processors")):
        times = {way: [pair[position] for pair in pairs[1:]] for way, pairs in taken.items()}  # the first one warms up
        ratios = [checked / plain for checked, plain in zip(times["checked"], times["plain"], strict=True)]
        for way in ways:
            print(f"{way:8}", " ".join(f"{second:.2f}" for second in times[way]), f"s {clock}")
        print(f"ratio    median {statistics.median(ratios):.2f}, from {min(ratios):.2f} to {max(ratios):.2f}")


if __name__ == "__main__":
    main()
