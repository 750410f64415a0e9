"""How much each stage computes for a run, counted, and how long that takes on this machine, from a short benchmark."""

import copy
import math
import operator
import time
from collections.abc import Callable
from dataclasses import astuple, dataclass
from functools import lru_cache

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from phasescope.budget.outputs import LABELS
from phasescope.budget.runs import Images, Layer, Run, kept_of
from phasescope.compute import Compute
from phasescope.measures.advise import DRAWS, FOLDS
from phasescope.measures.complexity import BLOCK
from phasescope.measures.linear_mapping import POINTS
from phasescope.measures.ridge import RIDGES
from phasescope.measures.samples import ROTATION_LIMIT
from phasescope.models.batchnorm import normalises
from phasescope.models.parts import activations as activations_at
from phasescope.models.parts import embed, from_layer
from phasescope.models.zoo import build, place
from phasescope.params.classifiers import ClassifierSettings
from phasescope.params.decode import Decoder, DecodeSettings
from phasescope.params.information import NOISY
from phasescope.params.models import ModelSettings
from phasescope.params.ridge import RidgeSettings
from phasescope.params.transfer import TransferSettings

#: What a backward pass costs with the forward pass before it, in forward passes.
UPDATE = 3
#: Modules that count for the loss, the optimiser and the logs of an update.
OVERHEAD = 4
#: Images that BatchNorm is recalibrated with, at most.
RECALIBRATION_IMAGES = 20_000
#: Training images whose loss is looked at, at most, and how many at once.
EVALUATION_IMAGES, EVALUATION_BATCH = 10_000, 512
#: Passes over the samples until logistic regression has converged: 12 to 106 on the digits (VGG-8, n = 16 cells).
LOGISTIC_PASSES = 80
#: Passes of the sketch over the activations.
SKETCH_PASSES = 16

# Seconds on a core of an AMD EPYC, on the default project: a number in `distributions`, a pair of samples in
# `information` beside the matrix products, and the start of a stage.
DISTRIBUTION, PAIR, START = 5e-7, 1.5e-8, 4.0


@dataclass(frozen=True)
class Work:
    """Counted operations, of the kinds that take differently long."""

    network: float = 0.0  #: floating-point operations of networks, in float32
    modules: float = 0.0  #: modules that are called, however little each computes
    matrices: float = 0.0  #: floating-point operations of matrix products, in float64
    products: float = 0.0  #: the same in float32
    spectra: float = 0.0  #: cubed orders of the matrices that are factored, in float64
    distributed: float = 0.0  #: numbers that distributions are made of
    pairs: float = 0.0  #: pairs of samples whose distance is looked at
    starts: float = 0.0  #: of a stage

    def __add__(self, other: "Work") -> "Work":
        return Work(*map(operator.add, astuple(self), astuple(other)))

    def times(self, count: float) -> "Work":
        """The same so many times."""
        return Work(*(count * each for each in astuple(self)))

    def hours(self, seconds: "Work") -> float:
        """Hours that it takes, from the seconds that one operation of each kind does."""
        return sum(map(operator.mul, astuple(self), astuple(seconds))) / 3600


def measured(compute: Compute) -> Work:
    """Seconds that one operation of each kind takes here, from a benchmark of about a second."""
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
            if device.type == "cuda":
                torch.cuda.synchronize(device)

        return action

    small, large = ModelSettings(name="f0"), ModelSettings(name="vgg11")
    with torch.random.fork_rng(devices=[]):
        modules = _seconds(update(small, 1), 50) / (_forward(small, 3, 32, 10)[1] + OVERHEAD)
        operations, calls = _forward(large, 3, 32, 10)
        batch = 64 if device.type == "cpu" else 1024
        update_of = _seconds(update(large, batch), 1 if device.type == "cpu" else 5)
    network = max(update_of - (calls + OVERHEAD) * modules, update_of / 10) / (UPDATE * operations * batch)
    matrix = np.random.default_rng(0).normal(size=(512, 512))
    single = matrix.astype(np.float32)
    return Work(
        network=network,
        modules=modules,
        matrices=_seconds(lambda: matrix @ matrix, 3) / (2 * 512**3),
        products=_seconds(lambda: single @ single, 3) / (2 * 512**3),
        spectra=_seconds(lambda: np.linalg.eigh(matrix[:256, :256]), 1) / 256**3,
        distributed=DISTRIBUTION,
        pairs=PAIR,
        starts=START,
    )


