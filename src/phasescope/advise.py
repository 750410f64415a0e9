"""Which checkpoint and layer of a run to transfer from to a target: what has to be measured for that."""

from pathlib import Path
from typing import Any

import xarray as xr

from phasescope import target_cells
from phasescope.compute import Compute
from phasescope.measures.advise import about
from phasescope.measures.advise import advise as measure
from phasescope.measures.classifiers import settings_of
from phasescope.measures.transfer import PIXELS
from phasescope.params.transfer import ReadingSettings, TransferSettings
from phasescope.run import Run
from phasescope.store.cache import CellCache

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
