"""Stage `figures`: draw all figures, each with the numbers behind it."""

import itertools

from phasescope import provenance, stage
from phasescope.errors import UserError
from phasescope.figures import linear_network, theory
from phasescope.figures.all import draw
from phasescope.figures.drawing import Results, save
from phasescope.params.figures import FiguresJob
from phasescope.store import commit
from phasescope.store.run import StoredRun, read_theory

#: What is measured of every run.
MEASURES = ("decode", "probe", "distributions", "information", "complexity", "kernel", "training")


def main() -> None:
    """Write figures/<name>.svg, .png and .csv."""
    job = stage.settings("figures.json", FiguresJob)
    provenance.write("figures")
    phases, times = stage.phases(), stage.phases(file=stage.TIME_SCALES)
    results = {}
    for name in job.runs:
        if name not in phases or name not in times:
            raise UserError(f"{stage.METRICS} knows no run {name!r}: run `dvc repro phases`")
        run = StoredRun(name)
        measures = {measure: run.measure(measure) for measure in MEASURES}
        transfers = {target: run.measure(f"transfer-{target}") for target in job.transfers[name]}
        measured = {own: run.measure(f"measure-{own}") for own in job.measured[name]}
        results[name] = Results(
            job.datasets[name],
            phases=phases[name],
            times=times[name],
            scaled=job.scaled.get(name),
            transfers=transfers,
            measured=measured,
            advised={target: run.measure(f"advise-{target}") for target in job.transfers[name]},
            **measures,
        )
    solved, network = (read_theory(stage.THEORY / model).load() for model in ("feature-strength", "linear-network"))
    with commit.scratch(stage.FIGURES) as scratch:
        losses = {run: results[run].loss.sel(layer="softmax") for run in job.solved}
        of_theory = itertools.chain(theory.draw(solved, losses, job.solved), linear_network.draw(network))
        for drawing in itertools.chain(draw(results, job), of_theory):
            save(drawing, scratch.path, job)
        scratch.commit("figures", job.model_dump())


if __name__ == "__main__":
    stage.run(main)
