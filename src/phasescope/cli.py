"""The command `phasescope`."""

import secrets
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from phasescope.errors import UserError
from phasescope.phases import table
from phasescope.progress import Progress, wide_console
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


@app.command()
def verify(
    paths: Annotated[
        list[Path] | None, typer.Argument(help="projects, parts of them, or kept directories (default: this folder)")
    ] = None,
    full: Annotated[bool, typer.Option("--full", help="hash every file; else lengths are compared")] = False,
    regenerate: Annotated[
        int, typer.Option(min=0, metavar="K", help="compute K random cells of the activations again, and compare")
    ] = 0,
    seed: Annotated[
        int | None, typer.Option(min=0, help="of the choice of those cells (default: a new one each time)")
    ] = None,
) -> None:
    """Check what is kept against its manifests, and say everything that is wrong, a line each."""
    sys.exit(guarded(lambda: _verify(paths or [Path()], full, regenerate, seed)))


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


def _verify(paths: list[Path], full: bool, count: int, seed: int | None) -> None:
    from phasescope.store import verify
    from phasescope.store.manifest import StoreError

    wrong = 0

    def tell(findings: Iterable[verify.Finding]) -> None:
        nonlocal wrong
        for finding in findings:
            print(finding, flush=True)
            wrong += not finding.note

    found: dict[verify.Kept, None] = {}
    for path in paths:
        try:
            found |= dict.fromkeys(verify.kept(path))
        except StoreError as error:
            tell([verify.Finding(str(error))])
    check = verify.Check(full)
    megabytes = sum(map(verify.length, found)) // 10**6 if full else 0
    with Progress(["verify (MB)" if full else "verify"], max(1, megabytes if full else len(found))) as progress:
        for place in found:
            tell(check.directory(place, lambda read: progress.update(0, read // 10**6) if full else None))
            tell(check.references(place))
            if place.kind == "activations":
                tell(verify.out_of_line(place))
            if not full:
                progress.update(0, check.directories)
    if count:
        from phasescope.compute import choose  # with torch, which takes seconds
        from phasescope.regenerate import regenerate

        recordings = [place for place in found if place.kind == "activations"]
        tell(regenerate(recordings, count, secrets.randbelow(2**32) if seed is None else seed, choose()))
    summary = check.summary()
    if wrong:
        raise UserError(f"{wrong} {'problem' if wrong == 1 else 'problems'} in {summary}")
    print(f"all well in {summary}")
