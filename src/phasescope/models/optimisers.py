"""The optimisers, and what they keep of each parameter as one array.

In the functions of torch.optim, not in its classes: the first that is made imports torch's compiler, which takes every
process 1.2 s of a processor (docs/log.md).
"""

from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim.adamw import adamw
from torch.optim.sgd import sgd

from phasescope.params.train import TrainJob

#: What an optimiser keeps of each parameter, in torch's names.
MOMENTS = {"sgd": ["momentum_buffer"], "adamw": ["exp_avg", "exp_avg_sq"]}
#: Settings that only the other optimiser heeds.
UNHEEDED = {"sgd": {"betas"}, "adamw": {"momentum"}}


class Optimiser:
    """The optimiser of the settings, over all parameters of a network, each of which has a gradient."""

    def __init__(self, job: TrainJob, network: nn.Module) -> None:
        self._job, self._parameters = job, list[torch.Tensor](network.parameters())
        #: Of each parameter, in the order of `MOMENTS`; the momentum of SGD is None before the first update.
        self._kept: list[list[Any]] = [
            [None if job.optimiser == "sgd" else torch.zeros_like(parameter) for parameter in self._parameters]
            for _ in MOMENTS[job.optimiser]
        ]
        self._made = [torch.tensor(0.0) for _ in self._parameters]

    def forget_gradients(self) -> None:
        """Before the backward pass of the next update."""
        for parameter in self._parameters:
            parameter.grad = None

    @torch.no_grad()
    def update(self, learning_rate: float) -> None:
        """Move all parameters by what the optimiser makes of their gradients."""
        job = self._job
        gradients: list[Any] = [parameter.grad for parameter in self._parameters]
        if job.optimiser == "adamw":
            (first, second), (averages, squares) = job.betas, self._kept
            adamw(
                self._parameters,
                gradients,
                averages,
                squares,
                [],
                self._made,
                amsgrad=False,
                beta1=first,
                beta2=second,
                lr=learning_rate,
                weight_decay=job.weight_decay,
                eps=1e-8,
                maximize=False,
            )
        else:
            (momentum,) = self._kept
            sgd(
                self._parameters,
                gradients,
                momentum,
                foreach=True,  # the same bits in a third of the calls
                weight_decay=job.weight_decay,
                momentum=job.momentum,
                lr=learning_rate,
                dampening=0.0,
                nesterov=False,
                maximize=False,
            )

    def moments(self) -> np.ndarray:
        """What is kept of all parameters, (moment, parameter): zero before the first update."""
        kept = []
        for values in self._kept:
            pairs = zip(self._parameters, values, strict=True)
            parts = [torch.zeros_like(parameter) if value is None else value for parameter, value in pairs]
            kept.append(torch.cat([part.detach().flatten() for part in parts]))
        return torch.stack(kept).cpu().numpy()

    def restore(self, moments: np.ndarray, step: int) -> None:
        """Put back what `moments` gave after `step` updates."""
        if self._job.optimiser == "sgd" and self._job.momentum == 0:
            return
        for kept, values in zip(self._kept, moments, strict=True):
            parts = torch.from_numpy(values).split([parameter.numel() for parameter in self._parameters])
            for place, (parameter, part) in enumerate(zip(self._parameters, parts, strict=True)):
                kept[place] = torch.empty_like(parameter).detach().copy_(part.view_as(parameter))
        self._made = [torch.tensor(float(step)) for _ in self._parameters]
