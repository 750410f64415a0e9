"""What raw files hold, as one digest, without reading again those that have not changed.

An index keeps, for each file, what the system says of it and the SHA-256 of its content, as git's index does: a file of
which the system says the same is not read again. The index is a help and no truth: lost, damaged or copied elsewhere,
it costs one reading of the files.
"""

import hashlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from phasescope.store.commit import write_file
from phasescope.store.manifest import sha256

#: A file changed in the last moments before it was read may change again without a sign, for clocks tick: some file
#: systems count two seconds. Such a file is read again the next time.
_SETTLED_NS = 2_000_000_000

#: Telling the progress takes longer than looking at a file.
_TOLD_EVERY = 500

#: Length, the times of its content and of its entry in the folder, inode, SHA-256. Copying back an old time
#: changes the second one still.
_Entry = list[int | str]


def digest(
    folder: Path, files: list[Path], index: Path, told: Callable[[int], None] = lambda done: None
) -> dict[str, Any]:
    """Number, bytes and a SHA-256 of `files`, which lie in `folder`: of their names in it and of their contents.

    Neither the place of the folder nor any time matters. The SHA-256 is that of what `sha256sum --zero` prints for the
    names relative to the folder, sorted by their bytes.

    Args:
        folder: what the names are relative to.
        files: in any order.
        index: a file to keep between two calls; it is read and written here alone.
        told: called with the number of files that are done.

    Raises:
        OSError: a file cannot be read, or the index cannot be written.
    """
    known = _read_index(index)
    looked = time.time_ns()
    entries: dict[str, _Entry] = {}
    settled: dict[str, _Entry] = {}
    for done, path in enumerate(files, 1):
        name = path.relative_to(folder).as_posix()
        status = path.stat()
        entry: _Entry = [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]
        before = known.get(name)
        entry.append(before[-1] if before and before[:-1] == entry else sha256(path))
        entries[name] = entry
        if max(status.st_mtime_ns, status.st_ctime_ns) < looked - _SETTLED_NS:
            settled[name] = entry
        if done % _TOLD_EVERY == 0 or done == len(files):
            told(done)
    if settled != known:
        _write_index(index, settled)
    total = hashlib.sha256()
    for name in sorted(entries, key=os.fsencode):
        total.update(f"{entries[name][-1]}  ".encode() + os.fsencode(name) + b"\0")
    return {"files": len(files), "bytes": sum(int(entry[0]) for entry in entries.values()), "sha256": total.hexdigest()}


def _read_index(path: Path) -> dict[str, _Entry]:
    """What `_write_index` wrote, or nothing if any of it is not."""
    try:
        checksum, text = path.read_bytes().split(b"\n", 1)
    except (FileNotFoundError, ValueError):
        return {}
    whole = checksum.decode(errors="replace") == hashlib.sha256(text).hexdigest()
    return json.loads(text) if whole else {}


def _write_index(path: Path, entries: dict[str, _Entry]) -> None:
    text = json.dumps(entries).encode()
    write_file(path, hashlib.sha256(text).hexdigest().encode() + b"\n" + text)
