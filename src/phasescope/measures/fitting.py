"""Training a small module on stored activations: what decoders and classifiers that are trained share.

The optimisers are torch.optim's functions, for its classes import a compiler (`models.optimisers`).
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import nn
from torch.optim.adam import adam as adam_step
from torch.optim.sgd import sgd as sgd_step

#: Samples that pass through at once where no gradient is needed.
EVALUATION_BATCH = 1024

#: From outputs and targets of a batch to its mean loss.
Criterion = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
#: Moves the parameters of a module by what an optimiser makes of their gradients at a learning rate.
Update = Callable[[float], None]


def initialised(build: Callable[[], nn.Module], device: torch.device) -> nn.Module:
    """A module with PyTorch's default initialisation, always the same, leaving torch's random numbers as they were."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build().to(device)


def adam(module: nn.Module, weight_decay: float) -> Update:
    """Adam with PyTorch's defaults, its weight decay added to the gradients (`torch.optim.Adam`).

    Fused: a linear decoder of 512 features → 3,072 pixels then takes 13 ms for a batch of 128 where it took 16.
    """
    parameters = list[torch.Tensor](module.parameters())
    averages, squares = ([torch.zeros_like(parameter) for parameter in parameters] for _ in range(2))
    made = [torch.zeros((), device=parameter.device) for parameter in parameters]

    @torch.no_grad()
    def update(rate: float) -> None:
        adam_step(
            parameters,
            _gradients(parameters),
            averages,
            squares,
            [],
            made,
            fused=True,
            amsgrad=False,
            beta1=0.9,
            beta2=0.999,
            lr=rate,
            weight_decay=weight_decay,
            eps=1e-8,
            maximize=False,
        )

    return update


def sgd(module: nn.Module, momentum: float) -> Update:
    """Stochastic gradient descent (`torch.optim.SGD`)."""
    parameters = list[torch.Tensor](module.parameters())
    kept: list[torch.Tensor | None] = [None] * len(parameters)

    @torch.no_grad()
    def update(rate: float) -> None:
        sgd_step(
            parameters,
            _gradients(parameters),
            kept,
            weight_decay=0.0,
            momentum=momentum,
            lr=rate,
            dampening=0.0,
            nesterov=False,
            maximize=False,
        )

    return update


def _gradients(parameters: list[torch.Tensor]) -> list[torch.Tensor]:
    """Of parameters that have one each."""
    return [parameter.grad for parameter in parameters if parameter.grad is not None]


def fit(
    module: nn.Module,
    inputs: torch.Tensor,
    targets: torch.Tensor,
    criterion: Criterion,
    update: Update,
    batch_size: int,
    rates: Sequence[float],
) -> np.ndarray:
    """Train `module` in place, an epoch at each of the learning `rates`; gives the mean loss of each, (epoch,).

    `update` is one of `adam` and `sgd` of the same module.
    The loss of an epoch is the mean over its samples, each taken before the update that its batch makes. The order of
    the samples (inputs and targets alike) is drawn anew in every epoch, and is the same for every cell.
    """
    count = len(inputs)
    losses = torch.zeros(len(rates), dtype=torch.float64, device=inputs.device)
    module.train()
    for epoch, rate in enumerate(rates):
        order = torch.from_numpy(np.random.default_rng([0, epoch]).permutation(count)).to(inputs.device)
        for rows in order.split(batch_size):
            loss = criterion(module(inputs[rows]), targets[rows])
            module.zero_grad()
            loss.backward()
            update(rate)
            # Summed on the device, so that no update waits for the host.
            losses[epoch] += loss.detach().double() * len(rows)
    module.eval()
    return (losses / count).cpu().numpy()


def outputs(module: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    """What a module gives for all inputs (sample, …), without gradients."""
    with torch.no_grad():
        return torch.cat([module(part) for part in inputs.tensor_split(math.ceil(len(inputs) / EVALUATION_BATCH))])
