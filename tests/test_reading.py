"""A reader never hands over a wrong number, and a hostile store costs it neither time nor memory."""

import copy
import hashlib
import json
import os
import pickle
import shutil
import struct
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import google_crc32c
import numpy as np
import pytest
import zarr
from numcodecs import zstd

import damage
import phasescope
from phasescope.errors import UserError
from phasescope.store import arrays, files, manifest, verified
from phasescope.store.datasets import read_dataset
from phasescope.store.layout import METADATA
from phasescope.store.manifest import StoreError
from stores import make

KEPT = Path(__file__).parent / "stores"
SEED, STEP, TAPS = 5, 2, ["logits", "predense"]


@pytest.fixture
def tiny(tmp_path) -> Path:
    """The kept project of one run, for one test alone."""
    shutil.copytree(KEPT / "format-1", tmp_path / "tiny")
    return tmp_path / "tiny"


@pytest.fixture
def run(tiny):
    return phasescope.open_run(tiny / "runs" / "tiny")


def shard(root: Path, tap: str, seed: int, step: int) -> Path:
    """The file of a cell, by the positions of its seed and step."""
    return root / "runs" / "tiny" / "activations" / arrays.GROUP / tap / "c" / str(seed) / str(step) / "0" / "0"


def refusal(action) -> str:
    """The one line that an action is refused with."""
    with pytest.raises(StoreError) as caught:
        action()
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000
    return str(caught.value)


def same(one: list[np.ndarray], other: list[np.ndarray]) -> bool:
    return len(one) == len(other) and all(
        a.dtype == b.dtype and np.array_equal(a, b, equal_nan=a.dtype.kind == "f")
        for a, b in zip(one, other, strict=True)
    )


# --- read for ever


@pytest.mark.parametrize("store", sorted(path.name for path in KEPT.glob("format-*")))
def test_a_kept_store_is_read_for_ever(store):
    expected = json.loads((KEPT / store / "expected.json").read_text())
    opened = phasescope.open_run(KEPT / store / "runs" / "tiny")
    found = {
        "runs/tiny/train": opened.training,
        "runs/tiny/activations": opened.recorded,
        "results/tiny/decode": opened.measure("decode"),
    }
    for name, dataset in found.items():
        for array, values in expected[name].items():
            np.testing.assert_array_equal(dataset[array].values, np.array(values, dataset[array].dtype), err_msg=array)
    images = read_dataset(opened.dataset, opened.dataset_digest)
    assert images.images.tolist() == expected["datasets/dots"]["images"]
    assert images.labels.tolist() == expected["datasets/dots"]["label"]
    weights = opened.training["weights"]
    network = opened.model(SEED, STEP).state_dict()
    for entry in weights.attrs["table"]:
        if "running" not in entry["name"]:
            stored = weights.sel(seed=SEED, step=STEP).values[entry["offset"] : entry["offset"] + entry["length"]]
            np.testing.assert_array_equal(network[entry["name"]].flatten(), stored)


def test_extras_that_nobody_knows_are_passed_over(tiny):
    for path in damage.files(tiny, "manifest"):
        content = json.loads(path.read_text())
        content["extra"]["cells"] = {**content["extra"].get("cells", {}), "keys": {"logits": [["a", 7], None]}}
        content["extra"]["news"] = [1, {"x": None}]
        damage.write_manifest(path, content)
    opened = phasescope.open_run(tiny / "runs" / "tiny")
    assert opened.activations("logits").sel(seed=SEED, step=STEP).values.shape == (12, 2)


def test_the_digest_of_a_shard_is_that_of_its_file(tiny, run):
    file = shard(tiny, "predense", 1, 2)
    assert run.shard_digest("predense", 1, 2) == hashlib.sha256(file.read_bytes()).hexdigest()
    assert "has no arrays.zarr/predense/c/1/3/0/0" in refusal(lambda: run.shard_digest("predense", 1, 3))


# --- damage


def swap(path: Path) -> None:
    other = path.parents[2] / "0" / "0" / "0"
    mine, theirs = path.read_bytes(), other.read_bytes()
    path.write_bytes(theirs)
    other.write_bytes(mine)


