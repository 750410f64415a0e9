"""Local complexity: how many neurons bend near an input (Humayun, Balestriero & Baraniuk 2024, arXiv:2402.15555)."""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch


def local_complexity(
    pre_activations: Callable[[torch.Tensor, Callable[[torch.Tensor], torch.Tensor]], dict[str, torch.Tensor]],
    points: torch.Tensor,
    directions: torch.Tensor,
    radius: float,
    rows: int = 4096,
) -> dict[str, np.ndarray]:
    """Number of neurons whose zero set cuts a cross-polytope around each point, by nonlinearity: (point,) int64.

    The vertices x ± r·v pass through the network. A neuron counts where its pre-activation is positive at some of them
    and not at others: nothing but signs is compared, so no tolerance decides.

    Args:
        pre_activations: rows (row, …), and what is read of (row, unit) → what was read of each nonlinearity.
        points: (point, …).
        directions: (direction, …), orthonormal (`frame`).
        radius: r.
        rows: the most rows that pass at once; at least the vertices of one point.
    """
    offsets = radius * torch.cat([directions, -directions])
    counts: dict[str, list[np.ndarray]] = {}
    for some in points.split(max(1, rows // len(offsets))):
        vertices = some[:, None] + offsets
        for name, bent in pre_activations(vertices.flatten(0, 1), partial(_bent, points=len(some))).items():
            counts.setdefault(name, []).append(bent.sum(dim=1).cpu().numpy())
    return {name: np.concatenate(found) for name, found in counts.items()}


def _bent(values: torch.Tensor, points: int) -> torch.Tensor:
    """Whether the vertices around each point lie on both sides of zero: (row, unit) → (point, unit)."""
    at_vertices = values.view(points, len(values) // points, -1)
    return (at_vertices.amax(dim=1) > 0) & (at_vertices.amin(dim=1) <= 0)


def frame(directions: int, dimensions: int, seed: int = 0) -> np.ndarray:
    """Random orthonormal directions, (direction, dimension), at most as many as dimensions; the same for a seed."""
    rng = np.random.default_rng(seed)
    drawn = rng.standard_normal((dimensions, min(directions, dimensions)))
    return np.ascontiguousarray(np.linalg.qr(drawn)[0].T)


def spread(points: torch.Tensor) -> float:
    """Mean distance of points (point, …) from their mean, of which a radius is a share."""
    values = points.flatten(1).double()
    return float(torch.linalg.vector_norm(values - values.mean(dim=0), dim=1).mean())


def random_points(points: torch.Tensor, count: int, seed: int = 1) -> torch.Tensor:
    """Points (count, …) of a normal distribution that is the same in all directions.

    It has the mean of other points (point, …), and their mean square distance from it. The draw is the same for a seed,
    whatever those points are.
    """
    values = points.flatten(1).double()
    mean = values.mean(dim=0)
    deviation = (values - mean).square().mean().sqrt()
    drawn = np.random.default_rng(seed).standard_normal((count, values.shape[1]))
    random = mean + deviation * torch.from_numpy(drawn).to(values.device)
    return random.to(points.dtype).view(count, *points.shape[1:])
