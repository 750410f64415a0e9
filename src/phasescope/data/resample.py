"""Bringing square images to another resolution by cubic splines, as the paper's released code does."""

import numpy as np
import scipy.ndimage

#: Images resampled at a time, to bound the memory that float64 takes.
_CHUNK = 4096


def resample(images: np.ndarray, resolution: int, scale: float) -> np.ndarray:
    """Images (sample, ..., n, n) over ``scale``, brought to (sample, ..., resolution, resolution) as float16.

    The values are those of ``scipy.ndimage.zoom(image / scale, resolution / n)``, order 3 (Schneider &
    Prabhushankar 2024, released code): corners map to corners, and splines overshoot at edges. A zoom
    is linear and acts on rows and columns alike, image → Z image Zᵀ, so one matrix Z serves all images.
    """
    Z = zoom_matrix(images.shape[-1], resolution)
    resampled = np.empty((*images.shape[:-2], resolution, resolution), np.float16)
    for start in range(0, len(images), _CHUNK):
        chunk = slice(start, start + _CHUNK)
        resampled[chunk] = Z @ (images[chunk] / scale) @ Z.T
    # −0 becomes 0: which of them the rounding of next to nothing gives is left to the machine.
    resampled += 0
    return resampled


def zoom_matrix(n: int, resolution: int) -> np.ndarray:
    """The (resolution, n) matrix of ``scipy.ndimage.zoom`` of order 3 on a row of n pixels."""
    # scipy's default mode, "constant", gives the same numbers, but for 270 of the 3,063 ways from 8, 28
    # or 32 pixels to 4 … 1024 rounding puts the last position out of the image, which leaves a black border
    # there; "mirror" does not.
    columns = [
        scipy.ndimage.zoom(column, resolution / n, order=3, mode="mirror", grid_mode=False) for column in np.eye(n)
    ]
    return np.stack(columns, axis=1)
