"""The most memory that the stages `activations` and of measures take for 18 checkpoints, beside the same for 4.

    python benchmarks/memory.py [--repeats 3]

Activations: VGG-8 of width 1 on 4,000 random images of 3×32×32, taps as in the default job, one seed, one thread. The
checkpoints are all the same weights, for what they are does not matter. Measures with their default settings: one layer
of 512 rectified random features of 12,000 random images, 12 MB a cell; these once. Each in a process of its own, by
turns, whose largest memory is what the system says of it.
"""

import argparse
import resource
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import side_by_side

#: Checkpoints, and the training and test images whose activations are kept.
LONG, SHORT, IMAGES = 18, 4, 4_000


def record(send: Connection, folder: Path, steps: int) -> None:
    """Record the activations of so many checkpoints; sends GiB at most, and once everything is imported."""
    from phasescope import activations, training
    from phasescope.compute import Compute
    from phasescope.data.dataset import Dataset
    from phasescope.models import state
    from phasescope.models.zoo import build_for
    from phasescope.params.activations import ActivationsSettings
    from phasescope.params.models import ModelSettings
    from phasescope.params.train import TrainJob
    from phasescope.schedule import checkpoint_steps
    from phasescope.store import arrays, commit, manifest
    from phasescope.store.cache import CellCache
    from phasescope.store.datasets import write_dataset

    generator, half = np.random.default_rng(0), np.full(3, 0.5)
    pixels = generator.integers(256, size=(IMAGES, 3, 32, 32), dtype=np.uint8)
    labels, train = generator.integers(10, size=IMAGES), np.arange(IMAGES) < IMAGES // 2
    write_dataset(folder / "dataset", Dataset(pixels, labels, train, [str(name) for name in range(10)], half, half), {})
    job = TrainJob(dataset="random", model=ModelSettings(name="vgg8"), seeds=[0], iterations=1 << (steps - 2))
    digest, reached = manifest.read(folder / "dataset").digest, checkpoint_steps(job.iterations)
    weights = state.flatten(build_for(job, 3, 32, 10)).numpy()
    with commit.scratch(folder / "train") as scratch:
        training._allocate(scratch.path / arrays.GROUP, job, folder / "dataset")
        stored = arrays.open_array(scratch.path / arrays.GROUP, "weights")
        for position in range(len(reached)):
            arrays.write_cell(stored, (0, position), weights)
        arrays.finish(scratch.path / arrays.GROUP)
        hashes = {"0": {str(step): str(step) for step in reached}}
        scratch.commit("train", job.model_dump(), dataset=digest, weights=hashes)
    settings = ActivationsSettings.model_validate(
        {"taps": ["softmax", "logits", "predense", {"name": "conv-2", "pool": 2}], "train_samples": IMAGES}
    )
    paths = (folder / "dataset", folder / "train", folder / "activations")
    before = largest()
    activations.record(job, settings, *paths, Compute("cpu", 1, 1), "random", CellCache(folder / "cache", "0"))
    send.send((largest(), before))


def write_run(send: Connection, folder: Path, steps: int) -> None:
    """A dataset and the activations of a run on it; sends what that took."""
    import random_images

    from phasescope.store import arrays, commit, manifest
    from phasescope.store.datasets import write_dataset

    images = random_images.dataset()
    inputs = random_images.samples(images).inputs
    write_dataset(folder / "datasets" / "random", images, {})
    digest = manifest.read(folder / "datasets" / "random").digest
    cell = random_images.layer(inputs)
    with commit.scratch(folder / "runs" / "random" / "activations") as scratch:
        path = scratch.path / arrays.GROUP
        group = arrays.create_group(path, {}, ("index",))
        arrays.write(group, "seed", ("seed",), [0])
        arrays.write(group, "step", ("step",), [0, *(1 << np.arange(steps - 1))])
        for name in ("sample", "index"):
            arrays.write(group, name, ("sample",), np.arange(len(cell)))
        dims, shape = ("seed", "step", "sample", "tap_feature"), (1, steps, *cell.shape)
        array = arrays.create(group, "tap", dims, shape, cell.dtype, cell=2, feature_shape=[cell.shape[1]])
        for step in range(steps):
            arrays.write_cell(array, (0, step), np.roll(cell, step, axis=1))
        arrays.finish(path)
        scratch.commit("activations", {"taps": [{"name": "tap"}]}, dataset={"name": "random", "digest": digest})
    send.send((largest(), 0.0))


