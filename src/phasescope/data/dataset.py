"""A prepared dataset in memory."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Dataset:
    """Labelled images, split into training and test samples; training samples come first."""

    #: (sample, channel, row, column); uint8 (0 … 255) as they were read, or float16 (0 … 1) if resampled by
    #: splines, which overshoot at edges (MNIST at 32×32: −0.33 … 1.32), and of one-hot tokens; float64 where they are
    #: no images, but numbers that are to stay exact.
    images: np.ndarray
    #: (sample,) int64, index into `classes`.
    labels: np.ndarray
    #: (sample,) bool.
    train: np.ndarray
    #: Names of the classes.
    classes: list[str]
    #: (channel,) float64, mean of the pixels in 0 … 1 by which images are standardised.
    mean: np.ndarray
    #: (channel,) float64, standard deviation to go with it.
    std: np.ndarray
    #: (sample,) float64, the number that comes with a sample, where there is one.
    values: np.ndarray | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, resolution and number of classes: what a network is built from."""
        return self.images.shape[1], self.images.shape[2], len(self.classes)


def standardised(dataset: Dataset, indices: np.ndarray | slice | None = None) -> np.ndarray:
    """Images (sample, channel, row, column) as (pixel − mean) / std; float32, but for float64 images."""
    images = dataset.images if indices is None else dataset.images[indices]
    scale = 255 if images.dtype == np.uint8 else 1
    dtype = np.promote_types(np.float32, images.dtype) if images.dtype.kind == "f" else np.dtype(np.float32)
    pixels = images.astype(dtype)
    pixels -= (scale * dataset.mean).astype(dtype)[:, None, None]
    pixels /= (scale * dataset.std).astype(dtype)[:, None, None]
    return pixels