def replace(path: Path) -> None:
    """With a sound shard of the same length that holds other numbers."""
    rng = np.random.default_rng(0)
    described = json.loads((path.parents[4] / "zarr.json").read_text())
    length = len(path.read_bytes())
    for _ in range(10_000):
        numbers = rng.normal(size=described["shape"][2:]).astype(np.float32)
        numbers[rng.random(numbers.shape) < rng.random()] = 0  # some compress better than others
        frame = zstd.Zstd(level=1, checksum=True).encode(numbers)
        if 20 + len(frame) == length:
            index = struct.pack("<QQ", 20, len(frame))
            path.write_bytes(index + struct.pack("<I", google_crc32c.value(index)) + frame)
            assert np.array_equal(zarr.open_array(path.parents[4], mode="r")[1, 2], numbers)
            return
    raise AssertionError("no such shard was found")


DAMAGES = {
    "deleted": (Path.unlink, "is missing"),
    "cut": (lambda path: path.write_bytes(path.read_bytes()[:-1]), "is not as it was written"),
    "longer": (lambda path: path.write_bytes(path.read_bytes() + b"0"), "is longer than"),
    "swapped": (swap, "is not as it was written"),
    "replaced": (replace, "is not as it was written"),
}

READS = {
    "values": lambda array: array.values,
    "load": lambda array: array.load(),
    "compute": lambda array: array.compute(),
    "a mean": lambda array: array.mean().item(),
    "a part": lambda array: array.isel(sample=slice(2, 4)).values,
    "points": lambda array: array.isel(sample=[3, 1, 1]).values,
    "a dataset": lambda array: array.to_dataset(name="x").load(),
    "our load": lambda array: arrays.load(array, "it"),
}


@pytest.mark.parametrize("read", READS)
@pytest.mark.parametrize("damaged", DAMAGES)
def test_a_damaged_shard_is_named_however_it_is_read(tiny, run, damaged, read):
    lazy = run.activations("predense")  # opened before: no check of lengths has seen it
    path = shard(tiny, "predense", 1, 2)
    harm, told = DAMAGES[damaged]
    harm(path)
    message = refusal(lambda: READS[read](lazy.sel(seed=5, step=2)))
    assert str(path) in message
    assert told in message
    if damaged != "longer":
        assert f"{path} (predense of seed 5, step 2) {told}: {files.MEND}" in message
    if damaged != "swapped":
        assert same([lazy.sel(seed=5, step=1).values], [run.activations("predense").sel(seed=5, step=1).values])


@pytest.mark.parametrize("damaged", ["deleted", "cut", "longer"])
def test_a_length_that_is_wrong_is_told_when_the_store_is_opened(tiny, damaged):
    path = shard(tiny, "logits", 0, 1)
    DAMAGES[damaged][0](path)
    message = refusal(lambda: phasescope.open_run(tiny / "runs" / "tiny").activations("logits"))
    assert message.startswith(f"{path} (logits of seed 3, step 1) is missing or not as it was written: ")


def test_every_kind_of_file_is_checked(tiny):
    reads = damage.readings(tiny, "tiny", SEED, STEP, TAPS)
    for kind, name in [("weights", "network"), ("results", "measure"), ("dataset", "dataset")]:
        path = damage.files(tiny, kind)[-1]
        whole = path.read_bytes()
        path.write_bytes(bytes(len(whole)))
        assert f"{path} (" in refusal(reads[name])
        path.write_bytes(whole)
        reads[name]()


def test_no_flipped_bit_gives_a_wrong_number(tiny):
    """Every read after it raises a UserError, or gives exactly what was written."""
    reads = damage.readings(tiny, "tiny", SEED, STEP, TAPS)
    true = {name: read() for name, read in reads.items()}
    seed = int.from_bytes(os.urandom(4), "little")
    print(f"damage drawn with seed {seed}")
    rng = np.random.default_rng(seed)
    read_of = {"train": ["training", "network"], "decode": ["measure"], "dots": ["dataset"]}
    read_of["activations"] = [name for name in reads if name not in ("training", "measure")]
    noticed = 0
    for trial in range(308):
        kind = list(damage.KINDS)[trial % len(damage.KINDS)]
        path = rng.choice(damage.files(tiny, kind))
        whole = path.read_bytes()
        damage.flip(path, rng)
        refused = False
        for name in next(names for store, names in read_of.items() if store in path.parts):
            try:
                values = reads[name]()
            except UserError:
                refused = True
            else:
                assert same(values, true[name]), (seed, trial, path, name)
        noticed += refused
        path.write_bytes(whole)
    # What is not read does no harm: the metadata of single arrays, and remarks in a manifest.
    assert noticed > 200


