"""Stage `figures`: draw all figures, each with the numbers behind it."""

from phasescope import provenance, stage
from phasescope.errors import UserError
from phasescope.figures.all import draw
from phasescope.figures.drawing import Results, save
from phasescope.params.figures import FiguresJob
from phasescope.store import commit
from phasescope.store.run import StoredRun


def main() -> None:
    """Write figures/<name>.svg, .png and .csv."""
    job = stage.settings("figures.json", FiguresJob)
    provenance.write("figures")
    phases = stage.phases()
    results = {}
    for name in job.runs:
        if name not in phases:
            raise UserError(f"{stage.METRICS} knows no run {name!r}: run `dvc repro phases`")
        run = StoredRun(name)
        measures = {measure: run.measure(measure) for measure in ("decode", "probe", "distributions", "complexity")}
        transfers = {target: run.measure(f"transfer-{target}") for target in job.transfers[name]}
        results[name] = Results(job.datasets[name], phases=phases[name], transfers=transfers, **measures)
    with commit.scratch(stage.FIGURES) as scratch:
        for drawing in draw(results, job):
            save(drawing, scratch.path, job)
        scratch.commit("figures", job.model_dump())


if __name__ == "__main__":
    stage.run(main)
