"""What each stage keeps of a run: the arrays of its output, as the stage writes them.

Compression is what was measured on finished runs: the default project, F0 on MNIST and VGG-8 on CIFAR-10
(docs/log.md). A test compares with small projects.
"""

import math

import numpy as np

from phasescope.budget.runs import Images, Run, kept_of
from phasescope.budget.stores import Array, Store
from phasescope.measures.advise import DRAWS
from phasescope.models import state
from phasescope.models.optimisers import MOMENTS
from phasescope.params.information import NOISY
from phasescope.params.transfer import TransferSettings

#: What is looked at while a network is trained.
LOOKED_AT = ("train_loss", "train_accuracy", "test_loss", "test_accuracy")

# Bytes on the disk of a byte in memory, under zstd.
WEIGHTS, LOSSES, ERRORS, ACCURACIES = 0.92, 0.9, 0.89, 0.07  # float32
COUNTING, CORRECT, RANDOM_STATE = 0.14, 0.1, 0.51
#: float64: measures, and shares that are often zero or one.
MEASURES, SHARES = 1.0, 0.3
#: Kernels, which hold every number twice.
KERNELS = 0.58
#: Fits to few labels: accuracies, of which some are not there, and counts of up to 20.
FEW_ACCURACY, FEW_CORRECT = 0.3, 0.46
#: Activations, by what is read and by dtype. A ReLU leaves about half of its outputs zero, an average few of them.
ACTIVATIONS = {
    "softmax": {"float16": 0.85, "float32": 0.9, "float64": 0.52},
    "dense": {"float16": 0.91, "float32": 0.92, "float64": 0.57},
    "averaged": {"float16": 0.84, "float32": 0.89, "float64": 0.57},
    "rectified": {"float16": 0.57, "float32": 0.55, "float64": 0.32},
    # Rows of a table, over and over: modulo 59 and 96, and of 120 permutations.
    "embedded": {"float16": 0.03, "float32": 0.05, "float64": 0.06},
}
#: Images at the height and width that they have: these, the dtype that they are stored in, and the same of it.
NATIVE = {
    "digits": (8, "float16", 0.26),
    "mnist": (28, "uint8", 0.21),
    "fashion-mnist": (28, "uint8", 0.56),  # as large as the published archives are
    **dict.fromkeys(("cifar10", "cifar100"), (32, "uint8", 0.95)),
}
#: At other heights and widths, in float16; and of folders, in uint8.
RESAMPLED, PHOTOGRAPHS = 0.8, 0.95
#: Attributes of the feature-strength model, which are zeros but for one block.
BLOCKS = 0.01
#: Bytes on the disk of a pair of one-hot tokens: 5.3 and 5.0 modulo 59 and 96, 3.2 of 120 permutations.
PAIR = 5
#: Standardised pixels of uint8 images in float16, of a byte that the images themselves take.
STANDARDISED = 0.7


def dataset(images: Images) -> Store:
    """datasets/<name>."""
    count, pixels = images.train + images.test, (images.resolution, images.resolution)
    return Store(
        {
            "images": Array((count, images.channels, *pixels), images.dtype, images.ratio),
            **dict.fromkeys(("sample", "label"), _counting(count)),
            "split": _texts(count, 0.01),
            **dict.fromkeys(("mean", "std"), _measures(images.channels)),
            **({"value": _measures(count)} if images.values else {}),
        }
    )


def train(run: Run) -> Store:
    """runs/<run>/train."""
    seeds, steps, iterations = run.seeds, run.steps, run.updates
    table, dtype, optimiser = state.table(run.network), run.settings.model.dtype, run.settings.train.optimiser
    elements = sum(entry["length"] for entry in table)
    trainable = sum(parameter.numel() for parameter in run.network.parameters())
    # Zero where nothing moves a parameter, and nothing is kept of how it moved.
    kept = run.updates and (optimiser != "sgd" or run.settings.train.momentum)
    moments = WEIGHTS * run.moved if kept else 0.0
    return Store(
        {
            **_labels(run, "seed", "step"),
            "iteration": _counting(iterations),
            "weights": Array((seeds, steps, elements), dtype, WEIGHTS, cell=2, entries=len(table)),
            "last_weights": Array((seeds, elements), dtype, WEIGHTS, cell=1),
            "last_moments": Array((seeds, len(MOMENTS[optimiser]), trainable), dtype, moments, cell=1),
            "last_rng": Array((seeds, 5056 if iterations else 0), "uint8", RANDOM_STATE),
            "loss": Array((seeds, iterations), dtype, LOSSES),
            "accuracy": Array((seeds, iterations), dtype, ACCURACIES),
            "sha256": _texts(seeds * steps, 36),
            "evaluation": _counting(run.evaluations),
            **dict.fromkeys(LOOKED_AT, _measures(seeds, run.evaluations)),
        },
        fingerprints=seeds * steps + seeds,
        hashes=seeds * steps,
    )


def training(run: Run) -> Store:
    """results/<run>/training."""
    steps = run.evaluations
    return Store(
        {
            "seed": _counting(run.seeds),
            "step": _counting(steps),
            **dict.fromkeys(LOOKED_AT, _measures(run.seeds, steps)),
        }
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
            ACTIVATIONS[layer.content][dtype] if layer.content in ACTIVATIONS else _pixels(run.images),
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
            "batchnorm": Array((seeds, steps, statistics), run.settings.model.dtype, WEIGHTS, entries=len(table)),
            **dict.fromkeys(("loss", "accuracy"), _measures(seeds, steps, 2)),
            "weight_norm": _measures(seeds, steps),
        },
        fingerprints=seeds * steps * (1 + len(taps)),
    )


