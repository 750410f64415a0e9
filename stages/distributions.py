"""Stage `distributions`: how single features are distributed in each class (Figure 4)."""

from functools import partial

from phasescope import provenance, stage
from phasescope.measures import cells
from phasescope.measures.distributions import statistics
from phasescope.measures.shown import shown_features
from phasescope.params.distributions import DistributionsSettings
from phasescope.store.run import StoredRun


def main(run: str) -> None:
    """Write results/<run>/distributions."""
    settings = stage.settings(f"runs/{run}/distributions.json", DistributionsSettings)
    provenance.write(f"runs/{run}/distributions")
    stored = StoredRun(run)
    samples = cells.samples_of(stored)
    result = cells.measure(stored, partial(statistics, settings=settings), samples, f"distributions {run}")
    layers = {tap: stored.activations(tap) for tap in stored.taps}
    result = result.merge(shown_features(layers, samples, settings))
    stored.write_measure("distributions", result, settings.model_dump())


if __name__ == "__main__":
    stage.run(main, "run")
