"""The ridge probe of one cell, its whole path of ridges and the shuffled labels included, beside scikit-learn's.

    python benchmarks/probe.py [--repeats 5] [--threads 2]

512 features, 10 classes, 10,000 training and 2,000 test samples. The baseline is `LogisticRegression` with the strength
that it has by default, of standardised features, run until it converges.
"""

import numpy as np
import random_images
import xarray as xr
from side_by_side import Work, compare, parser, tell, tell_machine, threads
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from phasescope.compute import Compute
from phasescope.measures.probe import probe
from phasescope.measures.ridge import RIDGES
from phasescope.measures.samples import Samples
from phasescope.params.probe import ProbeSettings

WIDTH = 512


def ours(cell: np.ndarray, known: Samples) -> float:
    """Test accuracy of the ridge probe."""
    dims = ("seed", "step", "sample", "feature")
    coords = {"seed": [0], "step": [0], "sample": np.arange(len(cell))}
    found = probe(xr.DataArray(cell[None, None], coords, dims), known, ProbeSettings(), Compute("cpu", 1, 1))
    return found["accuracy"].item()


def baseline(cell: np.ndarray, known: Samples) -> float:
    """Test accuracy of logistic regression."""
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=10_000))
    features = cell.astype(np.float32)
    model.fit(features[known.train], known.labels[known.train])
    return model.score(features[known.test], known.labels[known.test])


def main() -> None:
    """Print the ratio, and both accuracies."""
    given = parser(__doc__).parse_args()
    rates = tell_machine(given.threads)
    known = random_images.samples(random_images.dataset())
    cell = random_images.layer(known.inputs, WIDTH)
    accuracies: dict[str, float] = {}
    with threads(given.threads):
        measured = compare(
            lambda: accuracies.update(ours=ours(cell, known)),
            lambda: accuracies.update(baseline=baseline(cell, known)),
            given.repeats,
        )
    train, test = int(known.train.sum()), int(known.test.sum())
    flop = train * WIDTH**2 + 9 * WIDTH**3 + 2 * (2 * train + test) * WIDTH * known.classes
    least = Work(flop, 2 * (train + test) * WIDTH)
    tell(f"ridge probe, {len(RIDGES)} strengths", measured, at_least=20, work=least, rates=rates)
    print(f"  test accuracy {accuracies['ours']:.4f}, baseline {accuracies['baseline']:.4f}")


if __name__ == "__main__":
    main()