def train(run: Run, workers: int) -> Work:
    """Updates of every seed, and the images whose loss is looked at."""
    settings, (operations, calls) = run.settings.train, _passes(run)
    batch = min(settings.batch_size, run.images.train)
    update = Work(UPDATE * operations * batch, calls + OVERHEAD).times(run.updates)
    images = min(EVALUATION_IMAGES, run.images.train) + run.images.test
    looked_at = Work(operations * images, calls * images / EVALUATION_BATCH).times(run.evaluations)
    return _side_by_side(update + looked_at, run.seeds, workers) + Work(starts=1)


def activations(run: Run, workers: int) -> Work:
    """Every checkpoint sees the samples that are kept, and those that BatchNorm is recalibrated with."""
    operations, calls = _passes(run)
    recalibrated = run.settings.activations.batchnorm == "recalibrated" and normalises(run.network)
    images = run.train + run.test + recalibrated * min(RECALIBRATION_IMAGES, run.images.train)
    recorded = Work(operations * images, calls * images / 256).times(run.steps)
    return _side_by_side(recorded, run.seeds, workers) + Work(starts=1)


def decode(run: Run, workers: int) -> Work:
    """One fit for each cell and decoder."""
    settings, pixels = run.settings.decode, run.images.pixels
    axes = min(pixels, run.train)
    rotated = axes <= ROTATION_LIMIT
    done = Work(starts=1)
    for layer in run.layers:
        cells = run.seeds * run.steps
        exact = _ridge(run.train, run.test, layer.features, axes if rotated else pixels, settings, single=not rotated)
        for decoder in settings.decoders:
            if decoder == "linear":
                done += _side_by_side(exact, cells, workers)
            elif layer.trained:
                fit = _trained(*_decoder(decoder, layer, run.images, settings), run.train, run.test, settings)
                # Beside a linear decoder stands the least error that one can have.
                done += _side_by_side(fit + exact if decoder == "linear-adam" else fit, cells, workers)
    return done


def probe(run: Run, workers: int) -> Work:
    """One fit for each cell and classifier; that of a ridge has the shuffled labels beside it."""
    settings = run.settings.probe
    classes = [run.images.classes]
    done = Work(starts=1)
    for layer in run.layers:
        done += _classify(run, layer, run.train, run.test, classes, settings, workers, settings.shuffles)
    return done


def distributions(run: Run, workers: int) -> Work:
    """All features of the test samples of every cell."""
    features = sum(layer.features for layer in run.layers)
    return _side_by_side(Work(distributed=run.test * features), run.seeds * run.steps, workers) + Work(starts=1)


def information(run: Run, workers: int) -> Work:
    """Every estimator for every cell, by the layer's features of the samples that are looked at."""
    settings = run.settings.information
    count = min(settings.samples, run.train if settings.part == "train" else run.test)
    done = Work(starts=1)
    for layer in run.layers:
        order, numbers = min(count, layer.features), count * layer.features
        cell = Work()
        for estimator in settings.estimators:
            if estimator in NOISY:
                # The samples against the samples, and the noise against them.
                cell += Work(matrices=4 * count * numbers, pairs=count**2)
            elif estimator == "binned-pca":
                cell += Work(matrices=2 * order * numbers, spectra=order**3)
            else:
                cell += Work(distributed=numbers)
        done += _side_by_side(cell, run.seeds * run.steps, workers)
    return done