def measure(send: Connection, folder: Path, name: str) -> None:
    """Measure all cells of the run in the folder; sends GiB at most, and once everything is imported and read."""
    from phasescope.compute import Compute
    from phasescope.measures import cells
    from phasescope.measures.decode import decode
    from phasescope.measures.distributions import statistics
    from phasescope.measures.information import information
    from phasescope.measures.probe import probe
    from phasescope.measures.shown import shown_features
    from phasescope.params.decode import DecodeSettings
    from phasescope.params.distributions import DistributionsSettings
    from phasescope.params.information import InformationSettings
    from phasescope.params.probe import ProbeSettings
    from phasescope.store.cache import CellCache
    from phasescope.store.run import StoredRun

    ways: dict[str, tuple[cells.Function[Any], Any]] = {
        "decode": (decode, DecodeSettings()),
        "probe": (partial(probe, compute=Compute("cpu", 1, 1)), ProbeSettings()),
        "distributions": (statistics, DistributionsSettings()),
        "information": (information, InformationSettings()),
    }
    stored, cache = StoredRun("random", folder), CellCache(folder / "cache", "0")
    cells.samples_of(stored)
    before = largest()
    function, settings = ways[name]
    cells.measure(stored, name, function, settings, cache)
    if name == "distributions":
        cells.measure_over_steps(stored, "shown", shown_features, settings, cache)
    send.send((largest(), before))


def largest() -> float:
    """The most memory that this process took so far, in GiB."""
    unit = 1 if sys.platform == "darwin" else 1 << 10  # bytes, and KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def taken(work: Callable[..., None], *given: Any) -> tuple[float, float]:
    """What `work` sends, from a process of its own; this one must stay small, for Linux counts what it has at first."""
    context = get_context("spawn")
    receive, send = context.Pipe(duplex=False)
    process = context.Process(target=work, args=(send, *given))
    process.start()
    found: tuple[float, float] = receive.recv()
    process.join()
    return found


def recorded(steps: int) -> tuple[float, float]:
    """What the stage `activations` takes for so many checkpoints."""
    with tempfile.TemporaryDirectory() as folder:
        return taken(record, Path(folder), steps)


def tell(stage: str, pairs: list[tuple[tuple[float, float], tuple[float, float]]]) -> None:
    """Print what was taken for many and for few checkpoints, and their ratio."""
    for steps, found in zip((LONG, SHORT), zip(*pairs, strict=True), strict=True):
        most, before = ([each[place] for each in found] for place in (0, 1))
        told = f"at most {side_by_side.spread(most, ' GiB')}, {side_by_side.spread(before, ' GiB')} before"
        print(f"{stage}, {steps} checkpoints: {told}")
    ratios = [long[0] / short[0] for long, short in pairs]
    print(f"  {side_by_side.spread(ratios)} times as much for {LONG} as for {SHORT}, at most 1.1 wanted")


def main() -> None:
    """Print both of each stage, and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    repeats = parser.parse_args().repeats
    tell("activations", [(recorded(LONG), recorded(SHORT)) for _ in range(repeats)])
    with tempfile.TemporaryDirectory() as long, tempfile.TemporaryDirectory() as short:
        taken(write_run, Path(long), LONG)
        taken(write_run, Path(short), SHORT)
        for stage in ("decode", "probe", "distributions", "information"):
            tell(stage, [(taken(measure, Path(long), stage), taken(measure, Path(short), stage))])


if __name__ == "__main__":
    main()
