"""Put a run's networks through a measure, one checkpoint after the other in several processes, and none of them twice.

A model cell is one (seed, step). A measure is a pure function of the network there, in eval mode, and of what is known
of the run's samples; it returns a Dataset without these dimensions.
"""

from collections.abc import Callable
from math import ceil
from typing import Any, TypeVar

import numpy as np
import xarray as xr
from threadpoolctl import threadpool_limits
from torch import nn

from phasescope.compute import Compute
from phasescope.errors import UserError
from phasescope.measures.cells import PIECES, Measured, assembled, samples_of
from phasescope.models.zoo import place
from phasescope.parallel import map_in_processes
from phasescope.params.base import Section
from phasescope.progress import Pieces, Progress, tell_computed
from phasescope.run import Run
from phasescope.store.cache import CellCache
from phasescope.store.commit import fingerprint
from phasescope.store.files import Place
from phasescope.store.shared import readable

S = TypeVar("S", bound=Section)
#: A network, what is known of the samples, settings → what is measured. Coordinates are the same at every checkpoint.
Function = Callable[[nn.Module, Any, S], xr.Dataset]
#: Positions of seed and step, and the key in the cache.
Cell = tuple[int, int, str]


def nothing(run: Run) -> Measured:
    """What a stage writes of a run of which no measure is asked for."""
    return Measured(run.recorded[["seed", "step"]].drop_attrs(deep=False), {})


def measure(
    run: Run,
    name: str,
    function: Function[S],
    settings: S,
    compute: Compute,
    cache: CellCache,
    known: Callable[[Run], Any] = samples_of,
) -> Measured:
    """The measure `name` of the networks of all checkpoints of a run, on (seed, step).

    `function` must be importable by name. `known` says what it is to know of the run's samples.

    Raises:
        UserError: BatchNorm has the statistics of each batch, so that no network is a function of a single sample.
        StoreError: a store is absent or damaged, or the training and the activations are not of the same run.
    """
    if run.recorded_with.batchnorm == "batch" and run.normalises:
        raise UserError(
            f"{run.path}: {name} is of networks that are functions of one sample, and with activations.batchnorm "
            f"`batch` the logits of a sample depend on the others: set {name}.measures to [] for this run"
        )
    shared = fingerprint(
        name,
        settings.model_dump(),
        run.trained_with.network,
        run.recorded_with.batchnorm,
        run.dataset_digest,  # of the samples, and of the images that BatchNorm was recalibrated with
        run.recorded["index"].values.tolist(),
    )
    keys = np.empty((len(run.seeds), len(run.steps)), dtype=object)
    parts = np.empty(keys.shape, dtype=object)
    missing: list[Cell] = []
    for seed, step in np.ndindex(keys.shape):
        key = keys[seed, step] = fingerprint(shared, run.weights_digest(run.seeds[seed], run.steps[step]))
        parts[seed, step] = cache.load(name, key)
        if parts[seed, step] is None:
            missing.append((seed, step, key))
    if missing:
        length = ceil(len(missing) / (PIECES * compute.workers))
        pieces = [missing[first : first + length] for first in range(0, len(missing), length)]
        with Progress([f"{name} {run.name}"], len(missing)) as progress:
            root = readable(run.root, [run.path / "train", run.path / "activations", run.dataset], compute)
            items = [(run.name, root, known, name, function, settings, compute, cache, piece) for piece in pieces]
            done = map_in_processes(measure_networks, items, compute, Pieces(progress, len(items)))
        for piece, results in zip(pieces, done, strict=True):
            for (seed, step, _), part in zip(piece, results, strict=True):
                parts[seed, step] = part
    tell_computed(f"{name} {run.name}", len(missing), keys.size)
    return assembled(run, name, parts, keys, ("seed", "step"))


def measure_networks(
    advance: Callable[[int], None],
    run: str,
    root: Place,
    known: Callable[[Run], Any],
    name: str,
    function: Function[S],
    settings: S,
    compute: Compute,
    cache: CellCache,
    cells: list[Cell],
) -> list[xr.Dataset]:
    """Measure some networks, keep what was measured of each in the cache, and give it."""
    device = compute.start()
    opened = Run(run, root)
    samples = known(opened)
    parts = []
    for seed, step, key in cells:
        network = place(opened.model(opened.seeds[seed], opened.steps[step]), device)
        # Unlike torch, numpy's threads are not limited in a process of its own.
        with threadpool_limits(compute.threads):
            part = function(network, samples, settings).assign_attrs(fixed=[])
        cache.save(name, key, part)
        parts.append(part)
        advance(len(parts))
    return parts
