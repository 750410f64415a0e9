"""The most memory that the stage `activations` takes for 18 checkpoints, beside the same for 4.

    python benchmarks/memory.py [--repeats 3]

VGG-8 of width 1 on 4,000 random images of 3×32×32, taps as in the default job, one seed, one thread. The checkpoints
are all the same weights, for what they are does not matter. Each in a process of its own, by turns, whose largest
memory is what the system says of it.
"""

import argparse
import resource
import sys
import tempfile
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

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


def largest() -> float:
    """The most memory that this process took so far, in GiB."""
    unit = 1 if sys.platform == "darwin" else 1 << 10  # bytes, and KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def taken(steps: int) -> tuple[float, float]:
    """What `record` sends, from a process of its own."""
    context = get_context("spawn")
    receive, send = context.Pipe(duplex=False)
    with tempfile.TemporaryDirectory() as folder:
        process = context.Process(target=record, args=(send, Path(folder), steps))
        process.start()
        found: tuple[float, float] = receive.recv()
        process.join()
    return found


def main() -> None:
    """Print both, and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    pairs = [(taken(LONG), taken(SHORT)) for _ in range(parser.parse_args().repeats)]
    for steps, found in zip((LONG, SHORT), zip(*pairs, strict=True), strict=True):
        most, before = ([each[place] for each in found] for place in (0, 1))
        told = f"at most {side_by_side.spread(most, ' GiB')}, {side_by_side.spread(before, ' GiB')} before"
        print(f"{steps} checkpoints: {told}")
    ratios = [long[0] / short[0] for long, short in pairs]
    print(f"{side_by_side.spread(ratios)} times as much for {LONG} as for {SHORT}, at most 1.1 wanted")


if __name__ == "__main__":
    main()
