"""What the complexity of one checkpoint costs: all lines and points at once, and one row after the other.

    python benchmarks/complexity.py [--repeats 5]

A perceptron of 128 inputs, two hidden layers of 128 and 59 outputs: linear mapping number from its first hidden layer
with 64 samples, local complexity around 256 training, 256 test and 256 random points, 25 directions. One thread.
"""

import argparse
import statistics
import time
from collections import OrderedDict

import numpy as np
import torch
from torch import nn

from phasescope.measures.complexity import complexity
from phasescope.measures.linear_mapping import POINTS, effective_number
from phasescope.measures.local import frame, random_points, spread
from phasescope.measures.samples import Samples
from phasescope.models.zoo import Network
from phasescope.params.complexity import ComplexitySettings

WIDTH, CLASSES = 128, 59


def perceptron() -> Network:
    """The network, the same one every time."""
    torch.manual_seed(0)
    hidden = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU())
    network = Network(OrderedDict(hidden=hidden, head=nn.Linear(WIDTH, CLASSES)))
    network.name = "f0"
    return network.eval()


def plain(network: Network, samples: Samples, settings: ComplexitySettings) -> tuple[float, list[float]]:
    """Linear mapping number and summed local complexity of each part, written down as they are defined."""
    first, act, second, last = network.hidden

    def behind(row: torch.Tensor) -> np.ndarray:
        return np.asarray(network.head(last(second(row))))

    def chosen(among: np.ndarray, count: int) -> torch.Tensor:
        return torch.from_numpy(samples.inputs[np.random.default_rng(0).permutation(np.flatnonzero(among))[:count]])

    steps = np.linspace(0, 1, POINTS)
    ends = act(first(chosen(samples.train, settings.line_samples)))
    matrix = np.eye(len(ends))
    for i in range(len(ends)):
        for j in range(i):
            outputs = np.stack([behind(ends[i] + float(step) * (ends[j] - ends[i])) for step in steps])
            correlations = [np.corrcoef(steps, outputs[:, k])[0, 1] for k in range(CLASSES)]
            matrix[i, j] = matrix[j, i] = np.mean(np.square(correlations))
    train, test = chosen(samples.train, settings.points), chosen(samples.test, settings.points)
    directions = torch.from_numpy(frame(settings.directions, WIDTH)).float()
    radius = settings.radius * spread(train)
    totals = []
    for part in (train, test, random_points(train, settings.points)):
        total = 0
        for point in part:
            signs = []
            for direction in directions:
                for side in (radius, -radius):
                    one = first(point + side * direction)
                    signs.append(torch.cat([one, second(act(one))]) > 0)
            seen = torch.stack(signs)
            total += int((seen.any(dim=0) & ~seen.all(dim=0)).sum())
        totals.append(total / len(part))
    return effective_number(np.linalg.eigvalsh(matrix)), totals


def main() -> None:
    """Print the seconds of every repeat, the ratio, and how far the numbers are apart."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    torch.set_num_threads(1)
    inputs = np.random.default_rng(0).standard_normal((1000, WIDTH)).astype(np.float32)
    samples = Samples(inputs, np.zeros(1000, np.int64), np.arange(1000) < 600, CLASSES, (WIDTH,))
    network, settings = perceptron(), ComplexitySettings(layers=["hidden.1"])
    taken: dict[str, list[float]] = {"at once": [], "row by row": []}
    for _ in range(given.repeats + 1):
        with torch.inference_mode():
            start = time.process_time()
            found = complexity(network, samples, settings)
            between = time.process_time()
            number, totals = plain(network, samples, settings)
        taken["at once"].append(between - start)
        taken["row by row"].append(time.process_time() - between)
    for way, seconds in taken.items():  # the first one warms up
        print(f"{way:10}", " ".join(f"{second:.3f}" for second in seconds[1:]), "s of a processor")
    ratios = [slow / fast for fast, slow in zip(*(seconds[1:] for seconds in taken.values()), strict=True)]
    print(f"ratio      median {statistics.median(ratios):.0f}, from {min(ratios):.0f} to {max(ratios):.0f}")
    print(f"linear mapping number {found.linear_mapping_number.item():.6f} and {number:.6f}")
    print(f"local complexity {found.total_complexity.values.tolist()} and {totals}")


if __name__ == "__main__":
    main()
