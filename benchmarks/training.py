"""Training beside the usual loop, and what capture adds to it.

    python benchmarks/training.py [--repeats 5] [--threads 2] [--updates 24]

VGG-8 of width 1, batches of 128 images of 3×32×32, SGD with momentum, float32; 10,000 training and test images each.
The usual loop takes a TensorDataset through a DataLoader, with maps in torch's own layout. Ours is what the stage does:
as many seeds at a time as there are cores, each in a process of its own with one thread; beside it, one seed alone on
all threads. On both sides a time is that of the same number of updates altogether.

Capture is what a training does at iterations 0 and 2^i besides its updates: loss and accuracy on training and test
images, the checkpoint, and all that it takes to go on from there. Its share is counted from the times of one update and
one capture, for the paper's 2^16 updates and for fewer.
"""

import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import side_by_side
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.flop_counter import FlopCounterMode

from phasescope import training
from phasescope.compute import Compute
from phasescope.data.dataset import Dataset, standardised
from phasescope.models.zoo import build
from phasescope.params.models import ModelSettings
from phasescope.params.train import TrainJob
from phasescope.schedule import checkpoint_steps
from phasescope.store.cache import CellCache
from phasescope.store.datasets import read_dataset, write_dataset

#: Training images, and as many for testing.
IMAGES = 10_000
JOB = TrainJob(dataset="random", model=ModelSettings(name="vgg8"), seeds=list(range(8)), iterations=2**16)

#: What a process trains, and the batches that it takes one after the other.
seed: training._SeedTraining
rows: Iterator[np.ndarray]


def write_images(folder: Path) -> None:
    """A dataset of random images."""
    generator = np.random.default_rng(0)
    pixels = generator.integers(256, size=(2 * IMAGES, 3, 32, 32), dtype=np.uint8)
    labels, half = generator.integers(10, size=2 * IMAGES), np.full(3, 0.5)
    names = [str(name) for name in range(10)]
    write_dataset(folder, Dataset(pixels, labels, np.arange(2 * IMAGES) < IMAGES, names, half, half), {})


def start(folder: Path, index: int, threads: int) -> None:
    """Make the training of a seed in this process."""
    global seed, rows
    device, cache = Compute("cpu", threads, 1).start(), CellCache(folder / "cache", "benchmark")
    dataset = read_dataset(folder / "dataset")
    seed = training._SeedTraining(JOB, dataset, folder / "train", device, cache, index, str(index))
    rows = training.batches(JOB, index, IMAGES, 0)


def update(times: int) -> None:
    """So many updates of this process's seed."""
    for _ in range(times):
        seed.update(next(rows))


def capture() -> None:
    """What stands between the updates at the next of the iterations 0 and 2^i."""
    reached, seed.step = seed.step, checkpoint_steps(JOB.iterations)[len(seed.hashes)]
    seed.look()
    seed.step = reached


class Usual:
    """The loop that one would write."""

    def __init__(self, dataset: Dataset) -> None:
        torch.manual_seed(0)
        pixels = torch.from_numpy(standardised(dataset)[dataset.train])
        known = TensorDataset(pixels, torch.from_numpy(dataset.labels[dataset.train]))
        loader = DataLoader(known, batch_size=JOB.batch_size, shuffle=True)
        self.batches = (batch for epoch in repeat(loader) for batch in epoch)
        self.network = build(JOB.model, 3, 32, 10)
        self.optimiser = torch.optim.SGD(self.network.parameters(), lr=JOB.learning_rate, momentum=JOB.momentum)

    def update(self, times: int) -> None:
        """So many updates."""
        for _ in range(times):
            pixels, labels = next(self.batches)
            loss = nn.functional.cross_entropy(self.network(pixels), labels)
            self.optimiser.zero_grad()
            loss.backward()
            self.optimiser.step()


def least(times: int) -> side_by_side.Work:
    """Of so many updates: the layers forward and backward; images, weights, gradients and momentum in memory."""
    network = build(JOB.model, 3, 32, 10)
    pixels = torch.zeros(JOB.batch_size, 3, 32, 32)
    with FlopCounterMode(display=False) as counter:
        network(pixels).sum().backward()
    # A gradient is written and read, a weight and its momentum are read and written.
    numbers = pixels.numel() + 6 * sum(parameter.numel() for parameter in network.parameters())
    return side_by_side.Work(flop=times * counter.get_total_flops(), bytes=times * 4 * numbers)


def main() -> None:
    """Print both comparisons, and what capture adds."""
    parser = side_by_side.parser(__doc__)
    parser.add_argument("--updates", type=int, default=24)
    given = parser.parse_args()
    threads, updates = given.threads, given.updates
    rates, work = side_by_side.tell_machine(threads), least(updates)
    with tempfile.TemporaryDirectory() as temporary, side_by_side.threads(threads):
        folder = Path(temporary)
        write_images(folder / "dataset")
        training._allocate(folder / "train", JOB, folder / "dataset")
        usual = Usual(read_dataset(folder / "dataset"))
        pools = [
            ProcessPoolExecutor(1, get_context("spawn"), start, (folder, index, 1)) for index in range(1, threads + 1)
        ]

        def several() -> None:
            for share in [pool.submit(update, updates // threads) for pool in pools]:
                share.result()

        def loop() -> None:
            usual.update(updates)

        told = f"{updates} updates of VGG-8, {threads} seeds in a process each"
        side_by_side.tell(
            told, side_by_side.compare(several, loop, given.repeats), at_least=1.15, work=work, rates=rates
        )
        for pool in pools:
            pool.shutdown()
        start(folder, 0, threads)
        told = f"{updates} updates of VGG-8, one seed on {threads} threads"
        alone = side_by_side.compare(lambda: update(updates), loop, given.repeats)
        side_by_side.tell(told, alone, at_least=1.15, work=work, rates=rates)
        captures = [side_by_side.seconds(capture) for _ in range(given.repeats + 1)][1:]
        print(f"one capture: {side_by_side.spread(captures, ' s')}, {given.repeats} repeats")
        for iterations in (2**11, 2**16):
            count, once = len(checkpoint_steps(iterations)), [taken / updates for taken in alone.ours]
            costs = [1 + count * here / (iterations * there) for here, there in zip(captures, once, strict=True)]
            told = f"  {iterations:,} updates with {count} captures"
            print(f"{told}: {side_by_side.spread(costs)} times as long, at most 1.05 wanted")


if __name__ == "__main__":
    main()
