"""The tangent kernel against explicit Jacobians and the closed form of the two-layer linear network."""

import numpy as np
import pytest
import torch
from torch import nn

from phasescope.measures.kernel import over_course, probes, shape, target_alignment
from phasescope.measures.samples import Samples
from phasescope.measures.tangent import tangent_kernel
from phasescope.models import zoo
from phasescope.params.models import ModelSettings

CPU = torch.device("cpu")


def network(name, width, channels, resolution, classes, dtype="float64"):
    """A network in eval mode whose weights and BatchNorm statistics are not the initial ones."""
    torch.manual_seed(0)
    built = zoo.build(ModelSettings(name=name, width=width, dtype=dtype), channels, resolution, classes)
    with torch.no_grad():
        for parameter in built.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
        for _ in range(3):
            built(inputs_of(name, 8, channels, resolution, built.head.weight.dtype))
    return zoo.place(built.eval(), CPU)


def inputs_of(name, count, channels, resolution, dtype=torch.float64):
    if name in ("embedding-mlp", "transformer-1", "transformer-2"):
        tokens = torch.randint(channels // 2, (count, 2))
        return nn.functional.one_hot(tokens, channels // 2).to(dtype).view(count, channels, 1, 1)
    return torch.randn(count, channels, resolution, resolution, dtype=dtype)


def jacobian(network, inputs):
    """(sample, output, parameter), one gradient after the other."""
    parameters = list(network.parameters())
    found = []
    for sample in inputs:
        logits = network(sample[None])[0]
        rows = [torch.autograd.grad(logit, parameters, retain_graph=True) for logit in logits]
        found.append(torch.stack([torch.cat([part.flatten() for part in row]) for row in rows]))
    return torch.stack(found).double()


@pytest.mark.parametrize(
    ("name", "width", "channels", "resolution", "classes"),
    [
        ("f0", 1.0, 1, 8, 4),
        ("vgg8", 0.1, 1, 16, 3),
        ("resnet10", 0.08, 3, 12, 3),
        ("embedding-mlp", 0.2, 14, 1, 7),
        ("transformer-1", 0.2, 10, 1, 5),
        ("transformer-2", 0.1, 10, 1, 5),
    ],
)
def test_it_is_the_product_of_explicit_jacobians_in_blocks_of_any_length(name, width, channels, resolution, classes):
    for dtype, rounding, limits in (("float64", 1e-12, (None, 5000)), ("float32", 1e-6, (None,))):
        given = network(name, width, channels, resolution, classes, dtype)
        inputs = inputs_of(name, 5, channels, resolution, given.head.weight.dtype)
        rows = jacobian(given, inputs)
        full = torch.einsum("icp,jdp->icjd", rows, rows)
        mean = torch.einsum("icjc->ij", full) / classes
        for limit in limits:
            found = tangent_kernel(given, inputs, limit=limit)
            assert found.dtype == torch.float64
            assert (found - mean).norm() < rounding * mean.norm()
            assert (tangent_kernel(given, inputs, "full", limit) - full).norm() < rounding * full.norm()
    assert all(parameter.grad is None for parameter in given.parameters())


class Odd(nn.Module):
    """A layer that is used twice, one that is not used, a grouped convolution, and one whose edges are circular."""

    def __init__(self):
        super().__init__()
        self.unused = nn.Linear(3, 3)
        self.grouped = nn.Conv2d(2, 4, 3, groups=2)
        self.circular = nn.Conv2d(4, 2, 3, padding=1, padding_mode="circular")
        self.twice = nn.Linear(4, 4)
        self.norm = nn.GroupNorm(2, 2)
        self.head = nn.Linear(32, 3, bias=False)

    def forward(self, maps):
        maps = self.norm(self.circular(self.grouped(maps).relu()))
        return self.head(self.twice(self.twice(maps).tanh()).flatten(1))


def test_modules_of_any_kind_and_those_that_are_used_twice_count():
    torch.manual_seed(0)
    odd = Odd().double()
    inputs = torch.randn(4, 2, 6, 6, dtype=torch.float64)
    used = nn.ModuleDict({name: module for name, module in odd.named_children() if name != "unused"})
    rows = []
    for sample in inputs:
        logits = odd(sample[None])[0]
        found = [torch.autograd.grad(logit, list(used.parameters()), retain_graph=True) for logit in logits]
        rows.append(torch.stack([torch.cat([part.flatten() for part in row]) for row in found]))
    full = torch.einsum("icp,jdp->icjd", torch.stack(rows), torch.stack(rows))
    for limit in (None, 1):
        torch.testing.assert_close(tangent_kernel(odd, inputs, "full", limit), full, rtol=1e-11, atol=1e-11)
        mean = torch.einsum("icjc->ij", full) / 3
        torch.testing.assert_close(tangent_kernel(odd, inputs, "mean", limit), mean, rtol=1e-11, atol=1e-11)


def test_of_a_two_layer_linear_network_it_is_the_closed_form():
    """K(x, x') = x x' γ² (|u|² + |w|²) with learning rates that are equal: section 3.2 with η = 1."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        hidden, gamma = int(rng.integers(1, 60)), rng.uniform(0.1, 3)
        u, w = rng.normal(scale=rng.uniform(0.01, 3), size=(2, hidden))
        layers = nn.Sequential(nn.Linear(1, hidden, bias=False), nn.Linear(hidden, 1, bias=False)).double()
        with torch.no_grad():
            layers[0].weight[:, 0], layers[1].weight[0] = torch.from_numpy(w), torch.from_numpy(u)

        class Scaled(nn.Sequential):
            def forward(self, inputs, gamma=gamma):
                return gamma * super().forward(inputs)

        inputs = torch.from_numpy(rng.normal(size=(6, 1)))
        expected = (inputs @ inputs.T).numpy() * gamma**2 * (u @ u + w @ w)
        np.testing.assert_allclose(tangent_kernel(Scaled(layers), inputs), expected, rtol=1e-10)


# --- its shape


def test_the_effective_rank_of_equal_eigenvalues_is_their_number():
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(8, 8)))[0]
    labels = np.arange(8) % 2
    found = shape(rotation @ np.diag([3.0] * 5 + [0.0] * 3) @ rotation.T, labels)
    assert found["effective_rank"] == pytest.approx(5)
    assert found["trace"] == pytest.approx(15)
    np.testing.assert_allclose(found["eigenvalue"], [3] * 5 + [0] * 3, atol=1e-12)
    shares = np.array([0.7, 0.2, 0.1])
    found = shape(np.diag(shares), labels[:3])
    assert found["effective_rank"] == pytest.approx(np.exp(-(shares * np.log(shares)).sum()))
    assert np.isnan(shape(np.zeros((3, 3)), labels[:3])["effective_rank"])


def test_a_full_kernel_has_as_many_eigenvalues_as_probes_and_the_target_of_its_mean():
    rows = np.random.default_rng(0).normal(size=(4, 3, 50))
    full = np.einsum("icp,jdp->icjd", rows, rows)
    found = shape(full, np.array([0, 0, 1, 2]))
    eigenvalues = np.linalg.eigvalsh(full.reshape(12, 12))[::-1]
    np.testing.assert_allclose(found["eigenvalue"], eigenvalues[:4])
    assert found["trace"] == pytest.approx(eigenvalues.sum())
    mean = shape(np.einsum("icjc->ij", full), np.array([0, 0, 1, 2]))
    assert found["target_alignment"] == pytest.approx(mean["target_alignment"])


def test_alignment_with_the_classes():
    labels = np.array([0, 1, 2, 0, 1, 2, 0, 1])
    target = (labels[:, None] == labels).astype(float)
    # What centring takes away, and the scale, do not count.
    shifted = 7 * target + np.arange(8)[:, None] + np.arange(8) + 40
    assert target_alignment(shifted, labels) == pytest.approx(1)
    rng = np.random.default_rng(0)
    features = rng.normal(size=(8, 5))
    onehot = np.eye(3)[labels]
    x, y = (values - values.mean(axis=0) for values in (features, onehot))
    expected = np.square(np.linalg.norm(x.T @ y)) / (np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y))
    assert target_alignment(features @ features.T, labels) == pytest.approx(expected)
    assert np.isnan(target_alignment(target, np.zeros(8)))


def test_the_course_is_told_from_the_first_step(dataset_of):
    first = np.array([[2.0, 1.0], [1.0, 3.0]])
    measured = over_course(dataset_of([first, 1.5 * first, first + np.diag([1.0, -1.0])]))
    np.testing.assert_allclose(measured.relative_change.values[0], [0, 0.5, np.sqrt(2 / 15)])
    cosine = (first * (first + np.diag([1.0, -1.0]))).sum() / np.sqrt(15 * (9 + 4 + 2))
    np.testing.assert_allclose(measured.cosine.values[0], [1, 1, cosine])


@pytest.fixture
def dataset_of():
    from xarray import Dataset

    def make(kernels):
        values = np.stack(kernels)[None]
        coords = {"seed": [0], "step": range(len(kernels))}
        return Dataset({"tangent_kernel": (("seed", "step", "probe", "other_probe"), values)}, coords)

    return make


# --- the probes


def samples_of(labels, train=0):
    labels = np.array(labels)
    return Samples(np.zeros((len(labels), 1)), labels, np.arange(len(labels)) < train, 10, (1, 1, 1))


def test_probes_are_test_samples_of_all_classes_alike():
    labels = [0] * 30 + [1] * 3 + [2] * 10 + [0, 0, 0, 1, 1, 2, 0, 2, 1, 2]
    found = probes(samples_of(labels, train=43), 6)
    assert found.tolist() == [43, 44, 46, 47, 48, 50]
    assert probes(samples_of(labels, train=43), 64).tolist() == list(range(43, 53))
    # A class that has too few leaves its place to the others.
    assert np.bincount(np.array(labels)[probes(samples_of(labels[:43]), 15)]).tolist() == [6, 3, 6]


def test_of_many_classes_some_are_shown_twice():
    labels = np.tile(np.arange(59), 4)
    found = probes(samples_of(labels), 32)
    classes, counts = np.unique(labels[found], return_counts=True)
    assert counts.tolist() == [2] * 16
    assert classes[[0, -1]].tolist() == [0, 58]
    assert set(np.diff(classes).tolist()) <= {3, 4, 5}
