"""Loading a dataset as tests do: what must hold of each, how one is refused, and folders of images to load."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from phasescope.data import sources
from phasescope.data.dataset import standardised
from phasescope.errors import UserError
from phasescope.params.datasets import DatasetSettings


def load(source, root=Path("nowhere"), download=False, **settings):
    return sources.load(DatasetSettings(source=source, **settings), root, download)


def refused(match, *arguments, **settings):
    """Asserts that loading fails with one line that matches."""
    with pytest.raises(UserError, match=match) as caught:
        load(*arguments, **settings)
    assert "\n" not in str(caught.value)


def check(dataset, channels, resolution):
    samples = len(dataset.labels)
    assert dataset.images.shape == (samples, channels, resolution, resolution)
    assert dataset.images.dtype in (np.uint8, np.float16)
    assert (dataset.labels.dtype, dataset.train.dtype) == (np.int64, np.bool_)
    assert dataset.mean.dtype == dataset.std.dtype == np.float64
    assert dataset.mean.shape == dataset.std.shape == (channels,)
    assert 0 < dataset.train.sum() < samples
    assert dataset.train[: dataset.train.sum()].all()  # training samples come first
    for part in (dataset.train, ~dataset.train):
        assert set(dataset.labels[part]) == set(range(len(dataset.classes)))
    pixels = standardised(dataset)
    assert pixels.dtype == np.float32
    assert np.isfinite(pixels).all()


def picture(path, seed=0, shape=(32, 32, 3), **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    Image.fromarray(pixels).save(path, **options)
    return pixels


def folders(root, classes=("cat", "dog"), samples=5, splits=("",)):
    for split in splits:
        for label, name in enumerate(classes):
            for i in range(samples):
                picture(root / split / name / f"{i}.png", seed=10 * label + i)
