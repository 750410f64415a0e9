"""What a project will keep, in bytes, before anything is trained."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich import box
from rich.filesize import decimal
from rich.table import Table

from phasescope.models import state
from phasescope.models.taps import shapes
from phasescope.models.zoo import build
from phasescope.params.settings import RunSettings, Settings
from phasescope.schedule import checkpoint_steps
from phasescope.store import arrays
from phasescope.store.manifest import StoreError, read


@dataclass(frozen=True)
class Images:
    """What must be known of a dataset to tell how much is kept of it."""

    channels: int
    train: int
    test: int
    classes: int


#: The datasets that are always the same.
KNOWN = {
    "digits": Images(1, 1297, 500, 10),
    "mnist": Images(1, 60_000, 10_000, 10),
    "fashion-mnist": Images(1, 60_000, 10_000, 10),
    "cifar10": Images(3, 50_000, 10_000, 10),
    "cifar100": Images(3, 50_000, 10_000, 100),
}


@dataclass(frozen=True)
class Budget:
    """How much is kept of a run; in bytes before compression."""

    cells: int
    weights: int
    activations: int


def budget(settings: Settings, datasets: Path) -> dict[str, Budget | None]:
    """The bytes of every run; None for a run on images that nobody has counted yet.

    `datasets` is the folder of prepared datasets, where a folder of images is looked up.
    """
    sizes: dict[str, Budget | None] = {}
    for name, run in settings.runs.items():
        dataset = settings.datasets[run.dataset]
        images = KNOWN.get(dataset.source) or _prepared(datasets / run.dataset)
        sizes[name] = None if images is None else _of_run(run, images, dataset.resolution)
    return sizes


def table(budgets: dict[str, Budget | None]) -> Table:
    """Budgets as a table for the terminal."""
    shown = Table(box=box.SIMPLE_HEAD)
    shown.add_column("run")
    for heading in ("checkpoints", "weights", "activations"):
        shown.add_column(heading, justify="right")
    for name, kept in budgets.items():
        if kept is None:
            shown.add_row(name, *["known when the images are prepared", "", ""])
        else:
            shown.add_row(name, str(kept.cells), decimal(kept.weights), decimal(kept.activations))
    shown.caption = "kept of each run, before compression"
    return shown


def _of_run(run: RunSettings, images: Images, resolution: int) -> Budget:
    with torch.device("meta"):
        network = build(run.model, images.channels, resolution, images.classes)
    elements = sum(entry["length"] for entry in state.table(network))
    kept = run.activations
    features = sum(int(np.prod(s)) for s in shapes(network, kept.taps, images.channels, resolution).values())
    samples = min(kept.train_samples, images.train) + min(kept.test_samples or images.test, images.test)
    cells = len(run.train.seeds) * len(checkpoint_steps(run.train.iterations))
    return Budget(cells, 4 * elements * cells, np.dtype(kept.dtype).itemsize * features * samples * cells)


def _prepared(path: Path) -> Images | None:
    try:
        read(path, "dataset")
    except StoreError:
        return None
    stored = arrays.open_dataset(path / arrays.GROUP)
    train = int((stored["split"] == "train").sum())
    return Images(stored.sizes["channel"], train, stored.sizes["sample"] - train, len(stored.attrs["classes"]))
