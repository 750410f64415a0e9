"""Where torchvision keeps the files of MNIST, Fashion-MNIST, CIFAR-10 and CIFAR-100.

Written out here, though torchvision knows them too: importing it takes seconds, which is too long for a quick look at
whether the files have changed.
"""

from pathlib import Path

from phasescope.errors import UserError
from phasescope.params.datasets import VisionSource

_IDX = [f"{part}-{what}-ubyte" for part in ("train", "t10k") for what in ("images-idx3", "labels-idx1")]

_FILES: dict[VisionSource, tuple[str, list[str]]] = {
    "mnist": ("MNIST/raw", _IDX),
    "fashion-mnist": ("FashionMNIST/raw", _IDX),
    "cifar10": (
        "cifar-10-batches-py",
        [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch", "batches.meta"],
    ),
    "cifar100": ("cifar-100-python", ["train", "test", "meta"]),
}


def vision_folder(source: VisionSource, root: Path) -> Path:
    """The folder of a dataset inside the data folder `root`."""
    return root / _FILES[source][0]


def vision_files(source: VisionSource, root: Path) -> list[Path]:
    """The files that a dataset is read from, whether they are there or not."""
    return [vision_folder(source, root) / name for name in _FILES[source][1]]


def require_vision_files(source: VisionSource, root: Path) -> None:
    """Refuse to go on without all files of a dataset.

    Raises:
        UserError: one is missing.
    """
    for path in vision_files(source, root):
        if not path.is_file():
            raise UserError(
                f"{source}: no file {path}; set PHASESCOPE_DATA to the folder that holds {_FILES[source][0]}, "
                "or set PHASESCOPE_DOWNLOAD=1 to let it be downloaded"
            )
