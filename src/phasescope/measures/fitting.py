"""Training a small module on stored activations: what decoders and classifiers that are trained share."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import nn

#: Samples that pass through at once where no gradient is needed.
EVALUATION_BATCH = 1024

#: From outputs and targets of a batch to its mean loss.
Criterion = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def initialised(build: Callable[[], nn.Module], device: torch.device) -> nn.Module:
    """A module with PyTorch's default initialisation, always the same, leaving torch's random numbers as they were."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build().to(device)


def fit(
    module: nn.Module,
    inputs: torch.Tensor,
    targets: torch.Tensor,
    criterion: Criterion,
    optimiser: torch.optim.Optimizer,
    batch_size: int,
    rates: Sequence[float],
) -> np.ndarray:
    """Train `module` in place, an epoch at each of the learning `rates`; gives the mean loss of each, (epoch,).

    The loss of an epoch is the mean over its samples, each taken before the update that its batch makes. The order of
    the samples (inputs and targets alike) is drawn anew in every epoch, and is the same for every cell.
    """
    count = len(inputs)
    losses = torch.zeros(len(rates), dtype=torch.float64, device=inputs.device)
    module.train()
    for epoch, rate in enumerate(rates):
        for group in optimiser.param_groups:
            group["lr"] = rate
        order = torch.from_numpy(np.random.default_rng([0, epoch]).permutation(count)).to(inputs.device)
        for rows in order.split(batch_size):
            loss = criterion(module(inputs[rows]), targets[rows])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            # Summed on the device, so that no update waits for the host.
            losses[epoch] += loss.detach().double() * len(rows)
    module.eval()
    return (losses / count).cpu().numpy()


def outputs(module: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    """What a module gives for all inputs (sample, …), without gradients."""
    with torch.no_grad():
        return torch.cat([module(part) for part in inputs.tensor_split(math.ceil(len(inputs) / EVALUATION_BATCH))])
