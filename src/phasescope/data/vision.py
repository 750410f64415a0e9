"""MNIST, Fashion-MNIST, CIFAR-10 and CIFAR-100, in torchvision's layout of files."""

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torchvision import datasets
from torchvision.datasets.mnist import read_image_file, read_label_file
from torchvision.datasets.utils import check_integrity

from phasescope.data.dataset import Dataset
from phasescope.data.layout import require_vision_files, vision_files
from phasescope.data.resample import resample
from phasescope.data.statistics import STATISTICS
from phasescope.data.stratified import stratified
from phasescope.errors import UserError
from phasescope.params.datasets import DatasetSettings, VisionSource

_CLASSES = {
    "mnist": datasets.MNIST,
    "fashion-mnist": datasets.FashionMNIST,
    "cifar10": datasets.CIFAR10,
    "cifar100": datasets.CIFAR100,
}

#: Images, labels, number of training samples (which come first), class names.
_Samples = tuple[np.ndarray, np.ndarray, int, list[str]]


def load_vision(settings: DatasetSettings, source: VisionSource, root: Path, download: bool) -> Dataset:
    """The images of ``source`` at the resolution of the settings; if ``download``, missing files are fetched first.

    Where the settings ask for fewer training images than there are, the others are left out.

    Raises:
        UserError: files are missing or broken, a download failed, or there are too few images.
    """
    if download:
        fetch(source, root)
    require_vision_files(source, root)
    read = _read_mnist if source in ("mnist", "fashion-mnist") else _read_cifar
    images, labels, training_samples, classes = read(source, root)
    if settings.train_samples is not None:
        of_training = labels[:training_samples]
        drawn, _ = stratified(of_training, settings.train_samples, settings.draw_seed, "training images")
        kept = np.concatenate([drawn, np.arange(training_samples, len(labels))])
        images, labels, training_samples = images[kept], labels[kept], len(drawn)
    if images.shape[-1] != settings.resolution:
        images = resample(images, settings.resolution, scale=255)
    mean, std = STATISTICS[source]
    return Dataset(
        images=images,
        labels=labels,
        train=np.arange(len(labels)) < training_samples,
        classes=classes,
        mean=np.array(mean),
        std=np.array(std),
    )


def fetch(source: VisionSource, root: Path) -> None:
    """Download a dataset into `root` unless all its files are there.

    Raises:
        UserError: it failed.
    """
    if all(path.is_file() for path in vision_files(source, root)):
        return
    try:
        _open(source, root, download=True)
    except (OSError, RuntimeError, EOFError) as error:
        raise UserError(
            f"{source}: download into {root} failed ({' '.join(str(error).split())}); try again, or put the "
            "files there by hand and unset PHASESCOPE_DOWNLOAD"
        ) from error


def _read_mnist(source: VisionSource, root: Path) -> _Samples:
    images, labels = [], []
    files = vision_files(source, root)
    for image_file, label_file in (files[:2], files[2:]):
        images.append(_read_idx(read_image_file, image_file))
        labels.append(_read_idx(read_label_file, label_file))
        if images[-1].shape != (len(labels[-1]), 28, 28) or not np.all(labels[-1] < 10):
            raise UserError(
                f"{source}: {image_file} and {label_file.name} are not 28×28 images and a label of 0 to 9 "
                "for each; delete both and get them anew"
            )
    classes = [name.split(" - ")[0] for name in _CLASSES[source].classes]  # MNIST calls them "0 - zero"
    return np.concatenate(images)[:, None], np.concatenate(labels), len(labels[0]), classes


def _read_idx(read: Callable[[str], torch.Tensor], path: Path) -> np.ndarray:
    try:
        return read(str(path)).numpy()
    except (AssertionError, KeyError, OSError, RuntimeError, TypeError, ValueError) as error:
        raise UserError(f"{path}: truncated, or no idx file; delete it and get it anew") from error


def _read_cifar(source: VisionSource, root: Path) -> _Samples:
    kind = _CLASSES[source]
    known = dict(kind.train_list + kind.test_list) | {kind.meta["filename"]: kind.meta["md5"]}
    for path in vision_files(source, root):
        if not check_integrity(path, known[path.name]):
            raise UserError(f"{path}: broken (its MD5 is not {known[path.name]}); delete it and get it anew")
    training, test = (_open(source, root, train=train) for train in (True, False))
    images = np.concatenate([training.data, test.data]).transpose(0, 3, 1, 2)
    labels = np.array(training.targets + test.targets, np.int64)
    return np.ascontiguousarray(images), labels, len(training.targets), training.classes


def _open(source: VisionSource, root: Path, **options: bool) -> datasets.VisionDataset:
    with warnings.catch_warnings():
        # The pickles of CIFAR are those of an old numpy, which calls numpy.dtype in a way now deprecated.
        warnings.simplefilter("ignore", np.exceptions.VisibleDeprecationWarning)
        return _CLASSES[source](root, **options)
