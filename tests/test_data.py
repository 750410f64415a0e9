"""Datasets: resampled and standardised, and the digits."""

import subprocess
import sys

import numpy as np
import pytest
import scipy.ndimage

from loading import check, folders, load
from phasescope.data.dataset import Dataset, standardised
from phasescope.data.resample import resample
from phasescope.data.statistics import channel_statistics

# --- resampling and standardising


@pytest.mark.parametrize(("n", "resolution"), [(28, 32), (8, 32), (28, 8), (32, 30), (8, 5)])
def test_resampling_gives_what_scipy_gives_image_by_image(n, resolution):
    images = np.random.default_rng(0).integers(0, 256, (20, 2, n, n), dtype=np.uint8)
    expected = [[scipy.ndimage.zoom(channel / 255, resolution / n, order=3) for channel in image] for image in images]
    got = resample(images, resolution, scale=255)
    assert got.dtype == np.float16
    np.testing.assert_array_equal(got, np.array(expected).astype(np.float16))


def test_resampling_is_exact_over_chunks_and_where_nothing_changes(monkeypatch):
    images = np.random.default_rng(0).integers(0, 17, (11, 1, 8, 8)).astype(float)
    whole = resample(images, 20, scale=16)
    monkeypatch.setattr("phasescope.data.resample._CHUNK", 3)
    np.testing.assert_array_equal(resample(images, 20, scale=16), whole)
    np.testing.assert_array_equal(resample(images, 8, scale=16), images / 16)


@pytest.mark.parametrize(("n", "resolution"), [(8, 26), (8, 42), (8, 44), (8, 51), (32, 31)])
def test_resampling_leaves_no_black_border(n, resolution):
    # scipy's default mode rounds the last row out of the image at these resolutions.
    got = resample(np.ones((1, 1, n, n)), resolution, scale=1)
    np.testing.assert_array_equal(got, 1)


def test_resampling_has_one_zero():
    images = np.zeros((1, 1, 8, 8))
    images[..., 4, 4] = 1
    got = resample(images, 32, scale=1)
    assert not np.signbit(got[got == 0]).any()


@pytest.mark.parametrize("dtype", [np.uint8, np.float16])
def test_standardising_and_statistics(dtype):
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (50, 3, 6, 6)).astype(np.uint8)
    pixels = images / 255.0
    if dtype == np.float16:
        images = pixels.astype(np.float16)
        pixels = images.astype(np.float64)
    mean, std = channel_statistics(images)
    np.testing.assert_allclose(mean, pixels.mean((0, 2, 3)), rtol=1e-13)
    np.testing.assert_allclose(std, pixels.std((0, 2, 3)), rtol=1e-13)
    dataset = Dataset(images, np.zeros(50, np.int64), np.ones(50, bool), ["a"], mean, std)
    expected = (pixels - mean[:, None, None]) / std[:, None, None]
    np.testing.assert_allclose(standardised(dataset), expected, atol=1e-6)
    np.testing.assert_array_equal(standardised(dataset, np.array([7, 3])), standardised(dataset)[[7, 3]])
    np.testing.assert_array_equal(standardised(dataset, slice(2, 5)), standardised(dataset)[2:5])


# --- digits


def test_digits():
    dataset = load("digits")
    check(dataset, 1, 32)
    assert (dataset.train.sum(), len(dataset.labels)) == (1297, 1797)
    assert dataset.classes == list("0123456789")
    counts = np.bincount(dataset.labels[~dataset.train])
    np.testing.assert_allclose(counts, 500 * np.bincount(dataset.labels) / 1797, atol=1)  # stratified
    training = standardised(dataset, dataset.train)
    assert abs(training.mean()) < 1e-5
    assert abs(training.std() - 1) < 1e-5
    again = load("digits")
    np.testing.assert_array_equal(again.images, dataset.images)


def test_digits_are_those_of_scikit_learn_each_once():
    from sklearn.datasets import load_digits

    bunch, dataset = load_digits(), load("digits", resolution=8)
    known = sorted((*image.ravel(), label) for image, label in zip(bunch.images / 16, bunch.target, strict=True))
    got = sorted(
        (*image.ravel(), label) for image, label in zip(dataset.images.astype(float), dataset.labels, strict=True)
    )
    assert got == known


@pytest.mark.parametrize("source", ["digits", "image-folder"])
def test_sources_without_torch_do_not_import_it(source, tmp_path):
    folders(tmp_path)
    code = (
        "import sys; from pathlib import Path\n"
        "from phasescope.data import sources\n"
        "from phasescope.params.datasets import DatasetSettings\n"
        "assert not {'torch', 'sklearn', 'torchvision', 'PIL'} & set(sys.modules)\n"
        f"folder = '.' if {source!r} == 'image-folder' else None\n"
        f"sources.load(DatasetSettings(source={source!r}, folder=folder), Path({str(tmp_path)!r}), False)\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
