"""A reader never hands over a wrong number: damage is named, however it is read."""

import copy
import hashlib
import json
import os
import pickle
import struct
import subprocess
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
from damage import KEPT, SEED, STEP, TAPS, refusal
from phasescope.errors import UserError
from phasescope.store import arrays, files, manifest, verified
from phasescope.store.datasets import read_dataset


@pytest.fixture
def run(tiny):
    return phasescope.open_run(tiny / "runs" / "tiny")


def shard(root: Path, tap: str, seed: int, step: int) -> Path:
    """The file of a cell, by the positions of its seed and step."""
    return root / "runs" / "tiny" / "activations" / arrays.GROUP / tap / "c" / str(seed) / str(step) / "0" / "0"


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
    assert "has no file of predense at (1, 3)" in refusal(lambda: run.shard_digest("predense", 1, 3))


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
