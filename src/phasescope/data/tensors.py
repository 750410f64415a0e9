"""Images of a dataset as tensors on the device."""

from typing import NamedTuple, Self

import numpy as np
import torch

from phasescope.data.dataset import Dataset, standardised


class Images(NamedTuple):
    """Standardised images and their labels, all on the device at once."""

    images: torch.Tensor  # (sample, channel, row, column) in the dtype of the network
    labels: torch.Tensor  # (sample,) int64

    @classmethod
    def of(cls, dataset: Dataset, indices: np.ndarray, device: torch.device, dtype: str) -> Self:
        """The images at `indices` (sample,), for a network of this `dtype`."""
        images = torch.from_numpy(standardised(dataset, indices)).to(
            device, getattr(torch, dtype), memory_format=torch.channels_last
        )
        return cls(images, torch.from_numpy(dataset.labels[indices]).to(device))
