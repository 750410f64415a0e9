"""The exact linear decoder of one cell beside the decoder of the paper's released code, which Adam trains.

    python benchmarks/decode.py [--repeats 3] [--threads 2] [--epochs 30]

512 features → 3 × 32 × 32 pixels, 10,000 training and 2,000 test samples. Ours is the whole measure, with its path of
ridges and the errors of all test samples; nothing is kept from one call to the next. The baseline is a linear layer
in plain eager PyTorch, batches of 128, learning rate 0.0003, 30 epochs, and its test error. With fewer `--epochs` its
time is that of so many, multiplied, and its test error is not that of the paper's decoder.
"""

import numpy as np
import random_images
import torch
import xarray as xr
from side_by_side import Comparison, Work, compare, parser, tell, tell_machine, threads
from torch import nn
from torch.nn import functional

from phasescope.compute import keep_memory
from phasescope.measures.decode import decode
from phasescope.measures.samples import Samples
from phasescope.params.decode import DecodeSettings

WIDTH, BATCH, RATE, EPOCHS = 512, 128, 3e-4, 30


def ours(cell: np.ndarray, known: Samples) -> float:
    """Test error of the exact decoder."""
    dims = ("seed", "step", "sample", "feature")
    coords = {"seed": [0], "step": [0], "sample": np.arange(len(cell))}
    fresh = Samples(known.inputs, known.labels, known.train, known.classes, known.image)
    return decode(xr.DataArray(cell[None, None], coords, dims), fresh, DecodeSettings())["test_mse"].item()


def baseline(cell: np.ndarray, known: Samples, epochs: int) -> float:
    """Test error of the trained decoder."""
    inputs, targets = torch.from_numpy(cell.astype(np.float32)), torch.from_numpy(known.inputs)
    train, test = (torch.from_numpy(part) for part in (known.train, known.test))
    x, y = inputs[train], targets[train]
    torch.manual_seed(0)
    decoder = nn.Linear(x.shape[1], y.shape[1])
    optimiser = torch.optim.Adam(decoder.parameters(), lr=RATE)
    for _ in range(epochs):
        for rows in torch.randperm(len(x)).split(BATCH):
            loss = functional.mse_loss(decoder(x[rows]), y[rows])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    with torch.no_grad():
        return functional.mse_loss(decoder(inputs[test]), targets[test]).item()


def work(train: int, test: int, width: int, targets: int) -> Work:
    """What closed-form ridge regression of one cell cannot do without.

    The Gram matrix of the features (symmetric), its eigenvectors (9 p³: Golub & Van Loan, Matrix Computations, section
    8.3), products with the targets, weights, predictions; each activation and target read once.
    """
    flop = train * width**2 + 9 * width**3 + 2 * train * width * targets
    flop += 4 * width**2 * targets + 2 * test * width * targets
    return Work(flop, (train + test) * (2 * width + 4 * targets))


def main() -> None:
    """Print the ratio, and both test errors."""
    options = parser(__doc__, repeats=3)
    options.add_argument("--epochs", type=int, default=EPOCHS)
    given = options.parse_args()
    keep_memory()  # as every stage does; the baseline gains as much
    rates = tell_machine(given.threads)
    known = random_images.samples(random_images.dataset())
    cell = random_images.layer(known.inputs, WIDTH)
    errors: dict[str, float] = {}
    with threads(given.threads):
        measured = compare(
            lambda: errors.update(ours=ours(cell, known)),
            lambda: errors.update(baseline=baseline(cell, known, given.epochs)),
            given.repeats,
        )
    least = work(int(known.train.sum()), int(known.test.sum()), *cell.shape[1:], *known.inputs.shape[1:])
    whole = Comparison(measured.ours, [taken * EPOCHS / given.epochs for taken in measured.baseline])
    tell("exact linear decoder, one cell", whole, at_least=50, work=least, rates=rates)
    told = "" if given.epochs == EPOCHS else f", extrapolated: {given.epochs} of {EPOCHS} epochs were timed"
    print(f"  test MSE {errors['ours']:.5f}, baseline {errors['baseline']:.5f} after {given.epochs} epochs{told}")


if __name__ == "__main__":
    main()
