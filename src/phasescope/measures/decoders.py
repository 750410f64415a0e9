"""Decoders that are trained: the linear one of the paper's released code, and the deconvolution one of its text."""

import math

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from phasescope.compute import Compute
from phasescope.errors import UserError
from phasescope.measures.fitting import adam, fit, initialised, outputs
from phasescope.measures.ridge import factorise, least_squares_mse
from phasescope.measures.samples import Samples
from phasescope.params.decode import Decoder, DecodeSettings

#: Channels of the last hidden maps; those before have twice as many each (ClaDec, Schneider & Vlachos 2021).
CHANNELS = 64


def trained(
    cell: np.ndarray, shape: tuple[int, ...], samples: Samples, settings: DecodeSettings, compute: Compute
) -> dict[str, np.ndarray | float]:
    """Train a decoder of one cell (sample, feature) from fresh initialisation, by Adam on the mean squared error.

    `shape` is that of the features of one sample, such as (512,) or (256, 2, 2). Gives what `decode` returns of a
    cell, and `epoch_mse` (epoch,), the loss while it was trained; of a linear decoder also `optimum_mse`, the least
    training error that any linear decoder has, and `excess`, by how much of it its own is above that (NaN where the
    layer is too wide for an exact solution).
    """
    device = compute.start()
    kind = settings.decoders[0]
    decoder = initialised(lambda: build(kind, shape, samples.image, settings.width), device)
    inputs, targets = {}, {}
    for part, chosen in (("train", samples.train), ("test", samples.test)):
        inputs[part] = torch.from_numpy(cell[chosen].astype(np.float32)).to(device).unflatten(1, shape)
        targets[part] = torch.from_numpy(samples.inputs[chosen]).to(device)
    rates = [settings.learning_rate] * settings.epochs
    update = adam(decoder, settings.weight_decay)
    losses = fit(decoder, inputs["train"], targets["train"], functional.mse_loss, update, settings.batch_size, rates)
    errors = {part: _errors(decoder, inputs[part], targets[part]) for part in inputs}
    result = {"error": errors["test"], "train_mse": errors["train"].mean(), "epoch_mse": losses}
    if kind == "linear-adam" and min(samples.train.sum(), cell.shape[1]) <= settings.exact_limit:
        # Along the axes of the training inputs nothing is lost: those outside them are zero for training samples.
        factors = factorise(cell[samples.train], exact_limit=settings.exact_limit)
        along = least_squares_mse(factors, samples.targets.train)
        result["optimum_mse"] = along * samples.targets.train.mean.size / samples.inputs.shape[1]
        result["excess"] = result["train_mse"] / result["optimum_mse"] - 1 if result["optimum_mse"] else np.nan
    return result


def build(kind: Decoder, shape: tuple[int, ...], image: tuple[int, int, int], width: float) -> nn.Module:
    """A decoder from features of `shape` to flat images (channel · row · column,), with PyTorch's initialisation.

    Raises:
        UserError: transposed convolutions, each of which doubles the maps, do not lead to the image.
    """
    if kind == "linear-adam":
        return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(shape), math.prod(image)))
    return deconvolution(shape, image, width)


def deconvolution(shape: tuple[int, ...], image: tuple[int, int, int], width: float = 1.0) -> nn.Sequential:
    """The decoder of an auto-encoder (methods of Schneider & Prabhushankar 2024, which take it from ClaDec).

    Flat features or 1×1 maps: Linear(p, max(p, 64)) and ReLU; maps: Conv3×3(c, c) and ReLU. Then transposed
    convolutions (kernel 4, stride 2, padding 1, each with ReLU) of …, 256, 128, 64 channels and a last one to the
    image, each of which doubles the maps; no BatchNorm, nothing after the last. `width` is a factor on these channels.

    Raises:
        UserError: the maps do not become the image by doubling.
    """
    channels, rows, columns = image
    flat = len(shape) == 1 or math.prod(shape[1:]) == 1
    maps = (1, 1) if flat else shape[1:]
    doublings = round(math.log2(rows / maps[0])) if len(maps) == 2 else 0
    if doublings < 1 or (maps[0] << doublings, maps[1] << doublings) != (rows, columns):
        mend = "set the dataset's resolution to a power of two" if flat else "pool the tap to a power of two"
        raise UserError(
            f"the decoder deconvolution doubles maps until they are the image, and {'×'.join(map(str, maps))} never "
            f"become {rows}×{columns}: {mend}, or leave it out of decode.trained_taps"
        )
    hidden = [max(1, round((CHANNELS << place) * width)) for place in reversed(range(doublings - 1))]
    if flat:
        features = math.prod(shape)
        given = max(features, max(1, round(CHANNELS * width)))
        layers: list[nn.Module] = [nn.Flatten(), nn.Linear(features, given), nn.ReLU(), nn.Unflatten(1, (given, 1, 1))]
    else:
        given = shape[0]
        layers = [nn.Conv2d(given, given, 3, padding=1), nn.ReLU()]
    for out in hidden:
        layers += [nn.ConvTranspose2d(given, out, 4, stride=2, padding=1), nn.ReLU()]
        given = out
    return nn.Sequential(*layers, nn.ConvTranspose2d(given, channels, 4, stride=2, padding=1), nn.Flatten())


def _errors(decoder: nn.Module, inputs: torch.Tensor, targets: torch.Tensor) -> np.ndarray:
    """Squared error of every sample, mean over pixels, (sample,)."""
    return (outputs(decoder, inputs) - targets).double().square().mean(dim=1).cpu().numpy()
