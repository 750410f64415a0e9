"""Do the checkpoints give the stored activations? Cells drawn at random are computed again and compared.

Hashes say that a directory is what its manifest lists; this says that the activations are those of the weights beside
them, whatever the manifests say.

On the CPU the same machine with the same libraries and threads gives the same bits. Elsewhere a value may differ by one
step of the dtype in which it is stored, and beyond that by `TOLERANCE` times the root mean square (RMS) of its layer.
Measured on 104 cells of three networks on digits (F0, VGG-8 × 0.25, ResNet-10 × 0.125, torch 2.15.0), largest deviation
of any value: 2.5e-3 with two threads instead of one (float16: 1.6e-3 beyond a step), 9e-6 with instructions of older
processors (SSE 4.1, AVX2). Neighbouring checkpoints differ by 0.1 or more. A GPU was not measured.
"""

import math
from collections.abc import Iterator
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ValidationError

from phasescope.activations import Recorder
from phasescope.compute import Compute
from phasescope.errors import UserError
from phasescope.models import state
from phasescope.models.zoo import build_for
from phasescope.params.activations import ActivationsSettings
from phasescope.params.train import TrainJob
from phasescope.progress import Progress
from phasescope.store import arrays, manifest
from phasescope.store.datasets import read_dataset
from phasescope.store.manifest import StoreError
from phasescope.store.verify import Finding, Kept

Array = NDArray[Any]

#: How far a value may lie from the stored one on another machine, as a share of the layer's RMS.
TOLERANCE = 1e-2


class Cell(NamedTuple):
    """The activations of one checkpoint at one tap."""

    kept: Kept
    #: Positions of the seed and the step.
    seed: int
    step: int
    tap: str
    #: In a user's words.
    title: str


def draw(recordings: list[Kept], count: int, rng: np.random.Generator) -> list[Cell]:
    """At most `count` different cells of the kept activations, each as likely as any other, in their order."""
    layouts = []
    for kept in recordings:
        try:
            cells = manifest.parse(kept.path).extra["cells"]
            seeds, steps, taps = (list(cells[name]) for name in ("seeds", "steps", "layers"))
        except (StoreError, KeyError, TypeError):
            continue  # `verify` says what is wrong
        layouts.append((kept, seeds, steps, taps))
    ends = np.cumsum([len(seeds) * len(steps) * len(taps) for _, seeds, steps, taps in layouts], dtype=np.int64)
    total = int(ends[-1]) if layouts else 0
    chosen = []
    for number in np.sort(rng.choice(total, min(count, total), replace=False)) if total else []:
        index = int(np.searchsorted(ends, number, side="right"))
        kept, seeds, steps, taps = layouts[index]
        shape = (len(seeds), len(steps), len(taps))
        seed, step, tap = np.unravel_index(number - ends[index] + math.prod(shape), shape)
        title = f"{taps[tap]} of seed {seeds[seed]}, step {steps[step]}"
        chosen.append(Cell(kept, int(seed), int(step), str(taps[tap]), title))
    return chosen


def regenerate(recordings: list[Kept], count: int, seed: int, compute: Compute) -> Iterator[Finding]:
    """Compute `count` cells again that `seed` chooses; gives those that differ, and a note of what was seen."""
    cells = draw(recordings, count, np.random.default_rng(seed))
    if not cells:
        yield Finding("nothing can be computed again: there are no activations to compare with")
        return
    yield Finding(f"{len(cells)} cells are computed again, chosen by --seed {seed}", note=True)
    device, compared, largest = compute.start(), [], 0.0
    with Progress(["compute again"], len(cells)) as progress:
        for kept, of_recording in groupby(cells, key=lambda cell: cell.kept):
            chosen = list(of_recording)
            try:
                again = _Again(kept, device)
            except _UNUSABLE as error:
                yield Finding(f"{kept.path} cannot be computed again: {_line(error)}")
                continue
            for cell in chosen:
                where = f"{kept.path} (run {kept.run}, {cell.title})"
                try:
                    stored, computed = again.both(cell)
                except _UNUSABLE as error:
                    yield Finding(f"{where} cannot be computed again: {_line(error)}")
                    continue
                same = stored.tobytes() == computed.tobytes()
                if not same:
                    yield _differing(where, stored, computed)
                    largest = max(largest, deviation(stored, computed, steps=0))
                compared.append(same)
                progress.update(0, len(compared))
    yield Finding(
        f"{len(compared)} cells were computed again: {sum(compared)} are the same bits, the largest deviation is "
        f"{largest:.1e} of its layer's RMS",
        note=True,
    )


