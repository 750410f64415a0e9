"""Check all settings before anything is touched: also those that take the network itself to check."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import torch

from phasescope import own
from phasescope.data.properties import NEEDED
from phasescope.errors import UserError, unknown
from phasescope.measures.decoders import deconvolution
from phasescope.models.batchnorm import normalises
from phasescope.models.parts import embed, why_not_hidden
from phasescope.models.taps import shapes
from phasescope.models.zoo import blank, outline
from phasescope.params.activations import Tap
from phasescope.params.base import is_own
from phasescope.params.datasets import OF_ATTRIBUTES, DatasetSettings
from phasescope.params.settings import RunSettings, Settings, read
from phasescope.params.train import TrainJob


def resolve(path: Path) -> Settings:
    """The settings in params.yaml, checked as far as they can be before anything has run.

    Raises:
        UserError: one line per mistake in the settings.
    """
    settings = read(path)
    checks = (
        _unfit_taps,
        _undecodable_taps,
        _linear_layers,
        _lonely_batches,
        _unseen_taps,
        _unknown_runs,
        _unfit_targets,
    )
    # A network that is to tell what its samples do not have, or that is not made, cannot be looked at.
    mistakes = [*_unfit_numbers(settings), *_unknown_functions(settings)] or list(_unmade_networks(settings))
    if not mistakes:
        mistakes = [mistake for check in checks for mistake in check(settings)]
    if mistakes:
        raise UserError("\n".join(f"{path}: {mistake}" for mistake in mistakes))
    return settings


def _unknown_functions(settings: Settings) -> Iterator[str]:
    """Functions of the user's own that are not there, or cannot be imported."""
    named = {f"datasets.{name}.source": dataset.source for name, dataset in settings.datasets.items()}
    named |= {f"runs.{name}.train.loss": run.train.loss for name, run in settings.runs.items()}
    named |= {f"measures.{name}.function": measure.function for name, measure in settings.measures.items()}
    for where, function in named.items():
        if is_own(function):
            try:
                own.load(function)
            except UserError as error:
                yield f"{where}: {error}"


def recorded(configs: Path) -> dict[str, TrainJob]:
    """What the folder `configs/` says of the trainings, by run, from when they were resolved last."""
    found = {}
    for file in configs.glob("runs/*/train.json"):
        with suppress(ValueError):  # of another version
            found[file.parent.name] = TrainJob.model_validate_json(file.read_bytes())
    return found


def _unfit_numbers(settings: Settings) -> Iterator[str]:
    """Numbers that networks are to learn, and that their samples do not have."""
    for name, run in settings.runs.items():
        dataset, target = settings.datasets[run.dataset], run.train.target
        if target == "ink" and _kind(dataset) != KINDS[1]:
            yield (
                f"runs.{name}.train.target: 'ink' is a number of {KINDS[1]}, and those of {run.dataset!r} are "
                f"{_kind(dataset)}; choose another"
            )
        if target == "value" and dataset.source != "linear-regression":
            yield (
                f"runs.{name}.train.target: 'value' is the number of a sample of linear-regression, and the source of "
                f"{run.dataset!r} is {dataset.source}; choose another"
            )


def _unmade_networks(settings: Settings) -> Iterator[str]:
    """Networks of the user's own that their function does not give, or that do not take the run's images."""
    for name, run in settings.runs.items():
        if is_own(run.model.name):
            try:
                shapes(_network(settings, run), [Tap(name="logits")], *settings.datasets[run.dataset].image)
            except UserError as error:
                yield f"runs.{name}.model: {error}"


def _unseen_taps(settings: Settings) -> Iterator[str]:
    """Taps that figures are asked to show, and that no run keeps."""
    kept = list(dict.fromkeys(tap.name for run in settings.runs.values() for tap in run.activations.taps))
    asked = {"features": [settings.figures.features], "headline": settings.figures.headline}
    for name in asked.keys() & settings.figures.model_fields_set:
        for tap in asked[name]:
            if tap not in kept:
                yield f"figures.{name}: {unknown(tap, kept, 'tap')}"


