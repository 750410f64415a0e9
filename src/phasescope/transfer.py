"""Transfer of a run to a target: its own images with other labels, or other images that pass through its networks."""

from pathlib import Path

import numpy as np
import xarray as xr

from phasescope import target_cells
from phasescope.compute import Compute
from phasescope.measures import cells
from phasescope.measures.classifiers import settings_of
from phasescope.measures.transfer import PIXELS, baselines
from phasescope.measures.transfer import transfer as measure
from phasescope.params.classifiers import Classifier
from phasescope.params.transfer import TransferSettings
from phasescope.run import Run
from phasescope.store.cache import CellCache


def transfer(run: Run, target_path: Path, settings: TransferSettings, compute: Compute, cache: CellCache) -> None:
    """Read the labels off all layers of a run, and commit that as `results/<run>/transfer-<dataset>`.

    Raises:
        UserError: activations overflow the dtype that those of the run are stored in.
        StoreError: the run or the dataset is absent or damaged, or the run was made with another dataset of that name.
    """
    names = settings.classifiers
    readings = [
        target_cells.Reading(_kind(name), measure, settings_of(name, settings.reading), name != "ridge")
        for name in names
    ]
    found = target_cells.measure(run, target_path, readings, compute, cache)
    both = cells.combine(dict(zip(names, found.cells, strict=True)), "classifier")
    result = both.result.transpose("seed", "step", "layer", "label", "classifier", ...)
    pixels = np.stack([inputs["accuracy"].values for inputs in found.inputs], axis=1)
    result["pixel_accuracy"] = ("label", "classifier"), pixels, PIXELS.attributes
    tested = found.kept[~found.target.train]
    index = xr.DataArray(tested, dims="sample", attrs={"long_name": "index in the target", "units": "1"})
    run.write_measure(
        f"transfer-{settings.dataset}",
        result.merge(baselines(found.target)).assign_coords(index=index),
        settings.model_dump(),
        both.cached,
        also=(run.path / "train", target_path),
    )


def _kind(classifier: Classifier) -> str:
    """Kind of cells: what a classifier read off the activations of a checkpoint at a tap."""
    return "transfer" if classifier == "ridge" else f"transfer-{classifier}"
