"""How much each stage computes for a run, counted; how long that takes on this machine is in `speed`."""

import copy
import math
import operator
from collections.abc import Callable
from dataclasses import astuple, dataclass

import numpy as np
import torch

from phasescope.activations import RECALIBRATION_IMAGES
from phasescope.budget.outputs import LABELS
from phasescope.budget.runs import Images, Layer, Run, kept_of
from phasescope.measures.advise import DRAWS, FOLDS
from phasescope.measures.linear_mapping import POINTS
from phasescope.measures.ridge import RIDGES
from phasescope.measures.samples import ROTATION_LIMIT
from phasescope.models.batchnorm import normalises
from phasescope.models.optimisers import MOMENTS
from phasescope.models.parts import activations as activations_at
from phasescope.models.parts import embed, from_layer
from phasescope.params.classifiers import ClassifierSettings
from phasescope.params.decode import Decoder, DecodeSettings
from phasescope.params.information import NOISY
from phasescope.params.ridge import RidgeSettings
from phasescope.params.transfer import TransferSettings
from phasescope.training import EVALUATION_IMAGES

#: What a backward pass costs with the forward pass before it, in forward passes.
UPDATE = 3
#: Calls around an update of a network, which take its batch and log its loss and accuracy; of an update of a classifier
#: that is trained; and of a fit to few samples.
LOOP, CLASSIFIER, FIT = 5, 12, 20
#: Passes over the samples until logistic regression has converged: 12 to 106 on the digits (VGG-8, n = 16 cells).
LOGISTIC_PASSES = 80
#: Passes of the sketch over the activations.
SKETCH_PASSES = 16


@dataclass(frozen=True)
class Work:
    """Counted operations, of the kinds that take differently long."""

    updates: float = 0.0  #: updates of the run's own network, with a batch of its training
    passes: float = 0.0  #: images that pass through the run's own network
    decoders: float = 0.0  #: floating-point operations of decoders that are trained, in float32
    calls: float = 0.0  #: of functions of libraries, however little each computes
    matrices: float = 0.0  #: floating-point operations of matrix products, in float64
    products: float = 0.0  #: the same in float32
    spectra: float = 0.0  #: cubed orders of the matrices that are factored, in float64
    distributed: float = 0.0  #: numbers that distributions are made of
    pairs: float = 0.0  #: pairs of samples whose distance is looked at
    cells: float = 0.0  #: pieces of work whose result is kept by itself
    bytes: float = 0.0  #: in memory, of what is read and written
    starts: float = 0.0  #: of a stage
    imports: float = 0.0  #: of torch, by stages that need it

    def __add__(self, other: "Work") -> "Work":
        return Work(*map(operator.add, astuple(self), astuple(other)))

    def times(self, count: float) -> "Work":
        """The same so many times."""
        return Work(*(count * each for each in astuple(self)))

    def hours(self, seconds: "Work") -> float:
        """Hours that it takes, from the seconds that one operation of each kind does."""
        return sum(map(operator.mul, astuple(self), astuple(seconds))) / 3600


#: What comes before all else, with torch or without it.
START, WITH_TORCH = Work(starts=1), Work(starts=1, imports=1)


def train(run: Run, workers: int) -> Work:
    """Updates of every seed, the images whose loss is looked at, and what is kept at every checkpoint."""
    images = min(EVALUATION_IMAGES, run.images.train) + run.images.test
    # The weights by themselves, and again with all that it takes to go on from there.
    moments = len(MOMENTS[run.settings.train.optimiser]) if run.updates else -1
    kept = Work(cells=run.steps, bytes=(2 + moments) * run.weights * run.steps)
    looked_at = Work(passes=images * run.evaluations)
    updates = Work(updates=run.updates, calls=LOOP * run.updates)
    return _side_by_side(updates + looked_at + kept + _dataset(run), run.seeds, workers) + WITH_TORCH


def activations(run: Run, workers: int) -> Work:
    """Every checkpoint sees the samples that are kept, and those that BatchNorm is recalibrated with."""
    recalibrated = run.settings.activations.batchnorm == "recalibrated" and normalises(run.network)
    images = run.train + run.test + recalibrated * min(RECALIBRATION_IMAGES, run.images.train)
    kept = sum(_cell_bytes(run, layer) for layer in run.layers)
    recorded = Work(passes=images, cells=1 + len(run.layers), bytes=kept + run.weights).times(run.steps)
    return _side_by_side(recorded + _dataset(run), run.seeds, workers) + WITH_TORCH


