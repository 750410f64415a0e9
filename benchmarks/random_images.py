"""What benchmarks measure on: random images of CIFAR's shape, whose spectrum falls as that of photographs, and layers.

A layer is random linear features of the images behind a ReLU, in half precision where nothing else is said, as
activations are stored. Classes are the largest of ten random linear functions of an image and of noise.
"""

import numpy as np

from phasescope.data.dataset import Dataset, standardised
from phasescope.data.statistics import channel_statistics
from phasescope.measures.samples import Samples

RESOLUTION, CHANNELS, CLASSES = 32, 3, 10


def dataset(train: int = 10_000, test: int = 2_000) -> Dataset:
    """The same images every time."""
    rng = np.random.default_rng(0)
    count = train + test
    noise = np.fft.rfft2(rng.standard_normal((count, CHANNELS, RESOLUTION, RESOLUTION), np.float32))
    rows, columns = np.fft.fftfreq(RESOLUTION), np.fft.rfftfreq(RESOLUTION)
    frequency = np.maximum(np.hypot(rows[:, None], columns), 1 / RESOLUTION)
    smooth = np.fft.irfft2(noise / frequency, s=(RESOLUTION, RESOLUTION))
    images = np.clip(128 + 50 * smooth / smooth.std(), 0, 255).astype(np.uint8)
    logits = smooth.reshape(count, -1) @ rng.standard_normal((smooth[0].size, CLASSES))
    logits += logits.std() * rng.standard_normal(logits.shape)
    mean, std = channel_statistics(images[:train])
    names = [str(each) for each in range(CLASSES)]
    return Dataset(images, logits.argmax(axis=1), np.arange(count) < train, names, mean, std)


def samples(images: Dataset) -> Samples:
    """All of them, as measures see them."""
    inputs = standardised(images).reshape(len(images.labels), -1)
    return Samples(inputs, images.labels, images.train, CLASSES, images.images.shape[1:])


def layer(inputs: np.ndarray, width: int = 512, seed: int = 0, dtype: str = "float16") -> np.ndarray:
    """Activations (sample, feature) of inputs (sample, pixel)."""
    weights = np.random.default_rng(seed).standard_normal((inputs.shape[1], width), np.float32)
    return np.maximum(inputs @ (weights / np.sqrt(inputs.shape[1], dtype=np.float32)), 0).astype(dtype)
