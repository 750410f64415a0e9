"""How long `phasescope verify --full` takes beside plainly reading the same files, alternating.

    python benchmarks/verify.py [--gigabytes 2] [--repeats 5] [--folder FOLDER]

Writes one committed directory of random bytes, in files as long as shards are, and removes it again. Warm: the files
are in the page cache. Cold: the kernel is asked to drop them first (posix_fadvise), which it does for files that are
flushed; what lies below it, a hypervisor's or a disk's cache, it cannot drop.
"""

import argparse
import os
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from phasescope.store import commit
from phasescope.store.manifest import sha256
from phasescope.store.verify import Check, Kept

BLOCK = 1 << 20
#: Lengths of the files: few long shards of activations, many short ones of weights.
LENGTHS = (16 << 20, 4 << 20, 300 << 10)


def write(target: Path, total: int) -> list[Path]:
    """A committed directory of about `total` random bytes; gives its files."""
    rng = np.random.default_rng(0)
    with commit.scratch(target) as scratch:
        for number in range(total // sum(LENGTHS)):
            for length in LENGTHS:
                (scratch.path / f"{number}-{length}").write_bytes(rng.bytes(length))
        scratch.commit("benchmark", {})
    return sorted(target.iterdir())


def read(files: list[Path]) -> None:
    """Read every file, one after the other."""
    buffer = memoryview(bytearray(BLOCK))
    for path in files:
        with path.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass


def read_in_threads(files: list[Path]) -> None:
    """Read every file, several at a time."""
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda path: read([path]), files))


def hash_in_one_thread(files: list[Path]) -> None:
    """Read and hash every file, one after the other."""
    for path in files:
        sha256(path)


def drop(files: list[Path]) -> None:
    """Ask the kernel to forget the contents of the files."""
    for path in files:
        handle = os.open(path, os.O_RDONLY)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(handle)


def main() -> None:
    """Measure, and print seconds (smallest, median, largest), what the processor was busy for, and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=Path())
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder, prefix="verify-", suffix=".part") as folder:
        target = Path(folder, "kept").absolute()
        files = write(target, int(given.gigabytes * 1e9))
        length = sum(path.stat().st_size for path in files)
        print(f"{len(files)} files, {length / 1e9:.2f} GB, {len(os.sched_getaffinity(0))} cores")

        def verify() -> None:
            problems = list(Check(full=True).directory(Kept(target, "")))
            assert not problems, problems[0]

        ways = {
            "read": lambda: read(files),
            "read in threads": lambda: read_in_threads(files),
            "hash in one thread": lambda: hash_in_one_thread(files),
            "verify --full": verify,
        }
        for state in ("warm", "cold"):
            seconds: dict[str, list[float]] = {name: [] for name in ways}
            busy: dict[str, list[float]] = {name: [] for name in ways}
            read(files)
            for _ in range(given.repeats):
                for name, way in ways.items():
                    if state == "cold":
                        drop(files)
                    start, used = time.perf_counter(), time.process_time()
                    way()
                    seconds[name].append(time.perf_counter() - start)
                    busy[name].append(time.process_time() - used)
            for name, taken in seconds.items():
                ratios = [one / plain for one, plain in zip(taken, seconds["read"], strict=True)]
                print(
                    f"{state} {name:18} {min(taken):6.2f} {statistics.median(taken):6.2f} {max(taken):6.2f} s "
                    f"({statistics.median(busy[name]):5.2f} s of the processor), "
                    f"{length / 1e9 / statistics.median(taken):5.2f} GB/s, "
                    f"{statistics.median(ratios):5.2f} times reading ({min(ratios):.2f} to {max(ratios):.2f})"
                )


if __name__ == "__main__":
    main()
