"""Stage `information`: how much each layer tells of the input and of the class (the information plane)."""

from dataclasses import asdict
from typing import Any

from phasescope import provenance, stage
from phasescope.compute import choose
from phasescope.measures import cells
from phasescope.measures.information import information, settings_of
from phasescope.params.information import InformationSettings
from phasescope.store.run import StoredRun


def main(run: str, **where: Any) -> None:
    """Write results/<run>/information."""
    settings = stage.settings(f"runs/{run}/information.json", InformationSettings)
    chosen = choose("cpu", **where)
    provenance.write(f"runs/{run}/information", **asdict(chosen))
    stored, cache = StoredRun(run), stage.cache()
    measured = {
        estimator: cells.measure(
            stored, f"information-{estimator}", information, settings_of(estimator, settings), cache, chosen
        )
        for estimator in settings.estimators
    }
    together = cells.combine(measured, "estimator")
    # So that no value is without the resolution that it depends on.
    result = together.result.assign_attrs(settings.model_dump())
    stored.write_measure("information", result, settings.model_dump(), together.cached)


if __name__ == "__main__":
    stage.run(main, "run", threads=int, workers=int)
