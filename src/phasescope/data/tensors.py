"""Images of a dataset, and what is to be told of them, as tensors on the device."""

from typing import NamedTuple, Self

import numpy as np
import torch

from phasescope.data.dataset import Dataset, standardised
from phasescope.data.properties import number
from phasescope.params.train import Target


class Images(NamedTuple):
    """Standardised images and what is to be told of them, all on the device at once."""

    images: torch.Tensor  # (sample, channel, row, column) in the dtype of the network
    targets: torch.Tensor  # classes (sample,) int64, or numbers (sample, 1) in the dtype of the network

    @classmethod
    def of(
        cls, dataset: Dataset, indices: np.ndarray, device: torch.device, dtype: str, target: Target = "class"
    ) -> Self:
        """The images at `indices` (sample,), for a network of this `dtype` that learns to tell this `target`."""
        images = torch.from_numpy(standardised(dataset, indices)).to(
            device, getattr(torch, dtype), memory_format=torch.channels_last
        )
        if target == "class":
            return cls(images, torch.from_numpy(dataset.labels[indices]).to(device))
        numbers = torch.from_numpy(number(dataset, target)[indices])
        return cls(images, numbers[:, None].to(device, getattr(torch, dtype)))
