"""The data of the feature-strength model, whose learning is known exactly."""

import numpy as np

from phasescope.data.dataset import Dataset
from phasescope.params.datasets import DatasetSettings
from phasescope.theory.feature_strength.model import FeatureStrength, samples


def load_feature_strength(settings: DatasetSettings) -> Dataset:
    """All 2l samples that differ, once for training and once for testing, their d attributes as channels of one pixel.

    They are not standardised (mean 0, standard deviation 1), for the theory is of the attributes as they are, and stay
    float64, for exact least squares reads rounding as information. More samples in the same proportions would change
    nothing.

    Raises:
        UserError: for parameters outside the model.
    """
    model = FeatureStrength(**settings.model_dump(include={"outputs", "strength", "inputs"}), learning_rate=1.0)
    inputs, label, _ = samples(model)
    count, attributes = inputs.shape
    return Dataset(
        images=np.tile(inputs, (2, 1))[:, :, None, None],
        labels=np.tile(label, 2).astype(np.int64),
        train=np.arange(2 * count) < count,
        classes=[str(name) for name in range(label.max() + 1)],
        mean=np.zeros(attributes),
        std=np.ones(attributes),
    )
