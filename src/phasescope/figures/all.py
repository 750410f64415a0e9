"""All figures of a set of runs, one after the other."""

from collections.abc import Iterator, Mapping
from dataclasses import replace

from phasescope.figures import (
    advise,
    complexity,
    curves,
    decoders,
    distributions,
    information,
    initialisation,
    kernel,
    measured,
    timescales,
    transfer,
)
from phasescope.figures.drawing import Drawing, Results
from phasescope.params.figures import FiguresSettings


def draw(results: Mapping[str, Results], settings: FiguresSettings) -> Iterator[Drawing]:
    """Yield each figure there is data for: those of several runs for every set, Figure 4 and advice for every run.

    The figures of a set are named ``<figure>-<set>``; without ``settings.sets`` all runs are in one without a name.
    """
    if settings.sets:
        for name, runs in settings.sets.items():
            for drawing in _together({run: results[run] for run in runs}, settings):
                yield replace(drawing, name=f"{drawing.name}-{name}")
    else:
        yield from _together(results, settings)
    for run, result in results.items():
        if result.distributions is not None:
            chosen = result.distributions.feature_index
            if (chosen.where(chosen.layer == settings.features) >= 0).any():
                yield distributions.figure_4(run, result.distributions, settings)
        for target, advised in result.advised.items():
            if advise.told_apart(advised):
                yield advise.advice(run, target, advised, result.loss)


def _together(results: Mapping[str, Results], settings: FiguresSettings) -> Iterator[Drawing]:
    """The figures that show several runs."""
    yield curves.figure_1(results, settings)
    yield curves.figure_2(results)
    yield curves.probes(results)
    several = {run: result for run, result in results.items() if result.decode.sizes["decoder"] > 1}
    if several:
        yield decoders.decoders(several)
    trained = {run: result for run, result in results.items() if decoders.trained(result.decode)}
    if trained:
        yield decoders.convergence(trained)
    for name, cases in (("figure-6", transfer.to_datasets(results)), ("figure-7", transfer.to_properties(results))):
        if cases:
            yield transfer.transfers(name, cases, results, settings)
    if any(result.measured for result in results.values()):
        yield measured.measures(results)
    if any(result.distributions is not None for result in results.values()):
        yield distributions.statistics(results)
    informed = {run: result for run, result in results.items() if result.information is not None}
    if informed:
        yield information.plane(informed)
        yield information.information(informed)
    timed = {run: result for run, result in informed.items() if result.training is not None and result.times}
    if timed:
        yield timescales.time_scales(timed)
        yield timescales.two_phases(timed)
    bent = {run: result.complexity for run, result in results.items() if result.complexity}  # with any variable
    if bent:
        yield complexity.complexity(bent)
    learned = {run: result.kernel for run, result in results.items() if result.kernel}
    for draw_one, variable in ((kernel.kernel, "tangent_kernel"), (kernel.alignment, "alignment")):
        having = {run: found for run, found in learned.items() if variable in found}
        if having:
            yield draw_one(having)
    scaled = initialisation.families(results)
    if scaled:
        yield initialisation.initialisation_scale(scaled)
