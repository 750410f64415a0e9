"""Stage `train`: train a run's network once per seed, and keep its weights at iterations 0 and 2^i."""

from dataclasses import asdict
from typing import Any

from phasescope import provenance, scheduler, stage
from phasescope.compute import choose
from phasescope.importing import import_seed
from phasescope.params.train import TrainJob
from phasescope.training import train, train_seed, write_curves


def main(run: str, **where: Any) -> None:
    """Write runs/<run>/train, and what is small of it and asked for often as results/<run>/training."""
    chosen = choose(**where, cluster=scheduler.may_write())
    job = stage.settings(f"runs/{run}/train.json", TrainJob)
    provenance.write(f"runs/{run}/train", **asdict(chosen))
    target = stage.RUNS / run / "train"
    by_seed = import_seed if job.files else train_seed
    train(job, stage.DATASETS / job.dataset, target, chosen, run, stage.cache(), by_seed)
    write_curves(run, target, stage.RESULTS / run / "training")


if __name__ == "__main__":
    stage.run(main, "run", device=str, threads=int, workers=int)
