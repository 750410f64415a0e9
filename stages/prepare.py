"""Stage `prepare`: bring a dataset into its one form, datasets/<name>."""

import os
from pathlib import Path

from phasescope import own, provenance, stage
from phasescope.data.sources import load
from phasescope.params.datasets import DatasetJob
from phasescope.store.datasets import write_dataset


def main(name: str) -> None:
    """Read the images from the data root (PHASESCOPE_DATA), resize and split them."""
    settings = stage.settings(f"datasets/{name}.json", DatasetJob)
    provenance.write(f"datasets/{name}")
    root = Path(os.environ.get("PHASESCOPE_DATA") or "data")
    own.require_unchanged(settings.code, settings.source)
    dataset = load(settings, root, download=os.environ.get("PHASESCOPE_DOWNLOAD") == "1")
    # What code gave the images does not matter to what is made of them.
    write_dataset(stage.DATASETS / name, dataset, settings.model_dump(exclude={"code"}))


if __name__ == "__main__":
    stage.run(main, "name")
