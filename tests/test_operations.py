"""The tasks that networks grok: tables held to what defines the operation, and their way into a dataset."""

from itertools import permutations

import numpy as np
import pytest

from conftest import BARE
from phasescope.budget import images_of
from phasescope.data.operations import PERMUTATIONS, load_binary_operation, split, table
from phasescope.params.datasets import DatasetSettings
from phasescope.store.datasets import read_dataset, write_dataset


def settings(operation, modulus=None, **more) -> DatasetSettings:
    return DatasetSettings(source="binary-operation", operation=operation, modulus=modulus, **more)


def square(operation, modulus=None):
    """The table as a matrix (a, b), b from 1 on where 0 is none."""
    a, b, result = table(operation, modulus)
    rows, columns = len(np.unique(a)), len(np.unique(b))
    np.testing.assert_array_equal(a.reshape(rows, columns), np.arange(rows)[:, None] + np.zeros(columns, int))
    np.testing.assert_array_equal(b.reshape(rows, columns), np.zeros((rows, 1), int) + np.unique(b))
    return result.reshape(rows, columns)


# --- tables


@pytest.mark.parametrize("modulus", [7, 59, 96])
def test_addition_is_a_commutative_group(modulus):
    sums = square("addition", modulus)
    everything = list(range(modulus))
    assert sums[0].tolist() == everything
    np.testing.assert_array_equal(sums, sums.T)
    assert all(sorted(row) == everything for row in sums.tolist())
    assert sums[modulus - 1, 1] == 0
    a, b, c = np.random.default_rng(0).integers(0, modulus, (3, 10_000))
    np.testing.assert_array_equal(sums[sums[a, b], c], sums[a, sums[b, c]])


@pytest.mark.parametrize("prime", [7, 59, 97])
def test_division_undoes_multiplication(prime):
    a, b, quotient = table("division", prime)
    assert len(a) == prime * (prime - 1)
    assert b.min() == 1
    np.testing.assert_array_equal(quotient * b % prime, a)
    assert all(sorted(column) == list(range(prime)) for column in square("division", prime).T.tolist())
    np.testing.assert_array_equal(table("power", prime)[2], quotient)  # Fermat


def test_what_the_two_phase_paper_divides_by():
    powers = [b**94 % 96 for b in range(1, 96)]
    values, counts = np.unique(powers, return_counts=True)
    assert len(values) == 10
    assert {0: 15, 64: 32}.items() <= dict(zip(values.tolist(), counts.tolist(), strict=True)).items()
    a, b, result = table("power", 96)
    assert len(result) == 96 * 95
    assert result.tolist() == [int(x) * int(y) ** 94 % 96 for x, y in zip(a, b, strict=True)]
    shares = np.bincount(result, minlength=96) / len(result)
    assert shares[0] == shares.max() == pytest.approx(0.279, abs=5e-4)
    assert -(shares * np.log(shares)).sum() == pytest.approx(3.373, abs=5e-4)
    assert (result * b % 96 != a).mean() > 0.5  # no division


def test_composition_is_that_of_functions():
    result = square("composition")
    assert [tuple(row) for row in PERMUTATIONS.tolist()] == list(permutations(range(5)))
    for a, b in np.random.default_rng(0).integers(0, 120, (200, 2)).tolist():
        composed = [PERMUTATIONS[a][PERMUTATIONS[b][i]] for i in range(5)]
        assert PERMUTATIONS[result[a, b]].tolist() == composed


def test_composition_is_a_group_that_does_not_commute():
    result = square("composition")
    everything = list(range(120))
    assert result[0].tolist() == result[:, 0].tolist() == everything  # the identity comes first
    assert all(sorted(line) == everything for line in [*result.tolist(), *result.T.tolist()])
    for a in everything:  # associative, on all triples
        np.testing.assert_array_equal(result[result[a]], result[a][result])
    inverses = np.argsort(result, axis=1)[:, 0]
    np.testing.assert_array_equal(result[inverses, everything], 0)
    # Two permutations commute as often as there are classes of conjugates: 7 of 120.
    assert (result == result.T).mean() == pytest.approx(7 / 120)


# --- datasets


@pytest.mark.parametrize(
    ("operation", "modulus", "fraction", "train", "test"),
    [
        ("addition", 59, 0.4, 1392, 2089),
        ("addition", 59, 0.5, 1740, 1741),
        ("addition", 97, 0.4, 3763, 5646),
        ("addition", 113, 0.4, 5107, 7662),
        ("division", 97, 0.4, 3724, 5588),
        ("power", 96, 0.4, 3648, 5472),
        ("composition", None, 0.5, 7200, 7200),
        ("division", 7, 0.05, 2, 40),
        ("division", 7, 0.95, 39, 3),
    ],
)
def test_the_split_is_that_of_the_methods(operation, modulus, fraction, train, test):
    chosen = settings(operation, modulus, train_fraction=fraction)
    dataset = load_binary_operation(chosen)
    assert (dataset.train.sum(), (~dataset.train).sum()) == (train, test)
    assert dataset.train[:train].all()
    known = images_of(chosen, None)
    assert (known.train, known.test, known.classes, known.channels) == (train, test, *dataset.shape[::-2])
    assert (known.resolution, known.dtype) == (1, dataset.images.dtype)


