"""The command `phasescope`."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from phasescope.errors import UserError
from phasescope.phases import table
from phasescope.progress import wide_console
from phasescope.stage import guarded

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None)

METRICS = Path("metrics/phases.json")


@app.callback()
def main() -> None:
    """See the learning phases of neural networks."""


@app.command()
def show(project: Annotated[Path, typer.Argument(help="the project's folder")] = Path()) -> None:
    """Print the phases of all runs as a table, and where the figures are."""
    sys.exit(guarded(lambda: _show(project)))


def _show(project: Path) -> None:
    try:
        results = json.loads((project / METRICS).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{project / METRICS} is not there: run `dvc repro`, or `dvc pull`") from None
    except ValueError:
        raise UserError(f"{project / METRICS} is damaged: remove it and run `dvc repro`, or `dvc pull`") from None
    console = wide_console()
    console.print(table(results))
    figures = sorted((project / "figures").glob("*.svg"))
    if figures:
        console.print("figures:", *(str(path) for path in figures), highlight=False, soft_wrap=True, sep="\n  ")