def test_activations_of_another_training_are_no_model(tiny, run):
    path = tiny / "runs" / "tiny" / "train" / manifest.MANIFEST
    content = json.loads(path.read_text())
    content["settings"]["learning_rate"] = 0.5
    damage.write_manifest(path, content)
    assert "of another training" in refusal(lambda: run.model(SEED, STEP))


# --- how it is read


def test_several_at_once_fetch_a_file_once(tiny, run, monkeypatch):
    calls = []

    def slow(folder, name, most):
        calls.append(name)
        time.sleep(0.2)
        return files.read_file(folder, name, most)

    lazy = run.activations("predense").sel(seed=5, step=2)
    monkeypatch.setattr(verified, "read_file", slow)
    with ThreadPoolExecutor(8) as pool:
        read = list(pool.map(lambda index: lazy.isel(sample=index).values, range(8)))
    assert same(read, list(lazy.values[:8]))
    assert len(calls) == 1


def test_files_are_kept_in_memory_up_to_a_limit(run, monkeypatch):
    calls = []
    read_file = files.read_file
    monkeypatch.setattr(verified, "read_file", lambda *given: calls.append(given[1]) or read_file(*given))
    lazy = run.activations("logits")
    calls.clear()

    def read_all():
        for step in (0, 1, 2):
            lazy.sel(seed=5, step=step).values  # noqa: B018

    read_all()
    read_all()
    assert len(calls) == 3
    monkeypatch.setattr(verified, "KEPT_BYTES", 1)
    other = lazy.sel(seed=3, step=0)
    assert same([other.values], [other.values])
    assert len(calls) == 4  # the last one is always kept
    read_all()
    assert len(calls) == 7


def test_an_opened_array_travels(run):
    lazy = run.activations("predense").sel(seed=5)
    assert same([pickle.loads(pickle.dumps(lazy)).values], [lazy.values])  # noqa: S301 - our own, a moment old
    assert same([copy.deepcopy(lazy).values], [lazy.values])


def test_a_read_only_disk_and_another_folder_will_do(tiny, monkeypatch):
    mounted = subprocess.run(["mount", "--bind", str(tiny), str(tiny)], capture_output=True).returncode == 0
    if not mounted:
        pytest.skip("mounting is not allowed here")
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", str(tiny)], check=True, capture_output=True)
        with pytest.raises(OSError, match="Read-only"):
            (tiny / "x").write_text("x")
        monkeypatch.chdir("/")
        for read in damage.readings(tiny, "tiny", SEED, STEP, TAPS).values():
            assert read()
        monkeypatch.chdir(tiny)
        opened = phasescope.open_run("runs/tiny")
        monkeypatch.chdir("/")
        assert opened.activations("logits").shape == (2, 3, 12, 2)
    finally:
        subprocess.run(["umount", str(tiny)], check=True)


def test_links_into_a_cache_of_dvc_are_followed_and_others_are_not(tiny, tmp_path):
    path = shard(tiny, "logits", 1, 2)
    cached = tmp_path / "cache" / "files" / "md5" / "0a" / ("b1" * 15)
    cached.parent.mkdir(parents=True)
    path.rename(cached)
    path.symlink_to(cached)
    lazy = phasescope.open_run(tiny / "runs" / "tiny").activations("logits").sel(seed=5, step=2)
    assert lazy.values.shape == (12, 2)
    path.unlink()
    path.symlink_to(cached.rename(tmp_path / "elsewhere"))
    lazy = phasescope.open_run(tiny / "runs" / "tiny").activations("logits").sel(seed=5, step=2)
    assert f"{path} is no plain file inside" in refusal(lambda: lazy.values)


def test_a_pipe_is_not_waited_for(tiny):
    path = tiny / "runs" / "tiny" / "activations" / manifest.MANIFEST
    path.unlink()
    os.mkfifo(path)
    assert "is no plain file" in refusal(lambda: manifest.read(path.parent))


# --- hostile stores: all of them consistent with their manifests


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