@pytest.mark.parametrize(("operation", "modulus"), [("addition", 59), ("division", 7), ("composition", None)])
def test_a_pair_is_two_one_hot_tokens(tmp_path, operation, modulus):
    chosen = settings(operation, modulus)
    write_dataset(tmp_path / "d", load_binary_operation(chosen), chosen.model_dump())
    dataset = read_dataset(tmp_path / "d")
    values = modulus or 120
    assert dataset.images.dtype == np.float16
    assert dataset.images.shape[1:] == (2 * values, 1, 1)
    assert dataset.shape == (*chosen.image, chosen.classes) == (2 * values, 1, values)
    pairs = dataset.images.reshape(-1, 2, values)
    np.testing.assert_array_equal(pairs.sum(axis=2), 1)
    np.testing.assert_array_equal(np.unique(pairs), [0, 1])
    found = dict(zip(map(tuple, pairs.argmax(axis=2).tolist()), dataset.labels.tolist(), strict=True))
    a, b, result = table(operation, modulus)
    assert found == dict(zip(zip(a.tolist(), b.tolist(), strict=True), result.tolist(), strict=True))
    assert (dataset.mean == 0).all()
    assert (dataset.std == 1).all()
    assert dataset.classes == (
        [str(name) for name in range(modulus)] if modulus else ["".join(map(str, p)) for p in permutations(range(5))]
    )


def test_the_split_is_random_and_fixed():
    first, again = (load_binary_operation(settings("addition", 59)) for _ in range(2))
    np.testing.assert_array_equal(first.images, again.images)
    of_training = first.labels[first.train]
    assert np.bincount(of_training, minlength=59).min() > 0
    # A larger share holds what a smaller one does.
    more = load_binary_operation(settings("addition", 59, train_fraction=0.6))
    np.testing.assert_array_equal(more.images, first.images)
    assert split(settings("addition", 59, train_fraction=0.6), 3481) == more.train.sum() == 2088


# --- mistakes

SUMS = "{source: binary-operation, operation: addition, modulus: 59}"


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        (
            "addition, modulus: 59",
            "division, modulus: 96",
            "datasets.sums.modulus: expected a prime for division, for modulo others not every number has an inverse; "
            "the next ones are 89 and 97; got 96",
        ),
        (
            ", modulus: 59",
            "",
            "datasets.sums: `modulus` is needed for every operation but composition, and not for that; got",
        ),
        (
            "addition",
            "composition",
            "datasets.sums: `modulus` is needed for every operation but composition, and not for that; got",
        ),
        (
            "operation: addition, ",
            "",
            "datasets.sums: `operation` is needed for the source binary-operation; got",
        ),
        (
            "addition",
            "subtraction",
            "datasets.sums.operation: unknown value 'subtraction'; known: addition, division, power, composition",
        ),
        ("modulus: 59", "modulus: 5", "datasets.sums.modulus: expected a number of at least 7, got 5"),
        (
            "modulus: 59",
            "modulus: 59, train_fraction: 1",
            "datasets.sums.train_fraction: expected a number of at most 0.95, got 1",
        ),
        (
            "modulus: 59",
            "modulus: 59, resolution: 8",
            "datasets.sums: `resolution` is of images, which the source binary-operation has none of; leave it out",
        ),
        (
            SUMS,
            "{source: digits, train_fraction: 0.3}",
            "datasets.sums: `train_fraction` is for the source binary-operation alone; leave it out; got",
        ),
        (
            "name: f0}",
            "name: f0}\n    decode: {decoders: [linear, deconvolution]}",
            "runs.small.decode.decoders: 'deconvolution' draws images, and the samples of 'sums' are attributes; "
            "choose another",
        ),
        (
            "name: f0}",
            "name: f0}\ntransfer: {x: {run: small, dataset: sums, labels: [ink]}}",
            "transfer.x.labels[0]: 'ink' is a label of grey images, and those of 'sums' are attributes; choose another",
        ),
        (
            "name: f0}",
            "name: transformer-2, initialisation: equal}",
            "runs.small.model.initialisation: with equal weights the units of a hidden layer of transformer-2 stay "
            "alike: choose another",
        ),
        (
            "name: f0}",
            "name: transformer-1}\n    activations: {taps: [{name: predense, position: 0}]}",
            "runs.small.activations.taps: tap 'predense' of transformer-1: position is 0, but this output is no "
            "sequence; leave it out",
        ),
        (
            "name: f0}",
            "name: transformer-1}\n    activations: {taps: [{name: blocks.0, position: 3}]}",
            "runs.small.activations.taps: tap 'blocks.0' of transformer-1: position is 3, but the sequence has 3: "
            "choose one of 0 to 2, or -1 for the last",
        ),
        (
            "name: f0}",
            "name: transformer-1}\n    activations: {taps: [conv-2]}",
            "runs.small.activations.taps: tap 'conv-2': transformer-1 has no such tap",
        ),
    ],
)
def test_mistakes_are_told_in_one_line(mistakes, old, new, line):
    text = BARE.replace("digits: {source: digits}", f"sums: {SUMS}").replace("digits", "sums").replace("vgg8", "f0")
    assert text.count(old) == 1
    (told,) = mistakes(text.replace(old, new))
    assert told.startswith(line)


@pytest.mark.parametrize("name", ["embedding-mlp", "transformer-1", "transformer-2"])
def test_images_are_no_tokens(mistakes, name):
    (told,) = mistakes(BARE.replace("vgg8", name))
    assert told == (
        f"runs.small.model.name: {name} reads pairs of tokens, which binary-operation has, and the source of 'digits' "
        "is digits: choose another network or dataset"
    )
