"""Stage `probe`: how well the classes are read off each layer's activations."""

from dataclasses import asdict
from functools import partial
from typing import Any

from phasescope import provenance, stage
from phasescope.compute import choose
from phasescope.measures import cells
from phasescope.measures.classifiers import settings_of
from phasescope.measures.probe import MAJORITY, PIXELS, majority_accuracy, probe
from phasescope.params.probe import ProbeSettings
from phasescope.store.run import StoredRun


def main(run: str, **where: Any) -> None:
    """Write results/<run>/probe, with what the network itself does and the baselines beside it."""
    settings = stage.settings(f"runs/{run}/probe.json", ProbeSettings)
    here = choose(**{**where, "device": "cpu"})  # only what is trained by SGD can be on a GPU
    chosen = choose(**where) if "sgd" in settings.classifiers else here
    provenance.write(f"runs/{run}/probe", **asdict(chosen))
    stored, cache = StoredRun(run), stage.cache()
    measured: dict[str, cells.Measured] = {}
    pixels = []
    for classifier in settings.classifiers:
        name = "probe" if classifier == "ridge" else f"probe-{classifier}"
        mine = settings_of(classifier, settings)
        exact = classifier == "ridge"
        measured[classifier] = cells.measure(
            stored, name, partial(probe, compute=chosen), mine, cache, here if exact else chosen, processes=not exact
        )
        function = partial(probe, compute=chosen.here())
        pixels.append(cells.measure_inputs(stored, name, function, mine, cache)["accuracy"].item())
    both = cells.combine(measured, "classifier")
    result = both.result
    result["network_accuracy"] = stored.recorded["accuracy"].sel(part="test", drop=True).load()
    result["network_loss"] = stored.recorded["loss"].sel(part="test", drop=True).load()
    result["weight_norm"] = stored.recorded["weight_norm"].load()
    result["pixel_accuracy"] = ("classifier", pixels, PIXELS.attributes)
    result["majority_accuracy"] = ((), majority_accuracy(cells.samples_of(stored)), MAJORITY.attributes)
    stored.write_measure("probe", result, settings.model_dump(), both.cached)


if __name__ == "__main__":
    stage.run(main, "run", device=str, threads=int, workers=int)
