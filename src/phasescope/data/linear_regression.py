"""Samples on a line, and a number to be told of each: the data of "When Does Feature Learning Happen?" (2401.07085)."""

import numpy as np

from phasescope.data.dataset import Dataset
from phasescope.params.datasets import DatasetSettings


def load_linear_regression(settings: DatasetSettings) -> Dataset:
    """As many samples for training as the settings say, and as many for testing, their inputs as channels of one pixel.

    x = a·n with a from N(0, 1) and the unit vector n = (1, …, 1)/√inputs, for where a line points does not matter to
    weights that are drawn alike in all directions; y = slope·a + N(0, noise²) is the number to be told. Nothing is
    standardised, and numbers stay float64.

    There are two classes, for what is measured of classes: whether y is above zero.
    """
    assert settings.inputs is not None
    assert settings.train_samples is not None
    count = 2 * settings.train_samples
    rng = np.random.default_rng(settings.draw_seed)
    place = rng.normal(size=count)
    values = settings.slope * place + settings.noise * rng.normal(size=count)
    direction = np.full(settings.inputs, settings.inputs**-0.5)
    return Dataset(
        images=np.outer(place, direction)[:, :, None, None],
        labels=(values > 0).astype(np.int64),
        train=np.arange(count) < settings.train_samples,
        classes=["not above zero", "above zero"],
        mean=np.zeros(settings.inputs),
        std=np.ones(settings.inputs),
        values=values,
    )
