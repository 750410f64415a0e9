"""Which checkpoint and layer of a run to transfer from to a target: what has to be measured for that."""

from pathlib import Path
from typing import Any, get_args

import xarray as xr

from phasescope import target_cells
from phasescope.compute import Compute
from phasescope.data.dataset import Dataset
from phasescope.data.properties import NEEDED
from phasescope.errors import UserError, unknown
from phasescope.measures.advise import about
from phasescope.measures.advise import advise as measure
from phasescope.measures.classifiers import settings_of
from phasescope.measures.transfer import PIXELS
from phasescope.params.transfer import Label, ReadingSettings, TransferSettings
from phasescope.run import Run
from phasescope.store.cache import CellCache
from phasescope.store.datasets import read_dataset

#: Kind of its cells, and the first part of the name of its results.
KIND = "advise"


def held_out(
    run: Run, target_path: Path, reading: ReadingSettings, compute: Compute, cache: CellCache
) -> tuple[xr.Dataset, dict[str, Any]]:
    """Held-out accuracies on a target, on (seed, step, layer, label), and under which keys their cells are cached.

    Raises:
        UserError: activations overflow the dtype that those of the run are stored in.
        StoreError: the run or the dataset is absent or damaged, or the run was made with another dataset of that name.
    """
    asked = target_cells.Reading(KIND, measure, settings_of("ridge", reading))
    found = target_cells.measure(run, target_path, [asked], compute, cache)
    (cells,), (inputs,) = found.cells, found.inputs
    result = cells.result.merge(about(found.target))
    result["pixel_accuracy"] = ("label", inputs["accuracy"].values, PIXELS.attributes)
    index = xr.DataArray(found.kept, dims="sample", attrs={"long_name": "index in the target", "units": "1"})
    return result.assign_coords(index=index), cells.cached


def advise(run: Run, target_path: Path, settings: TransferSettings, compute: Compute, cache: CellCache) -> None:
    """Commit the same as `results/<run>/advise-<dataset>`.

    Raises:
        UserError, StoreError: as `held_out`.
    """
    result, cached = held_out(run, target_path, settings.reading, compute, cache)
    run.write_measure(
        f"{KIND}-{settings.dataset}",
        result,
        settings.model_dump(),
        cached,
        also=(run.path / "train", target_path),
    )


def measure_now(run: Run, target: str, label: str | None, compute: Compute, cache: CellCache) -> xr.Dataset:
    """What the stage would measure of a target for one label, measured now and kept in the cache alone.

    Args:
        run: whose project has the target.
        target: name of a dataset.
        label: what is to be read off; none: the class of images that are not the run's own.
        compute: where it is computed.
        cache: of finished cells.

    Raises:
        UserError: there is no such target, or it has no such label, or the run's networks do not take its images.
        StoreError: as `held_out`.
    """
    path = run.root / "datasets" / target
    datasets = sorted(found.name for found in (run.root / "datasets").glob("[!.]*") if found.is_dir())
    if target not in datasets:
        raise UserError(f"{run.root / 'datasets'}: {unknown(target, datasets, 'dataset')}")
    dataset = read_dataset(path)
    asked = _label(run, target, dataset, label)
    return held_out(run, path, ReadingSettings(labels=[asked]), compute, cache)[0]


def _label(run: Run, target: str, dataset: Dataset, label: str | None) -> Label:
    """The label that is asked for, if the target has it and its images pass through the networks."""
    channels, resolution = dataset.images.shape[1:3]
    mine = tuple(run.training.attrs["image"][:2])
    if (channels, resolution) != mine:
        raise UserError(
            f"{target}: its images have {channels} channels and {resolution}×{resolution} pixels, and the networks of "
            f"{run.name} take {mine[0]} and {mine[1]}×{mine[1]}; name a dataset in params.yaml that has those"
        )
    labels = [name for name in get_args(Label) if name not in NEEDED or (channels in NEEDED[name] and resolution > 1)]
    if label is None and target == run.dataset.name:
        raise UserError(f"{run.name} was trained on {target}: say what is to be told, --label {' or '.join(labels)}")
    for name in labels:
        if name == (label or "class"):
            return name
    raise UserError(f"{target}: {unknown(str(label), labels, 'label')}")
