"""Two workers of a Dask scheduler against one, each with one thread: how much faster a stage of many cells becomes.

    python benchmarks/cluster.py [--repeats 3] [--steps 8]

A run with one layer of 512 features, 3 × 32 × 32 pixels, 10,000 training and 2,000 test samples; on each cell a
deconvolution decoder is trained, as the stage `decode` does it where a scheduler is configured. Two schedulers on
loopback, one with a worker and one with two, take turns; workers have imported everything after the call that does not
count. Beside it: the same in two processes of this machine without Dask.
"""

import os
import tempfile
from contextlib import chdir
from functools import partial
from itertools import count
from pathlib import Path

import numpy as np
from decode_run import write_run
from distributed import LocalCluster
from side_by_side import compare, parser, tell, tell_machine

from phasescope import scheduler
from phasescope.compute import Compute, choose
from phasescope.measures import cells
from phasescope.measures.decode import decode_trained, settings_of
from phasescope.params.decode import DecodeSettings
from phasescope.store.cache import CellCache
from phasescope.store.run import StoredRun

SETTINGS = DecodeSettings(decoders=["deconvolution"], epochs=1, width=0.0625)
workers = partial(LocalCluster, threads_per_worker=1, dashboard_address=":0")


def decode(cache: Path, compute: Compute, address: str | None = None) -> np.ndarray:
    """Test errors of all cells, in the project that is the current folder."""
    os.environ.pop(scheduler.VARIABLE, None)
    if address is not None:
        os.environ[scheduler.VARIABLE] = address
        compute = choose("cpu")
    cells._samples.cache_clear()
    stored, train = StoredRun("benchmark"), partial(decode_trained, compute=compute)
    mine = settings_of("deconvolution", SETTINGS)
    kept = CellCache(cache, "benchmark")
    measured = cells.measure(stored, "decode-deconvolution", train, mine, kept, compute, processes=True)
    return measured.result["test_mse"].values.ravel()


def main() -> None:
    """Print both ratios, and whether the errors are the same."""
    options = parser(__doc__, repeats=3)
    options.add_argument("--steps", type=int, default=8)
    given = options.parse_args()
    os.environ.pop("PHASESCOPE_WORKERS", None)
    tell_machine(1)
    errors: dict[str, np.ndarray] = {}
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        root, caches = Path(folder), count()
        write_run(root, 1, given.steps, 0)
        with workers(n_workers=1) as first, workers(n_workers=2) as second:
            one, two = first.scheduler_address, second.scheduler_address

            def cache() -> Path:
                return root / f"cache-{next(caches)}"

            here = Compute("cpu", 1, 2)
            measured = compare(
                lambda: errors.update(two=decode(cache(), here, two)),
                lambda: errors.update(one=decode(cache(), here, one)),
                given.repeats,
            )
            tell(f"deconvolution decoders, {given.steps} cells: two workers against one", measured, at_least=1.6)
            beside = compare(
                lambda: decode(cache(), here, two),
                lambda: errors.update(here=decode(cache(), here)),
                given.repeats,
            )
            tell("two workers against two processes of this machine", beside)
    same = np.array_equal(errors["two"], errors["one"]) and np.array_equal(errors["two"], errors["here"])
    print(f"  errors: {'the same bits' if same else 'DIFFERENT'}, mean {errors['two'].mean():.4f}")


if __name__ == "__main__":
    main()
