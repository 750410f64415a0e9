"""From the settings of a dataset to its images."""

from pathlib import Path

from phasescope.data.dataset import Dataset
from phasescope.params.datasets import DatasetSettings


def load(settings: DatasetSettings, root: Path, download: bool) -> Dataset:
    """The dataset of ``settings``, read from the data folder ``root`` or, if ``download``, fetched into it.

    Raises:
        UserError: files are missing or broken, or a download failed.
    """
    # scikit-learn and torchvision take seconds to import: each is paid for by the sources that need it alone.
    if settings.source == "digits":
        from phasescope.data.digits import load_digits

        return load_digits(settings.resolution)
    if settings.source == "image-folder":
        from phasescope.data.image_folder import load_image_folder

        return load_image_folder(settings, root)
    from phasescope.data.vision import load_vision

    return load_vision(settings.source, settings.resolution, root, download)
