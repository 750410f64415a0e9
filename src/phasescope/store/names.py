"""What a file of a kept directory holds, in a user's words."""

from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from phasescope.store.files import StoreError, remedy

if TYPE_CHECKING:
    from phasescope.store.manifest import Manifest


def placed(file: str) -> tuple[str, tuple[int, ...] | None]:
    """The array that a file of a directory is of, and its place in the grid of the array's files; none for metadata."""
    _, _, inside = file.partition("/")
    array, _, key = inside.partition("/")
    kind, *place = key.replace("/", ".").split(".")
    if kind != "c" or not all(map(str.isdecimal, place)):
        return array, None
    return array, tuple(map(int, place))


def named(manifest: "Manifest", file: str) -> str:
    """Such as "weights of seed 0, step 1024" for the shard of a cell, else the name of its array.

    Only the manifest is asked, for the arrays that hold the labels may be damaged themselves.

    Args:
        manifest: of the directory. Its `extra["cells"]` has the seeds, the steps, and the layers (the arrays that
            hold one file for each seed and step).
        file: relative to the directory, as the manifest lists it.
    """
    array, place = placed(file)
    if place is not None and len(place) > 1:
        seed, step, *_ = place
        try:
            cells = manifest.extra["cells"]
            if array in cells["layers"]:
                return f"{array} of seed {cells['seeds'][seed]:d}, step {cells['steps'][step]:d}"
        except (LookupError, TypeError, ValueError):
            pass  # the manifest does not say; a store that is read anyway must not fail here
    return array if len(PurePosixPath(file).parts) > 2 else file


def damaged(manifest: "Manifest", file: str, what: str) -> StoreError:
    """The error that says what is wrong with a file, which cell it is, and what to do."""
    holds = named(manifest, file)
    told = "" if holds == file else f" ({holds})"
    return StoreError(f"{manifest.path / file}{told} {what}: {remedy(manifest.path)}")
