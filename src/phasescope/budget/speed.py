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
from numcodecs import zstd

from phasescope.budget.runs import Run
from phasescope.budget.work import UPDATE, Work, decoder_operations
from phasescope.compute import Compute
from phasescope.measures import decoders
from phasescope.measures.distributions import statistics
from phasescope.measures.estimators import Classes, through_noise
from phasescope.measures.fitting import adam, initialised
from phasescope.measures.samples import Samples
from phasescope.models.losses import loss_of
from phasescope.models.optimisers import Optimiser
from phasescope.models.zoo import build, place
from phasescope.params.distributions import DistributionsSettings
from phasescope.params.train import TrainJob

#: Seconds of a stage for each second of the benchmark, by kind of work; fitted by benchmarks/cost.py (docs/log.md).
FACTORS = Work(
    updates=1.12,
    passes=1.25,
    decoders=1.02,
    calls=0.894,
    matrices=1.2,
    products=1.01,
    spectra=0.997,
    distributed=0.902,
    pairs=1.17,
    cells=86.7,
    bytes=1.02,
    starts=106000,
    imports=144000,
)
#: Images that pass at once.
BATCH = 256
#: Seconds that a benchmark repeats for, and that one action of it may take: of slow networks fewer images are timed.
REPEATED, LONGEST = 0.2, 1.0


def measured(compute: Compute, runs: Mapping[str, Run]) -> dict[str, Work]:
    """Seconds that one operation of each kind takes here, by run."""
    general = benchmark(compute)
    known: dict[str, Work] = {}
    found = {}
    for name, run in runs.items():
        job = TrainJob(dataset=run.settings.dataset, model=run.settings.model, **run.settings.train.model_dump())
        about = job.model_dump_json(include={"model", "batch_size", "loss", "target", "optimiser", "momentum"})
        key = f"{about} {run.images} {run.updates > 0}"
        if key not in known:
            known[key] = of_network(run, job, compute)
        found[name] = fitted(replace(known[key], decoders=of_decoder(run, compute)) + general)
    return found


def fitted(seconds: Work) -> Work:
    """What a stage takes, of what the benchmark does."""
    return Work(*map(operator.mul, astuple(seconds), astuple(FACTORS)))


def unfitted(seconds: Work) -> Work:
    """What the benchmark takes, of what a stage does."""
    return Work(*map(operator.truediv, astuple(seconds), astuple(FACTORS)))


def of_network(run: Run, job: TrainJob, compute: Compute) -> Work:
    """Seconds of an update of a run's network, and of an image that passes through it."""
    device, images = compute.start(), run.images
    with torch.random.fork_rng(devices=[]):
        network = place(build(job.model, images.channels, images.resolution, run.outputs), device)
    optimiser, loss = Optimiser(job, network), loss_of(job.loss)

    def inputs(count: int) -> torch.Tensor:
        shape = (count, images.channels, images.resolution, images.resolution)
        empty = torch.zeros(shape, dtype=run.inputs.dtype, device=device)
        return empty.contiguous(memory_format=torch.channels_last)

    def update(count: int) -> Callable[[], None]:
        given = inputs(count)
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
        given = inputs(count)

        def action() -> None:
            with torch.no_grad():
                network(given)

        return action

    network.train()
    updates = _of_images(update, min(job.batch_size, images.train), compute) if run.updates else 0.0
    network.eval()
    return Work(updates=updates, passes=_of_images(look, BATCH, compute) / BATCH)


def of_decoder(run: Run, compute: Compute) -> float:
    """Seconds of an operation of the first decoder that is trained, at the first tap that it is trained on."""
    settings, device = run.settings.decode, compute.start()
    kinds = [decoder for decoder in settings.decoders if decoder != "linear"]
    layers = [layer for layer in run.layers if layer.trained]
    if not (kinds and layers):
        return 0.0
    kind, layer, images = kinds[0], layers[0], run.images
    shape = (images.channels, images.resolution, images.resolution)
    decoder = initialised(lambda: decoders.build(kind, layer.shape, shape, settings.width), device)
    move = adam(decoder, settings.weight_decay)

    def update(count: int) -> Callable[[], None]:
        given = torch.zeros(count, *layer.shape, device=device)
        wanted = torch.zeros(count, images.pixels, device=device)

        def action() -> None:
            for parameter in decoder.parameters():
                parameter.grad = None
            torch.nn.functional.mse_loss(decoder(given), wanted).backward()
            move(0.0)

        return action

    batch = min(settings.batch_size, run.train)
    return _of_images(update, batch, compute) / (UPDATE * batch * decoder_operations(kind, layer, images, settings))


def _of_images(way: Callable[[int], Callable[[], None]], count: int, compute: Compute) -> float:
    """Seconds of what is done with so many images at once, of which fewer are timed where they take long."""
    few = min(count, 2)  # BatchNorm normalises no image alone
    one = _seconds(way(few), compute, repeated=0.0) / few
    timed = min(count, max(few, int(LONGEST / one)))
    return _seconds(way(timed), compute) * count / timed


def benchmark(compute: Compute) -> Work:
    """Seconds of an operation of each kind but for networks."""
    device = compute.start()
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(512, 512))
    single = matrix.astype(np.float32)
    cell, labels = rng.normal(size=(1, 1, 500, 256)).astype(np.float16), np.arange(500) % 10
    samples = Samples(np.zeros((500, 1)), labels, np.zeros(500, bool), 10, (1, 1, 1))
    numbers = (500 + 10 * DistributionsSettings().bins) * 256
    dims = ("seed", "step", "sample", "feature")
    activations = xr.DataArray(cell, {"seed": [0], "step": [0]}, dims)
    classes, points = Classes(np.sort(labels)), matrix[:500, :8]
    content = np.maximum(matrix, 0).astype(np.float16).tobytes()
    with torch.random.fork_rng(devices=[]):
        layer, few = torch.nn.Linear(10, 10).to(device), torch.zeros(1, 10, device=device)

    def call() -> None:
        for _ in range(100):
            layer(few).sum().backward()

    def keep(content: bytes) -> None:
        packed = zstd.compress(content, 1)
        hashlib.sha256(packed)
        zstd.decompress(packed)

    calls = _seconds(call, compute) / 300
    return Work(
        calls=calls,
        matrices=_seconds(lambda: matrix @ matrix, compute) / (2 * 512**3),
        products=_seconds(lambda: single @ single, compute) / (2 * 512**3),
        spectra=_seconds(lambda: np.linalg.eigh(matrix), compute) / 512**3,
        distributed=_seconds(lambda: statistics(activations, samples, DistributionsSettings()), compute) / numbers,
        pairs=_seconds(lambda: through_noise(points, classes, 1.0, rng), compute) / 500**2,
        cells=calls,
        bytes=_seconds(lambda: keep(content), compute) / len(content),
        starts=calls,
        imports=calls,
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
