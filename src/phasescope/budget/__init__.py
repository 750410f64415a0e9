"""What a project will keep and compute, from its settings alone."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich import box
from rich.console import Group
from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from phasescope.budget import outputs, work
from phasescope.budget.runs import Images, Run
from phasescope.budget.stores import Store
from phasescope.budget.work import Work
from phasescope.data import operations
from phasescope.errors import UserError, unknown
from phasescope.params.base import is_own
from phasescope.params.datasets import DatasetSettings
from phasescope.params.settings import Settings
from phasescope.params.train import TrainJob
from phasescope.store import arrays
from phasescope.store.files import JSON_BYTES, JSON_PARTS
from phasescope.store.manifest import StoreError, read

#: The datasets that are always the same: channels, training and test images, classes.
KNOWN = {
    "digits": (1, 1297, 500, 10),
    "mnist": (1, 60_000, 10_000, 10),
    "fashion-mnist": (1, 60_000, 10_000, 10),
    "cifar10": (3, 50_000, 10_000, 10),
    "cifar100": (3, 50_000, 10_000, 100),
}
OF_RUNS = ("train", "activations", "decode", "probe", "distributions", "information", "complexity", "kernel")
OF_TARGETS = ("transfer", "advise")
STAGES = OF_RUNS + OF_TARGETS


@dataclass(frozen=True)
class Stage:
    """What a stage keeps and computes of a run."""

    name: str
    run: str
    output: str  #: the directory that it writes
    store: Store
    count: Callable[[], Work]  #: what gives `work`

    @cached_property
    def work(self) -> Work:
        """What it computes, counted when it is asked for, which takes seconds."""
        return self.count()


@dataclass(frozen=True)
class RunBudget:
    """What is kept and computed of a run."""

    run: Run
    checkpoints: int
    decoders: int  #: how many are fitted
    classifiers: int
    stages: list[Stage]

    def part(self, *names: str) -> list[Stage]:
        """Some of the stages; a run may be transferred several times, or never."""
        return [stage for stage in self.stages if stage.name in names]


@dataclass(frozen=True)
class Budget:
    """What a project keeps and computes; None stands for what takes images that nobody has counted yet."""

    datasets: dict[str, Store | None]
    runs: dict[str, RunBudget | None]
    workers: int  #: pieces of work at a time


class Count(NamedTuple):
    """How many images there are of a dataset that nobody has prepared yet."""

    train: int
    test: int
    classes: int


def budget(
    settings: Settings,
    datasets: Path,
    workers: int = 1,
    jobs: Mapping[str, TrainJob] | None = None,
    counts: Mapping[str, Count] | None = None,
) -> Budget:
    """Everything that the stages of each run will write and compute.

    Args:
        settings: of the project.
        datasets: the folder of prepared datasets, where a folder of images is looked up.
        workers: pieces of work at a time.
        jobs: what is known of the trainings (`params.settings.jobs`): which checkpoints of others there are.
        counts: of datasets that are not always the same, by name, instead of what was prepared.

    Raises:
        UserError: images are counted of a dataset that is not in the settings, or always the same.
    """
    counts = counts or {}
    for name in counts:
        if name not in settings.datasets:
            raise UserError(unknown(name, list(settings.datasets), "dataset"))
        source = settings.datasets[name].source
        if source != "image-folder" and not is_own(source):
            raise UserError(f"{name}: how many images {source} has is known; leave --images out")
    images = {
        name: images_of(dataset, datasets / name, counts.get(name)) for name, dataset in settings.datasets.items()
    }
    runs: dict[str, RunBudget | None] = dict.fromkeys(settings.runs)
    for name, given in settings.runs.items():
        own = images[given.dataset]
        transfers = [transfer for transfer in settings.transfer.values() if transfer.run == name]
        if own is not None:
            targets = [(t, target) for t in transfers if (target := images.get(t.dataset)) is not None]
            run = Run(given, own, (jobs or {}).get(name))
            stages = list(_stages(name, run, workers))
            for transfer, target in targets:
                for stage in OF_TARGETS:
                    kept = getattr(outputs, stage)(run, transfer, target)
                    done = partial(getattr(work, stage), run, transfer, target, workers)
                    stages.append(Stage(stage, name, f"results/{name}/{stage}-{transfer.dataset}", kept, done))
            classified = sum(len(t.classifiers) * len(t.labels) for t, _ in targets)
            runs[name] = RunBudget(
                run,
                checkpoints=run.seeds * run.steps,
                decoders=run.decoder_fits,
                classifiers=run.classifier_fits + run.seeds * run.steps * len(run.layers) * classified,
                stages=stages,
            )
    return Budget({name: found and outputs.dataset(found) for name, found in images.items()}, runs, workers)


def table(found: Budget, seconds: Mapping[str, Work] | None = None) -> Group:
    """A budget for the terminal: runs, stages, what could not be read; hours if the `seconds` of runs are given."""
    runs = Table(box=box.SIMPLE_HEAD)
    runs.add_column("run")
    headings = ["checkpoints", "decoders", "classifiers", "weights", "activations", "results", "files"]
    for heading in headings + ["hours"] * (seconds is not None):
        runs.add_column(heading, justify="right")
    known = {name: run for name, run in found.runs.items() if run is not None}
    for name, run in known.items():
        counts = [f"{count:,}" for count in (run.checkpoints, run.decoders, run.classifiers)]
        parts = [run.part("train"), run.part("activations"), run.part(*STAGES[2:])]
        sizes = [decimal(sum(stage.store.bytes for stage in part)) for part in parts]
        files = f"{sum(stage.store.files for stage in run.stages):,}"
        runs.add_row(name, *counts, *sizes, files, *_hours(run.stages, seconds))
    stages = Table(box=box.SIMPLE_HEAD)
    stages.add_column("stage")
    for heading in ["bytes", "files", "cells"] + ["hours"] * (seconds is not None):
        stages.add_column(heading, justify="right")
    prepared = [store for store in found.datasets.values() if store is not None]
    everything = [stage for run in known.values() for stage in run.stages]
    stages.add_row("prepare", *_totals(prepared), "")
    for name in STAGES:
        if part := [stage for stage in everything if stage.name == name]:
            stages.add_row(name, *_totals([stage.store for stage in part]), _cells(part), *_hours(part, seconds))
    stages.add_section()
    totals = _totals(prepared + [stage.store for stage in everything])
    stages.add_row("all", *totals, _cells(everything), *_hours(everything, seconds))
    return Group(runs, stages, *(Text(line) for line in _remarks(found, seconds is not None)))


def _totals(stores: list[Store]) -> tuple[str, str]:
    return decimal(sum(store.bytes for store in stores)), f"{sum(store.files for store in stores):,}"


def _cells(stages: list[Stage]) -> str:
    return f"{sum(stage.store.fingerprints for stage in stages):,}"


def _hours(stages: list[Stage], seconds: Mapping[str, Work] | None) -> list[str]:
    if seconds is None:
        return []
    hours = sum(stage.work.hours(seconds[stage.run]) for stage in stages)
    return ["< 0.01" if hours < 0.01 else f"{hours:.1g}" if hours < 1 else f"{float(f'{hours:.2g}'):,.0f}"]


def _remarks(found: Budget, timed: bool) -> Iterator[str]:
    """Below the tables."""
    yield "bytes and files: as they lie on the disk, compressed; without caches, theory/, figures/ and the report"
    if timed:
        side_by_side = f"{found.workers} worker{'s' * (found.workers > 1)}"
        yield f"hours: with {side_by_side} on cores like these; within 30 % for runs not fitted to (docs/log.md)"
    missing = [name for name, run in found.runs.items() if run is None]
    if missing:
        yield f"known when the images are prepared, or told by --images: {', '.join(missing)}"
    for run in found.runs.values():
        for stage in run.stages if run else []:
            if not stage.store.readable:
                yield (
                    f"WARNING {stage.output}: a manifest of {decimal(stage.store.manifest)} with {stage.store.files:,} "
                    f"files will not be read, for the limits are {decimal(JSON_BYTES)} and {JSON_PARTS:,}: "
                    "spread seeds or taps over several runs"
                )


def _stages(name: str, run: Run, workers: int) -> Iterator[Stage]:
    for stage in OF_RUNS:
        folder = "runs" if stage in ("train", "activations") else "results"
        store, done = getattr(outputs, stage)(run), partial(getattr(work, stage), run, workers)
        yield Stage(stage, name, f"{folder}/{name}/{stage}", store, done)
        if stage == "train":
            yield Stage(stage, name, f"results/{name}/training", outputs.training(run), Work)


def images_of(dataset: DatasetSettings, path: Path, count: Count | None = None) -> Images | None:
    """What is known of a dataset before it is prepared, or read from what was prepared."""
    channels, resolution = dataset.image
    if dataset.source == "feature-strength" and dataset.outputs is not None:
        samples = 2 * dataset.outputs
        return Images(channels, samples, samples, dataset.outputs, resolution, "float64", outputs.BLOCKS)
    if dataset.operation is not None and dataset.classes is not None:
        pairs = len(operations.table(dataset.operation, dataset.modulus)[0])
        train = operations.split(dataset, pairs)
        ratio = outputs.PAIR / (channels * np.dtype("float16").itemsize)
        return Images(channels, train, pairs - train, dataset.classes, resolution, "float16", ratio)
    if dataset.source == "linear-regression" and dataset.train_samples is not None:
        drawn = dataset.train_samples
        # All attributes of a sample are the same number.
        return Images(channels, drawn, drawn, 2, resolution, "float64", 1 / channels, values=True)
    if dataset.source in KNOWN:
        native, dtype, ratio = outputs.NATIVE[dataset.source]
        if resolution != native:
            dtype, ratio = "float16", outputs.RESAMPLED
        known, train, test, classes = KNOWN[dataset.source]
        chosen = dataset.train_samples or train
        # Of the digits, those that are not for training are for testing; other sources have a test part of their own.
        test += (train - chosen) if dataset.source == "digits" else 0
        return Images(known, chosen, test, classes, resolution, dtype, ratio)
    if count is not None:
        chosen = min(count.train, dataset.train_samples or count.train)
        return Images(channels, chosen, count.test, count.classes, resolution, "uint8", outputs.PHOTOGRAPHS)
    try:
        read(path, "dataset")
    except StoreError:
        return None
    stored = arrays.open_dataset(path / arrays.GROUP)
    train = int((stored["split"] == "train").sum())
    test, classes = stored.sizes["sample"] - train, len(stored.attrs["classes"])
    return Images(stored.sizes["channel"], train, test, classes, resolution, "uint8", outputs.PHOTOGRAPHS)
