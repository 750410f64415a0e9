"""Datasets of the user's own, whose function gives images and labels."""

from collections.abc import Mapping

import numpy as np

from phasescope import own
from phasescope.data.dataset import Dataset
from phasescope.data.statistics import channel_statistics
from phasescope.errors import UserError
from phasescope.params.datasets import DatasetSettings

PARTS = ("train_images", "train_labels", "test_images", "test_labels")


def load_own(settings: DatasetSettings) -> Dataset:
    """What the function gives by name: `train_images`, `train_labels`, `test_images`, `test_labels`.

    Images are (sample, channel, row, column), uint8 (0 … 255) or floating (0 … 1), as many channels and of the
    resolution that the settings say; labels are whole numbers (sample,) from 0; `classes`, their names, may be left
    out. Images are standardised by the constants of the training images.

    Raises:
        UserError: the function cannot be loaded, fails, or gives something else.
    """
    known = {"channels": settings.channels, "resolution": settings.resolution}
    given = own.call(settings.source, known, settings.arguments)
    if not isinstance(given, Mapping) or not set(PARTS) <= set(given):
        raise _odd(settings, f"gives {type(given).__name__}, where a mapping with {', '.join(PARTS)} is expected")
    with own.telling(settings.source):
        found = {name: np.asarray(given[name]) for name in PARTS}
    image = (settings.channels, settings.resolution, settings.resolution)
    for part in ("train", "test"):
        images, labels = found[f"{part}_images"], found[f"{part}_labels"]
        if images.shape[1:] != image or images.ndim != 4 or not len(images):
            expected = f"(sample, {', '.join(map(str, image))})"
            raise _odd(settings, f"{part}_images are {images.shape}, where {expected} is expected")
        if images.dtype != np.uint8 and (images.dtype.kind != "f" or not np.isfinite(images).all()):
            raise _odd(settings, f"{part}_images are {images.dtype}: give uint8 or finite floating numbers")
        if labels.shape != (len(images),) or labels.dtype.kind not in "iu" or labels.min() < 0:
            raise _odd(settings, f"{part}_labels are no whole numbers from 0, one for each of the {len(images)} images")
    if (found["train_images"].dtype == np.uint8) != (found["test_images"].dtype == np.uint8):
        raise _odd(
            settings, "train_images and test_images are of different kinds: give uint8 or floating ones for both"
        )
    labels = np.concatenate([found["train_labels"], found["test_labels"]]).astype(np.int64)
    count = int(labels.max()) + 1
    with own.telling(settings.source):
        classes = [str(name) for name in given.get("classes", range(count))]
    if len(set(classes)) < len(classes):
        raise _odd(settings, "has two classes of the same name")
    if not 2 <= count <= len(classes):
        raise _odd(settings, f"has labels up to {count - 1} and {len(classes)} classes; two or more of both are needed")
    images = np.concatenate([found["train_images"], found["test_images"]])
    images = images if images.dtype == np.uint8 else images.astype(np.float32)
    train = np.arange(len(images)) < len(found["train_images"])
    mean, std = channel_statistics(found["train_images"].astype(images.dtype))
    if not std.all():
        raise _odd(settings, f"channel {int(np.argmin(std))} is the same everywhere, so it cannot be standardised")
    return Dataset(images=images, labels=labels, train=train, classes=classes, mean=mean, std=std)


def _odd(settings: DatasetSettings, what: str) -> UserError:
    return UserError(f"{settings.source}: {what}")
