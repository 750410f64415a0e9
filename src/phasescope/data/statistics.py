"""Mean and standard deviation of the channels, by which images are standardised."""

import numpy as np

from phasescope.params.datasets import VisionSource

#: Mean and standard deviation of each channel as the paper's released code has them. Those of CIFAR-10 are
#: the mean of the images' own standard deviations, so that its standardised variance is about 1.5, not 1.
STATISTICS: dict[VisionSource, tuple[list[float], list[float]]] = {
    "mnist": ([0.1307], [0.3081]),
    "fashion-mnist": ([0.281], [0.352]),
    "cifar10": ([0.4914, 0.4822, 0.4465], [0.2023, 0.1994, 0.2010]),
    "cifar100": ([0.5060725, 0.48667726, 0.4421305], [0.2675421, 0.25593522, 0.27593908]),
}


def channel_statistics(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation (channel,), float64, of images (sample, channel, row, column).

    In units of pixels in 0 … 1. The sums run in float64 (exact for uint8), without a float64 copy of the
    images.
    """
    scale = 255 if images.dtype == np.uint8 else 1
    count = images.size / images.shape[1]
    mean = images.sum(axis=(0, 2, 3), dtype=np.float64) / count
    square = np.einsum("scij,scij->c", images, images, dtype=np.float64) / count
    return mean / scale, np.sqrt(np.maximum(square - mean**2, 0)) / scale
