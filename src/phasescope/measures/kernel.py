"""When features are learned: the tangent kernel of a network and its shape, and how far its layers are aligned."""

import numpy as np
import torch
import xarray as xr

from phasescope.errors import UserError
from phasescope.measures.alignment import alignment, matrices, pairs
from phasescope.measures.samples import Samples, Variable
from phasescope.measures.tangent import tangent_kernel
from phasescope.params.kernel import KernelSettings

#: Which kernel it is, beside the array.
WHICH = {
    "of": "logits",
    "parameters": "all that are trained, alike (not weighted by learning rates)",
    "batchnorm": "statistics are constants, weights and biases are parameters",
    "samples": "test",
}
KERNEL = Variable("empirical neural tangent kernel")
SHAPE = {
    "eigenvalue": Variable("largest eigenvalues of the tangent kernel", dims=("rank",)),
    "trace": Variable("trace of the tangent kernel"),
    "effective_rank": Variable("effective rank of the tangent kernel"),
    "target_alignment": Variable("centred alignment of the tangent kernel with the classes"),
}
COURSE = {
    "relative_change": Variable("change of the tangent kernel since the first step, as a share of its norm there"),
    "cosine": Variable("cosine of the tangent kernel to that at the first step"),
}
LAYERS = {
    "alignment": Variable("layer alignment", dims=("pair",)),
    "relative_alignment": Variable("layer alignment, as a multiple of that of random layers", dims=("pair",)),
    "norm_product": Variable("product of the Frobenius norms of the layers", dims=("pair",)),
}
WIDTH = Variable("channels that the layers share", dims=("pair",))


def kernel(network: torch.nn.Module, samples: Samples, settings: KernelSettings) -> xr.Dataset:
    """The measures that `settings` ask for, of the network at one checkpoint.

    Args:
        network: in eval mode, a function of each sample alone.
        samples: of which some test samples are taken, always the same (`probes`).
        settings: see `KernelSettings`.

    Returns:
        `tangent_kernel` (probe, other_probe), or (probe, output, other_probe, other_output) if it is full; its largest
        `eigenvalue` (rank), as many as there are probes; `trace`, `effective_rank`, and the `target_alignment` of its
        mean over outputs (). `probe` is the place among the recorded samples, its `label` the class.
        `alignment`, `relative_alignment` (ζ√h) and `norm_product` (pair), with the coordinate `width` h; nothing of a
        network with a single layer.

    Raises:
        UserError: the kernel is not finite.
    """
    chosen = probes(samples, settings.probes)
    inputs = torch.from_numpy(samples.inputs[chosen].reshape(-1, *samples.image)).to(next(network.parameters()))
    result = xr.Dataset()
    if "tangent-kernel" in settings.measures:
        found = tangent_kernel(network, inputs, settings.outputs).numpy()
        if not np.isfinite(found).all():
            raise UserError(
                "a tangent kernel holds NaN or infinite values, for so do the weights: lower train.learning_rate if "
                "training diverged, or set kernel.measures to [] for this run"
            )
        dims = ("probe", "other_probe") if found.ndim == 2 else ("probe", "output", "other_probe", "other_output")
        attributes = {**KERNEL.attributes, **WHICH, "outputs": settings.outputs}
        result["tangent_kernel"] = (dims, found, attributes)
        for name, value in shape(found, samples.labels[chosen]).items():
            result[name] = (SHAPE[name].dims, value, SHAPE[name].attributes)
        result = result.assign_coords(
            probe=("probe", chosen, {"long_name": "place among the recorded samples"}),
            label=("probe", samples.labels[chosen], {"long_name": "class"}),
        )
    if "layer-alignment" in settings.measures:
        result = result.merge(_layers(network, inputs))
    return result


