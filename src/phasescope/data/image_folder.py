"""A folder of images, one subfolder per class."""

from pathlib import Path

import numpy as np
from PIL import Image

from phasescope.data.dataset import Dataset
from phasescope.data.statistics import STATISTICS, channel_statistics
from phasescope.data.stratified import stratified
from phasescope.errors import UserError
from phasescope.params.datasets import DatasetSettings

#: What file managers leave behind; names that begin with a dot are passed over as well.
_NOT_IMAGES = {"Thumbs.db", "desktop.ini"}


def load_image_folder(settings: DatasetSettings, root: Path) -> Dataset:
    """Images in ``train/<class>/`` and ``test/<class>/``, or in ``<class>/``, of the folder of ``settings``.

    Without ``train`` and ``test`` folders, `test_fraction` of each class becomes test samples: drawn once and
    for all, at least one, and never all of them. Samples stand in the order of split, class name, file name.
    Images are read as RGB, or grey ones if `grey`, and brought to resolution × resolution by bicubic
    interpolation, whatever their shape. Where the settings ask for fewer training images than there are, the others
    are left out.

    Raises:
        UserError: the folder has not this form, a file is no image, a channel is constant, or there are too few images.
    """
    folder = image_folder(settings, root)
    classes, training_files, test_files = _splits(folder, settings.test_fraction)
    if settings.train_samples is not None:
        training_files = _some(training_files, settings.train_samples, settings.draw_seed)
    files = [file for split in (training_files, test_files) for files in split for file in files]
    counts = [len(files) for split in (training_files, test_files) for files in split]
    images = np.empty((len(files), 1 if settings.grey else 3, settings.resolution, settings.resolution), np.uint8)
    for index, file in enumerate(files):
        images[index] = _read(file, settings.resolution, settings.grey)
    train = np.arange(len(files)) < sum(len(files) for files in training_files)
    mean, std = channel_statistics(images[: train.sum()])
    if not std.all():
        raise UserError(
            f"image folder {folder}: channel {int(np.argmin(std))} has the same value in all training "
            "images, so it cannot be standardised; give images that differ"
        )
    if settings.statistics:
        mean, std = map(np.array, STATISTICS[settings.statistics])
    labels = np.repeat(np.tile(np.arange(len(classes)), 2), counts)
    return Dataset(images=images, labels=labels, train=train, classes=classes, mean=mean, std=std)


def _some(files: "_ByClass", count: int, seed: int) -> "_ByClass":
    """So many of the files of all classes, in proportion."""
    labels = np.repeat(np.arange(len(files)), [len(of_class) for of_class in files])
    everything = [file for of_class in files for file in of_class]
    chosen: _ByClass = [[] for _ in files]
    for index in stratified(labels, count, seed, "training images")[0]:
        chosen[labels[index]].append(everything[index])
    return chosen


def image_folder(settings: DatasetSettings, root: Path) -> Path:
    """The folder of the images, whether it is there or not."""
    return root / (settings.folder or "")


def image_files(settings: DatasetSettings, root: Path) -> list[Path]:
    """The files that `load_image_folder` reads.

    Raises:
        UserError: the folder is not there, or has not its form.
    """
    _, *halves = _splits(image_folder(settings, root), settings.test_fraction)
    return [file for half in halves for files in half for file in files]


_ByClass = list[list[Path]]


def _splits(folder: Path, test_fraction: float) -> tuple[list[str], _ByClass, _ByClass]:
    """Class names, and the training and the test files of each class."""
    if not folder.is_dir():
        raise UserError(f"image folder {folder}: no such folder; `folder` is relative to PHASESCOPE_DATA, or absolute")
    train, test = folder / "train", folder / "test"
    if train.is_dir() and test.is_dir():
        classes, test_classes = _classes(train), _classes(test)
        if classes != test_classes:
            odd = min(set(classes) ^ set(test_classes))
            raise UserError(
                f"image folder {folder}: class {odd!r} is in {'train' if odd in classes else 'test'}/ alone; "
                "both must have the same classes"
            )
        return classes, [_files(train / name) for name in classes], [_files(test / name) for name in classes]
    for split, other in ((train, test), (test, train)):
        if split.is_dir() and any(path.is_dir() for path in _visible(split)):
            raise UserError(f"image folder {folder}: has {split.name}/ but no {other.name}/; give both or neither")
    classes = _classes(folder)
    halves = [_halves(_files(folder / name), test_fraction) for name in classes]
    return classes, [half[0] for half in halves], [half[1] for half in halves]


def _halves(files: list[Path], test_fraction: float) -> tuple[list[Path], list[Path]]:
    if len(files) == 1:
        raise UserError(
            f"image folder: class {files[0].parent} has one image; give two or more, to train and to test with"
        )
    test_samples = min(max(round(test_fraction * len(files)), 1), len(files) - 1)
    in_test = set(np.random.default_rng(0).permutation(len(files))[:test_samples].tolist())
    return (
        [file for index, file in enumerate(files) if index not in in_test],
        [file for index, file in enumerate(files) if index in in_test],
    )


def _classes(folder: Path) -> list[str]:
    classes = [path.name for path in _visible(folder) if path.is_dir()]
    if len(classes) < 2:
        raise UserError(
            f"image folder {folder}: {len(classes) or 'no'} class; put the images of each of two or more "
            "classes in a folder of its own"
        )
    return classes


def _files(folder: Path) -> list[Path]:
    files = _visible(folder)
    if not files:
        raise UserError(f"image folder: class {folder} has no images; add some or remove it")
    return files


def _visible(folder: Path) -> list[Path]:
    visible = (path for path in folder.iterdir() if not path.name.startswith(".") and path.name not in _NOT_IMAGES)
    # As paths they would stand in the same order, and sorting takes three times as long.
    return sorted(visible, key=lambda path: path.name)


def _read(path: Path, resolution: int, grey: bool) -> np.ndarray:
    """Pixels of an image file, (channel, resolution, resolution) uint8; transparency is dropped."""
    try:
        with Image.open(path) as image:
            pixels = _eight_bit(image).convert("L" if grey else "RGB")
    except Exception as error:  # Pillow's readers raise whatever their format makes them stumble over
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: cannot be read as an image ({reason}); mend or remove it") from error
    if pixels.size != (resolution, resolution):
        pixels = pixels.resize((resolution, resolution), Image.Resampling.BICUBIC)
    return np.atleast_3d(np.asarray(pixels)).transpose(2, 0, 1)


def _eight_bit(image: Image.Image) -> Image.Image:
    """The image with 8 bits a channel; left to Pillow, 16-bit images turn white, and floating ones black."""
    if image.mode.startswith("I"):
        values = np.asarray(image) / 257
        if values.min() < 0 or values.max() > 255:
            raise ValueError("more than 16 bits a pixel")
        return Image.fromarray(np.rint(values).astype(np.uint8))
    if image.mode == "F":
        raise ValueError("floating-point pixels")
    return image.convert("RGBA") if image.has_transparency_data else image
