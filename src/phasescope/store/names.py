"""What a file of a kept directory holds, in a user's words."""

from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from phasescope.store.files import StoreError, remedy

if TYPE_CHECKING:
    from phasescope.store.manifest import Manifest


def named(manifest: "Manifest", file: str) -> str:
    """Such as "weights of seed 0, step 1024" for the shard of a cell, else the name of its array.

    Only the manifest is asked, for the arrays that hold the labels may be damaged themselves.

    Args:
        manifest: of the directory. Its `extra["cells"]` has the seeds, the steps, and the layers (the arrays that
            hold one file for each seed and step).
        file: relative to the directory, as the manifest lists it.
    """
    match PurePosixPath(file).parts:
        case (_, array, "c", str(seed), str(step), *_):
            try:
                cells = manifest.extra["cells"]
                if array in cells["layers"]:
                    return f"{array} of seed {cells['seeds'][int(seed)]:d}, step {cells['steps'][int(step)]:d}"
            except (LookupError, TypeError, ValueError):
                pass  # the manifest does not say; a store that is read anyway must not fail here
            return array
        case (_, array, _, *_):
            return array
    return file


def damaged(manifest: "Manifest", file: str, what: str) -> StoreError:
    """The error that says what is wrong with a file, which cell it is, and what to do."""
    holds = named(manifest, file)
    told = "" if holds == file else f" ({holds})"
    return StoreError(f"{manifest.path / file}{told} {what}: {remedy(manifest.path)}")
