"""Tables of binary operations, the tasks that networks grok: they are taught some of the entries, and asked for all.

The tasks are those of Power et al. (2022, arXiv 2201.02177) and of "A Two-Phase Perspective on Deep Learning Dynamics"
(2504.12700). Operands and results are whole numbers from 0 on; of permutations, their places in `PERMUTATIONS`.
"""

import itertools

import numpy as np

from phasescope.data.dataset import Dataset
from phasescope.params.datasets import DatasetSettings, Operation

#: The elements of the symmetric group S5, (120, 5), in lexicographic order.
PERMUTATIONS = np.array(list(itertools.permutations(range(5))))
_DIGITS = 10 ** np.arange(4, -1, -1)


def addition(a: np.ndarray, b: np.ndarray, modulus: int) -> np.ndarray:
    """(a + b) mod `modulus`."""
    return (a + b) % modulus


def division(a: np.ndarray, b: np.ndarray, modulus: int) -> np.ndarray:
    """The q with q·b = a modulo a prime; b is not 0."""
    inverses = np.array([0] + [pow(each, -1, modulus) for each in range(1, modulus)])
    return a * inverses[b] % modulus


def power(a: np.ndarray, b: np.ndarray, modulus: int) -> np.ndarray:
    """a·b^(`modulus` − 2) modulo any number; b is not 0.

    For a prime this is division, by Fermat's little theorem. The two-phase paper calls it "division modulo 96", as does
    the public code that its settings are those of (`Sea-Snell/grokking`), but 96 is no prime: b^94 has 10 values alone,
    64 for 32 of the 95 divisors and 0 for 15, so that the result is 0 for 27.9 % of the pairs and has an entropy of
    3.373 nats, and much of it can be told without having learnt any table.
    """
    powers = np.array([pow(each, modulus - 2, modulus) for each in range(modulus)])
    return a * powers[b] % modulus


def composition(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The place of a∘b in `PERMUTATIONS`, from those of a and b, where (a∘b)(i) = a[b[i]]."""
    composed = np.take_along_axis(PERMUTATIONS[a], PERMUTATIONS[b], axis=-1)
    return np.searchsorted(PERMUTATIONS @ _DIGITS, composed @ _DIGITS)


def table(operation: Operation, modulus: int | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All pairs of operands and their results: a, b and result, each (pair,) int64, in the order of a, then b.

    The modulus is None for `composition`, and needed for all others.
    """
    if modulus is None:
        a, b = np.indices((len(PERMUTATIONS),) * 2).reshape(2, -1)
        return a, b, composition(a, b)
    a, b = np.indices((modulus,) * 2).reshape(2, -1)
    if operation == "addition":
        return a, b, addition(a, b, modulus)
    a, b = a[b > 0], b[b > 0]
    return a, b, (division if operation == "division" else power)(a, b, modulus)


def split(settings: DatasetSettings, pairs: int) -> int:
    """How many of the pairs are for training: their fraction, rounded down."""
    return int(settings.train_fraction * pairs)


def load_binary_operation(settings: DatasetSettings) -> Dataset:
    """All pairs of operands in a fixed random order, the first of them for training.

    A pair is one-hot, as channels of one pixel: the first half of them is the first operand, the other half the second.
    Classes are the results that there can be, as many as operands. Nothing is standardised (mean 0, standard
    deviation 1).
    """
    assert settings.operation is not None
    a, b, results = table(settings.operation, settings.modulus)
    order = np.random.default_rng(0).permutation(len(results))
    a, b, results = a[order], b[order], results[order]
    values = settings.image[0] // 2
    images = np.zeros((len(results), 2 * values, 1, 1), np.float16)
    images[np.arange(len(results)), a] = 1
    images[np.arange(len(results)), values + b] = 1
    if settings.modulus is None:
        classes = ["".join(map(str, permutation)) for permutation in PERMUTATIONS.tolist()]
    else:
        classes = [str(result) for result in range(settings.modulus)]
    return Dataset(
        images=images,
        labels=results.astype(np.int64),
        train=np.arange(len(results)) < split(settings, len(results)),
        classes=classes,
        mean=np.zeros(2 * values),
        std=np.ones(2 * values),
    )
