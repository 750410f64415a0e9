"""Parts of stored arrays are what zarr reads of them, out of the files that hold them and no others."""

import itertools
import struct

import numpy as np
import pytest
import xarray as xr
import zarr
from numcodecs import zstd

from damage import refusal
from phasescope.store import arrays, chunks, commit, manifest, verified

SHAPE = (2, 3, 23, 5)
DTYPES = ["float16", "float32", "float64", "uint8", "int64", "bool"]
KEYS = {
    "all": {},
    "a cell": {"seed": 1, "step": 2},
    "a cell from the end": {"seed": -1, "step": -2},
    "a few steps": {"seed": slice(1, 2), "step": slice(0, 2)},
    "every other step": {"step": slice(None, None, 2)},
    "steps backwards": {"step": slice(None, None, -1), "sample": slice(20, 2, -3)},
    "all backwards": dict.fromkeys(("seed", "step", "sample", "feature"), slice(None, None, -1)),
    "a chunk in another order": {"seed": 1, "step": 0, "sample": [9, 5, 7, 6, 8]},
    "features in another order": {"seed": 1, "step": 0, "feature": [1, 0, 2, 3, 4]},
    "the same number of samples": {"seed": 1, "step": 0, "sample": [5, 5, 6, 7, 9]},
    "whole chunks": {"seed": 0, "step": 1, "sample": slice(5, 15)},
    "over chunks": {"seed": 0, "step": 1, "sample": slice(3, 19)},
    "the last chunk": {"step": 1, "sample": slice(20, None)},
    "no sample": {"sample": slice(7, 7)},
    "a list of steps": {"step": [2, 0]},
    "samples in any order": {"seed": 1, "sample": [22, 3, 3, 4, 5, 6, 0]},
    "lists": {"seed": [1, 0], "step": [0, 2], "sample": [1, 2, 21], "feature": [4, 0]},
    "features": {"step": 1, "feature": slice(1, 3)},
    "one number": {"seed": 1, "step": 2, "sample": 22, "feature": 4},
    "points": {
        "step": xr.DataArray([2, 0, 2], dims="point"),
        "sample": xr.DataArray([22, 4, 0], dims="point"),
    },
}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Arrays (seed, step, sample, feature) with four chunks of 5 or 6 samples and an end, 23, inside the last one."""
    target = tmp_path_factory.mktemp("chunks") / "store"
    rng = np.random.default_rng(0)
    with commit.scratch(target) as scratch, pytest.MonkeyPatch.context() as patch:
        path = scratch.path / arrays.GROUP
        group = arrays.create_group(path)
        for dtype in DTYPES:
            patch.setattr(arrays, "CHUNK_BYTES", 5 * 5 * np.dtype(dtype).itemsize + 1)
            dims = ("seed", "step", "sample", "feature")
            array = arrays.create(group, dtype, dims, SHAPE, dtype, cell=2)
            for cell in np.ndindex(SHAPE[:2]):
                arrays.write_cell(
                    array, cell, rng.integers(2 if dtype == "bool" else 100, size=SHAPE[2:]).astype(dtype)
                )
        arrays.write(group, "whole", dims, rng.normal(size=SHAPE))
        arrays.write(group, "number", (), 0.25)
        arrays.write(group, "none", ("nothing",), np.zeros(0))
        arrays.write(group, "text", ("sample",), np.array([f"é{number}" for number in range(23)]))
        arrays.finish(path)
        scratch.commit("test", {})
    return target


@pytest.mark.parametrize("threaded", [False, True])
@pytest.mark.parametrize("name", [*DTYPES, "whole"])
def test_parts_are_what_zarr_reads(store, monkeypatch, name, threaded):
    monkeypatch.setattr(chunks, "THREADED_BYTES", 0 if threaded else 1 << 30)
    lazy = verified.open_verified(manifest.read(store))[name]
    true = xr.DataArray(zarr.open_array(store / arrays.GROUP / name, mode="r")[...], dims=lazy.dims)
    for told, key in KEYS.items():
        values, expected = lazy.isel(key).values, true.isel(key).values
        assert values.dtype == expected.dtype == lazy.dtype, told
        np.testing.assert_array_equal(values, expected, err_msg=told, strict=True)
    with pytest.raises(IndexError):
        lazy.isel(seed=0, sample=23).load()


def drawn(rng, length):
    """A position, a slice or a list of positions."""
    ends = rng.integers(-length, length + 1, 2).tolist()
    positions = rng.integers(-length, length, rng.integers(length + 2))
    return [ends[0] % length, slice(*ends), slice(*ends, int(rng.choice([-2, -1, 2, 3]))), positions][rng.integers(4)]


def test_any_parts_are_those_of_the_whole(store):
    lazy = verified.open_verified(manifest.read(store))["int64"]
    true, rng = lazy.copy(deep=False).load(), np.random.default_rng(0)
    for _ in range(200):
        key = {dim: drawn(rng, length) for dim, length in lazy.sizes.items() if rng.random() < 0.7}
        np.testing.assert_array_equal(lazy.isel(key).values, true.isel(key).values, err_msg=str(key), strict=True)


def test_arrays_of_no_dimension_no_length_and_of_text(store):
    opened = verified.open_verified(manifest.read(store))
    assert opened["number"].values.shape == ()
    assert opened["number"].item() == 0.25
    assert opened["none"].values.shape == (0,)
    text = zarr.open_array(store / arrays.GROUP / "text", mode="r")[...]
    assert opened["text"].values.dtype == text.dtype
    for key in (slice(None), slice(3, 9), [22, 0], 5):
        np.testing.assert_array_equal(opened["text"].isel(sample=key).values, text[key])


@pytest.mark.parametrize(
    ("key", "files"),
    [
        ({"seed": 1, "step": 2}, ["1.2"]),
        ({"seed": 1, "step": 2, "sample": [0, 22]}, ["1.2"]),
        ({"seed": 0, "step": [0, 2]}, ["0.0", "0.2"]),
        ({"seed": 1, "step": slice(0, 2)}, ["1.0", "1.1"]),
        ({"sample": slice(7, 7)}, []),
    ],
)
def test_only_the_cells_that_are_asked_for_are_opened(store, monkeypatch, key, files):
    lazy = verified.open_verified(manifest.read(store))["float16"]
    opened, read_file = [], verified.read_file
    monkeypatch.setattr(verified, "read_file", lambda *given: opened.append(given[1]) or read_file(*given))
    lazy.isel(key).load()
    assert sorted(opened) == [f"{arrays.GROUP}/float16/c.{file}.0.0" for file in files]


def index(change):
    """A shard whose index says something else of where its chunks are, each (start, length)."""

    def act(data):
        told = struct.unpack("<8Q", data[:64])
        return struct.pack("<8Q", *itertools.chain(*change([*zip(told[::2], told[1::2], strict=True)]))) + data[64:]

    return act


def frames(length):
    """A shard whose chunks decode to so many bytes, where 40 are declared."""

    def act(data):
        frame = zstd.compress(bytes(length), 1, True)
        starts = [68 + number * len(frame) for number in range(4)]
        return struct.pack("<8Q", *itertools.chain(*((start, len(frame)) for start in starts))) + bytes(4) + 4 * frame

    return act


LIES = {
    "behind the end": index(lambda told: [(1000, 10), *told[1:]]),
    "over the end": index(lambda told: [*told[:-1], (told[-1][0], told[-1][1] + 1)]),
    "cut": index(lambda told: [(told[0][0], told[0][1] - 1), *told[1:]]),
    "empty": index(lambda told: [(told[0][0], 0), *told[1:]]),
    "absent": index(lambda told: [(2**64 - 1, 2**64 - 1), *told[1:]]),
    "endless": index(lambda told: [(told[0][0], 2**64 - 1), *told[1:]]),
    "the index itself": index(lambda told: [(0, 16), *told[1:]]),
    "two in one": index(lambda told: [(told[0][0], told[0][1] + told[1][1]), (told[1][0], 0), *told[2:]]),
    "long chunks": frames(48),
    "short chunks": frames(8),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_shard_that_lies_about_its_chunks_is_refused(tmp_path, monkeypatch, lie):
    """Though the manifest vouches for it."""
    monkeypatch.setattr(arrays, "CHUNK_BYTES", 5 * 8)
    with commit.scratch(tmp_path / "store") as scratch:
        group = arrays.create_group(scratch.path / arrays.GROUP)
        array = arrays.create(group, "a", ("step", "sample"), (1, 18), "int64", cell=1)
        arrays.write_cell(array, (0,), np.arange(18))
        path = arrays.shard(array, (0,))
        path.write_bytes(LIES[lie](path.read_bytes()))
        arrays.finish(scratch.path / arrays.GROUP)
        scratch.commit("test", {})
    lazy = verified.open_verified(manifest.read(tmp_path / "store"))["a"]
    assert str(tmp_path / "store") in refusal(lambda: lazy.values)
