"""Stage `distributions`: how single features are distributed in each class (Figure 4)."""

from dataclasses import asdict
from typing import Any

from phasescope import provenance, stage
from phasescope.compute import choose
from phasescope.measures import cells
from phasescope.measures.distributions import statistics
from phasescope.measures.shown import shown_features
from phasescope.params.distributions import DistributionsSettings
from phasescope.store.run import StoredRun


def main(run: str, **where: Any) -> None:
    """Write results/<run>/distributions."""
    settings = stage.settings(f"runs/{run}/distributions.json", DistributionsSettings)
    chosen = choose("cpu", **where)
    provenance.write(f"runs/{run}/distributions", **asdict(chosen))
    stored = StoredRun(run)
    cache = stage.cache()
    measured = cells.measure(stored, "distributions", statistics, settings, cache, chosen)
    shown = cells.measure_over_steps(stored, "distributions-shown", shown_features, settings, cache)
    result = measured.result.merge(shown.result)
    stored.write_measure("distributions", result, settings.model_dump(), measured.cached | shown.cached)


if __name__ == "__main__":
    stage.run(main, "run", threads=int, workers=int)
