"""Stage `phases`: which learning phases every layer of every run goes through, and how sure that is."""

import csv
import io
import json

from phasescope import provenance, stage
from phasescope.params.phases import PhasesJob
from phasescope.phases import frame, of_decoders, table
from phasescope.progress import wide_console
from phasescope.store.commit import write_file
from phasescope.store.run import StoredRun


def main() -> None:
    """Write metrics/phases.json and metrics/phases.csv, and print the table."""
    job = stage.settings("phases.json", PhasesJob)
    provenance.write("phases")
    runs = {name: StoredRun(name) for name in job.runs}
    results = {name: of_decoders(run.measure("decode"), run.measure("probe"), job) for name, run in runs.items()}
    # In the order of params.yaml, which the table keeps.
    text = json.dumps(results, indent=1) + "\n"
    write_file(stage.METRICS, text.encode())
    rows = frame(results)
    lines = io.StringIO()
    writer = csv.DictWriter(lines, list(dict.fromkeys(key for row in rows for key in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_file(stage.METRICS.with_suffix(".csv"), lines.getvalue().encode())
    wide_console().print(table(results))


if __name__ == "__main__":
    stage.run(main)
