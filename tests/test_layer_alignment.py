"""Layer alignment: against its definition, and which layers of a network are a pair."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from phasescope.measures.alignment import Pair, alignment, matrices, pairs
from phasescope.models import zoo
from phasescope.params.models import ModelSettings


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_it_is_the_definition_by_frobenius_norms():
    first, second = random(7, 12), random(5, 7, seed=1)
    norms = torch.linalg.norm(first) * torch.linalg.norm(second)
    expected = float(torch.linalg.norm(second @ first) / norms), float(norms)
    assert alignment(first, second) == pytest.approx(expected, rel=1e-12)
    single = random(7, 1) @ random(1, 12, seed=2), random(5, 1, seed=3) @ random(7, 1).T
    assert alignment(*single)[0] == pytest.approx(1)
    assert np.isnan(alignment(first, 0 * second)[0])


def test_of_the_two_layer_linear_network_it_is_the_cosine_of_its_vectors():
    for seed in range(10):
        u, w = random(20, seed=seed), random(20, seed=seed + 10)
        zeta, norm = alignment(w[:, None], u[None])
        assert zeta == pytest.approx(abs(float(u @ w / (u.norm() * w.norm()))), rel=1e-10)
        assert norm == pytest.approx(float(u.norm() * w.norm()), rel=1e-12)


@pytest.mark.parametrize(("rows", "width", "columns"), [(10, 64, 64), (4, 16, 100), (1, 50, 1)])
def test_random_layers_have_one_over_the_width_in_the_mean_of_squares(rows, width, columns):
    rng = np.random.default_rng(0)
    second = rng.normal(size=(rows, width))
    squares = [
        alignment(torch.from_numpy(rng.normal(size=(width, columns))), torch.from_numpy(second))[0] ** 2
        for _ in range(600)
    ]
    error = np.std(squares) / np.sqrt(len(squares))
    assert abs(np.mean(squares) - 1 / width) < 4 * error


def test_of_a_layer_turned_at_random_too_whatever_it_is():
    """E ζ² = 1/h also where neither layer is random, as after training."""
    rng = np.random.default_rng(0)
    first, second = np.outer(rng.normal(size=12), rng.normal(size=30)), np.diag(np.geomspace(1, 1e-3, 12))
    squares = []
    for _ in range(2000):
        turned = np.linalg.qr(rng.normal(size=(12, 12)))[0] @ first
        squares.append(alignment(torch.from_numpy(turned), torch.from_numpy(second))[0] ** 2)
    assert abs(np.mean(squares) - 1 / 12) < 4 * np.std(squares) / np.sqrt(len(squares))


# --- of layers of networks


def built(name, channels=1, resolution=16, classes=5, width=0.1):
    torch.manual_seed(0)
    return zoo.build(ModelSettings(name=name, width=width), channels, resolution, classes).eval()


def test_of_two_convolutions_it_is_a_sum_over_the_places_of_both_kernels():
    network = built("vgg8", 3)
    one, two = (network.blocks[place][0].weight.detach().double() for place in (0, 1))
    total = 0.0
    for row, column in np.ndindex(3, 3):
        for other_row, other_column in np.ndindex(3, 3):
            composed = two[:, :, row, column] @ one[:, :, other_row, other_column]
            total += float(composed.square().sum())
    expected = np.sqrt(total) / float(one.norm() * two.norm())
    given = matrices(network, Pair("blocks.0.0", "blocks.1.0"))
    assert [len(given[0]), given[1].shape[1]] == [one.shape[0]] * 2
    assert alignment(*given)[0] == pytest.approx(expected, rel=1e-12)


def test_channels_are_found_behind_flattened_maps_and_sequences():
    network = built("vgg8", resolution=64)
    assert network.blocks[4][0].weight.shape[0] * 4 == network.head.weight.shape[1]  # 2×2 maps
    first, second = matrices(network, Pair("blocks.4.0", "head"))
    maps = torch.zeros(1, len(first), 2, 2)
    maps[0, 3, 1, 0] = 1.0
    read = network.head(network.flatten(maps)) - network.head.bias
    torch.testing.assert_close(second.view(5, 4, -1)[:, 2, 3], read[0].detach())
    network = built("embedding-mlp", channels=14, resolution=1, classes=7)
    first, second = matrices(network, Pair("embed.table", "blocks.0.0"))
    layer = network.blocks[0][0]
    sequence = torch.zeros(1, 2, len(first))
    sequence[0, 1, 2] = 1.0
    read = layer(network.embed.flatten(sequence)) - layer.bias
    torch.testing.assert_close(second.view(len(layer.weight), 2, -1)[:, 1, 2], read[0].detach())


RESNET = ["stem.0", *(f"blocks.{block}.conv{place}" for block in range(4) for place in (1, 2)), "head"]
VGG = [*(f"blocks.{block}.0" for block in range(5)), "head"]
BLOCK = ["attention.value", "attention.out", "mlp.0", "mlp.3"]
TRANSFORMER = ["embed.table", *(f"blocks.{block}.{part}" for block in range(2) for part in BLOCK), "head"]


@pytest.mark.parametrize(
    ("name", "inputs", "path"),
    [
        ("f0", (1, 16), ["head"]),
        ("vgg8", (1, 16), VGG),
        ("resnet10", (3, 16), RESNET),
        ("embedding-mlp", (10, 1), ["embed.table", "blocks.0.0", "blocks.1.0", "head"]),
        ("transformer-2", (10, 1), TRANSFORMER),
    ],
)
def test_pairs_follow_the_main_path(name, inputs, path):
    channels, resolution = inputs
    network = built(name, channels, resolution)
    found = pairs(network, torch.zeros(2, channels, resolution, resolution))
    assert [(pair.first, pair.second) for pair in found] == list(itertools.pairwise(path))
    for pair in found:
        first, second = matrices(network, pair)
        assert len(first) == second.shape[1]
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


def test_embeddings_may_come_before_the_first_layer():
    class Embedded(nn.Module):
        def __init__(self):
            super().__init__()
            self.tokens, self.first, self.second = nn.Embedding(5, 4), nn.Linear(4, 6), nn.Linear(6, 3)

        def forward(self, tokens):
            return self.second(self.first(self.tokens(tokens).mean(dim=1)))

    assert pairs(Embedded(), torch.zeros(2, 7, dtype=torch.int64)) == [Pair("first", "second")]


def test_layers_whose_channels_do_not_fit_are_no_pair():
    class Cut(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second, self.third = nn.Linear(4, 6), nn.Linear(5, 3), nn.Linear(3, 2)

        def forward(self, inputs):
            return self.third(self.second(self.first(inputs)[:, :5]))

    assert [pair.name for pair in pairs(Cut(), torch.zeros(1, 4))] == ["second to third"]
