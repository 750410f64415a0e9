"""What each stage keeps of a run: the arrays of its output, as the stage writes them.

Compression is what was measured on finished runs: the default project, F0 on MNIST and VGG-8 on CIFAR-10
(docs/log.md). A test compares with small projects.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from phasescope.budget.stores import Array, Store
from phasescope.models import state
from phasescope.models.taps import shapes, tap_modules
from phasescope.models.zoo import BasicBlock, Network, build
from phasescope.params.activations import ActivationsSettings, Tap
from phasescope.params.settings import RunSettings
from phasescope.params.transfer import TransferSettings
from phasescope.schedule import checkpoint_steps

# Bytes on the disk of a byte in memory, under zstd.
WEIGHTS, LOSSES, ERRORS, ACCURACIES = 0.92, 0.9, 0.89, 0.07  # float32
COUNTING, CORRECT, RANDOM_STATE = 0.14, 0.1, 0.51
#: float64: measures, and shares that are often zero or one.
MEASURES, SHARES = 1.0, 0.3
#: Activations, by what is read and by dtype. A ReLU leaves about half of its outputs zero, an average few of them.
ACTIVATIONS = {
    "softmax": {"float16": 0.85, "float32": 0.9, "float64": 0.52},
    "dense": {"float16": 0.91, "float32": 0.92, "float64": 0.57},
    "averaged": {"float16": 0.84, "float32": 0.89, "float64": 0.57},
    "rectified": {"float16": 0.57, "float32": 0.55, "float64": 0.32},
}
#: Images: height and width that they are read at, and the same there; at other resolutions; and of folders, in uint8.
NATIVE = {"digits": (8, 0.26), "mnist": (28, 0.15), "cifar10": (32, 0.65), "cifar100": (32, 0.65)}
RESAMPLED, PHOTOGRAPHS = 0.8, 0.95


class Images(NamedTuple):
    """What must be known of a dataset to tell how much is kept of it."""

    channels: int
    train: int
    test: int
    classes: int
    resolution: int
    dtype: str
    ratio: float  #: bytes on the disk of a byte in memory

    @property
    def pixels(self) -> int:
        """Values of an image."""
        return self.channels * self.resolution**2


@dataclass(frozen=True)
class Layer:
    """A tap of a run."""

    name: str
    shape: tuple[int, ...]
    content: str  #: a key of `ACTIVATIONS`, or "image"
    trained: bool  #: whether decoders are trained on it

    @property
    def features(self) -> int:
        """Numbers kept of a sample."""
        return int(np.prod(self.shape))


class Run:
    """What must be known of a run to tell how much is kept of it, and how much is computed."""

    def __init__(self, settings: RunSettings, images: Images) -> None:
        self.settings, self.images = settings, images
        with torch.device("meta"):
            self.network = build(settings.model, images.channels, images.resolution, images.classes)
        kept = settings.activations
        self.seeds, self.steps = len(settings.train.seeds), len(checkpoint_steps(settings.train.iterations))
        self.train, self.test = kept_of(images, kept)
        given = shapes(self.network, kept.taps, images.channels, images.resolution)
        pooled = [Tap(name=tap.name) for tap in kept.taps if tap.pool is not None]
        whole = given | shapes(self.network, pooled, images.channels, images.resolution) if pooled else given
        decoded = settings.decode.trained_taps
        self.layers = [
            Layer(name, shape, _content(self.network, name, shape != whole[name]), decoded is None or name in decoded)
            for name, shape in given.items()
        ]

    @property
    def cells(self) -> tuple[int, int, int]:
        """Seeds, steps, layers."""
        return self.seeds, self.steps, len(self.layers)

    @property
    def decoder_fits(self) -> int:
        """Decoders that are fitted: the exact one to every layer, those that are trained where they are asked for."""
        trained = sum(layer.trained for layer in self.layers)
        layers = sum(len(self.layers) if name == "linear" else trained for name in self.settings.decode.decoders)
        return self.seeds * self.steps * layers

    @property
    def classifier_fits(self) -> int:
        """Classifiers that are fitted to the classes of the run's own dataset."""
        return self.seeds * self.steps * len(self.layers) * len(self.settings.probe.classifiers)


def kept_of(images: Images, settings: ActivationsSettings | TransferSettings) -> tuple[int, int]:
    """Training and test samples that pass through the checkpoints."""
    return min(settings.train_samples, images.train), min(settings.test_samples or images.test, images.test)


