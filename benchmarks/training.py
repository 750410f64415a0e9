"""Training beside the usual loop, and what capture adds to it.

    python benchmarks/training.py [--repeats 5] [--threads 2] [--updates 24] [--model vgg8] [--device cpu]

A network of width 1, batches of 128 images of 3×32×32, SGD with momentum, float32; 10,000 training and test images
each. The usual loop takes a TensorDataset through a DataLoader, with all that torch has by default. Ours is what the
stage does: one seed on all threads, and then as many seeds at a time as there are threads, each in a process of its own
with one (on a GPU the one seed alone). Every way has processes of its own, which take turns, and a time is that of the
same number of updates altogether.

Capture is what a training does at iterations 0 and 2^i besides its updates: it writes the checkpoint and all that it
takes to go on from there, and it looks at the loss and accuracy of training and test images, which is a measure and
told apart. What it adds to a training is counted from the times of one update and one capture, for several lengths.
"""

import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
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
#: Updates of the trainings for which it is counted what capture adds.
LENGTHS = (2**9, 2**11, 2**13, 2**16)

#: What a process trains, and the batches that it takes one after the other.
seed: training._SeedTraining
rows: Iterator[np.ndarray]
usual: "Usual"


def job(model: str) -> TrainJob:
    """The training of a network."""
    return TrainJob(dataset="random", model=ModelSettings(name=model), seeds=list(range(64)), iterations=LENGTHS[-1])


def write_images(folder: Path) -> None:
    """A dataset of random images."""
    generator = np.random.default_rng(0)
    pixels = generator.integers(256, size=(2 * IMAGES, 3, 32, 32), dtype=np.uint8)
    labels, half = generator.integers(10, size=2 * IMAGES), np.full(3, 0.5)
    names = [str(name) for name in range(10)]
    write_dataset(folder, Dataset(pixels, labels, np.arange(2 * IMAGES) < IMAGES, names, half, half), {})


def start(folder: Path, model: str, index: int, compute: Compute) -> None:
    """Make the training of a seed in this process."""
    global seed, rows
    device, cache = compute.start(), CellCache(folder / "cache", "benchmark")
    dataset = read_dataset(folder / "dataset")
    seed = training._SeedTraining(job(model), dataset, folder / "train", device, cache, index, str(index))
    rows = training.batches(job(model), index, IMAGES, 0)


def update(times: int) -> None:
    """So many updates of this process's seed."""
    for _ in range(times):
        seed.update(next(rows))
    side_by_side.synchronise()


def look() -> None:
    """The loss and accuracy, as they are looked at between two updates."""
    for data in seed._looked_at.values():
        training.evaluate(seed._network, data, seed._loss)


def checkpoint() -> None:
    """Write the checkpoint of the next of the iterations 0 and 2^i."""
    reached, seed.step = seed.step, checkpoint_steps(LENGTHS[-1])[len(seed.hashes)]
    seed.checkpoint()
    seed.step = reached


class Usual:
    """The loop that one would write."""

    def __init__(self, dataset: Dataset, settings: TrainJob, device: str) -> None:
        torch.manual_seed(0)
        pixels = torch.from_numpy(standardised(dataset)[dataset.train])
        known = TensorDataset(pixels, torch.from_numpy(dataset.labels[dataset.train]))
        loader = DataLoader(known, batch_size=settings.batch_size, shuffle=True)
        self.batches = (batch for epoch in repeat(loader) for batch in epoch)
        self.network, self.device = build(settings.model, 3, 32, 10).to(device), device
        self.optimiser = torch.optim.SGD(
            self.network.parameters(), lr=settings.learning_rate, momentum=settings.momentum
        )

    def update(self, times: int) -> None:
        """So many updates."""
        for _ in range(times):
            pixels, labels = (part.to(self.device) for part in next(self.batches))
            loss = nn.functional.cross_entropy(self.network(pixels), labels)
            self.optimiser.zero_grad()
            loss.backward()
            self.optimiser.step()
        side_by_side.synchronise()


