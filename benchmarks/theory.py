"""How long a sweep over many parameter sets takes, and how far it is from the plain recursion.

    python benchmarks/theory.py [--sets 10000] [--repeats 5]

Sets are drawn: l from 2 to 1,000, k from 1.5 to 10, λ·d/l from 10⁻⁴ to 10². Checkpoints are 0 and the powers of two.
"""

import argparse
import statistics
import time

import numpy as np

from phasescope.schedule import checkpoint_steps
from phasescope.theory.feature_strength import recursion
from phasescope.theory.feature_strength.model import FeatureStrength
from phasescope.theory.feature_strength.sweep import sweep

EXPONENTS = (10, 16, 20, 30, 40)
#: Of the comparison with the plain recursion, which takes time in proportion.
PLAIN_SETS, PLAIN_STEPS = 200, 2**16


def drawn(count: int) -> FeatureStrength:
    """Parameter sets, the same ones every time."""
    rng = np.random.default_rng(0)
    outputs = np.floor(10 ** rng.uniform(0.31, 3, count))
    return FeatureStrength(outputs, rng.uniform(1.5, 10, count), 10 * outputs, 10 ** rng.uniform(-5, 1, count))


def main() -> None:
    """Print the seconds of a sweep for several lengths, then the largest difference from the plain recursion."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    model = drawn(given.sets)
    for exponent in EXPONENTS:
        taken = []
        for _ in range(given.repeats):
            start = time.perf_counter()
            sweep(model, checkpoint_steps(2**exponent))
            taken.append(time.perf_counter() - start)
        spread = f"{min(taken):.2f} {statistics.median(taken):.2f} {max(taken):.2f}"
        print(f"{given.sets} sets to 2^{exponent}: {spread} s (smallest, median, largest of {given.repeats})")
    model = drawn(PLAIN_SETS)
    start = time.perf_counter()
    plain = recursion.gaps(model, checkpoint_steps(PLAIN_STEPS))
    taken_plain = time.perf_counter() - start
    found = sweep(model, checkpoint_steps(PLAIN_STEPS)).gap.values
    apart = np.abs(found - plain)[:, 1:] / plain[:, 1:]
    print(
        f"{PLAIN_SETS} sets step by step to {PLAIN_STEPS}: {taken_plain:.2f} s; relative gaps {apart.max():.1e} apart"
    )


if __name__ == "__main__":
    main()
