"""What a file of a kept directory holds, in a user's words."""

from pathlib import PurePosixPath

from phasescope.store.manifest import Manifest


def named(manifest: Manifest, file: str) -> str:
    """Such as "predense of seed 0, step 1024" for the shard of a cell, else the name of the array.

    Only the manifest is asked, for the arrays that hold the labels may be damaged themselves.

    Args:
        manifest: of the directory. Its `extra["cells"]` has the seeds, the steps, and the layers (the arrays that
            hold one file for each seed and step).
        file: relative to the directory, as the manifest lists it.
    """
    match PurePosixPath(file).parts:
        case (_, array, "c", str(seed), str(step), *_) if array in manifest.extra.get("cells", {}).get("layers", []):
            cells = manifest.extra["cells"]
            return f"{array} of seed {cells['seeds'][int(seed)]}, step {cells['steps'][int(step)]}"
        case (_, array, _, *_):
            return array
    return file