def complexity(run: Run, workers: int) -> Work:
    """Points of lines from each layer on, and vertices around points through the whole network."""
    settings = run.settings.complexity
    rows = BLOCK["cpu"] // (4 * max(1, sum(run.nonlinearities.values())))
    forward, calls = _passes(run)
    done = Work()
    if "linear-mapping-number" in settings.measures:
        samples = min(settings.line_samples, run.train)
        points = POINTS * samples * (samples - 1) / 2
        for layer in run.hidden_layers:
            # How many modules are left hardly matters, for there are many rows.
            done += Work(_rest(run, layer) * points, calls * points / rows)
    if "local-complexity" in settings.measures and run.nonlinearities:
        around = min(settings.points, run.train) + min(settings.points, run.test) + settings.points
        vertices = 2 * around * min(settings.directions, run.images.pixels)
        done += Work(forward * vertices, calls * vertices / rows)
    return _side_by_side(done, run.seeds * run.steps, workers) + Work(starts=1)


def _rest(run: Run, layer: str) -> float:
    """Floating-point operations from a layer to the logits."""
    with torch.device("meta"):
        images = torch.zeros(1, run.images.channels, run.images.resolution, run.images.resolution)
    network = copy.deepcopy(run.network).to("meta")
    embedded = embed(network, images.to(run.inputs.dtype))
    activations_there = activations_at(network, layer, embedded)
    rest = from_layer(network, layer, embedded)
    with FlopCounterMode(display=False) as counter:
        rest(activations_there)
    return counter.get_total_flops()


def kernel(run: Run, workers: int) -> Work:
    """A forward and a backward pass of every probe for each output, and products of the weights of layers."""
    settings, (forward, calls) = run.settings.kernel, _passes(run)
    done = Work()
    if "tangent-kernel" in settings.measures:
        done += Work(UPDATE * forward * run.probes * run.outputs, calls * (1 + run.outputs))
    if "layer-alignment" in settings.measures:
        done += Work(matrices=sum(2.0 * len(first) * (first.numel() + second.numel()) for first, second in run.pairs))
    return _side_by_side(done, run.seeds * run.steps, workers) + Work(starts=1)


def transfer(run: Run, settings: TransferSettings, target: Images, workers: int) -> Work:
    """Other images than the run's own pass through every checkpoint; classifiers are fitted to each layer and label."""
    train, test = kept_of(target, settings)
    done = _through(run, settings, train + test, workers) + Work(starts=1)
    classes = [LABELS.get(label, target.classes) for label in settings.labels]
    for layer in run.layers:
        done += _classify(run, layer, train, test, classes, settings, workers, 0)
    return done


def advise(run: Run, settings: TransferSettings, target: Images, workers: int) -> Work:
    """One factorisation of each layer, the hat matrix of every fold, and fits to few labels, for each label."""
    samples = sum(kept_of(target, settings))
    done = _through(run, settings, samples, workers) + Work(starts=1)
    classes = [LABELS.get(label, target.classes) for label in settings.labels]
    for layer in run.layers:
        features, rank = layer.features, min(samples, layer.features)
        fold = samples / FOLDS
        hats = 2 * FOLDS * fold * min(fold, rank) * max(fold, rank) * len(classes)
        of_cell = _ridge(samples, 0, features, sum(classes), settings) + Work(matrices=hats)
        for number in classes:
            for per_class, draws in DRAWS.items():
                few = _ridge(min(per_class * number, samples), samples, features, number, settings)
                of_cell += few.times(draws if per_class * number < samples else 0)
        done += _side_by_side(of_cell, run.seeds * run.steps, workers)
    return done


def _through(run: Run, settings: TransferSettings, samples: int, workers: int) -> Work:
    """Images other than the run's own pass through every checkpoint."""
    if settings.dataset == run.settings.dataset:
        return Work()
    operations, calls = _passes(run)
    through = Work(operations * samples, calls * samples / 256).times(run.steps)
    return _side_by_side(through, run.seeds, workers)


