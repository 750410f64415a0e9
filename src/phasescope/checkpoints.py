"""Checkpoints that others saved, in the project's folder `checkpoints/`: which files are of which seed and step."""

import hashlib
import re
from pathlib import Path

from phasescope.errors import UserError

FOLDER = Path("checkpoints")

#: By seed and step, which are texts in JSON: path in `checkpoints/`, and SHA-256.
Files = dict[str, dict[str, list[str]]]

#: What stands in a pattern for a whole number, or for anything but a slash.
WILD = {"{step}": r"(?<!\d)(?P<step>\d+)(?!\d)", "{seed}": r"(?<!\d)(?P<seed>\d+)(?!\d)", "*": "[^/]*"}


def find(pattern: str) -> Files:
    """The files whose path in `checkpoints/` is the pattern, as `paths` finds them, with their digests.

    Raises:
        UserError: as `paths`, or a file is a link to somewhere else.
    """
    found = paths(FOLDER, pattern)
    for path in (path for steps in found.values() for path in steps.values()):
        if not (FOLDER / path).resolve().is_relative_to(FOLDER.resolve()):
            raise UserError(
                f"{pattern!r}: {FOLDER / path} is a link out of {FOLDER}/; put the file itself there, or a hard link"
            )
    return {
        str(seed): {str(step): [path, _digest(FOLDER / path)] for step, path in steps.items()}
        for seed, steps in found.items()
    }


def paths(folder: Path, pattern: str) -> dict[int, dict[int, str]]:
    """The files in a folder whose path there is the pattern, by seed and step, in their order.

    Numbers stand for `{step}` and, if it is there, `{seed}`; `*` for anything but a slash. Without `{seed}` all are of
    seed 0. Nothing, if no file is.

    Raises:
        UserError: the pattern has no `{step}`, two files are of the same step, or seeds have different steps.
    """
    if pattern.count("{step}") != 1 or pattern.count("{seed}") > 1:
        raise UserError(f"{pattern!r}: name the files with {{step}} where the number of updates stands, once")
    parts = re.split(r"(\{step\}|\{seed\}|\*)", pattern)
    expression = re.compile("".join(WILD.get(part) or re.escape(part) for part in parts))
    found: dict[int, dict[int, str]] = {}
    for file in sorted(folder.rglob("*")):
        path = file.relative_to(folder).as_posix()
        match = expression.fullmatch(path)
        if match and file.is_file():
            seed, step = int(match.groupdict().get("seed") or 0), int(match["step"])
            other = found.setdefault(seed, {}).setdefault(step, path)
            if other != path:
                raise UserError(f"{pattern!r}: {other} and {path} in {folder}/ are both of step {step}; remove one")
    for seed, steps in found.items():
        missing = sorted(set().union(*found.values()) - set(steps))
        if missing:
            raise UserError(f"{pattern!r}: seed {seed} has no file of step {missing[0]} in {folder}/, and others have")
    return {seed: dict(sorted(steps.items())) for seed, steps in sorted(found.items())}


def _digest(file: Path) -> str:
    with file.open("rb") as data:
        return hashlib.file_digest(data, "sha256").hexdigest()
