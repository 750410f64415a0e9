"""The updates are those of the classes of torch.optim, bit for bit, also where they go on from what was kept."""

import pytest
import torch
from torch import nn

from phasescope.models import zoo
from phasescope.models.optimisers import Optimiser
from phasescope.params.models import ModelSettings
from phasescope.params.train import TrainJob

MODEL = ModelSettings(name="vgg8", width=0.05)
RATES = [0.001, 0.002, 0.05, 0.05, 0.03, 0.0]


@pytest.mark.parametrize(
    "settings",
    [
        {"momentum": 0.0},
        {"momentum": 0.0, "weight_decay": 0.1},
        {"momentum": 0.9},
        {"momentum": 0.9, "weight_decay": 0.1},
        {"optimiser": "adamw"},
        {"optimiser": "adamw", "weight_decay": 1.0, "betas": [0.8, 0.9]},
    ],
    ids=str,
)
def test_updates_are_those_of_torch(settings):
    job = TrainJob(dataset="d", model=MODEL, **settings)
    ours, theirs = (drawn() for _ in range(2))
    optimiser, reference = Optimiser(job, ours), classes(job, theirs)
    images = torch.randn(8, 1, 16, 16, generator=torch.Generator().manual_seed(1))
    for step, rate in enumerate(RATES):
        if step == len(RATES) // 2:
            kept = optimiser.moments()
            optimiser = Optimiser(job, ours)
            optimiser.restore(kept, step)
        optimiser.forget_gradients()
        ours(images).square().mean().backward()
        optimiser.update(rate)
        for group in reference.param_groups:
            group["lr"] = rate
        reference.zero_grad()
        theirs(images).square().mean().backward()
        reference.step()
        for here, there in zip(ours.parameters(), theirs.parameters(), strict=True):
            assert torch.equal(here, there)
    assert not torch.equal(ours.head.weight, drawn().head.weight)


def drawn() -> nn.Module:
    torch.manual_seed(0)
    return zoo.place(zoo.build(MODEL, 1, 16, 10), torch.device("cpu"))


def classes(job: TrainJob, network: nn.Module) -> torch.optim.Optimizer:
    parameters = network.parameters()
    if job.optimiser == "adamw":
        return torch.optim.AdamW(parameters, betas=tuple(job.betas), weight_decay=job.weight_decay)
    return torch.optim.SGD(parameters, momentum=job.momentum, weight_decay=job.weight_decay)