def _undecodable_taps(settings: Settings) -> Iterator[str]:
    """Taps that decoders are to be trained at, and that are not kept, or whose maps never become the image."""
    for name, run in settings.runs.items():
        kept = {tap.name: tap for tap in run.activations.taps}
        for tap in run.decode.trained_taps or []:
            if tap not in kept:
                yield f"runs.{name}.decode.trained_taps: {unknown(tap, list(kept), 'tap')}"
        if "deconvolution" not in run.decode.decoders:
            continue
        if settings.datasets[run.dataset].source in OF_ATTRIBUTES:
            yield (
                f"runs.{name}.decode.decoders: 'deconvolution' draws images, and the samples of {run.dataset!r} are "
                "attributes; choose another"
            )
            continue
        channels, resolution = settings.datasets[run.dataset].image
        network = _network(settings, run)
        for tap in [tap for tap in kept if tap in (run.decode.trained_taps or kept)]:
            try:
                shape = shapes(network, [kept[tap]], channels, resolution)[tap]
            except UserError:  # told as a tap that does not fit
                continue
            try:
                with torch.device("meta"):
                    deconvolution(shape, (channels, resolution, resolution))
            except UserError as error:
                yield f"runs.{name}.activations.taps: {tap!r}: {error}"


def _linear_layers(settings: Settings) -> Iterator[str]:
    """Layers from which the way to the logits says nothing, and networks whose samples depend on each other."""
    for name, run in settings.runs.items():
        asked = run.complexity
        if run.activations.batchnorm == "batch" and normalises(_network(settings, run)):
            for section in ("complexity", "kernel"):
                if getattr(run, section).measures:
                    yield (
                        f"runs.{name}.{section}.measures: with activations.batchnorm `batch` no network is a function "
                        "of one sample, which these measures are of: set them to [] for this run, or choose "
                        "`recalibrated`"
                    )
        if "linear-mapping-number" not in asked.measures:
            continue
        channels, resolution = settings.datasets[run.dataset].image
        network = _network(settings, run).eval()
        images = blank(network, channels, resolution)
        for layer in asked.layers or []:
            why = why_not_hidden(network, layer, embed(network, images))
            if why is not None:
                yield f"runs.{name}.complexity.layers: {why}"


def _unknown_runs(settings: Settings) -> Iterator[str]:
    """Runs that figures are asked to show together, and that there are not."""
    for name, runs in settings.figures.sets.items():
        for run in runs:
            if run not in settings.runs:
                yield f"figures.sets.{name}: {unknown(run, list(settings.runs), 'run')}"


#: What samples are, by their channels.
KINDS = {1: "grey images", 3: "images in colour"}


def _unfit_targets(settings: Settings) -> Iterator[str]:
    """Targets whose images the run's network cannot take, or do not have what a label is of."""
    for name, transfer in settings.transfer.items():
        trained_on = settings.runs[transfer.run].dataset
        source, target = settings.datasets[trained_on], settings.datasets[transfer.dataset]
        for what, mine, others in zip(("channels", "resolution"), target.image, source.image, strict=True):
            if mine != others:
                yield (
                    f"transfer.{name}.dataset: {what} of {transfer.dataset!r} must be those of {trained_on!r}, which "
                    f"{transfer.run} is trained on: {others}; got {mine}"
                )
        for index, label in enumerate(transfer.labels):
            kind = _kind(target)
            needed = [KINDS[channels] for channels in NEEDED[label]] if label in NEEDED else [kind]
            if kind not in needed:
                yield (
                    f"transfer.{name}.labels[{index}]: {label!r} is a label of {' or '.join(needed)}, and those of "
                    f"{transfer.dataset!r} are {kind}; choose another"
                )


def _kind(dataset: DatasetSettings) -> str:
    """What its samples are."""
    return "attributes" if dataset.source in OF_ATTRIBUTES else KINDS[dataset.image[0]]


def _lonely_batches(settings: Settings) -> Iterator[str]:
    """Batches of one image, which BatchNorm cannot normalise where the maps are down to 1×1."""
    for name, run in settings.runs.items():
        if run.train.batch_size == 1 and normalises(_network(settings, run)):
            yield f"runs.{name}.train.batch_size: {run.model.name} has BatchNorm, which needs 2 or more; got 1"


def _unfit_taps(settings: Settings) -> Iterator[str]:
    """Taps that the run's network does not have, or whose maps cannot be pooled as they ask for."""
    for name, run in settings.runs.items():
        network = _network(settings, run)
        channels, resolution = settings.datasets[run.dataset].image
        for tap in run.activations.taps:
            if tap.name == "softmax" and run.train.target != "class":
                yield f"runs.{name}.activations.taps: 'softmax' is of classes, and train.target is none; leave it out"
            try:
                shapes(network, [tap], channels, resolution)
            except UserError as error:
                yield f"runs.{name}.activations.taps: {error}"


def _network(settings: Settings, run: RunSettings) -> torch.nn.Module:
    """The outline of the run's network, but for the number of classes where files say it: no tap depends on it."""
    dataset = settings.datasets[run.dataset]
    return outline(run.model, *dataset.image, run.train.outputs(dataset.classes or 2))
