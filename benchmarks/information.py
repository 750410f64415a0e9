"""How long the information of a layer takes, beside the formulas as they stand, and how much memory it needs.

    python benchmarks/information.py [--repeats 5]

Layers are rectified normal numbers in 59 classes. The naive way takes all distances of `scipy.spatial.distance.cdist`
(sample against sample, noisy sample against sample, and the same again in each class) and `scipy.special.logsumexp`.
"""

import argparse
import statistics
import time
import tracemalloc
from collections.abc import Callable

import numpy as np
from scipy.spatial.distance import cdist
from scipy.special import logsumexp
from threadpoolctl import threadpool_limits

from phasescope.measures.estimators import Classes, through_noise

CLASSES = 59
#: Samples and features: three layers of the first are what modular addition modulo 59 has.
SHAPES = ((1392, 128), (2000, 512), (10_000, 128))
#: Beyond so many samples the naive way takes too long, or all memory.
NAIVE = 2000


def drawn(samples: int, features: int) -> tuple[np.ndarray, Classes, float]:
    """A layer less its mean, its classes, and the variance of the noise."""
    rng = np.random.default_rng(5)
    points = np.maximum(rng.standard_normal((samples, features)), 0)
    points -= points.mean(axis=0)
    return points, Classes(np.sort(rng.integers(0, CLASSES, samples))), 0.03 * np.square(points).sum(axis=1).mean()


def naive(points: np.ndarray, classes: Classes, variance: float) -> list[float]:
    """Value, lower and upper bound of I(T;X), and the value of I(T;Y)."""
    noise = np.random.default_rng(0).standard_normal(points.shape) * np.sqrt(variance)

    def bound(part: np.ndarray, factor: float) -> float:
        exponents = -cdist(part, part, "sqeuclidean") / (2 * factor * variance)
        return -float(np.mean(logsumexp(exponents, axis=1) - np.log(len(part))))

    def value(part: np.ndarray, of_part: np.ndarray) -> float:
        sums = logsumexp(-cdist(part + of_part, part, "sqeuclidean") / (2 * variance), axis=1) - np.log(len(part))
        return float(np.mean(-sums - np.square(of_part).sum(axis=1) / (2 * variance)))

    parts = [np.split(each, classes.starts[1:]) for each in (points, noise)]
    about, within = value(points, noise), 0.0
    for part, of_part in zip(*parts, strict=True):
        within += len(part) / len(points) * value(part, of_part)
        for factor in (1, 4):
            bound(part, factor)
    return [about, bound(points, 4), bound(points, 1), about - within]


def quick(points: np.ndarray, classes: Classes, variance: float) -> list[float]:
    """The same as phasescope has it."""
    found = through_noise(points, classes, variance, np.random.default_rng(0))
    return [found[name] for name in ("i_x", "i_x_lower", "i_x_upper", "i_y")]


def seconds(function: Callable[..., list[float]], layer: tuple, repeats: int) -> str:
    """Smallest, median and largest of some repeats, after one that warms up."""
    taken = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        function(*layer)
        taken.append(time.perf_counter() - start)
    return f"{min(taken[1:]):.3f} {statistics.median(taken[1:]):.3f} {max(taken[1:]):.3f} s"


def megabytes(function: Callable[..., list[float]], layer: tuple) -> float:
    """The most memory that is held at a time, beside the layer itself."""
    tracemalloc.start()
    function(*layer)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 1e6


def main() -> None:
    """Print time (smallest, median, largest) and peak memory of both ways, and how far their results are apart."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    with threadpool_limits(1):
        for samples, features in SHAPES:
            layer = drawn(samples, features)
            print(f"{samples} samples, {features} features, one core")
            print(f"  phasescope {seconds(quick, layer, given.repeats)}, {megabytes(quick, layer):.0f} MB")
            if samples <= NAIVE:
                apart = np.abs(np.subtract(quick(*layer), naive(*layer))).max()
                print(f"  naive      {seconds(naive, layer, given.repeats)}, {megabytes(naive, layer):.0f} MB")
                print(f"  results {apart:.1e} nat apart")


if __name__ == "__main__":
    main()