class _Again:
    """The activations of one run, stored and computed again from its checkpoints."""

    def __init__(self, kept: Kept, device: torch.device) -> None:
        self._kept = kept
        self._recording = manifest.read(kept.path, "activations")
        training = manifest.read(kept.path.parent / "train", "train")
        source = self._recording.extra["dataset"]
        known = {path.name: path for path in (kept.root / "datasets").glob("*")}
        if source["name"] not in known:
            raise StoreError(f"the dataset {source['name']!r:.60} is not here: make it with `dvc repro`, or `dvc pull`")
        dataset = read_dataset(known[source["name"]], source["digest"])
        job = TrainJob.model_validate(training.settings)
        self._settings = ActivationsSettings.model_validate(self._recording.settings)
        self._recorder = Recorder(job, self._settings, dataset, device)
        with torch.device("meta"):
            table = state.table(build_for(job, *dataset.shape))
        self._elements = sum(entry["length"] for entry in table)
        self._weights = arrays.open_dataset(training.path / arrays.GROUP)["weights"]
        self._stored = arrays.open_dataset(kept.path / arrays.GROUP)

    def both(self, cell: Cell) -> tuple[Array, Array]:
        """Activations (sample, feature) of a cell as they are stored, and computed again.

        Raises:
            UserError: the checkpoint or the stored activations are damaged, or not of this network.
        """
        taps = [tap for tap in self._settings.taps if tap.name == cell.tap]
        weights = self._weights.isel(seed=cell.seed, step=cell.step)
        # Before it is read: what was never written would fill the memory with nothing.
        if weights.shape != (self._elements,):
            raise StoreError(f"its checkpoint has {weights.size} numbers, and the network {self._elements}")
        vector = arrays.load(weights, "its checkpoint").values
        values, _ = self._recorder.take(vector, weights.attrs["table"], taps, None, cell.title)
        stored = self._stored[cell.tap].isel(seed=cell.seed, step=cell.step)
        if stored.shape != values[cell.tap].shape or stored.dtype != values[cell.tap].dtype:
            raise StoreError(f"{stored.dtype} {stored.shape} is stored, and {values[cell.tap].shape} was expected")
        return arrays.load(stored, "what is stored").values, values[cell.tap]


def _differing(where: str, stored: Array, again: Array) -> Finding:
    """What is to be said of a cell that is not the same bits."""
    told = f"computed again, it differs by up to {deviation(stored, again, steps=0):.1e} of the layer's RMS"
    if deviation(stored, again) <= TOLERANCE:
        return Finding(f"{where}: {told}, as it may on another machine, device or number of threads", note=True)
    return Finding(f"{where}: {told}, and {TOLERANCE:g} beyond a step of {stored.dtype} are allowed; {_REPRO}")


#: What foreign or damaged directories can raise.
_UNUSABLE = (UserError, ValidationError, KeyError, TypeError, ValueError, IndexError, RuntimeError)
_REPRO = "these activations are not those of its checkpoint: `dvc pull` the run again, or run `dvc repro`"


def deviation(stored: Array, again: Array, steps: int = 1) -> float:
    """Largest difference of two (sample, feature), beyond so many steps of their dtype, as a share of the RMS."""
    first, second = stored.astype(np.float64), again.astype(np.float64)
    rounding = steps * np.finfo(stored.dtype).eps * np.maximum(np.abs(first), np.abs(second))
    beyond = float(np.max(np.abs(first - second) - rounding, initial=0.0))
    rms = math.sqrt(np.mean(np.square(second)))
    if not math.isfinite(beyond):
        return math.inf
    return beyond / rms if rms else (math.inf if beyond else 0.0)


def _line(error: Exception) -> str:
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__
