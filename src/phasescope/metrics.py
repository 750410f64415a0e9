"""The tables of the numbers that the stage `phases` writes."""

from collections.abc import Iterator
from pathlib import Path

from rich.table import Table

from phasescope import mechanisms, phases, stage, timescales

#: Title and maker of the table of each file.
_TABLES = {
    stage.METRICS: ("Phases", phases),
    stage.TIME_SCALES: ("Time scales", timescales),
    stage.MECHANISMS: ("Mechanisms of feature learning", mechanisms),
}


def tables(project: Path = Path()) -> Iterator[tuple[Path, str, Table]]:
    """Every table of a project, with its file and its title.

    Raises:
        UserError: a file is absent or damaged.
    """
    for file, (title, module) in _TABLES.items():
        results = stage.phases(project, file)
        try:
            table = module.table(results)
        except (KeyError, TypeError, ValueError, AttributeError):
            raise stage.damaged(project / file) from None
        yield file, title, table
