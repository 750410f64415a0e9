"""MNIST, Fashion-MNIST and CIFAR, which torchvision reads: values, splits, and errors told in one line."""

import hashlib
import os
import pickle
import struct
import urllib.error
from pathlib import Path

import numpy as np
import pytest

from loading import check, load, refused
from phasescope.data.dataset import standardised

# --- MNIST and Fashion-MNIST


def write_idx(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    head = struct.pack(f">{1 + array.ndim}i", 0x0800 + array.ndim, *array.shape)
    path.write_bytes(head + array.astype(np.uint8).tobytes())


@pytest.fixture
def small_mnist(tmp_path):
    """A data folder with an MNIST of 40 training and 20 test images."""
    random = np.random.default_rng(0)
    for split, samples in (("train", 40), ("t10k", 20)):
        raw = tmp_path / "MNIST" / "raw"
        write_idx(raw / f"{split}-images-idx3-ubyte", random.integers(0, 256, (samples, 28, 28)))
        write_idx(raw / f"{split}-labels-idx1-ubyte", np.arange(samples) % 10)
    return tmp_path


def test_small_mnist(small_mnist):
    dataset = load("mnist", small_mnist, resolution=28)
    check(dataset, 1, 28)
    assert dataset.images.dtype == np.uint8
    assert (dataset.train.sum(), len(dataset.labels)) == (40, 60)
    assert dataset.classes == list("0123456789")
    check(load("mnist", small_mnist), 1, 32)


def test_some_of_the_training_images_and_all_of_the_test_images(small_mnist):
    whole = load("mnist", small_mnist, resolution=28)
    some = load("mnist", small_mnist, resolution=28, train_samples=20, mean=0.5, std=2.0)
    assert (some.train.sum(), len(some.labels)) == (20, 40)
    assert np.bincount(some.labels[:20]).tolist() == [2] * 10
    np.testing.assert_array_equal(some.images[20:], whole.images[40:])
    drawn = [next(i for i, image in enumerate(whole.images) if (image == one).all()) for one in some.images[:20]]
    assert drawn == sorted(drawn)
    np.testing.assert_array_equal(some.labels[:20], whole.labels[drawn])
    np.testing.assert_allclose(standardised(some), (some.images / 255 - 0.5) / 2, atol=1e-6)
    told = "train_samples is 31, and training images are 40 of 10 classes: choose 10 to 30, or leave it out"
    refused(told, "mnist", small_mnist, train_samples=31)


@pytest.mark.skipif(
    not (Path(os.environ.get("PHASESCOPE_DATA", "unset")) / "MNIST" / "raw").is_dir(),
    reason="PHASESCOPE_DATA names no folder that holds MNIST/raw",
)
def test_mnist():
    dataset = load("mnist", Path(os.environ["PHASESCOPE_DATA"]))
    check(dataset, 1, 32)
    assert dataset.images.dtype == np.float16
    assert (dataset.train.sum(), len(dataset.labels)) == (60_000, 70_000)
    assert list(dataset.labels[:8]) == [5, 0, 4, 1, 9, 2, 1, 3]
    assert list(dataset.labels[60_000:60_004]) == [7, 2, 1, 0]
    training = standardised(dataset, dataset.train)
    np.testing.assert_allclose([training.mean(), training.std()], [0, 1], atol=0.06)
    # The mean training image predicts test pixels with this error (computed elsewhere, by other code).
    baseline = np.mean((standardised(dataset, ~dataset.train) - training.mean(0)) ** 2)
    assert abs(baseline - 0.7024) < 5e-5


def test_missing_files_are_told_with_what_to_do(tmp_path):
    todo = "set PHASESCOPE_DATA to the folder that holds {}, or set PHASESCOPE_DOWNLOAD=1"
    for source, folder in {
        "mnist": "MNIST/raw",
        "fashion-mnist": "FashionMNIST/raw",
        "cifar10": "cifar-10-batches-py",
        "cifar100": "cifar-100-python",
    }.items():
        refused(f"{source}: no file {tmp_path / folder}/.*; " + todo.format(folder), source, tmp_path)
    refused("no file", "mnist", tmp_path / "absent")


def test_one_missing_file_is_named(small_mnist):
    (small_mnist / "MNIST/raw/t10k-labels-idx1-ubyte").unlink()
    refused("no file .*t10k-labels-idx1-ubyte;", "mnist", small_mnist)


@pytest.mark.parametrize("name", ["train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"])
@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: data[:-5],
        lambda data: data[:6],
        lambda data: b"",
        lambda data: data + b"\0",
        lambda data: b"\x1f\x8b\x08\x08" + data[4:],
        lambda data: struct.pack(">i", 0x0D01) + data[4:],
        lambda data: b"<html>not found</html>",
    ],
    ids=["truncated", "head truncated", "empty", "too long", "gzip magic", "float magic", "html"],
)
def test_broken_idx_files_are_named(small_mnist, name, spoil):
    path = small_mnist / "MNIST/raw" / name
    path.write_bytes(spoil(path.read_bytes()))
    refused(f"{name}: truncated, or no idx file; delete it", "mnist", small_mnist)


