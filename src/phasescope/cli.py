"""The command `phasescope`."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from phasescope.phases import table
from phasescope.progress import wide_console
from phasescope.stage import METRICS, damaged, guarded, phases

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None)


@app.callback()
def main() -> None:
    """See the learning phases of neural networks."""


@app.command()
def show(project: Annotated[Path, typer.Argument(help="the project's folder")] = Path()) -> None:
    """Print the phases of all runs as a table, and where the figures are."""
    sys.exit(guarded(lambda: _show(project)))


@app.command()
def budget(project: Annotated[Path, typer.Argument(help="the project's folder")] = Path()) -> None:
    """Print how many bytes every run will keep."""
    sys.exit(guarded(lambda: _budget(project)))


def _budget(project: Path) -> None:
    # torch takes seconds to import, and no other command needs it.
    from phasescope.budget import budget, table
    from phasescope.params.settings import read

    wide_console().print(table(budget(read(project / "params.yaml"), project / "datasets")))


def _show(project: Path) -> None:
    results = phases(project)
    try:
        shown = table(results)
    except (KeyError, TypeError, ValueError, AttributeError):
        raise damaged(project / METRICS) from None
    console = wide_console()
    console.print(shown)
    figures = sorted((project / "figures").glob("*.svg"))
    if figures:
        console.print("figures:", *(str(path) for path in figures), highlight=False, soft_wrap=True, sep="\n  ")
