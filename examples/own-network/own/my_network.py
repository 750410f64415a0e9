"""A network of one's own: anything that takes images (sample, channel, row, column) to logits (sample, class)."""

import torch
from torch import nn


class MyNetwork(nn.Module):
    """Two convolutions with a shortcut, the mean over the image, and a dense layer."""

    def __init__(self, channels: int, outputs: int, width: int) -> None:
        super().__init__()
        # BatchNorm takes the mean away: a bias before it would change nothing, and Adam would move it at random.
        first = nn.Conv2d(channels, width, 3, 2, padding=1, bias=False)
        second = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.stem = nn.Sequential(first, nn.BatchNorm2d(width), nn.ReLU())
        self.block = nn.Sequential(second, nn.BatchNorm2d(width), nn.ReLU())
        self.pool = nn.AdaptiveAvgPool2d(2)
        self.head = nn.Linear(4 * width, outputs)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images to logits."""
        maps = self.stem(images)
        return self.head(self.pool(maps + self.block(maps)).flatten(1))


def build(channels: int, outputs: int, width: int = 8) -> nn.Module:
    """What `model: my_network:build` calls, with what it takes of `channels`, `resolution`, `outputs`, `arguments`."""
    return MyNetwork(channels, outputs, width)