def test_idx_files_that_do_not_belong_together_are_named(small_mnist):
    raw = small_mnist / "MNIST/raw"
    labels = raw / "train-labels-idx1-ubyte"
    write_idx(labels, np.arange(39) % 10)
    refused("train-images-idx3-ubyte and train-labels-idx1-ubyte are not", "mnist", small_mnist)
    write_idx(labels, np.full(40, 10))
    refused("train-images-idx3-ubyte and train-labels-idx1-ubyte are not", "mnist", small_mnist)
    labels.write_bytes((raw / "train-images-idx3-ubyte").read_bytes())
    refused("train-labels-idx1-ubyte: truncated, or no idx file", "mnist", small_mnist)


@pytest.mark.parametrize("source", ["mnist", "cifar10"])
def test_failed_download_is_told_in_one_line(source, tmp_path, monkeypatch):
    def unreachable(*arguments, **options):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr("urllib.request.urlopen", unreachable)
    refused(f"{source}: download into .* failed .*no route to host", source, tmp_path, download=True)


def test_nothing_is_downloaded_that_is_there(small_mnist, monkeypatch):
    monkeypatch.setattr("urllib.request.urlopen", None)
    check(load("mnist", small_mnist, download=True), 1, 32)


# --- CIFAR


class OldArray:
    """An array that pickles as numpy did when the CIFAR files were written."""

    class Dtype:
        def __reduce__(self):
            return np.dtype, ("u1", 0, 1)

    def __init__(self, array):
        self.array = array

    def __reduce__(self):
        return np.frombuffer, (self.array.tobytes(), self.Dtype())


@pytest.fixture(params=["cifar10", "cifar100"])
def small_cifar(request, tmp_path, monkeypatch):
    """A data folder with a small CIFAR: its source name, its folder, pixels of all images."""
    from torchvision import datasets

    kind = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[request.param]
    key = "labels" if request.param == "cifar10" else "fine_labels"
    folder = tmp_path / kind.base_folder
    folder.mkdir()
    random, pixels = np.random.default_rng(0), []

    def write(name, content):
        data = pickle.dumps(content, protocol=4)
        (folder / name).write_bytes(data)
        return hashlib.md5(data).hexdigest()

    for files in ("train_list", "test_list"):
        known = []
        for name, _ in getattr(kind, files):
            pixels.append(random.integers(0, 256, (10, 3, 32, 32), dtype=np.uint8))
            content = {"data": FlatArray(pixels[-1]), key: list(range(10))}
            known.append([name, write(name, content)])
        monkeypatch.setattr(kind, files, known)
    meta = {**kind.meta}
    meta["md5"] = write(meta["filename"], {meta["key"]: [f"class {i}" for i in range(10)]})
    monkeypatch.setattr(kind, "meta", meta)
    return request.param, folder, np.concatenate(pixels)


class FlatArray(OldArray):
    """The same, as one row per image."""

    def __reduce__(self):
        return np.ndarray.reshape, (OldArray(self.array), (len(self.array), -1))


def test_small_cifar(small_cifar):
    source, folder, pixels = small_cifar
    dataset = load(source, folder.parent)
    check(dataset, 3, 32)
    np.testing.assert_array_equal(dataset.images, pixels)
    assert dataset.images.dtype == np.uint8
    assert (~dataset.train).sum() == 10
    assert dataset.classes[3] == "class 3"
    check(load(source, folder.parent, resolution=16), 3, 16)


def test_broken_cifar_is_named(small_cifar):
    source, folder, _ = small_cifar
    path = sorted(folder.iterdir())[-1]
    path.write_bytes(path.read_bytes()[:-10])
    refused(f"{path}: broken .*delete it", source, folder.parent)
