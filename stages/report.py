"""Stage `report`: one page with the runs, their phases, every figure, and where they come from."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from phasescope import metrics, provenance, stage
from phasescope.errors import UserError
from phasescope.params.activations import ActivationsSettings
from phasescope.params.figures import FiguresJob
from phasescope.params.train import TrainJob
from phasescope.report import contents
from phasescope.report.page import page
from phasescope.store import manifest
from phasescope.store.commit import write_file
from phasescope.store.run import StoredRun

#: Formats that a browser shows, best first.
KINDS = {"svg": "image/svg+xml", "png": "image/png"}


def main() -> None:
    """Write report.html."""
    job = stage.settings("figures.json", FiguresJob)
    provenance.write("report")
    jobs = {run: stage.settings(f"runs/{run}/train.json", TrainJob) for run in job.runs}
    runs = {
        run: contents.about(jobs[run], stage.settings(f"runs/{run}/activations.json", ActivationsSettings), stores(run))
        for run in job.runs
    }
    found = stage.phases()
    try:
        courses = contents.courses(found, {run: jobs[run].steps[-1] for run in found})
    except (KeyError, TypeError, ValueError, AttributeError):
        raise stage.damaged(stage.METRICS) from None
    grids = {run: contents.grid(StoredRun(run).measure("distributions")) for run in job.runs}
    made = dict(recorded(job))
    text = page(
        runs,
        list(tables()),
        courses,
        contents.arranged(list(pictures()), job.sets),
        {run: grid for run, grid in grids.items() if grid["layers"]},
        list(contents.makers(made)),
        {what: str(told.get("code", "")) for what, told in made.items()},
    )
    write_file(stage.REPORT, text.encode())
    print(f"{stage.REPORT}: {len(text.encode()) / 1e6:.1f} MB")


def tables() -> Iterator[contents.Shown]:
    """The tables that `phasescope show` prints, each with its CSV file."""
    for file, title, table in metrics.tables():
        csv = file.with_suffix(".csv")
        if not csv.is_file():
            raise UserError(f"{csv} is not there: run `dvc repro`, or `dvc pull`")
        yield contents.Shown.of(file.stem, title, table, csv.read_bytes())


def pictures() -> Iterator[contents.Picture]:
    """Every figure in the best of its formats, with all its files."""
    kept = manifest.read(stage.FIGURES, "figures").files
    for name in sorted(file.removesuffix(".csv") for file in kept if file.endswith(".csv")):
        forms = {"svg": f"{name}.svg", "png": f"png/{name}.png", "pdf": f"pdf/{name}.pdf", "csv": f"{name}.csv"}
        there = {form: file for form, file in forms.items() if file in kept}
        best = next((form for form in KINDS if form in there), None)
        yield contents.Picture(
            name,
            contents.CAPTIONS.get(contents.kind_of(name) or "", name),
            KINDS[best] if best else None,
            (stage.FIGURES / there[best]).read_bytes() if best else b"",
            parsed(stage.FIGURES / "points" / f"{name}.json"),
            [f"{stage.FIGURES}/{file}" for file in there.values()],
        )


def stores(run: str) -> dict[str, int | None]:
    """Bytes of what is kept of a run, None for a store that is not here.

    Those of runs/ are no dependency of this stage, for DVC would hash or fetch them all: another store there means
    other results, which have its digest in their manifests, and they are.
    """
    places = {"weights": stage.RUNS / run / "train", "activations": stage.RUNS / run / "activations"}
    kept = {what: manifest.parse(place).bytes if place.is_dir() else None for what, place in places.items()}
    results = sorted(path for path in (stage.RESULTS / run).iterdir() if path.is_dir())
    return {**kept, "results": sum(manifest.parse(path).bytes for path in results)}


def recorded(job: FiguresJob) -> Iterator[tuple[str, dict[str, Any]]]:
    """The provenance that is here, by what it is of."""
    kept = provenance.FOLDER
    files = [kept / f"{name}.json" for name in ("phases", "theory", "figures")]
    files += [file for run in job.runs for file in sorted((kept / stage.RUNS / run).glob("*.json"))]
    for path in filter(Path.is_file, files):
        yield " ".join(path.relative_to(kept).with_suffix("").parts[-2:]), parsed(path)


def parsed(path: Path) -> dict[str, Any]:
    """The JSON object in a file."""
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        raise stage.damaged(path) from None
    if not isinstance(content, dict):
        raise stage.damaged(path)
    return content


if __name__ == "__main__":
    stage.run(main)
