"""The ridge probe of one cell, its whole path of ridges and the shuffled labels included, beside scikit-learn's.

    python benchmarks/probe.py [--repeats 5] [--threads 2]

512 features, 10 classes, 10,000 training and 2,000 test samples: activations at predense of VGG-8 after 60 updates, in
half precision as they are stored. The baseline is `LogisticRegression` with the strength that it has by default: of the
stored activations (which it takes to float64) until it converges, of the same in float32, that with the 100 iterations
that are its default, and until it converges of activations that `StandardScaler` has scaled.
"""

import warnings

import numpy as np
import random_images
import torch
import xarray as xr
from side_by_side import Work, compare, parser, tell, tell_machine, threads
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from torch.nn import functional

from phasescope.compute import Compute, keep_memory
from phasescope.measures.probe import probe
from phasescope.measures.ridge import RIDGES
from phasescope.measures.samples import Samples
from phasescope.models.taps import Capture
from phasescope.models.zoo import build
from phasescope.params.activations import Tap
from phasescope.params.models import ModelSettings
from phasescope.params.probe import ProbeSettings

WIDTH, UPDATES, BATCH = 512, 60, 64


def activations(known: Samples) -> np.ndarray:
    """Activations (sample, feature) of a network that has begun to learn, from every second pixel of the images."""
    inputs = torch.from_numpy(known.inputs.reshape(-1, *known.image)[:, :, ::2, ::2].copy())
    labels, train = torch.from_numpy(known.labels), torch.from_numpy(np.flatnonzero(known.train))
    torch.manual_seed(0)
    network = build(ModelSettings(name="vgg8"), inputs.shape[1], inputs.shape[2], known.classes)
    optimiser = torch.optim.SGD(network.parameters(), lr=0.02, momentum=0.9)
    for _ in range(UPDATES):
        rows = train[torch.randint(len(train), (BATCH,))]
        loss = functional.cross_entropy(network(inputs[rows]), labels[rows])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    tap, found = Tap(name="predense"), []
    with torch.no_grad(), Capture(network.eval(), [tap]) as capture:
        for part in inputs.split(500):
            network(part)
            found.append(capture.read()[tap.name].numpy().astype(np.float16))
    return np.concatenate(found)


def ours(cell: np.ndarray, known: Samples) -> float:
    """Test accuracy of the ridge probe."""
    dims = ("seed", "step", "sample", "feature")
    coords = {"seed": [0], "step": [0], "sample": np.arange(len(cell))}
    found = probe(xr.DataArray(cell[None, None], coords, dims), known, ProbeSettings(), Compute("cpu", 1, 1))
    return found["accuracy"].item()


def logistic(iterations: int = 1000) -> LogisticRegression:
    """The baseline; 1,000 iterations are more than it takes to converge."""
    return LogisticRegression(max_iter=iterations)


def accuracy(model: LogisticRegression | Pipeline, cell: np.ndarray, known: Samples) -> float:
    """Test accuracy of scikit-learn's."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # what 100 iterations are too few for
        model.fit(cell[known.train], known.labels[known.train])
    return model.score(cell[known.test], known.labels[known.test])


def main() -> None:
    """Print the ratios, and the accuracies."""
    given = parser(__doc__).parse_args()
    keep_memory()  # as every stage does; the baseline gains as much
    rates = tell_machine(given.threads)
    known = random_images.samples(random_images.dataset())
    cell = activations(known)
    single = cell.astype(np.float32)
    baselines = {
        "as stored": (logistic(), cell),
        "float32": (logistic(), single),
        "float32, 100 iterations": (logistic(100), single),
        "float32, scaled": (make_pipeline(StandardScaler(), logistic()), single),
    }
    train, test = int(known.train.sum()), int(known.test.sum())
    flop = train * WIDTH**2 + 9 * WIDTH**3 + 2 * (2 * train + test) * WIDTH * known.classes
    least = Work(flop, 2 * (train + test) * WIDTH)
    for name, (model, features) in baselines.items():
        found: dict[str, float] = {}
        with threads(given.threads):
            measured = compare(
                lambda found=found: found.update(ours=ours(cell, known)),
                lambda found=found, m=model, x=features: found.update(baseline=accuracy(m, x, known)),
                given.repeats,
            )
        what = f"ridge probe, {len(RIDGES)} strengths, beside logistic regression ({name})"
        tell(what, measured, at_least=20, work=least, rates=rates)
        print(f"  test accuracy {found['ours']:.4f}, baseline {found['baseline']:.4f}")


if __name__ == "__main__":
    main()
