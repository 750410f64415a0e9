"""How long operations take on this machine, from short benchmarks of some seconds: what counted work is multiplied by.

Networks differ too much for a rate of operations (docs/log.md), so those of the runs themselves are timed.
"""

import hashlib
import operator
import time
from collections.abc import Callable, Mapping
from dataclasses import astuple, replace

import numpy as np
import torch
import xarray as xr

from phasescope.budget.runs import Run
from phasescope.budget.work import OVERHEAD, UPDATE, Work
from phasescope.compute import Compute
from phasescope.measures.distributions import statistics
from phasescope.measures.estimators import Classes, through_noise
from phasescope.measures.samples import Samples
from phasescope.models.losses import loss_of
from phasescope.models.optimisers import Optimiser
from phasescope.models.zoo import build, place
from phasescope.params.distributions import DistributionsSettings
from phasescope.params.models import ModelSettings
from phasescope.params.train import TrainJob

#: Seconds of a stage for each second of the benchmark, by kind of work; fitted by benchmarks/cost.py (docs/log.md).
FACTORS = Work(
    updates=1.0,
    passes=1.0,
    network=1.0,
    modules=1.0,
    matrices=1.0,
    products=1.0,
    spectra=1.0,
    distributed=1.0,
    pairs=1.0,
    cells=1.0,
    bytes=1.0,
    starts=1.0,
)
#: Images that pass at once.
BATCH = 256
#: Seconds that a benchmark repeats for, and that one action of it may take: of slow networks fewer images are timed.
REPEATED, LONGEST = 0.2, 1.0


def measured(compute: Compute, runs: Mapping[str, Run]) -> dict[str, Work]:
    """Seconds that one operation of each kind takes here, by run."""
    general = benchmark(compute)
    known: dict[str, tuple[float, float]] = {}
    found = {}
    for name, run in runs.items():
        job = TrainJob(dataset=run.settings.dataset, model=run.settings.model, **run.settings.train.model_dump())
        about = job.model_dump_json(include={"model", "batch_size", "loss", "target", "optimiser", "momentum"})
        key = f"{about} {run.images}"
        if key not in known:
            known[key] = of_network(run, job, compute)
        updates, passes = known[key]
        found[name] = fitted(replace(general, updates=updates, passes=passes))
    return found


def fitted(seconds: Work) -> Work:
    """What a stage takes, of what the benchmark does."""
    return Work(*map(operator.mul, astuple(seconds), astuple(FACTORS)))


def unfitted(seconds: Work) -> Work:
    """What the benchmark takes, of what a stage does."""
    return Work(*map(operator.truediv, astuple(seconds), astuple(FACTORS)))


def of_network(run: Run, job: TrainJob, compute: Compute) -> tuple[float, float]:
    """Seconds of an update of a run's network, and of an image that passes through it."""
    device, images = compute.start(), run.images
    with torch.random.fork_rng(devices=[]):
        network = place(build(job.model, images.channels, images.resolution, run.outputs), device)
    optimiser, loss = Optimiser(job, network), loss_of(job.loss)

    def inputs(count: int) -> torch.Tensor:
        shape = (count, images.channels, images.resolution, images.resolution)
        return torch.zeros(shape, dtype=run.inputs.dtype, device=device)

    def update(count: int) -> Callable[[], None]:
        given = inputs(count).contiguous(memory_format=torch.channels_last)
        targets = torch.zeros(count, dtype=torch.int64, device=device)
        if job.target != "class":
            targets = targets[:, None].to(given.dtype)

        def action() -> None:
            found = loss(network(given), targets)
            optimiser.forget_gradients()
            found.backward()
            optimiser.update(0.0)

        return action

    def look(count: int) -> Callable[[], None]:
        given = inputs(count).contiguous(memory_format=torch.channels_last)

        def action() -> None:
            with torch.no_grad():
                network(given)

        return action

    def each(way: Callable[[int], Callable[[], None]], count: int) -> float:
        """Seconds of so many images."""
        few = min(count, 2)  # BatchNorm normalises no image alone
        one = _seconds(way(few), compute, repeated=0.0) / few
        timed = min(count, max(few, int(LONGEST / one)))
        return _seconds(way(timed), compute) * count / timed

    network.train()
    updates = each(update, min(job.batch_size, images.train)) if run.updates else 0.0
    network.eval()
    return updates, each(look, BATCH) / BATCH


def benchmark(compute: Compute) -> Work:
    """Seconds of an operation of each kind but for networks."""
    device = compute.start()

    def update(model: ModelSettings, batch: int) -> Callable[[], None]:
        network = place(build(model, 3, 32, 10), device)
        optimiser = torch.optim.SGD(network.parameters(), lr=0.0, momentum=0.9)
        images = torch.zeros(batch, 3, 32, 32, device=device)
        labels = torch.zeros(batch, dtype=torch.int64, device=device)

        def action() -> None:
            optimiser.zero_grad()
            torch.nn.functional.cross_entropy(network(images), labels).backward()
            optimiser.step()

        return action

    with torch.random.fork_rng(devices=[]):
        small, large = ModelSettings(name="f0"), ModelSettings(name="mlp", units=1024)
        modules = _seconds(update(small, 1), compute) / (2 + OVERHEAD)
        update_of = _seconds(update(large, 128), compute)
    network = update_of / (UPDATE * 2 * 128 * 1024 * (3 * 32**2 + 10))
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(512, 512))
    single = matrix.astype(np.float32)
    cell, labels = rng.normal(size=(1, 1, 500, 256)).astype(np.float16), np.arange(500) % 10
    samples = Samples(np.zeros((500, 1)), labels, np.zeros(500, bool), 10, (1, 1, 1))
    dims = ("seed", "step", "sample", "feature")
    activations = xr.DataArray(cell, {"seed": [0], "step": [0]}, dims)
    classes, points = Classes(np.sort(labels)), matrix[:500, :8]
    content = rng.bytes(1 << 22)
    return Work(
        network=network,
        modules=modules,
        matrices=_seconds(lambda: matrix @ matrix, compute) / (2 * 512**3),
        products=_seconds(lambda: single @ single, compute) / (2 * 512**3),
        spectra=_seconds(lambda: np.linalg.eigh(matrix[:256, :256]), compute) / 256**3,
        distributed=_seconds(lambda: statistics(activations, samples, DistributionsSettings()), compute) / cell.size,
        pairs=_seconds(lambda: through_noise(points, classes, 1.0, rng), compute) / 500**2,
        cells=modules,
        bytes=_seconds(lambda: hashlib.sha256(content).digest(), compute) / len(content),
        starts=modules,
    )


def _seconds(action: Callable[[], object], compute: Compute, repeated: float = REPEATED) -> float:
    """The least that it took, after a first time that does not count.

    Of the processor where one thread does all, for it may have other work.
    """
    alone = compute.device == "cpu" and compute.threads == 1
    clock = time.process_time if alone else time.perf_counter
    action()
    least, began = float("inf"), time.perf_counter()
    while least == float("inf") or time.perf_counter() < began + repeated:
        before = clock()
        action()
        if compute.device != "cpu":
            torch.cuda.synchronize(compute.device)
        least = min(least, clock() - before)
    return least
