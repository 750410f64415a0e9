"""A prepared dataset as labelled arrays."""

from pathlib import Path
from typing import Any

import numpy as np

from phasescope.data.dataset import Dataset
from phasescope.store import arrays, commit, manifest
from phasescope.store.files import Place
from phasescope.store.manifest import StoreError
from phasescope.store.verified import open_verified


def write_dataset(target: Path, dataset: Dataset, settings: dict[str, Any]) -> None:
    """Write a dataset as a committed directory with images (sample, channel, row, column) and their labels."""
    with commit.scratch(target) as scratch:
        path = scratch.path / arrays.GROUP
        group = arrays.create_group(path, {"classes": dataset.classes}, ("label", "split"))
        count = len(dataset.labels)
        unit = "1/255" if dataset.images.dtype == np.uint8 else "1"
        dims = ("sample", "channel", "row", "column")
        arrays.write(group, "images", dims, dataset.images, long_name="pixel value", units=unit)
        arrays.write(group, "sample", ("sample",), np.arange(count), long_name="index in the dataset")
        arrays.write(group, "label", ("sample",), dataset.labels, long_name="class")
        arrays.write(group, "split", ("sample",), np.where(dataset.train, "train", "test"), long_name="split")
        arrays.write(group, "mean", ("channel",), dataset.mean, long_name="mean pixel value in 0..1")
        arrays.write(group, "std", ("channel",), dataset.std, long_name="standard deviation")
        if dataset.values is not None:
            arrays.write(group, "value", ("sample",), dataset.values, long_name="number to be told", units="1")
        arrays.finish(path)
        scratch.commit("dataset", settings)


def read_dataset(path: Place, digest: str | None = None) -> Dataset:
    """Read a committed dataset into memory, if given only that with the manifest's `digest`.

    Raises:
        StoreError: it is absent, incomplete or damaged, or another one.
    """
    found = manifest.read(path, "dataset")
    if digest not in (None, found.digest):
        raise StoreError(f"{path} is not the dataset that the run was made with; run `dvc repro`")
    stored = arrays.load(open_verified(found), str(path))
    return Dataset(
        images=stored["images"].values,
        labels=stored["label"].values,
        train=stored["split"].values == "train",
        classes=list(stored.attrs["classes"]),
        mean=stored["mean"].values,
        std=stored["std"].values,
        values=stored["value"].values if "value" in stored else None,
    )