def _content(network: Network, name: str, pooled: bool) -> str:
    """What kind of numbers a tap gives."""
    if name in ACTIVATIONS:
        return name
    module: nn.Module = tap_modules(network, [Tap(name=name)])[name]
    if isinstance(module, nn.Flatten):
        before = list(network.children())[:-2]
        if not before:
            return "image"
        module = before[-1]
    while isinstance(module, nn.Sequential):
        module = module[-1]
    if pooled or isinstance(module, nn.AdaptiveAvgPool2d):
        return "averaged"
    return "rectified" if isinstance(module, nn.ReLU | BasicBlock) else "dense"


def dataset(images: Images) -> Store:
    """datasets/<name>."""
    count, pixels = images.train + images.test, (images.resolution, images.resolution)
    return Store(
        {
            "images": Array((count, images.channels, *pixels), images.dtype, images.ratio),
            **dict.fromkeys(("sample", "label"), _counting(count)),
            "split": _texts(count, 0.01),
            **dict.fromkeys(("mean", "std"), _measures(images.channels)),
        }
    )


def train(run: Run) -> Store:
    """runs/<run>/train."""
    seeds, steps, iterations = run.seeds, run.steps, run.settings.train.iterations
    table = state.table(run.network)
    elements = sum(entry["length"] for entry in table)
    trainable = sum(parameter.numel() for parameter in run.network.parameters())
    return Store(
        {
            **_labels(run, "seed", "step"),
            "iteration": _counting(iterations),
            "weights": Array((seeds, steps, elements), "float32", WEIGHTS, cell=2, entries=len(table)),
            "last_weights": Array((seeds, elements), "float32", WEIGHTS, cell=1),
            "last_momentum": Array((seeds, trainable), "float32", WEIGHTS, cell=1),
            "last_rng": Array((seeds, 5056), "uint8", RANDOM_STATE),
            "loss": Array((seeds, iterations), "float32", LOSSES),
            "accuracy": Array((seeds, iterations), "float32", ACCURACIES),
            "sha256": _texts(seeds * steps, 36),
            **dict.fromkeys(("test_loss", "test_accuracy"), _measures(seeds, steps)),
        },
        fingerprints=seeds * steps + seeds,
        hashes=seeds * steps,
    )


def activations(run: Run) -> Store:
    """runs/<run>/activations."""
    seeds, steps, samples = run.seeds, run.steps, run.train + run.test
    table = state.batchnorm_table(run.network)
    dtype = run.settings.activations.dtype
    taps = {
        layer.name: Array(
            (seeds, steps, samples, layer.features),
            dtype,
            ACTIVATIONS[layer.content][dtype] if layer.content in ACTIVATIONS else run.images.ratio,
            cell=2,
        )
        for layer in run.layers
    }
    statistics = sum(entry["length"] for entry in table)
    return Store(
        {
            **_labels(run, "seed", "step"),
            **taps,
            **dict.fromkeys(("sample", "index", "label"), _counting(samples)),
            "split": _texts(samples, 0.01),
            "part": _texts(2),
            "batchnorm": Array((seeds, steps, statistics), "float32", WEIGHTS, entries=len(table)),
            **dict.fromkeys(("loss", "accuracy"), _measures(seeds, steps, 2)),
            "weight_norm": _measures(seeds, steps),
        },
        fingerprints=seeds * steps * (1 + len(taps)),
    )


def decode(run: Run) -> Store:
    """results/<run>/decode."""
    settings = run.settings.decode
    asked, cells = set(settings.decoders), (*run.cells, len(settings.decoders))
    fits = run.decoder_fits
    filled = fits / np.prod(cells)  # the others are NaN, which take no space
    names = ["test_mse", "train_mse", "fvu"]
    more: dict[str, Array] = {}
    if "linear" in asked:
        names += ["ridge", "rank"]
    if "linear-adam" in asked:
        names += ["optimum_mse", "excess"]
    if {"linear", "linear-adam"} <= asked:
        names += ["test_excess"]
    if asked - {"linear"}:
        learned = (fits - ("linear" in asked) * np.prod(run.cells)) / np.prod(cells)
        more = {"epoch": _counting(settings.epochs), "epoch_mse": _measures(*cells, settings.epochs, ratio=learned)}
    return Store(
        {
            **_labels(run, "seed", "step", "layer"),
            "decoder": _texts(cells[-1]),
            "sample": _counting(run.test),
            **dict.fromkeys(names, _measures(*cells)),
            **more,
            "error": Array((*cells, run.test), "float32", ERRORS * filled),
            "baseline_error": Array((run.test,), "float32", ERRORS),
            "baseline_mse": _measures(),
        },
        fingerprints=fits,
    )