def _classify(
    run: Run,
    layer: Layer,
    train: int,
    test: int,
    classes: list[int],
    settings: ClassifierSettings,
    workers: int,
    shuffles: int,
) -> Work:
    cells, features = run.seeds * run.steps, layer.features
    done = Work()
    for classifier in settings.classifiers:
        if classifier == "ridge":
            fit = _ridge(train, test, features, sum(classes) * (1 + shuffles), settings)
            done += _side_by_side(fit, cells, workers)
        elif classifier == "logistic":
            passes = Work(matrices=4 * train * features * sum(classes)).times(LOGISTIC_PASSES)
            done += _side_by_side(passes, cells, workers)
        else:
            for number in classes:
                fit = _trained(2 * features * number, 1, train, test, settings)
                done += _side_by_side(fit, cells, workers)
    return done


def _ridge(
    samples: int, tests: int, features: int, targets: int, settings: RidgeSettings, single: bool = False
) -> Work:
    """A factorisation, the coefficients of all targets, and the predictions of the test samples (`measures.ridge`).

    Targets in single precision are multiplied with the principal axes of the features, and not with the features.
    """
    order, longer = min(samples, features), max(samples, features)
    shared = 0.0
    if settings.solver == "randomised" or (settings.solver == "auto" and order > settings.exact_limit):
        order = min(settings.rank, order)
        shared = 2.0 * samples * features * order * SKETCH_PASSES
    shared += 2 * order**2 * longer
    if settings.selection == "loo":
        shared += 2 * samples * order * targets * (len(RIDGES) + 1)
    rows = samples + tests
    if single:
        return Work(
            matrices=shared + 2 * rows * features * order, products=2 * rows * order * targets, spectra=order**3
        )
    return Work(matrices=shared + 2 * (rows + order) * features * targets, spectra=order**3)


def _trained(
    operations: float, calls: int, train: int, test: int, settings: DecodeSettings | ClassifierSettings
) -> Work:
    """The epochs of a module that takes so many operations for a sample, and a look at all samples after them."""
    updates = settings.epochs * math.ceil(train / settings.batch_size)
    passes = operations * (settings.epochs * UPDATE * train + train + test)
    return Work(passes, (calls + OVERHEAD) * updates)


def _decoder(decoder: Decoder, layer: Layer, images: Images, settings: DecodeSettings) -> tuple[float, int]:
    """Operations of a forward pass of one sample, and modules.

    Deconvolution: Linear(p, max(p, 64)) of flat features, Conv3×3(c, c) of maps; transposed convolutions with kernels
    of 4×4 that double the maps, …, 128, 64 channels times `width`, then to the image.
    """
    features = layer.features
    if decoder == "linear-adam":
        return 2.0 * features * images.pixels, 2
    channels, side = (layer.shape[0], layer.shape[1]) if len(layer.shape) == 3 else (features, 1)
    if side == 1:
        given = max(channels, round(64 * settings.width))
        products = channels * given
    else:
        given, products = channels, 9 * channels**2 * side**2
    doublings = max(1, round(math.log2(images.resolution / side)))
    widths = [max(1, round(64 * 2**place * settings.width)) for place in reversed(range(doublings - 1))]
    for out in (*widths, images.channels):
        products += 16 * given * out * side**2
        given, side = out, 2 * side
    return 2.0 * products, 2 * doublings + 2


def _side_by_side(work: Work, pieces: int, workers: int) -> Work:
    """So many pieces of work, as many at a time as there are workers."""
    return work.times(math.ceil(pieces / min(workers, pieces)))


def _passes(run: Run) -> tuple[float, int]:
    images = run.images
    return _forward(run.settings.model, images.channels, images.resolution, run.outputs)


@lru_cache
def _forward(model: ModelSettings, channels: int, resolution: int, classes: int) -> tuple[float, int]:
    """Floating-point operations of a forward pass of one image, and modules without parts."""
    with torch.device("meta"):
        network = build(model, channels, resolution, classes)
        # Two images, for BatchNorm in training mode refuses 1×1 maps of a single one.
        with FlopCounterMode(display=False) as counter:
            network(torch.zeros(2, channels, resolution, resolution))
    return counter.get_total_flops() / 2, sum(not list(module.children()) for module in network.modules())


def _seconds(action: Callable[[], object], times: int) -> float:
    action()  # what is set up once does not count
    started = time.perf_counter()
    for _ in range(times):
        action()
    return (time.perf_counter() - started) / times
