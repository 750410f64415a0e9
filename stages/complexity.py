"""Stage `complexity`: how far from linear the networks of a run are."""

from dataclasses import asdict
from typing import Any

from phasescope import model_cells, provenance, stage
from phasescope.compute import choose
from phasescope.measures.cells import samples_of
from phasescope.measures.complexity import complexity, with_layers
from phasescope.params.complexity import ComplexitySettings
from phasescope.run import Run


def main(run: str, **where: Any) -> None:
    """Write results/<run>/complexity, without numbers if no measure is asked for."""
    settings = stage.settings(f"runs/{run}/complexity.json", ComplexitySettings)
    chosen = choose(**where)
    provenance.write(f"runs/{run}/complexity", **asdict(chosen))
    opened = Run(run)
    measured = model_cells.nothing(opened)
    if settings.measures:
        network = opened.model(opened.seeds[0], opened.steps[0])
        asked = with_layers(settings, network, samples_of(opened), opened.taps)
        measured = model_cells.measure(opened, "complexity", complexity, asked, chosen, stage.cache())
    made_from = (opened.path / "train",)
    opened.write_measure("complexity", measured.result, settings.model_dump(), measured.cached, made_from)


if __name__ == "__main__":
    stage.run(main, "run", device=str, threads=int, workers=int)