def start_usual(folder: Path, model: str, threads: int, device: str) -> None:
    """Make the usual loop in this process."""
    global usual
    torch.set_num_threads(threads)
    usual = Usual(read_dataset(folder / "dataset"), job(model), device)


def update_usual(times: int) -> None:
    """So many updates in the usual loop."""
    usual.update(times)


def least(model: str, times: int) -> side_by_side.Work:
    """Of so many updates: the layers forward and backward; images, weights, gradients and momentum in memory."""
    settings = job(model)
    network = build(settings.model, 3, 32, 10)
    pixels = torch.zeros(settings.batch_size, 3, 32, 32)
    with FlopCounterMode(display=False) as counter:
        network(pixels).sum().backward()
    # A gradient is written and read, a weight and its momentum are read and written.
    numbers = pixels.numel() + 6 * sum(parameter.numel() for parameter in network.parameters())
    return side_by_side.Work(flop=times * counter.get_total_flops(), bytes=times * 4 * numbers)


def tell_capture(updates: list[float], checkpoints: list[float], looks: list[float]) -> None:
    """Print what one of each takes, (repeat,) seconds, and what they add to trainings of several lengths."""
    print(
        f"  one update {side_by_side.spread(updates, ' s')}, one checkpoint {side_by_side.spread(checkpoints, ' s')}, "
        f"looking at {2 * IMAGES:,} images {side_by_side.spread(looks, ' s')}"
    )
    for iterations in LENGTHS:
        count = len(checkpoint_steps(iterations))
        triples = zip(updates, checkpoints, looks, strict=True)
        alone, both = zip(
            *(
                (1 + count * write / (iterations * one), 1 + count * (write + look) / (iterations * one))
                for one, write, look in triples
            ),
            strict=True,
        )
        print(
            f"  {iterations:,} updates with {count} checkpoints: {side_by_side.spread(list(alone))} times as long, at "
            f"most 1.05 wanted; with the looks {side_by_side.spread(list(both))}"
        )


def main() -> None:
    """Print both comparisons, and what capture adds."""
    parser = side_by_side.parser(__doc__)
    parser.add_argument("--updates", type=int, default=24)
    parser.add_argument("--model", default="vgg8")
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    model, threads, updates = given.model, given.threads, given.updates
    machine, work = side_by_side.tell_machine(threads, given.device), least(model, updates)
    cases = [(1, threads)]
    if given.device == "cpu" and threads > 1:
        cases.append((threads, 1))
    with tempfile.TemporaryDirectory() as temporary, ExitStack() as processes:
        folder = Path(temporary)
        write_images(folder / "dataset")
        training._allocate(folder / "train", job(model), folder / "dataset")

        def process(begin: Callable[..., None], *arguments: object) -> ProcessPoolExecutor:
            pool = ProcessPoolExecutor(1, get_context("spawn"), begin, (folder, model, *arguments))
            return processes.enter_context(pool)

        def call(pools: list[ProcessPoolExecutor], function: Callable[..., None], *arguments: int) -> None:
            for running in [pool.submit(function, *arguments) for pool in pools]:
                running.result()

        baseline = [process(start_usual, threads, given.device)]
        first = 0
        for seeds, each in cases:
            ours = [process(start, first + index, Compute(given.device, each, 1)) for index in range(seeds)]
            first += seeds
            found = side_by_side.compare(
                lambda pools=ours, share=updates // seeds: call(pools, update, share),
                lambda: call(baseline, update_usual, updates),
                given.repeats,
            )
            told = f"{seeds} seed{'s' * (seeds > 1)} at a time, {each} thread{'s' * (each > 1)} each"
            side_by_side.tell(
                f"{updates} updates of {model}, {told}; baseline {threads} threads",
                found,
                at_least=1.15 if given.device == "cpu" else 5,
                work=work,
                rates=machine,
            )
            checkpoints, looks = (
                [side_by_side.seconds(lambda way=way, pools=ours: call(pools, way)) for _ in range(given.repeats + 1)]
                for way in (checkpoint, look)
            )
            tell_capture([taken * seeds / updates for taken in found.ours], checkpoints[1:], looks[1:])


if __name__ == "__main__":
    main()
