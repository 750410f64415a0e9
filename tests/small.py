"""A small training that several tests share, and stages with a cache of their own."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from phasescope import activations, training
from phasescope.compute import Compute
from phasescope.data.dataset import Dataset
from phasescope.data.digits import load_digits
from phasescope.params.activations import ActivationsSettings
from phasescope.params.models import ModelSettings
from phasescope.params.train import TrainJob
from phasescope.store.cache import CellCache

ONE = Compute("cpu", threads=1, workers=1)
JOB = TrainJob(
    dataset="d",
    model=ModelSettings(name="vgg8", width=0.05),
    seeds=[3, 5],
    iterations=16,
    batch_size=16,
    learning_rate=0.01,
)


def few_digits() -> Dataset:
    """173 digits of 16×16 pixels, 130 of them for training."""
    digits = load_digits(16)
    keep = np.r_[:130, 1297:1340]
    return replace(digits, images=digits.images[keep], labels=digits.labels[keep], train=digits.train[keep])


def cache_of(target: Path) -> CellCache:
    """Each target has a cache of its own, so that nothing is known but from an attempt at the same."""
    return CellCache(target.parent / "cache" / target.name, "code")


def train(job: TrainJob, dataset: Path, target: Path, compute: Compute, label: str) -> None:
    training.train(job, dataset, target, compute, label, cache_of(target))


def record(
    job: TrainJob, chosen: ActivationsSettings, data: Path, trained: Path, target: Path, compute: Compute, label: str
) -> None:
    activations.record(job, chosen, data, trained, target, compute, label, cache_of(target))
