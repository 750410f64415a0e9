"""A measure of one's own: how many dimensions the activations of a layer take."""

import numpy as np


def dimensions(activations: np.ndarray) -> float:
    """Participation ratio of the variances along the principal axes, (Σλ)² / Σλ²: 1 for a line, more for a cloud.

    Args:
        activations: (sample, feature), of one layer at one checkpoint.
    """
    centred = activations.astype(np.float64) - activations.mean(axis=0, dtype=np.float64)
    variances = np.linalg.svd(centred, compute_uv=False) ** 2
    total = float(np.square(variances).sum())
    return float(variances.sum() ** 2 / total) if total else 0.0
