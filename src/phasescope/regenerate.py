"""Do the checkpoints give the stored activations? Cells drawn at random are computed again and compared.

Hashes say that a directory is what its manifest lists; this says that the activations are those of the weights beside
them, whatever the manifests say.

On the CPU the same machine with the same libraries and threads gives the same bits, so there nothing may differ
(what made the activations is read from `provenance/`). Elsewhere a value may differ by one step of the dtype in which
it is stored, and beyond that by `TOLERANCE` times the root mean square (RMS) of its layer. {MEASURED}
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ValidationError

from phasescope import provenance
from phasescope.activations import calibration_samples, forward, kept_samples, set_batchnorm
from phasescope.compute import Compute
from phasescope.data.tensors import Images
from phasescope.errors import UserError
from phasescope.models import state
from phasescope.models.zoo import build, place
from phasescope.params.activations import ActivationsSettings
from phasescope.params.train import TrainJob
from phasescope.store import arrays, manifest
from phasescope.store.datasets import read_dataset
from phasescope.store.manifest import StoreError
from phasescope.store.verify import Finding, Place

Array = NDArray[Any]

#: How far a value may lie from the stored one on another machine, as a share of the layer's RMS.
TOLERANCE = 1e-3


@dataclass(frozen=True, order=True)
class Cell:
    """The activations of one checkpoint at one tap, and where they are kept."""

    recording: str  #: name of the directory in its project, such as "runs/digits-f0/activations"
    seed: int  #: position among the seeds
    step: int  #: position among the steps
    tap: str


def drawn(places: list[Place], count: int, rng: np.random.Generator) -> list[tuple[Place, Cell]]:
    """At most `count` different cells of the kept activations, each as likely as any other, in their order."""
    layouts = []
    for kept in places:
        try:
            cells = manifest.parse(kept.path).extra["cells"]
            layouts.append((kept, len(cells["seeds"]), len(cells["steps"]), list(cells["layers"])))
        except (StoreError, KeyError, TypeError):
            continue  # `verify` has said what is wrong
    ends = np.cumsum([seeds * steps * len(taps) for _, seeds, steps, taps in layouts])
    if not layouts or not ends[-1]:
        return []
    chosen = []
    for number in np.sort(rng.choice(int(ends[-1]), min(count, int(ends[-1])), replace=False)):
        index = int(np.searchsorted(ends, number, side="right"))
        kept, seeds, steps, taps = layouts[index]
        first = ends[index] - seeds * steps * len(taps)
        seed, step, tap = np.unravel_index(number - first, (seeds, steps, len(taps)))
        chosen.append((kept, Cell(kept.name, int(seed), int(step), taps[tap])))
    return chosen
