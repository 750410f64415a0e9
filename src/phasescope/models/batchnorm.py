"""BatchNorm statistics that fit the weights.

Running statistics lag behind the weights: at the first steps they are still close to their initial (0, 1). With them,
the reconstruction loss starts at a value that has nothing to do with what the layer knows, and the constant phase
vanishes (tests/test_learning_phases.py shows it on digits).
"""

import math

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import update_bn


def normalises(model: nn.Module) -> bool:
    """Whether there is BatchNorm in a network."""
    return any(isinstance(module, _BatchNorm) for module in model.modules())


def recalibrate(model: nn.Module, images: torch.Tensor, batch: int = 1024) -> None:
    """Recompute the running statistics from ``images`` (sample, channel, row, column), in place.

    At fixed weights, they become the average over batches of at most ``batch`` images, of nearly equal
    lengths so that every image counts alike (and none is left alone, which BatchNorm refuses on 1×1 maps).
    The network ends in eval mode; one without BatchNorm is only put there.
    """
    batches = torch.tensor_split(images, math.ceil(len(images) / batch))
    update_bn(batches, model, device=next(model.parameters()).device)
    model.eval()


def use_batch_statistics(model: nn.Module) -> None:
    """Make every BatchNorm layer normalise by the statistics of its batch, in eval mode too, in place.

    The network gives up its running statistics for it, and what is stored of them elsewhere stays as it is.
    A network without BatchNorm is unchanged.
    """
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.track_running_stats = False
            module.running_mean = module.running_var = None
