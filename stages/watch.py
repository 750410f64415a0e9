"""Stage `watch`: see whether raw images have changed, where they are; they are never required.

`prepare` depends on watch/<source>/<name>.json, which says what the raw images of a dataset held when they were last
there. It is kept in git, so that it is right also where only the prepared images were pulled.
"""

import os
import sys
from pathlib import Path
from typing import get_args

from phasescope import stage
from phasescope.data.sources import fetch, raw_files, raw_folder
from phasescope.errors import UserError
from phasescope.params.datasets import DatasetJob, Source, is_embedded
from phasescope.progress import Progress
from phasescope.store.commit import write_file
from phasescope.store.manifest import canonical
from phasescope.store.raw import digest

INDEX = Path(".phasescope/raw")

#: What stands in the file of a dataset whose raw images were never seen.
NOTHING = canonical({}).encode()


def main() -> None:
    """Look at the raw images of every dataset that has some."""
    for source in get_args(Source):
        if not is_embedded(source):
            stage.keep_folder(stage.WATCH / source)
    lost: list[UserError] = []
    for file in sorted((stage.CONFIGS / "datasets").glob("*.json")):
        settings = stage.settings(f"datasets/{file.name}", DatasetJob)
        if not is_embedded(settings.source):
            try:
                look(file.stem, settings)
            except UserError as error:
                lost.append(error)
    if lost:
        raise UserError("\n".join(map(str, lost)))


def look(name: str, settings: DatasetJob) -> None:
    """Write down what the raw images of a dataset hold; where they cannot be read, leave what was written.

    Raises:
        UserError: nothing was written yet, and there are prepared images to lose.
    """
    record = stage.WATCH / settings.source / f"{name}.json"
    written = record.read_bytes() if record.exists() else None
    root = Path(os.environ.get("PHASESCOPE_DATA") or "data")
    folder = raw_folder(settings, root)
    assert folder is not None
    try:
        if written in (None, NOTHING) and os.environ.get("PHASESCOPE_DOWNLOAD") == "1":
            # Here already, for to the next look they would be new, and prepared once more.
            fetch(settings, root)
        files = raw_files(settings, root)
        with Progress([name], len(files)) as progress:
            seen = digest(folder, files, INDEX / f"{name}.index", lambda done: progress.update(0, done))
        found = canonical(seen).encode()
    except (UserError, OSError) as error:
        if written is None and (stage.DATASETS / name).exists():
            raise UserError(
                f"{record} is not there, nor can the raw images be read ({error}): bring it back, such as with "
                f"`git restore {record}`, or remove {stage.DATASETS / name}"
            ) from None
        if written not in (None, NOTHING):
            tell_kept(name, error if os.access(folder, os.F_OK) else None)
        # Where nothing was prepared either, `prepare` says what is missing.
        found = written or NOTHING
    if found != written:
        write_file(record, found)


def tell_kept(name: str, error: Exception | None) -> None:
    """Say that the prepared images stay as they are: raw ones are not there, or there is an `error` with them."""
    if error is None:
        print(f"{name}: no raw images here, so the prepared ones stay as they are")
    else:
        print(f"{name}: raw images not usable, so the prepared ones stay as they are: {error}", file=sys.stderr)


if __name__ == "__main__":
    stage.run(main)
