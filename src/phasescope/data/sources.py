"""From the settings of a dataset to its images, and to the raw files that they are read from."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from phasescope.data.dataset import Dataset
from phasescope.data.layout import require_vision_files, vision_files, vision_folder
from phasescope.params.base import is_own
from phasescope.params.datasets import DatasetSettings, is_embedded, is_vision

# scikit-learn and torchvision take seconds to import: each is paid for by the sources that need it alone.


def load(settings: DatasetSettings, root: Path, download: bool) -> Dataset:
    """The dataset of ``settings``, read from the data folder ``root`` or, if ``download``, fetched into it.

    Raises:
        UserError: files are missing or broken, a download failed, or there are fewer samples than asked for.
    """
    dataset = _load(settings, root, download)
    mean = dataset.mean if settings.mean is None else np.full_like(dataset.mean, settings.mean)
    std = dataset.std if settings.std is None else np.full_like(dataset.std, settings.std)
    return replace(dataset, mean=mean, std=std)


def _load(settings: DatasetSettings, root: Path, download: bool) -> Dataset:
    if settings.source == "digits":
        from phasescope.data.digits import load_digits

        return load_digits(settings.resolution, settings.train_samples, settings.draw_seed)
    if settings.source == "feature-strength":
        from phasescope.data.feature_strength import load_feature_strength

        return load_feature_strength(settings)
    if settings.source == "binary-operation":
        from phasescope.data.operations import load_binary_operation

        return load_binary_operation(settings)
    if settings.source == "linear-regression":
        from phasescope.data.linear_regression import load_linear_regression

        return load_linear_regression(settings)
    if is_own(settings.source):
        from phasescope.data.own import load_own

        return load_own(settings)
    if is_vision(settings.source):
        from phasescope.data.vision import load_vision

        return load_vision(settings, settings.source, root, download)
    from phasescope.data.image_folder import load_image_folder

    return load_image_folder(settings, root)


def raw_folder(settings: DatasetSettings, root: Path) -> Path | None:
    """The folder of the raw files, whether it is there or not; what is embedded has none."""
    if is_embedded(settings.source):
        return None
    if is_vision(settings.source):
        return vision_folder(settings.source, root)
    from phasescope.data.image_folder import image_folder

    return image_folder(settings, root)


def raw_files(settings: DatasetSettings, root: Path) -> list[Path]:
    """Exactly the files that `load` would read, all of them in `raw_folder`.

    Raises:
        UserError: there is one missing, or too few images, as `load` would say.
    """
    if is_embedded(settings.source):
        return []
    if is_vision(settings.source):
        require_vision_files(settings.source, root)
        return vision_files(settings.source, root)
    from phasescope.data.image_folder import image_files

    return image_files(settings, root)


def fetch(settings: DatasetSettings, root: Path) -> None:
    """Download what is missing of a dataset that can be had so; of others nothing.

    Raises:
        UserError: the download failed.
    """
    if is_vision(settings.source):
        from phasescope.data.vision import fetch as fetch_vision

        fetch_vision(settings.source, root)
