"""A kept directory is complete or absent, its arrays are labelled, and any reader opens them."""

import json
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tensorstore
import xarray as xr
import zarr

from phasescope.store import arrays, commit, manifest
from phasescope.store.manifest import StoreError


def write(target, content=b"0123", kind="thing", settings=None):
    with commit.scratch(target) as scratch:
        (scratch.path / "data").write_bytes(content)
        scratch.commit(kind, settings or {"a": 1})


def test_what_is_committed_is_read_back(tmp_path):
    write(tmp_path / "x", settings={"a": 1, "b": [1.5, None]})
    read = manifest.read(tmp_path / "x", "thing")
    assert read.settings == {"a": 1, "b": [1.5, None]}
    assert read.files["data"]["bytes"] == 4
    assert not (tmp_path / ".scratch").exists()


def test_without_commit_nothing_is_left(tmp_path):
    with pytest.raises(RuntimeError), commit.scratch(tmp_path / "x") as scratch:
        (scratch.path / "part").write_text("half")
        raise RuntimeError
    assert not list(tmp_path.iterdir())
    with pytest.raises(StoreError, match="is not there"):
        manifest.read(tmp_path / "x")


def test_what_a_killed_attempt_left_is_not_used_and_goes(tmp_path):
    left = tmp_path / ".scratch" / "x"
    left.mkdir(parents=True)
    (left / "part").write_text("half")
    (left / "manifest.json").write_text("{}")
    (tmp_path / ".scratch" / "x.replaced").mkdir()
    (tmp_path / ".scratch" / "x.lock").touch()
    write(tmp_path / "x")
    assert manifest.read(tmp_path / "x").files.keys() == {"data"}
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_committing_over_an_old_directory_replaces_it_whole(tmp_path):
    write(tmp_path / "x", b"old")
    write(tmp_path / "x", b"newer")
    assert (tmp_path / "x" / "data").read_bytes() == b"newer"
    assert not (tmp_path / ".scratch").exists()


def test_a_second_process_is_told_that_the_target_is_taken(tmp_path):
    program = textwrap.dedent("""
        import sys
        from pathlib import Path
        from phasescope.store import commit, manifest
        try:
            with commit.scratch(Path(sys.argv[1])):
                pass
        except manifest.StoreError as error:
            print(error)
    """)
    with commit.scratch(tmp_path / "x"):
        other = subprocess.run(
            [sys.executable, "-c", program, str(tmp_path / "x")], capture_output=True, text=True, check=True
        )
    assert "another process is writing it" in other.stdout


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda p: (p / "manifest.json").unlink(), "has no manifest.json"),
        (lambda p: (p / "manifest.json").write_text("{"), "is damaged"),
        (lambda p: (p / "manifest.json").write_text("[1]"), "is damaged"),
        (lambda p: (p / "manifest.json").write_text("[" * 100_000), "is damaged"),
        (lambda p: (p / "data").unlink(), "data is missing or not as it was written"),
        (lambda p: (p / "data").write_bytes(b"012"), "data is missing or not as it was written"),
    ],
)
def test_a_damaged_directory_is_refused(tmp_path, damage, message):
    write(tmp_path / "x")
    damage(tmp_path / "x")
    with pytest.raises(StoreError, match=message):
        manifest.read(tmp_path / "x")


def test_another_kind_another_format_and_other_settings_are_refused(tmp_path):
    write(tmp_path / "x")
    with pytest.raises(StoreError, match="holds 'thing', where 'train' is expected"):
        manifest.read(tmp_path / "x", "train")
    with pytest.raises(StoreError, match="a is 1 there and 2 in params.yaml"):
        manifest.require_settings(manifest.read(tmp_path / "x"), {"a": 2})
    path = tmp_path / "x" / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 99}))
    with pytest.raises(StoreError, match="has format 99"):
        manifest.read(tmp_path / "x")


def dataset():
    rng = np.random.default_rng(0)
    return xr.Dataset(
        {
            "mse": (("seed", "step", "layer"), rng.normal(size=(2, 3, 2)), {"long_name": "error", "units": "1"}),
            "hits": (("seed", "sample"), rng.integers(0, 2, (2, 5)).astype(np.int8), {"long_name": "hit"}),
            "baseline": ((), 0.25, {"long_name": "baseline"}),
        },
        coords={
            "seed": [0, 7],
            "step": [0, 1, 2],
            "layer": np.array(["logits", "conv-2"], dtype=object),
            "label": ("sample", [3, 1, 4, 1, 5]),
        },
        attrs={"classes": ["a", "b"]},
    )


def test_a_dataset_comes_back_with_its_labels_in_plain_xarray(tmp_path):
    arrays.write_dataset(tmp_path / "d.zarr", dataset())
    back = xr.open_zarr(tmp_path / "d.zarr", chunks=None)
    np.testing.assert_array_equal(back["mse"].values, dataset()["mse"].values)
    assert list(back["layer"].values) == ["logits", "conv-2"]
    assert back["mse"].sel(layer="conv-2", seed=7).dims == ("step",)
    assert "label" in back.coords
    assert back["mse"].attrs == {"long_name": "error", "units": "1"}
    assert back.attrs["classes"] == ["a", "b"]
    assert back["hits"].dtype == np.int8


