"""Stage `activations`: the activations of every checkpoint of a run, at every tap."""

from dataclasses import asdict
from typing import Any

from phasescope import provenance, scheduler, stage
from phasescope.activations import record
from phasescope.compute import choose
from phasescope.params.activations import ActivationsSettings
from phasescope.params.train import TrainJob


def main(run: str, **where: Any) -> None:
    """Write runs/<run>/activations."""
    chosen = choose(**where, cluster=scheduler.may_write())
    job = stage.settings(f"runs/{run}/train.json", TrainJob)
    settings = stage.settings(f"runs/{run}/activations.json", ActivationsSettings)
    provenance.write(f"runs/{run}/activations", **asdict(chosen))
    folder = stage.RUNS / run
    paths = (stage.DATASETS / job.dataset, folder / "train", folder / "activations")
    record(job, settings, *paths, chosen, run, stage.cache())


if __name__ == "__main__":
    stage.run(main, "run", device=str, threads=int, workers=int)
