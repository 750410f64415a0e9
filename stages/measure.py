"""Stage `measure`: a measure of the user's own, of all cells of a run."""

from dataclasses import asdict
from typing import Any

from phasescope import provenance, stage
from phasescope.compute import choose
from phasescope.measures import cells
from phasescope.measures.own import measure
from phasescope.params.measures import MeasureJob
from phasescope.store.run import StoredRun


def main(name: str, **where: Any) -> None:
    """Write results/<run>/measure-<name>."""
    job = stage.settings(f"measures/{name}.json", MeasureJob)
    chosen = choose("cpu", **where)
    provenance.write(f"runs/{job.run}/measure-{name}", **asdict(chosen))
    stored = StoredRun(job.run)
    # In processes, for nothing is known of whether the function may run in several threads.
    measured = cells.measure(stored, "measure", measure, job.measure, stage.cache(), chosen, processes=True)
    stored.write_measure(f"measure-{name}", measured.result, job.model_dump(), measured.cached)


if __name__ == "__main__":
    stage.run(main, "name", threads=int, workers=int)