def test_the_same_dataset_gives_the_same_bytes(tmp_path):
    for name in ("one", "two"):
        arrays.write_dataset(tmp_path / name, dataset())
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def sharded(path, dtype=np.float16, samples=3001, features=700):
    group = arrays.create_group(path)
    array = arrays.create(group, "a", ("seed", "step", "sample", "f"), (2, 2, samples, features), dtype, cell=2)
    values = np.random.default_rng(0).normal(size=(samples, features)).astype(dtype)
    arrays.write_cell(array, (1, 0), values)
    arrays.finish(path)
    return array, values


def test_a_cell_is_one_file_with_inner_chunks_and_other_cells_read_as_nan(tmp_path):
    array, values = sharded(tmp_path / "s.zarr")
    files = list((tmp_path / "s.zarr" / "a").glob("c*"))
    assert len(files) == 1
    assert 1 << 20 < np.prod(array.chunks) * 2 <= 2 << 20
    np.testing.assert_array_equal(array[1, 0], values)
    assert np.isnan(array[0, 0]).all()


def test_a_cell_of_zeros_is_written_all_the_same(tmp_path):
    group = arrays.create_group(tmp_path / "z.zarr")
    array = arrays.create(group, "a", ("seed", "feature"), (2, 10), np.int8, cell=1)
    arrays.write_cell(array, (0,), np.zeros(10, np.int8))
    assert len(list((tmp_path / "z.zarr" / "a").glob("c*"))) == 1


def test_tensorstore_reads_the_same_numbers_and_labels(tmp_path):
    _, values = sharded(tmp_path / "s.zarr")
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(tmp_path / "s.zarr" / "a")}}
    array = tensorstore.open(spec).result()
    assert array.domain.labels == ("seed", "step", "sample", "f")
    np.testing.assert_array_equal(array[1, 0].read().result(), values)


def test_a_flipped_bit_in_a_shard_is_an_error_and_never_a_wrong_number(tmp_path):
    _, values = sharded(tmp_path / "s.zarr", samples=200, features=50)
    shard = next(p for p in (tmp_path / "s.zarr" / "a").glob("c*"))
    whole = shard.read_bytes()
    rng = np.random.default_rng(0)
    for position in rng.integers(0, 8 * len(whole), 50).tolist():
        flipped = bytearray(whole)
        flipped[position // 8] ^= 1 << position % 8
        shard.write_bytes(flipped)
        try:
            read = zarr.open_array(tmp_path / "s.zarr" / "a", mode="r")[1, 0]
        except Exception:  # whatever the codec raises
            continue
        np.testing.assert_array_equal(read, values)


def test_two_targets_of_one_folder_do_not_get_in_each_others_way(tmp_path):
    def work(name):
        for _ in range(100):
            write(tmp_path / name)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(work, ["decode", "probe"]))
    assert not (tmp_path / ".scratch").exists()


WRITER = """
import sys
from pathlib import Path
from phasescope.store import commit, manifest
name, target = sys.argv[1], Path(sys.argv[2])
for _ in sys.stdin:
    try:
        with commit.scratch(target) as scratch:
            for number in range(10):
                (scratch.path / f"{number}").write_text(name)
            print("writing", flush=True)
            sys.stdin.readline()
            scratch.commit("thing", {"by": name})
        print("wrote", flush=True)
    except manifest.StoreError as error:
        print(error, flush=True)
"""


def test_of_two_processes_that_write_the_same_one_wins_and_the_other_says_so(tmp_path):
    target = tmp_path / "x"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "bufsize": 1}
    writers = {
        name: subprocess.Popen([sys.executable, "-c", WRITER, name, str(target)], **pipes) for name in ("one", "two")
    }

    def say(name):
        writers[name].stdin.write("go on\n")

    def answer(name):
        return writers[name].stdout.readline().strip()

    for _ in range(50):
        for name in writers:
            say(name)
        answers = {name: answer(name) for name in writers}
        assert set(answers.values()) == {
            "writing",
            f"{target}: another process is writing it; wait for that one to end",
        }
        (winner,) = (name for name, said in answers.items() if said == "writing")
        say(winner)
        assert answer(winner) == "wrote"
        assert manifest.read(target).settings == {"by": winner}
        assert {path.read_text() for path in target.iterdir() if path.name != "manifest.json"} == {winner}
        assert [path.name for path in tmp_path.iterdir()] == ["x"]
    for writer in writers.values():
        writer.communicate(timeout=60)
        assert writer.returncode == 0


def test_a_damaged_shard_is_named_when_it_is_read(tmp_path):
    sharded(tmp_path / "s.zarr", samples=200, features=50)
    shard = next(p for p in (tmp_path / "s.zarr" / "a").glob("c*"))
    shard.write_bytes(shard.read_bytes()[:-100])
    lazy = xr.open_zarr(tmp_path / "s.zarr", chunks=None)["a"]
    with pytest.raises(
        StoreError, match=r"^the store at seed 1 is damaged \(.*\): run `phasescope verify --full --mend`"
    ):
        arrays.load(lazy.isel(seed=1), "the store at seed 1")
