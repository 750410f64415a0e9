"""Makes a tiny project of one run, to be kept and read for ever: `python tests/stores/make.py tests/stores/format-1`.

Beside it goes what any reader of Zarr finds in it, as `expected.json`.
"""

import json
import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import xarray as xr

from phasescope.activations import record
from phasescope.compute import Compute
from phasescope.data.dataset import Dataset
from phasescope.data.statistics import channel_statistics
from phasescope.measures import cells
from phasescope.measures.decode import decode
from phasescope.params.activations import ActivationsSettings
from phasescope.params.decode import DecodeSettings
from phasescope.params.models import ModelSettings
from phasescope.params.train import TrainJob
from phasescope.store import arrays
from phasescope.store.cache import CellCache
from phasescope.store.datasets import write_dataset
from phasescope.store.run import StoredRun
from phasescope.training import train

JOB = TrainJob(
    dataset="dots",
    model=ModelSettings(name="vgg8", width=0.01),
    seeds=[3, 5],
    iterations=2,
    batch_size=4,
    learning_rate=0.01,
)
TAPS = ActivationsSettings.model_validate({"taps": ["logits", "predense"], "dtype": "float32"})
STORES = ("datasets/dots", "runs/tiny/train", "runs/tiny/activations", "results/tiny/decode")


def make(root: Path) -> None:
    """A project with the dataset `dots` and the run `tiny`."""
    images = np.random.default_rng(0).integers(0, 256, (12, 1, 4, 4), dtype=np.uint8)
    labels = np.arange(12) % 2
    dataset = Dataset(images, labels, np.arange(12) < 8, ["even", "odd"], *channel_statistics(images))
    compute = Compute("cpu", threads=1, workers=1)
    data, run = root / "datasets" / "dots", root / "runs" / "tiny"
    write_dataset(data, dataset, {})
    with TemporaryDirectory() as folder:
        cache = CellCache(Path(folder), "code")
        train(JOB, data, run / "train", compute, "tiny", cache)
        record(JOB, TAPS, data, run / "train", run / "activations", compute, "tiny", cache)
        stored = StoredRun("tiny", root)
        measured = cells.measure(stored, "decode", decode, DecodeSettings(), cache)
    stored.write_measure("decode", measured.result, DecodeSettings().model_dump(), measured.cached)


def found(root: Path) -> dict[str, dict[str, list]]:
    """The values of all arrays of all stores, read by xarray alone."""
    return {
        store: {
            str(name): variable.values.tolist()
            for name, variable in xr.open_zarr(root / store / arrays.GROUP, chunks=None).variables.items()
            if name != "last_rng"
        }
        for store in STORES
    }


if __name__ == "__main__":
    target = Path(sys.argv[1])
    shutil.rmtree(target, ignore_errors=True)
    make(target)
    (target / "expected.json").write_text(json.dumps(found(target), indent=None) + "\n")