def decode(run: Run, workers: int) -> Work:
    """One fit for each cell and decoder; first, pixels are rotated where they are few."""
    settings, pixels = run.settings.decode, run.images.pixels
    axes = min(pixels, run.train)
    rotated = axes <= ROTATION_LIMIT
    trained = [decoder for decoder in settings.decoders if decoder != "linear"]
    done = (WITH_TORCH if trained else START) + _dataset(run)
    if rotated:
        done += _ridge(run.train, run.train + run.test, pixels, 0, settings)
    for layer in run.layers:
        cells = run.seeds * run.steps
        exact = _ridge(run.train, run.test, layer.features, axes if rotated else pixels, settings, single=not rotated)
        for decoder in settings.decoders:
            if decoder == "linear":
                done += _side_by_side(exact + _reading(run, layer), cells, workers)
            elif layer.trained:
                operations = decoder_operations(decoder, layer, run.images, settings)
                fit = Work(decoders=_trained(operations, run.train, run.test, settings))
                # Beside a linear decoder stands the least error that one can have.
                fit += exact if decoder == "linear-adam" else Work()
                done += _side_by_side(fit + _reading(run, layer), cells, workers)
    return done


def probe(run: Run, workers: int) -> Work:
    """One fit for each cell and classifier; that of a ridge has the shuffled labels beside it."""
    settings = run.settings.probe
    done = (WITH_TORCH if "sgd" in settings.classifiers else START) + _dataset(run)

    def fits(features: int) -> Work:
        return _classify(features, run.train, run.test, [run.images.classes], settings, settings.shuffles)

    return done + _of_layers(run, fits, len(settings.classifiers), workers)


def distributions(run: Run, workers: int) -> Work:
    """All features of the test samples of every cell; a few of them over all steps, which are read once more."""
    done = START + _dataset(run)
    for layer in run.layers:
        # Every number finds its bin, and every bin of every class is counted.
        numbers = run.test + run.images.classes * run.settings.distributions.bins
        cell = _reading(run, layer) + Work(distributed=numbers * layer.features)
        done += _side_by_side(cell, run.seeds * run.steps, workers)
        done += Work(bytes=_cell_bytes(run, layer)).times(run.seeds * run.steps)
    return done


def information(run: Run, workers: int) -> Work:
    """Every estimator for every cell, by the layer's features of the samples that are looked at."""
    settings = run.settings.information
    count = min(settings.samples, run.train if settings.part == "train" else run.test)
    done = START + _dataset(run)
    for layer in run.layers:
        order, numbers = min(count, layer.features), count * layer.features
        cell = _reading(run, layer).times(len(settings.estimators))
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
    settings, done = run.settings.complexity, _checkpoint(run)
    if "linear-mapping-number" in settings.measures:
        samples = min(settings.line_samples, run.train)
        points = POINTS * samples * (samples - 1) / 2
        done += Work(passes=points * sum(_rest(run, layer) for layer in run.hidden_layers))
    if "local-complexity" in settings.measures and run.nonlinearities:
        around = min(settings.points, run.train) + min(settings.points, run.test) + settings.points
        done += Work(passes=2 * around * min(settings.directions, math.prod(run.embedded.shape[1:])))
    asked = run.seeds * run.steps * bool(settings.measures)
    return _side_by_side(done, asked, workers) + WITH_TORCH


def _rest(run: Run, layer: str) -> float:
    """Floating-point operations from a layer to the logits, as a share of those of the whole network."""
    from torch.utils.flop_counter import FlopCounterMode  # which imports triton

    with torch.device("meta"):
        images = torch.zeros(1, run.images.channels, run.images.resolution, run.images.resolution)
    network = copy.deepcopy(run.network).to("meta")
    embedded = embed(network, images.to(run.inputs.dtype))
    activations_there = activations_at(network, layer, embedded)
    rest, operations = from_layer(network, layer, embedded), []
    for function, given in ((rest, activations_there), (network, images.to(run.inputs.dtype))):
        with FlopCounterMode(display=False) as counter:
            function(given)
        operations.append(counter.get_total_flops())
    return operations[0] / operations[1] if operations[1] else 1.0


def kernel(run: Run, workers: int) -> Work:
    """A forward and a backward pass of every probe for each output, and products of the weights of layers."""
    settings, done = run.settings.kernel, _checkpoint(run)
    if "tangent-kernel" in settings.measures:
        done += Work(passes=UPDATE * run.probes * run.outputs)
    if "layer-alignment" in settings.measures:
        done += Work(matrices=sum(2.0 * len(first) * (first.numel() + second.numel()) for first, second in run.pairs))
    return _side_by_side(done, run.seeds * run.steps * bool(settings.measures), workers) + WITH_TORCH


def transfer(run: Run, settings: TransferSettings, target: Images, workers: int) -> Work:
    """Other images than the run's own pass through every checkpoint; classifiers are fitted to each layer and label."""
    train, test = kept_of(target, settings)
    done = _through(run, settings, train + test, workers) + WITH_TORCH
    classes = [LABELS.get(label, target.classes) for label in settings.labels]

    def fits(features: int) -> Work:
        return _classify(features, train, test, classes, settings, 0)

    return done + _of_layers(run, fits, len(settings.classifiers), workers)


