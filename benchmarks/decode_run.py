"""The exact linear decoder of all cells of a run, reading included: how much of the machine's matmul rate it reaches.

    python benchmarks/decode_run.py [--repeats 3] [--threads 2] [--steps 18] [--seeds 3] [--looped 3]

A run with one layer of 512 features, 3 × 32 × 32 pixels, 10,000 training and 2,000 test samples, stored as runs are.
Ours is what the stage `decode` does: read the dataset and the cells, decode, keep every cell in the cache; in as many
threads, each with one of the numerical libraries'. The baseline loops over the cells: `numpy.load`, and normal
equations solved for each of 16 ridges, by libraries on so many threads. It does so for some of the cells alone, and its
time is multiplied.
"""

import tempfile
from itertools import count
from pathlib import Path

import numpy as np
import random_images
from side_by_side import Comparison, Work, compare, parser, tell, tell_machine, threads

from decode import work
from phasescope.compute import Compute, keep_memory
from phasescope.measures import cells
from phasescope.measures.decode import decode
from phasescope.measures.samples import Samples
from phasescope.params.decode import DecodeSettings
from phasescope.store import arrays, commit
from phasescope.store.cache import CellCache
from phasescope.store.datasets import write_dataset
from phasescope.store.manifest import read
from phasescope.store.run import StoredRun

WIDTH, TAP = 512, "predense"


def write_run(root: Path, seeds: int, steps: int, looped: int) -> Samples:
    """A dataset, the activations of a run on it, and some cells as npz; gives what is known of the samples."""
    images = random_images.dataset()
    known = random_images.samples(images)
    write_dataset(root / "datasets" / "images", images, {})
    digest = read(root / "datasets" / "images").digest
    with commit.scratch(root / "runs" / "benchmark" / "activations") as scratch:
        path = scratch.path / arrays.GROUP
        group = arrays.create_group(path, {}, ("index",))
        number = len(known.inputs)
        arrays.write(group, "seed", ("seed",), np.arange(seeds))
        arrays.write(group, "step", ("step",), [0, *(1 << np.arange(steps - 1))])
        arrays.write(group, "sample", ("sample",), np.arange(number))
        arrays.write(group, "index", ("sample",), np.arange(number))
        dims = ("seed", "step", "sample", f"{TAP}_feature")
        shape = (seeds, steps, number, WIDTH)
        array = arrays.create(group, TAP, dims, shape, np.float16, cell=2, feature_shape=[WIDTH])
        for place, (seed, step) in enumerate(np.ndindex(seeds, steps)):
            cell = random_images.layer(known.inputs, WIDTH, place)
            arrays.write_cell(array, (seed, step), cell)
            if place < looped:
                np.savez(root / f"{place}.npz", cell)
        arrays.finish(path)
        scratch.commit("activations", {"taps": [{"name": TAP}]}, dataset={"name": "images", "digest": digest})
    return known


def ours(root: Path, cache: Path, workers: int) -> np.ndarray:
    """Test errors of all cells."""
    cells._samples.cache_clear()
    stored, where = StoredRun("benchmark", root), Compute("cpu", 1, workers)
    measured = cells.measure(stored, "decode", decode, DecodeSettings(), CellCache(cache, "benchmark"), where)
    return measured.result["test_mse"].values.ravel()


def baseline(root: Path, known: Samples, number: int) -> np.ndarray:
    """Test errors of the first cells, each with the ridge that suits its training samples best by cross-validation."""
    train, test = known.inputs[known.train], known.inputs[known.test]
    mean, errors = train.mean(axis=0), []
    for place in range(number):
        cell = np.load(root / f"{place}.npz")["arr_0"].astype(np.float64)
        features, others = cell[known.train], cell[known.test]
        shift = features.mean(axis=0)
        features, others = features - shift, others - shift
        gram, cross = features.T @ features, features.T @ (train - mean)
        values = np.linalg.eigvalsh(gram)
        energy, best = np.square(train - mean).sum(dtype=np.float64), (np.inf, 0.0)
        for ridge in np.logspace(-10, 4, 16) * values.mean():
            weights = np.linalg.solve(gram + ridge * np.eye(WIDTH), cross)
            residual = energy - 2 * np.vdot(weights, cross) + np.vdot(weights, gram @ weights)
            freedom = len(features) - 1 - (values / (values + ridge)).sum()
            best = min(best, (residual / freedom**2, ridge))
        weights = np.linalg.solve(gram + best[1] * np.eye(WIDTH), cross)
        errors.append(np.square(test - mean - others @ weights).mean())
    return np.array(errors)


def main() -> None:
    """Print the ratio, the share of the matmul rate, and both test errors."""
    options = parser(__doc__, repeats=3)
    options.add_argument("--steps", type=int, default=18)
    options.add_argument("--seeds", type=int, default=3)
    options.add_argument("--looped", type=int, default=3, help="cells of the baseline")
    given = options.parse_args()
    keep_memory()  # as every stage does; the baseline gains as much
    rates = tell_machine(given.threads)
    number = given.seeds * given.steps
    looped = min(given.looped, number)
    errors: dict[str, np.ndarray] = {}
    with tempfile.TemporaryDirectory() as folder, threads(given.threads):
        root, caches = Path(folder), count()
        known = write_run(root, given.seeds, given.steps, looped)
        measured = compare(
            lambda: errors.update(ours=ours(root, root / f"cache-{next(caches)}", given.threads)),
            lambda: errors.update(baseline=baseline(root, known, looped)),
            given.repeats,
        )
    one = work(int(known.train.sum()), int(known.test.sum()), WIDTH, known.inputs.shape[1])
    whole = Comparison(measured.ours, [taken * number / looped for taken in measured.baseline])
    tell(f"exact linear decoder, {number} cells", whole, work=Work(number * one.flop, number * one.bytes), rates=rates)
    print(f"  extrapolated: {looped} of {number} cells of the baseline were timed; 50% of the rate wanted")
    print(f"  test MSE of these {errors['ours'][:looped].mean():.6f}, baseline {errors['baseline'].mean():.6f}")


if __name__ == "__main__":
    main()
