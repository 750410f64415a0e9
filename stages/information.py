"""Stage `information`: how much each layer tells of the input and of the class (the information plane)."""

from phasescope import provenance, stage
from phasescope.measures import cells
from phasescope.measures.information import information, settings_of
from phasescope.params.information import InformationSettings
from phasescope.store.run import StoredRun


def main(run: str) -> None:
    """Write results/<run>/information."""
    settings = stage.settings(f"runs/{run}/information.json", InformationSettings)
    provenance.write(f"runs/{run}/information")
    stored, cache = StoredRun(run), stage.cache()
    measured = {
        estimator: cells.measure(
            stored, f"information-{estimator}", information, settings_of(estimator, settings), cache
        )
        for estimator in settings.estimators
    }
    together = cells.combine(measured, "estimator")
    # So that no value is without the resolution that it depends on.
    result = together.result.assign_attrs(settings.model_dump())
    stored.write_measure("information", result, settings.model_dump(), together.cached)


if __name__ == "__main__":
    stage.run(main, "run")
