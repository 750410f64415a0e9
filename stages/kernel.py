"""Stage `kernel`: the tangent kernel of the networks of a run, and how far their layers are aligned."""

from dataclasses import asdict
from typing import Any

from phasescope import model_cells, provenance, stage
from phasescope.compute import choose
from phasescope.measures.kernel import kernel, over_course
from phasescope.params.kernel import KernelSettings
from phasescope.run import Run


def main(run: str, **where: Any) -> None:
    """Write results/<run>/kernel, without numbers if no measure is asked for."""
    settings = stage.settings(f"runs/{run}/kernel.json", KernelSettings)
    chosen = choose(**where)
    provenance.write(f"runs/{run}/kernel", **asdict(chosen))
    opened = Run(run)
    measured = model_cells.nothing(opened)
    if settings.measures:
        measured = model_cells.measure(opened, "kernel", kernel, settings, chosen, stage.cache())
    made_from = (opened.path / "train",)
    opened.write_measure("kernel", over_course(measured.result), settings.model_dump(), measured.cached, made_from)


if __name__ == "__main__":
    stage.run(main, "run", device=str, threads=int, workers=int)
