"""A training loop of somebody who does not use phasescope, but for three lines: they are marked.

    python train_elsewhere.py

It writes checkpoints/elsewhere/seed_<seed>/step_<step>.safetensors, at 0 and 2^i updates.
"""

from pathlib import Path

import numpy as np
import torch
from own.my_network import build
from PIL import Image
from torch import nn

import phasescope  # 1

HERE = Path(__file__).parent


def read(part: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Images (sample, 1, row, column), 0 … 1, and labels (sample,)."""
    files = sorted((HERE / "data" / "shapes" / part).glob("*/*.png"))
    images = np.stack([np.asarray(Image.open(file)) for file in files])[:, None] / 255
    kinds = sorted({file.parent.name for file in files})
    return torch.from_numpy(images).float(), torch.tensor([kinds.index(file.parent.name) for file in files])


def train(seed: int, updates: int = 256) -> None:
    """Train a network with Adam."""
    torch.manual_seed(seed)
    images, labels = read("train")
    # As phasescope will show them to the network: by mean and standard deviation of the training images.
    images = (images - images.mean()) / images.std(correction=0)
    network = build(channels=1, outputs=3)
    optimiser = torch.optim.Adam(network.parameters(), 0.003)
    record = phasescope.Recorder(network, HERE / "checkpoints" / "elsewhere", seed=seed)  # 2
    for _ in range(updates):
        chosen = torch.randperm(len(images))[:16]
        optimiser.zero_grad()
        nn.functional.cross_entropy(network(images[chosen]), labels[chosen]).backward()
        optimiser.step()
        record.step()  # 3


if __name__ == "__main__":
    for seed in (0, 1):
        train(seed)