def probes(samples: Samples, count: int) -> np.ndarray:
    """Places of at most so many test samples, in order: the first ones of every class in turn.

    Where that would leave classes with a single one, so that nothing could be seen of them, it is every so manieth
    class that is shown with two.
    """
    test = np.flatnonzero(samples.test)
    classes, label = np.unique(samples.labels[test], return_inverse=True)
    shown = np.linspace(0, len(classes) - 1, min(len(classes), max(1, count // 2))).round().astype(int)
    by_class = np.argsort(label, kind="stable")
    place = np.empty(len(test), dtype=int)
    place[by_class] = np.arange(len(test)) - np.searchsorted(label[by_class], label[by_class])
    order = np.lexsort((label, place, ~np.isin(label, shown)))
    return np.asarray(np.sort(test[order[:count]]))


def shape(kernel: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray | float]:
    """The variables of `SHAPE` of a kernel (probe, probe) or (probe, output, probe, output) and the classes (probe,).

    Effective rank: the exponential of the entropy of the eigenvalues as shares of their sum (Roy & Vetterli 2007).
    """
    square = kernel.reshape(np.prod(kernel.shape[: kernel.ndim // 2]), -1)
    eigenvalues = np.linalg.eigvalsh(square)[::-1].clip(min=0.0)
    total = eigenvalues.sum()
    shares = eigenvalues[eigenvalues > 0] / total
    mean = kernel if kernel.ndim == 2 else np.einsum("icjc->ij", kernel)
    return {
        "eigenvalue": eigenvalues[: len(kernel)],
        "trace": float(total),
        "effective_rank": float(np.exp(-(shares * np.log(shares)).sum())) if len(shares) else np.nan,
        "target_alignment": target_alignment(mean, labels),
    }


def target_alignment(kernel: np.ndarray, labels: np.ndarray) -> float:
    """Cosine of a kernel (sample, sample) and that of the one-hot classes, both centred (Cortes et al. 2012).

    *Algorithms for Learning Kernels Based on Centered Alignment* (JMLR 13): 1 if the kernel tells the classes apart and
    nothing else, around 0 if it does not tell them, NaN if there is a single class or the kernel is constant.
    """
    centring = np.eye(len(kernel)) - 1 / len(kernel)
    given = centring @ kernel @ centring
    wanted = centring @ (labels[:, None] == labels) @ centring
    norms = float(np.linalg.norm(given) * np.linalg.norm(wanted))
    return float((given * wanted).sum() / norms) if norms > 0 and len(np.unique(labels)) > 1 else np.nan


def over_course(measured: xr.Dataset) -> xr.Dataset:
    """What was measured of all checkpoints of a run, with the variables of `COURSE` (seed, step) if it has kernels."""
    if "tangent_kernel" not in measured:
        return measured
    kernels = measured.tangent_kernel.values
    kernels = kernels.reshape(*kernels.shape[:2], -1)
    first = kernels[:, :1]
    norm, start = np.linalg.norm(kernels, axis=2), np.linalg.norm(first, axis=2)
    with np.errstate(invalid="ignore", divide="ignore"):
        values = {
            "relative_change": np.linalg.norm(kernels - first, axis=2) / start,
            "cosine": (kernels * first).sum(axis=2) / (norm * start),
        }
    return measured.assign({name: (("seed", "step"), value, COURSE[name].attributes) for name, value in values.items()})


def _layers(network: torch.nn.Module, inputs: torch.Tensor) -> xr.Dataset:
    """The variables of `LAYERS`, of all pairs of the network."""
    found = pairs(network, inputs)
    if not found:
        return xr.Dataset()
    weights = [matrices(network, pair) for pair in found]
    width = np.array([len(first) for first, _ in weights])
    aligned, norms = np.array([alignment(*of_pair) for of_pair in weights]).T
    values = {"alignment": aligned, "relative_alignment": aligned * np.sqrt(width), "norm_product": norms}
    named = {"long_name": "layers, the second of which reads what the first gives"}
    return xr.Dataset(
        {name: (LAYERS[name].dims, value, LAYERS[name].attributes) for name, value in values.items()},
        {
            "pair": ("pair", np.array([pair.name for pair in found], dtype=object), named),
            "width": (WIDTH.dims, width, WIDTH.attributes),
        },
    )
