"""Checkpoints that others saved, in the project's folder `checkpoints/`: which files are of which seed and step."""

import hashlib
import re
from pathlib import Path

from phasescope.errors import UserError

FOLDER = Path("checkpoints")

#: By seed and step, which are texts in JSON: path in `checkpoints/`, and SHA-256.
Files = dict[str, dict[str, list[str]]]


def find(pattern: str) -> Files:
    """The files whose path in `checkpoints/` is the pattern, with numbers for `{step}` and, if it is there, `{seed}`.

    Without `{seed}` all are of seed 0. Nothing, if no file is.

    Raises:
        UserError: the pattern has no `{step}`, two files are of the same step, or seeds have different steps.
    """
    if pattern.count("{step}") != 1 or pattern.count("{seed}") > 1:
        raise UserError(f"{pattern!r}: name the files with {{step}} where the number of updates stands, once")
    number = {"{step}": r"(?P<step>\d+)", "{seed}": r"(?P<seed>\d+)"}
    parts = re.split(r"(\{step\}|\{seed\})", pattern)
    expression = re.compile("".join(number.get(part) or re.escape(part) for part in parts))
    paths: dict[int, dict[int, str]] = {}
    for file in sorted(FOLDER.rglob("*")):
        path = file.relative_to(FOLDER).as_posix()
        found = expression.fullmatch(path)
        if found and file.is_file():
            seed, step = int(found.groupdict().get("seed") or 0), int(found["step"])
            other = paths.setdefault(seed, {}).setdefault(step, path)
            if other != path:
                raise UserError(f"{pattern!r}: {other} and {path} in {FOLDER}/ are both of step {step}; remove one")
    for seed, steps in paths.items():
        missing = sorted(set().union(*paths.values()) - set(steps))
        if missing:
            raise UserError(f"{pattern!r}: seed {seed} has no file of step {missing[0]} in {FOLDER}/, and others have")
    return {
        str(seed): {str(step): [steps[step], _digest(FOLDER / steps[step])] for step in sorted(steps)}
        for seed, steps in sorted(paths.items())
    }


def _digest(file: Path) -> str:
    with file.open("rb") as data:
        return hashlib.file_digest(data, "sha256").hexdigest()
