"""All figures of a set of runs, one after the other."""

from collections.abc import Iterator, Mapping

from phasescope.figures import curves, distributions
from phasescope.figures.drawing import Drawing, Results
from phasescope.params.figures import FiguresSettings


def draw(results: Mapping[str, Results], settings: FiguresSettings) -> Iterator[Drawing]:
    """Yield each figure there is data for; Figure 4 of the runs that have features of ``settings.features``."""
    yield curves.figure_1(results, settings)
    yield curves.figure_2(results)
    yield curves.probes(results)
    measured = {run: result.distributions for run, result in results.items() if result.distributions is not None}
    for run, values in measured.items():
        chosen = values.feature_index
        if (chosen.where(chosen.layer == settings.features) >= 0).any():
            yield distributions.figure_4(run, values, settings)
    if measured:
        yield distributions.statistics(results)
