"""Properties of the samples themselves, beside their class: labels, and numbers that a network can learn to tell."""

from typing import get_args

import numpy as np

from phasescope.data.dataset import Dataset
from phasescope.params.train import Target
from phasescope.params.transfer import Label

#: Channels of the images that a label is of; the class is of all samples.
NEEDED: dict[Label, list[int]] = {"ink": [1], "quadrant": [1, 3], "colour": [3], "colour-raw": [3]}
QUADRANTS = ["top left", "top right", "bottom left", "bottom right"]
COLOURS = ["red", "green", "blue"]


def label(dataset: Dataset, name: Label) -> tuple[np.ndarray, list[str]]:
    """A label of all images, (sample,) int64, and the names of its classes.

    - `class`: the dataset's own.
    - `ink`: "more" where the pixels of an image sum to more than those of the median training image, else "less".
      Meant for images of one channel.
    - `quadrant`: the brightest one by the sum of its pixels over all channels. The middle row and column of an odd
      resolution belong to none.
    - `colour`: the channel whose standardised pixels sum to most, as in the released code of Schneider &
      Prabhushankar (2024). Three channels.
    - `colour-raw`: the channel of the largest average pixel, as in their text.

    Of quadrants or channels that are equal the first counts, in the order of the classes; an image as inky as the
    median has "less".
    """
    match name:
        case "class":
            return dataset.labels.astype(np.int64), list(dataset.classes)
        case "ink":
            ink = _ink(dataset)
            return (ink > np.median(ink[dataset.train])).astype(np.int64), ["less", "more"]
        case "quadrant":
            return _brightest_quadrant(dataset.images), list(QUADRANTS)
        case "colour" | "colour-raw":
            means = _sums(dataset.images) / np.prod(dataset.images.shape[2:])
            if name == "colour":
                scale = 255 if dataset.images.dtype == np.uint8 else 1
                means = (means / scale - dataset.mean) / dataset.std
            return means.argmax(axis=1), list(COLOURS)
    raise ValueError(f"{name!r} is none of {', '.join(get_args(Label))}")


def number(dataset: Dataset, name: Target) -> np.ndarray:
    """A number for every sample, (sample,) float64.

    - `ink`: the sum of the pixels, less its mean over the training images, over its standard deviation there.
    - `value`: the dataset's own.

    Raises:
        ValueError: it has none, or the name is that of no number.
    """
    if name == "ink":
        ink = _ink(dataset)
        return (ink - ink[dataset.train].mean()) / ink[dataset.train].std()
    if name == "value" and dataset.values is not None:
        return dataset.values
    raise ValueError(f"{name!r} is no number of these samples")


def _ink(dataset: Dataset) -> np.ndarray:
    return np.asarray(_sums(dataset.images).sum(axis=1))


def _brightest_quadrant(images: np.ndarray) -> np.ndarray:
    """(sample,) int64, index into `QUADRANTS`."""
    half = images.shape[2] // 2
    rows, columns = (slice(None, half), slice(-half, None)), (slice(None, half), slice(-half, None))
    sums = [_sums(images[:, :, row, column]).sum(axis=1) for row in rows for column in columns]
    return np.stack(sums, axis=1).argmax(axis=1)


def _sums(images: np.ndarray) -> np.ndarray:
    """Sums over the pixels of each channel, (sample, channel) float64, exact for uint8."""
    return images.sum(axis=(2, 3), dtype=np.float64)