def _pixels(images: Images) -> float:
    """Bytes on the disk of a byte of standardised pixels."""
    return images.ratio * (STANDARDISED if images.dtype == "uint8" else 1.0)


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


def information(run: Run) -> Store:
    """results/<run>/information."""
    estimators = run.settings.information.estimators
    cells = (*run.cells, len(estimators))
    noisy = sum(estimator in NOISY for estimator in estimators)
    bounds = ("i_x_lower", "i_x_upper", "i_y_lower", "i_y_upper", "noise_variance", "total_variance")
    return Store(
        {
            **_labels(run, "seed", "step", "layer"),
            "estimator": _texts(cells[-1]),
            **dict.fromkeys(("i_x", "i_y"), _measures(*cells)),
            # Of the others they are NaN, which take no space.
            **(dict.fromkeys(bounds, _measures(*cells, ratio=noisy / cells[-1])) if noisy else {}),
            **dict.fromkeys(("h_x", "h_y"), _measures()),
        },
        fingerprints=int(np.prod(cells)),
    )


def complexity(run: Run) -> Store:
    """results/<run>/complexity."""
    asked, cells = run.settings.complexity.measures, (run.seeds, run.steps)
    layers, bends, parts = len(run.hidden_layers), len(run.nonlinearities), 3
    kept = _labels(run, "seed", "step")
    if "linear-mapping-number" in asked and layers:
        kept |= {"layer": _texts(layers), "linear_mapping_number": _measures(*cells, layers)}
    if "local-complexity" in asked and bends:
        kept |= {
            "nonlinearity": _texts(bends),
            "part": _texts(parts),
            "neurons": _counting(bends),
            "local_complexity": _measures(*cells, bends, parts),
            "total_complexity": _measures(*cells, parts),
            "radius": _measures(*cells, ratio=SHARES),
        }
    return Store(kept, fingerprints=run.seeds * run.steps * bool(asked))


def kernel(run: Run) -> Store:
    """results/<run>/kernel."""
    settings, cells, probes = run.settings.kernel, (run.seeds, run.steps), run.probes
    pairs = len(run.pairs)
    kept = _labels(run, "seed", "step")
    if "tangent-kernel" in settings.measures:
        order = (probes, run.outputs) if settings.outputs == "full" else (probes,)
        # With a single layer it is the same at every checkpoint, and takes the space of one.
        same = 1.0 if pairs else 1 / (run.seeds * run.steps)
        derived = ("trace", "effective_rank", "target_alignment", "relative_change", "cosine")
        kept |= {
            **dict.fromkeys(("probe", "label"), _counting(probes)),
            "tangent_kernel": _measures(*cells, *order, *order, ratio=KERNELS * same),
            "eigenvalue": _measures(*cells, probes, ratio=same),
            **dict.fromkeys(derived, _measures(*cells, ratio=same)),
        }
    if "layer-alignment" in settings.measures and pairs:
        kept |= {
            "pair": _texts(pairs, 25),
            "width": _counting(pairs),
            **dict.fromkeys(("alignment", "relative_alignment", "norm_product"), _measures(*cells, pairs)),
        }
    return Store(kept, fingerprints=run.seeds * run.steps * bool(settings.measures))


def transfer(run: Run, settings: TransferSettings, target: Images) -> Store:
    """results/<run>/transfer-<dataset>."""
    labels = len(settings.labels)
    cells = (*run.cells, labels, len(settings.classifiers))
    _, test = kept_of(target, settings)
    classes = max(LABELS.get(label, target.classes) for label in settings.labels)
    return Store(
        {
            **_labels(run, "seed", "step", "layer"),
            "label": _texts(labels),
            "classifier": _texts(cells[-1]),
            **dict.fromkeys(("sample", "index"), _counting(test)),
            "class_name": _texts(labels * classes),
            **dict.fromkeys(("accuracy", "train_accuracy"), _measures(*cells)),
            "correct": Array((*cells, test), "int8", CORRECT),
            "majority_accuracy": _measures(labels),
            "prior": _measures(labels, classes),
            "pixel_accuracy": _measures(labels, cells[-1]),
        },
        fingerprints=int(np.prod(run.cells)) * cells[-1],
    )


def advise(run: Run, settings: TransferSettings, target: Images) -> Store:
    """results/<run>/advise-<dataset>."""
    labels, budgets = len(settings.labels), len(DRAWS)
    samples = sum(kept_of(target, settings))
    classes = max(LABELS.get(label, target.classes) for label in settings.labels)
    return Store(
        {
            **_labels(run, "seed", "step", "layer"),
            "label": _texts(labels),
            "per_class": _counting(budgets),
            **dict.fromkeys(("sample", "index"), _counting(samples)),
            "class_name": _texts(labels * classes),
            "accuracy": _measures(*run.cells, labels),
            "correct": Array((*run.cells, labels, samples), "int8", CORRECT),
            "few_accuracy": _measures(*run.cells, labels, budgets, max(DRAWS.values()), ratio=FEW_ACCURACY),
            "few_correct": Array((*run.cells, labels, budgets, samples), "int8", FEW_CORRECT),
            "held_out": Array((labels, budgets, samples), "int64", COUNTING / 2),  # small numbers
            "count": _counting(labels, classes),
            "pixel_accuracy": _measures(labels),
        },
        fingerprints=int(np.prod(run.cells)),
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
