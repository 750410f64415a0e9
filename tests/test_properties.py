"""Labels that are properties of images, on images of which the answer is known, and on CIFAR-10."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from phasescope.data.dataset import Dataset, standardised
from phasescope.data.digits import load_digits
from phasescope.data.image_folder import load_image_folder
from phasescope.data.properties import label
from phasescope.params.datasets import DatasetSettings

CIFAR = Path(os.environ.get("PHASESCOPE_DATA", "unset")) / "cifar10-jpeg"


def dataset_of(images, train=None, mean=0.0, std=1.0) -> Dataset:
    samples, channels = images.shape[:2]
    return Dataset(
        images=images,
        labels=np.arange(samples) % 2,
        train=np.full(samples, True) if train is None else np.array(train),
        classes=["even", "odd"],
        mean=np.broadcast_to(mean, channels).astype(float),
        std=np.broadcast_to(std, channels).astype(float),
    )


def of_values(*values: float) -> np.ndarray:
    """A 2×2 grey image of each value."""
    return np.broadcast_to(np.array(values, np.uint8)[:, None, None, None], (len(values), 1, 2, 2)).copy()


def test_the_class_is_the_datasets_own():
    labels, classes = label(dataset_of(of_values(1, 2, 3)), "class")
    assert labels.tolist() == [0, 1, 0]
    assert classes == ["even", "odd"]


def test_ink_is_compared_with_the_median_training_image():
    train = [True, True, True, False, False, False]
    labels, classes = label(dataset_of(of_values(10, 20, 30, 20, 21, 255), train), "ink")
    assert classes == ["less", "more"]
    assert labels.tolist() == [0, 0, 1, 0, 1, 1]  # as inky as the median is not more
    assert label(dataset_of(of_values(10, 20, 30, 20, 0, 0), train), "ink")[0][:3].tolist() == [0, 0, 1]


def test_ink_halves_the_digits():
    digits = load_digits(32)
    labels, _ = label(digits, "ink")
    assert labels[digits.train].mean() == pytest.approx(0.5, abs=0.001)
    assert labels[~digits.train].mean() == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize(("row", "column", "name"), [(0, 1, "top left"), (0, 3, "top right"), (4, 0, "bottom left")])
@pytest.mark.parametrize("dtype", [np.uint8, np.float16])
def test_the_brightest_quadrant(row, column, name, dtype):
    images = np.zeros((1, 3, 5, 5), dtype)
    images[0, 1, row, column] = 1
    images[0, 1, 2, :] = images[0, 1, :, 2] = 7  # the middle of an odd resolution belongs to none
    labels, classes = label(dataset_of(images), "quadrant")
    assert [classes[index] for index in labels] == [name]


def test_of_equals_the_first_counts():
    images = np.full((1, 3, 4, 4), 9, np.uint8)
    assert label(dataset_of(images), "quadrant")[0] == 0
    assert label(dataset_of(images), "colour-raw")[0] == label(dataset_of(images), "colour")[0] == 0
    images[0, :, 2:] = 10
    assert label(dataset_of(images), "quadrant")[0] == 2
    images[0, 0] = 0
    assert label(dataset_of(images), "colour-raw")[0] == 1


@pytest.mark.parametrize("dtype", [np.uint8, np.float16])
def test_colour_is_the_channel_of_the_largest_sum(dtype):
    rng = np.random.default_rng(0)
    pixels = rng.random((200, 3, 4, 4)) ** 2
    images = (pixels * 255).astype(np.uint8) if dtype == np.uint8 else pixels.astype(np.float16)
    dataset = dataset_of(images, mean=np.array([0.2, 0.4, 0.3]), std=np.array([0.1, 0.3, 0.2]))
    labels, classes = label(dataset, "colour")
    assert classes == ["red", "green", "blue"]
    # As the released code has it: of images that were standardised first.
    expected = standardised(dataset).astype(np.float64).sum(axis=(2, 3)).argmax(axis=1)
    np.testing.assert_array_equal(labels, expected)
    raw = label(dataset, "colour-raw")[0]
    np.testing.assert_array_equal(raw, images.astype(np.float64).mean(axis=(2, 3)).argmax(axis=1))
    assert 0.2 < (labels == raw).mean() < 0.8
    assert labels.dtype == raw.dtype == np.int64


@pytest.mark.parametrize("name", ["ink", "quadrant", "class"])
def test_labels_do_not_depend_on_other_test_images(name):
    digits = load_digits(8)
    without = np.flatnonzero(digits.train | (np.arange(len(digits.labels)) % 2 == 0))
    fewer = replace(digits, images=digits.images[without], labels=digits.labels[without], train=digits.train[without])
    np.testing.assert_array_equal(label(digits, name)[0][without], label(fewer, name)[0])


@pytest.mark.skipif(not CIFAR.is_dir(), reason="PHASESCOPE_DATA names no folder that holds cifar10-jpeg")
@pytest.mark.timeout(300)
def test_the_dominant_colours_of_cifar10():
    """Shares of red, green and blue among its images, as measured independently: 53/23/24 and 38/17/44 %."""
    settings = DatasetSettings(source="image-folder", folder=CIFAR.name, resolution=32, statistics="cifar10")
    dataset = load_image_folder(settings, CIFAR.parent)
    raw, own = label(dataset, "colour-raw")[0], label(dataset, "colour")[0]
    np.testing.assert_allclose(np.bincount(raw) / len(raw), [0.53, 0.23, 0.24], atol=0.005)
    np.testing.assert_allclose(np.bincount(own) / len(own), [0.38, 0.17, 0.44], atol=0.006)
    assert (raw == own).mean() == pytest.approx(0.77, abs=0.005)
