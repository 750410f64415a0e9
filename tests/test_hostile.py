"""A store that somebody made with ill intent is refused in one line, and costs neither time nor memory."""

import copy
import hashlib
import json
import shutil
import struct
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
from numcodecs import zstd

import damage
import phasescope
from damage import KEPT, SEED, STEP, TAPS, refusal
from phasescope.errors import UserError
from phasescope.store import arrays, manifest
from phasescope.store.layout import METADATA
from stores import make


def consistent(store: Path) -> None:
    """Bring the manifest in line with the files."""
    path = store / manifest.MANIFEST
    content = json.loads(path.read_text())
    for name, entry in content["files"].items():
        data = (store / name).read_bytes()
        entry.update(bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
    damage.write_manifest(path, content)


def change_metadata(store: Path, change) -> None:
    path = store / METADATA
    content = json.loads(path.read_text())
    change(content["consolidated_metadata"]["metadata"])
    path.write_text(json.dumps(content))
    consistent(store)


@pytest.mark.parametrize(
    "name",
    ["/etc/passwd", "../x", "a/../../x", "a\0b", "a\\..\\b", "C:x", "a//b", "./a", "", "a\nb", "a" * 5000, "\x1b[2J"],
)
def test_names_that_leave_the_directory(tiny, name):
    path = tiny / "runs" / "tiny" / "train" / manifest.MANIFEST
    content = json.loads(path.read_text())
    content["files"][name] = {"bytes": 1, "sha256": "0" * 64}
    damage.write_manifest(path, content)
    assert refusal(lambda: manifest.read(path.parent)).startswith(f"{path} is damaged: ")


@pytest.mark.parametrize("name", ["../../etc", "/etc", "a/b", "..", "x\ny", 7, None, ["a"]])
def test_a_dataset_that_lies_elsewhere(tiny, name):
    path = tiny / "runs" / "tiny" / "activations" / manifest.MANIFEST
    content = json.loads(path.read_text())
    content["extra"]["dataset"]["name"] = name
    damage.write_manifest(path, content)
    refusal(lambda: phasescope.open_run(tiny / "runs" / "tiny").dataset)


OTHERS = [None, True, -1, 10**30, 1.5, 1e308, "x", "\n", "a" * 10_000, [], {}, [1], {"a": 1}, [[]], [None] * 9]


def places(value, path=()):
    """The paths of all values in JSON."""
    yield path
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from places(value[key], (*path, key))


def changed(value, path, new):
    if not path:
        return new
    value = copy.copy(value)
    value[path[0]] = changed(value[path[0]], path[1:], new)
    return value


@pytest.mark.parametrize("store", make.STORES)
def test_json_of_other_types_is_an_error_or_does_no_harm(tiny, store):
    rng = np.random.default_rng(0)
    reads = damage.readings(tiny, "tiny", SEED, STEP, TAPS)
    names = {"results": ["measure"], "datasets": ["dataset"], "train": ["training", "network"]}
    names["activations"] = ["recorded", "activations at logits", "network"]
    chosen = next(value for key, value in names.items() if key in store)
    for file, times in [(METADATA, 60), (manifest.MANIFEST, 60)]:
        path = tiny / store / file
        whole, listed = path.read_bytes(), (tiny / store / manifest.MANIFEST).read_bytes()
        content = json.loads(whole)
        every = list(places(content))
        for _ in range(times):
            place, new = every[rng.integers(len(every))], OTHERS[rng.integers(len(OTHERS))]
            if file == METADATA:
                path.write_text(json.dumps(changed(content, place, new)))
                consistent(tiny / store)
            else:
                damage.write_manifest(path, changed(content, place, new))
            for name in chosen:
                start = time.process_time()
                try:
                    reads[name]()
                    told = "read"
                except UserError as error:
                    told = str(error)
                except Exception as error:
                    raise AssertionError(f"{file}: {place} = {new!r:.50}, {name}") from error
                assert "\n" not in told, (place, new)
                assert len(told) < 1000, (place, new)
                assert time.process_time() - start < 1, (place, new)
            path.write_bytes(whole)
            (tiny / store / manifest.MANIFEST).write_bytes(listed)


def compressed(length: int) -> bytes:
    """A zstd frame that decodes to so many zero bytes: one block of 128 KiB in 4 bytes each (RFC 8878)."""
    blocks = [128 << 10] * (length // (128 << 10)) + [length % (128 << 10)]
    body = b"".join(
        struct.pack("<I", (block << 3) | 2 | (position == len(blocks) - 1))[:3] + b"\0"
        for position, block in enumerate(blocks)
    )
    return b"\x28\xb5\x2f\xfd" + bytes([0b11_1_00000]) + struct.pack("<Q", length) + body


def bomb_of_zeros(store: Path) -> None:
    """An honest array of 6 GiB in a file of 200 kB."""

    def change(described):
        for key in ("last_rng", "rng"):
            if key in described:
                described[key].update(shape=[2, 3 << 30])
                described[key]["chunk_grid"]["configuration"]["chunk_shape"] = [2, 3 << 30]

    (store / arrays.GROUP / "last_rng" / "c" / "0" / "0").write_bytes(compressed(6 << 30))
    change_metadata(store, change)


def bomb_in_a_chunk(store: Path) -> None:
    """A chunk that decodes to more than its array holds."""
    (store / arrays.GROUP / "last_rng" / "c" / "0" / "0").write_bytes(compressed(300 << 20))
    consistent(store)


def bomb_without_a_length(store: Path) -> None:
    """A frame that does not say how much it decodes to."""
    frame = compressed(300 << 20)
    (store / arrays.GROUP / "last_rng" / "c" / "0" / "0").write_bytes(frame[:4] + b"\0\x58" + frame[13:])
    consistent(store)


def bomb_in_a_shard(store: Path) -> None:
    path = store / arrays.GROUP / "weights" / "c" / "0" / "0" / "0"
    frame = compressed(20 << 20)
    path.write_bytes(struct.pack("<QQ", 20, len(frame)) + b"crc!" + frame)
    consistent(store)


def set_shape(name: str, shape: list[int], chunk: list[int]):
    def act(store: Path) -> None:
        def change(described):
            described[name].update(shape=shape)
            described[name]["chunk_grid"]["configuration"]["chunk_shape"] = chunk

        change_metadata(store, change)

    return act


def many_texts(store: Path) -> None:
    """A text array whose file says that it holds four thousand million texts."""

    def change(described):
        described["iteration"].update(data_type="string", fill_value="")
        described["iteration"]["codecs"][0] = {"name": "vlen-utf8"}

    text = struct.pack("<I", 2**32 - 1) + bytes(64)
    (store / arrays.GROUP / "iteration" / "c" / "0").write_bytes(zstd.compress(text))
    change_metadata(store, change)


def sparse(name: str, length: int = 10 << 30):
    def act(store: Path) -> None:
        with (store / name).open("r+b") as file:
            file.truncate(length)
        if name != manifest.MANIFEST:
            path = store / manifest.MANIFEST
            content = json.loads(path.read_text())
            content["files"][name]["bytes"] = length
            damage.write_manifest(path, content)

    return act


def listed_as(entry):
    def act(store: Path) -> None:
        path = store / manifest.MANIFEST
        content = json.loads(path.read_text())
        content["files"][METADATA] = entry
        damage.write_manifest(path, content)

    return act


def deep(name: str):
    def act(store: Path) -> None:
        text = (store / name).read_text().rstrip()
        (store / name).write_text(text[:-1] + ', "more": ' + "[" * 50_000 + "]" * 50_000 + "}")
        if name != manifest.MANIFEST:
            consistent(store)

    return act


def many_lists(store: Path) -> None:
    (store / METADATA).write_text('{"attributes": {"x": [' + "[]," * 2_700_000 + "[]]}}")
    consistent(store)


def codec(new):
    def act(store: Path) -> None:
        change_metadata(store, lambda described: described["last_weights"].update(new))

    return act


BLOSC = {"name": "blosc", "configuration": {"cname": "lz4", "clevel": 1, "shuffle": "noshuffle", "typesize": 4}}

HOSTILE = {
    "a manifest of 10 GB": sparse(manifest.MANIFEST),
    "metadata of 10 GB": sparse(METADATA),
    "a shard of 10 GB": sparse(f"{arrays.GROUP}/weights/c/0/0/0"),
    "a length of 10^400": listed_as({"bytes": 10**400, "sha256": "0" * 64}),
    "a length below 0": listed_as({"bytes": -1, "sha256": "0" * 64}),
    "a manifest of many lists": lambda store: (store / manifest.MANIFEST).write_text("[" + "[]," * 2_700_000 + "[]]"),
    "metadata of many lists": many_lists,
    "a deep manifest": deep(manifest.MANIFEST),
    "deep metadata": deep(METADATA),
    "an absurd shape": set_shape("last_rng", [10**15, 5056], [2, 5056]),
    "an absurd chunk": set_shape("last_rng", [2, 10**15], [2, 10**15]),
    "a chunk beyond its array": set_shape("last_rng", [2, 5056], [2, 10**12]),
    "no chunks at all": set_shape("weights", [0, 10**15, 1], [1, 1, 1]),
    "a coordinate of 10^12": set_shape("iteration", [10**12], [10**12]),
    "a coordinate in 10^12 files": set_shape("step", [10**12], [1]),
    "a bomb of zeros": bomb_of_zeros,
    "a bomb in a chunk": bomb_in_a_chunk,
    "a bomb without a length": bomb_without_a_length,
    "a bomb in a shard": bomb_in_a_shard,
    "many texts": many_texts,
    "objects": codec({"data_type": "object"}),
    "records": codec({"data_type": {"name": "structured", "configuration": {"fields": [["a", "int32"]]}}}),
    "an unknown codec": codec({"codecs": [{"name": "bytes", "configuration": {"endian": "little"}}, BLOSC]}),
    "a codec of pickles": codec({"codecs": [{"name": "numcodecs.pickle", "configuration": {}}]}),
    "no codec": codec({"codecs": []}),
}

# Reads all of a training with 400 MB more memory than Python and its packages take, and tells what came of it.
CHILD = """\
import json, resource, sys, time
from pathlib import Path
import phasescope
from phasescope.errors import UserError
from phasescope.store import verified
phasescope.open_run(sys.argv[1] + "/sound/runs/tiny").training.load()
taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (taken + (400 << 20), resource.RLIM_INFINITY))
for root in sys.stdin.read().splitlines():
    start = time.process_time()
    try:
        phasescope.open_run(root + "/runs/tiny").training.load()
        told = "read"
    except UserError as error:
        told = str(error)
    except BaseException as error:
        told = f"\\n{type(error).__name__}: {error}"
    print(json.dumps([told, time.process_time() - start]), flush=True)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc how much memory is taken")
def test_hostile_stores_cost_neither_time_nor_memory(tmp_path):
    roots = [tmp_path / name.replace(" ", "-") for name in HOSTILE]
    for root in [*roots, tmp_path / "sound"]:
        shutil.copytree(KEPT / "format-1" / "runs" / "tiny" / "train", root / "runs" / "tiny" / "train")
    for root, act in zip(roots, HOSTILE.values(), strict=True):
        act(root / "runs" / "tiny" / "train")
    process = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(CHILD), str(tmp_path)],
        input="\n".join(map(str, roots)), capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr[-2000:]
    assert process.stderr == ""
    for root, line in zip(roots, process.stdout.splitlines(), strict=True):
        told, seconds = json.loads(line)
        assert told.startswith(str(root)), (root.name, told)
        assert "\n" not in told, (root.name, told)
        assert len(told) < 1000, (root.name, told)
        assert seconds < 1, (root.name, seconds)
