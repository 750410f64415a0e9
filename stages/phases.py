"""Stage `phases`: which learning phases every layer of every run goes through, and what a run does when, and how."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from phasescope import mechanisms, phases, provenance, stage, timescales
from phasescope.params.phases import PhasesJob
from phasescope.progress import wide_console
from phasescope.store.commit import write_file
from phasescope.store.run import StoredRun


def main() -> None:
    """Write phases, time scales and mechanisms to metrics/, as JSON and CSV, and print them as tables."""
    job = stage.settings("phases.json", PhasesJob)
    provenance.write("phases")
    runs = {name: StoredRun(name) for name in job.runs}
    found = {name: phases.of_decoders(run.measure("decode"), run.measure("probe"), job) for name, run in runs.items()}
    times = {
        name: timescales.time_scales(
            run.measure("training"), run.measure("information"), run.measure("complexity"), job
        )
        for name, run in runs.items()
    }
    learned = {name: mechanisms.of_run(run.measure("kernel"), job) for name, run in runs.items()}
    write(stage.METRICS, found, phases.frame(found))
    write(stage.TIME_SCALES, times, timescales.frame(times))
    write(stage.MECHANISMS, learned, mechanisms.frame(learned))
    wide_console().print(phases.table(found))
    wide_console().print(timescales.table(times))
    wide_console().print(mechanisms.table(learned))


def write(path: Path, results: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> None:
    """Write results as JSON, in the order of params.yaml, which tables keep, and their rows as CSV beside it."""
    write_file(path, (json.dumps(results, indent=1) + "\n").encode())
    lines = io.StringIO()
    writer = csv.DictWriter(lines, list(dict.fromkeys(key for row in rows for key in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_file(path.with_suffix(".csv"), lines.getvalue().encode())


if __name__ == "__main__":
    stage.run(main)