def probe(run: Run) -> Store:
    """results/<run>/probe."""
    classifiers = run.settings.probe.classifiers
    cells = (*run.cells, len(classifiers))
    names = ["accuracy", "train_accuracy"]
    if "ridge" in classifiers:
        names += ["ridge", "shuffled_accuracy"]
    if "logistic" in classifiers:
        names += ["gradient"]
    return Store(
        {
            **_labels(run, "seed", "step", "layer"),
            "classifier": _texts(cells[-1]),
            "sample": _counting(run.test),
            **dict.fromkeys(names, _measures(*cells)),
            "correct": Array((*cells, run.test), "int8", CORRECT),
            **dict.fromkeys(("network_accuracy", "network_loss", "weight_norm"), _measures(run.seeds, run.steps)),
            "pixel_accuracy": _measures(cells[-1]),
            "majority_accuracy": _measures(),
        },
        fingerprints=int(np.prod(cells)),
    )


def distributions(run: Run) -> Store:
    """results/<run>/distributions."""
    settings, classes = run.settings.distributions, run.images.classes
    shown = (run.seeds, len(run.layers), len(settings.fixed) + settings.selective)
    # A bin takes one byte of its eight if it holds a sample. With n samples of a class and b bins a share of
    # 1 − exp(−0.75 n/b) do: fitted to digits (n = 50, b = 12 and 60), CIFAR-10 (100, 60) and MNIST (500, 60).
    occupied = -math.expm1(-0.75 * run.test / classes / settings.bins)
    names = ("class_variance", "js_divergence", "js_divergence_shuffled", "selectivity", "strength_ratio")
    return Store(
        {
            **_labels(run, "seed", "step", "layer"),
            "class": _counting(classes),
            "count": _counting(classes + 1),
            **dict.fromkeys((*names, "zero_fraction"), _measures(*run.cells)),
            "zero_fraction_class": _measures(*run.cells, classes, ratio=SHARES),
            "selective_classes": _measures(*run.cells, classes + 1, ratio=SHARES / 6),
            "density": _measures(*shown, run.steps, classes, settings.bins, ratio=0.12 * occupied),
            "zero": _measures(*shown, run.steps, classes, ratio=SHARES / 6),
            "edge": _measures(*shown, settings.bins + 1, ratio=SHARES * 2),
            "feature_index": _counting(*shown),
        },
        fingerprints=int(np.prod(run.cells)) + run.seeds * len(run.layers),
    )


def transfer(run: Run, settings: TransferSettings, target: Images) -> Store:
    """results/<run>/transfer-<dataset>."""
    labels = len(settings.labels)
    cells = (*run.cells, labels, len(settings.classifiers))
    _, test = kept_of(target, settings)
    classes = max(LABELS.get(label, target.classes) for label in settings.labels)
    return Store(
        {
            **_labels(run, "seed", "step", "layer"),
            **dict.fromkeys(("label", "classifier"), _texts(labels)),
            "sample": _counting(test),
            "class": _counting(classes),
            **dict.fromkeys(("accuracy", "train_accuracy"), _measures(*cells)),
            "correct": Array((*cells, test), "int8", CORRECT),
            "majority_accuracy": _measures(labels),
            "prior": _measures(labels, classes),
            "pixel_accuracy": _measures(labels, cells[-1]),
        },
        fingerprints=int(np.prod(run.cells)) * cells[-1],
    )


#: Classes of the labels that do not depend on the dataset.
LABELS = {"ink": 2, "quadrant": 4, "colour": 3, "colour-raw": 3}


def _labels(run: Run, *dims: str) -> dict[str, Array]:
    labels = {"seed": _counting(run.seeds), "step": _counting(run.steps), "layer": _texts(len(run.layers))}
    return {dim: labels[dim] for dim in dims}


def _counting(*shape: int) -> Array:
    return Array(shape, "int64", COUNTING)


def _texts(count: int, length: float = 15) -> Array:
    return Array((count,), "text", length)


def _measures(*shape: int, ratio: float = MEASURES) -> Array:
    return Array(shape, "float64", ratio)
