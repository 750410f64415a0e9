"""The handwritten digits that come with scikit-learn: 1,797 grey 8×8 images, no download."""

import numpy as np
import sklearn.datasets

from phasescope.data.dataset import Dataset
from phasescope.data.resample import resample
from phasescope.data.statistics import channel_statistics
from phasescope.data.stratified import stratified

_TRAIN_SAMPLES = 1297


def load_digits(resolution: int, train_samples: int | None = None, draw_seed: int = 0) -> Dataset:
    """Digits at ``resolution``: so many for training (none: 1,297), the others for testing, stratified by class.

    Raises:
        UserError: there are fewer, or none of a class would be left.
    """
    bunch = sklearn.datasets.load_digits()
    split = stratified(bunch.target, train_samples or _TRAIN_SAMPLES, draw_seed, "the digits")
    order = np.concatenate(split)
    train = np.arange(len(order)) < len(split[0])
    images = resample(bunch.images[order, None], resolution, scale=16)
    mean, std = channel_statistics(images[train])
    return Dataset(
        images=images,
        labels=bunch.target[order].astype(np.int64),
        train=train,
        classes=[str(name) for name in bunch.target_names],
        mean=mean,
        std=std,
    )