def advise(run: Run, settings: TransferSettings, target: Images, workers: int) -> Work:
    """One factorisation of each layer, the hat matrix of every fold, and fits to few labels, for each label."""
    samples = sum(kept_of(target, settings))
    done = _through(run, settings, samples, workers) + WITH_TORCH
    classes = [LABELS.get(label, target.classes) for label in settings.labels]

    def fits(features: int) -> Work:
        rank, fold = min(samples, features), samples / FOLDS
        hats = 2 * FOLDS * fold * min(fold, rank) * max(fold, rank) * len(classes)
        found = _ridge(samples, 0, features, sum(classes), settings) + Work(matrices=hats)
        for number in classes:
            for per_class, draws in DRAWS.items():
                drawn = min(per_class * number, samples)
                told = Work(calls=FIT, matrices=2 * (drawn + samples) * features * number)
                few = _ridge(drawn, 0, features, number, settings) + told
                found += few.times(draws if drawn < samples else 0)
        return found

    return done + _of_layers(run, fits, 1, workers)


def _of_layers(run: Run, fits: Callable[[int], Work], kinds: int, workers: int) -> Work:
    """What is fitted, in so many kinds, to the features of every cell; and once to the pixels, as if they were some."""
    done = fits(run.images.pixels)
    for layer in run.layers:
        of_cell = fits(layer.features) + _reading(run, layer).times(kinds)
        done += _side_by_side(of_cell, run.seeds * run.steps, workers)
    return done


def _through(run: Run, settings: TransferSettings, samples: int, workers: int) -> Work:
    """Images other than the run's own pass through every checkpoint."""
    if settings.dataset == run.settings.dataset:
        return Work()
    through = _checkpoint(run) + Work(passes=samples)
    return _side_by_side(through.times(run.steps), run.seeds, workers)


def _dataset(run: Run) -> Work:
    """The images are read, as numbers that networks take."""
    return Work(bytes=run.inputs.element_size() * (run.images.train + run.images.test) * run.images.pixels)


def _checkpoint(run: Run) -> Work:
    """A network is made and gets its weights, and something small of it is kept."""
    return Work(cells=1, bytes=run.weights)


def _cell_bytes(run: Run, layer: Layer) -> int:
    """Bytes in memory of the activations of a checkpoint."""
    return (run.train + run.test) * layer.features * np.dtype(run.settings.activations.dtype).itemsize


def _reading(run: Run, layer: Layer) -> Work:
    """The activations of a checkpoint are read, and what is measured of them is kept."""
    return Work(cells=1, bytes=_cell_bytes(run, layer))


def _classify(
    features: int, train: int, test: int, classes: list[int], settings: ClassifierSettings, shuffles: int
) -> Work:
    """Every classifier, for labels of so many classes, and a ridge for shuffled labels beside them."""
    done = Work()
    for classifier in settings.classifiers:
        if classifier == "ridge":
            done += _ridge(train, test, features, sum(classes) * (1 + shuffles), settings)
        elif classifier == "logistic":
            done += Work(matrices=4 * train * features * sum(classes)).times(LOGISTIC_PASSES)
        else:
            for number in classes:
                operations = _trained(2 * features * number, train, test, settings)
                updates = settings.epochs * math.ceil(train / settings.batch_size)
                done += Work(products=operations, calls=CLASSIFIER * updates)
    return done


def _ridge(
    samples: int, tests: int, features: int, targets: int, settings: RidgeSettings, single: bool = False
) -> Work:
    """A factorisation, the coefficients of all targets, and the predictions of the test samples (`measures.ridge`).

    Targets in single precision are multiplied with the principal axes of the features, and not with the features.
    """
    order, longer = min(samples, features), max(samples, features)
    dual, shared = features > samples, 0.0
    if settings.solver == "randomised" or (settings.solver == "auto" and order > settings.exact_limit):
        order, dual = min(settings.rank, order), False
        shared = 2.0 * samples * features * order * SKETCH_PASSES
    shared += 2 * order**2 * longer
    if settings.selection == "loo":
        shared += 2 * samples * order * targets * (len(RIDGES) + 1)
    rows = samples + tests
    if dual:
        shared += 2 * tests * samples * features
    if single:
        shared += 2 * (samples if dual else rows * features) * order
        return Work(matrices=shared, products=2 * rows * order * targets, spectra=order**3)
    multiplied = rows * order if dual else (rows + order) * features
    return Work(matrices=shared + 2 * multiplied * targets, spectra=order**3)


def _trained(operations: float, train: int, test: int, settings: DecodeSettings | ClassifierSettings) -> float:
    """Operations of the epochs of a module that takes so many for a sample, and of a look at all samples after them."""
    return operations * (settings.epochs * UPDATE * train + train + test)


def decoder_operations(decoder: Decoder, layer: Layer, images: Images, settings: DecodeSettings) -> float:
    """Floating-point operations of a forward pass of one sample.

    Deconvolution: Linear(p, max(p, 64)) of flat features, Conv3×3(c, c) of maps; transposed convolutions with kernels
    of 4×4 that double the maps, …, 128, 64 channels times `width`, then to the image.
    """
    features = layer.features
    if decoder == "linear-adam":
        return 2.0 * features * images.pixels
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
    return 2.0 * products


def _side_by_side(work: Work, pieces: int, workers: int) -> Work:
    """So many pieces of work, as many at a time as there are workers."""
    return work.times(math.ceil(pieces / min(workers, pieces)) if pieces else 0)
