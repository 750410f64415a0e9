"""The handwritten digits that come with scikit-learn: 1,797 grey 8×8 images, no download."""

import numpy as np
import sklearn.datasets
import sklearn.model_selection

from phasescope.data.dataset import Dataset
from phasescope.data.resample import resample
from phasescope.data.statistics import channel_statistics

_TEST_SAMPLES = 500


def load_digits(resolution: int) -> Dataset:
    """Digits at ``resolution`` (1,297 training, 500 test images, stratified by class, always the same)."""
    bunch = sklearn.datasets.load_digits()
    split = sklearn.model_selection.train_test_split(
        np.arange(len(bunch.target)), test_size=_TEST_SAMPLES, random_state=0, stratify=bunch.target
    )
    order = np.concatenate([np.sort(part) for part in split])
    train = np.arange(len(order)) < len(order) - _TEST_SAMPLES
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
