"""Stage `probe`: how well the classes are read off each layer's activations."""

from phasescope import provenance, stage
from phasescope.measures import cells
from phasescope.measures.probe import majority_accuracy, pixel_accuracy, probe
from phasescope.params.probe import ProbeSettings
from phasescope.store.run import StoredRun


def main(run: str) -> None:
    """Write results/<run>/probe, with what the network itself does and the baselines beside it."""
    settings = stage.settings(f"runs/{run}/probe.json", ProbeSettings)
    provenance.write(f"runs/{run}/probe")
    stored = StoredRun(run)
    samples = cells.samples_of(stored)
    measured = cells.measure(stored, "probe", probe, samples, settings, stage.cache())
    result = measured.result
    result["network_accuracy"] = stored.recorded["accuracy"].sel(part="test", drop=True).load()
    result["network_loss"] = stored.recorded["loss"].sel(part="test", drop=True).load()
    result["weight_norm"] = stored.recorded["weight_norm"].load()
    for baseline, value, long_name in [
        (
            "pixel_accuracy",
            pixel_accuracy(samples, settings),
            "test accuracy of the same probe on raw pixels",
        ),
        ("majority_accuracy", majority_accuracy(samples), "test accuracy of naming the most frequent class"),
    ]:
        result[baseline] = ((), value, {"long_name": long_name, "units": "1"})
    stored.write_measure("probe", result, settings.model_dump(), measured.cached)


if __name__ == "__main__":
    stage.run(main, "run")
