"""The optimisers, and what they keep of each parameter as one array."""

import numpy as np
import torch
from torch import nn

from phasescope.params.train import TrainJob

#: What an optimiser keeps of each parameter, in torch's names.
MOMENTS = {"sgd": ["momentum_buffer"], "adamw": ["exp_avg", "exp_avg_sq"]}
#: Settings that only the other optimiser heeds.
UNHEEDED = {"sgd": {"betas"}, "adamw": {"momentum"}}


def build(job: TrainJob, network: nn.Module) -> torch.optim.Optimizer:
    """The optimiser of the settings, over all parameters of a network."""
    if job.optimiser == "adamw":
        first, second = job.betas
        return torch.optim.AdamW(
            network.parameters(), lr=job.learning_rate, betas=(first, second), weight_decay=job.weight_decay
        )
    return torch.optim.SGD(
        network.parameters(), lr=job.learning_rate, momentum=job.momentum, weight_decay=job.weight_decay
    )


def moments(job: TrainJob, optimiser: torch.optim.Optimizer) -> np.ndarray:
    """What the optimiser keeps of all parameters, (moment, parameter): zero before the first update."""
    parameters = optimiser.param_groups[0]["params"]
    kept = []
    for name in MOMENTS[job.optimiser]:
        buffers = [optimiser.state[p].get(name) for p in parameters]
        parts = [torch.zeros_like(p) if b is None else b for p, b in zip(parameters, buffers, strict=True)]
        kept.append(torch.cat([part.detach().flatten() for part in parts]))
    return torch.stack(kept).cpu().numpy()


def restore(job: TrainJob, optimiser: torch.optim.Optimizer, moments: np.ndarray, step: int) -> None:
    """Put back what `moments` gave after `step` updates, in place."""
    if job.optimiser == "sgd" and job.momentum == 0:
        return
    parameters = optimiser.param_groups[0]["params"]
    for name, values in zip(MOMENTS[job.optimiser], moments, strict=True):
        parts = torch.from_numpy(values).split([p.numel() for p in parameters])
        for parameter, part in zip(parameters, parts, strict=True):
            optimiser.state[parameter][name] = torch.empty_like(parameter).copy_(part.view_as(parameter))
    if job.optimiser == "adamw":
        for parameter in parameters:
            optimiser.state[parameter]["step"] = torch.tensor(float(step))
