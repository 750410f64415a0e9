"""Linear mapping number: on how many pieces a part of a network is a linear map (Liu et al. 2023, arXiv:2310.05918)."""

from collections.abc import Callable

import numpy as np
import torch

#: Points of a line, both ends among them.
POINTS = 21
#: Standard deviations of an output, in roundings of its largest value on the line, up to which it counts as constant.
ROUNDINGS = 8


def linear_mapping_number(
    function: Callable[[torch.Tensor], torch.Tensor], samples: torch.Tensor, rows: int = 4096
) -> float:
    """Effective number of linear pieces of a function, as the lines between samples see it (equations 4 and 5 there).

    L_ij is how linear the function is on the line from sample i to sample j (`linearity`), L_ii = 1; the number is 2 to
    the power of the entropy of the eigenvalues of L: 1 for an affine function, and for c groups of samples with a
    straight way to each other and none between groups that is straight at all, c.

    Args:
        function: (row, …) → (row, output).
        samples: (sample, …).
        rows: the most rows that the function is given at once; at least one line.

    Returns:
        From 1 to the number of samples, on which it depends.
    """
    steps = torch.linspace(0, 1, POINTS, dtype=samples.dtype, device=samples.device)
    steps = steps.view(1, POINTS, *[1] * (samples.ndim - 1))
    # The line back is the same line, so that L is symmetric.
    first, second = torch.triu_indices(len(samples), len(samples), offset=1)
    found = []
    for one, other in zip(*(ends.split(max(1, rows // POINTS)) for ends in (first, second)), strict=True):
        start = samples[one, None]
        lines = start + steps * (samples[other, None] - start)
        outputs = function(lines.flatten(0, 1))
        found.append(linearity(outputs.view(len(one), POINTS, -1)))
    matrix = torch.eye(len(samples), dtype=torch.float64)
    matrix[first, second] = matrix[second, first] = torch.cat(found)
    return effective_number(torch.linalg.eigvalsh(matrix).numpy())


def linearity(outputs: torch.Tensor) -> torch.Tensor:
    """Squared correlation of each output with the place on the line, mean over outputs: (line, point, output) → (line).

    An output that is constant is linear: 1. The paper calls it so where its variance is below 1e-20, which no number of
    single precision falls short of by rounding alone: a constant 30 plus rounding has 1e-12, and would correlate with
    nothing. So the bound is `ROUNDINGS` roundings of the output itself.
    """
    values = outputs.double()
    steps = torch.linspace(-1, 1, outputs.shape[1], dtype=torch.float64, device=outputs.device)[:, None]
    centred = values - values.mean(dim=1, keepdim=True)
    variance = centred.square().mean(dim=1)
    explained = (steps * centred).mean(dim=1).square() / steps.square().mean()
    resolved = ROUNDINGS * torch.finfo(outputs.dtype).eps * values.abs().amax(dim=1)
    constant = variance <= resolved.square()
    return torch.where(constant, 1.0, explained / variance.masked_fill(constant, 1.0)).mean(dim=1).cpu()


def effective_number(eigenvalues: np.ndarray) -> float:
    """2 to the power of the entropy in bits of the absolute eigenvalues (eigenvalue,), as shares of their sum."""
    shares = np.abs(eigenvalues) / np.abs(eigenvalues).sum()
    return float(2 ** -(shares * np.log2(np.where(shares > 0, shares, 1.0))).sum())
