"""No cell is computed twice, and what is put together from known cells is, byte for byte, what is made at once."""

import json
import re
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import xarray as xr
from threadpoolctl import threadpool_limits
from typer.testing import CliRunner

from closure import ROOT, reached
from phasescope import activations, provenance, training
from phasescope.cli import app
from phasescope.compute import Compute
from phasescope.errors import UserError
from phasescope.measures import cells
from phasescope.measures.decode import decode, decode_trained
from phasescope.measures.distributions import statistics
from phasescope.measures.shown import shown_features
from phasescope.parallel import map_in_threads
from phasescope.params.activations import ActivationsSettings
from phasescope.params.decode import DecodeSettings
from phasescope.params.distributions import DistributionsSettings
from phasescope.params.train import TrainJob
from phasescope.store import manifest
from phasescope.store.adopt import addresses, adopt
from phasescope.store.cache import CellCache
from phasescope.store.datasets import write_dataset
from phasescope.store.manifest import StoreError
from phasescope.store.run import StoredRun
from small import JOB, ONE, few_digits

DISTRIBUTIONS = DistributionsSettings(bins=5, fixed=[0], selective=1)


def taps(*names: str) -> ActivationsSettings:
    return ActivationsSettings.model_validate({"taps": list(names)})


# --- the cache itself


@pytest.fixture
def cache(tmp_path) -> CellCache:
    return CellCache(tmp_path / "cache", "code")


def values() -> xr.Dataset:
    return xr.Dataset(
        {
            "error": ("sample", np.float32([1, np.nan, 3]), {"long_name": "error", "units": "1"}),
            "best": ((), 0.1),
            "sha256": ("step", np.array(["ab", "c"], dtype=object)),
            "none": ("step", np.zeros(2, np.int8)),
        },
        coords={"sample": [4, 7, 9]},
        attrs={"step": 3, "fixed": ["best"]},
    )


def test_labelled_arrays_come_back_as_they_were(cache):
    cache.save("decode", "k", values())
    back = cache.load("decode", "k")
    xr.testing.assert_identical(back, values())
    assert back["error"].dtype == np.float32
    assert back["best"].values == 0.1
    assert cache.load("decode", "other") is None
    assert cache.load("probe", "k") is None


def test_the_same_values_are_one_file(cache):
    assert cache.save("decode", "k", values()) == cache.save("decode", "k", values())
    assert cache.kept()["decode"].cells == 1


def test_what_other_code_made_is_not_used(cache):
    cache.save("decode", "k", values())
    assert CellCache(cache.root, "changed").load("decode", "k") is None


def test_a_file_takes_no_space_of_its_own(cache, tmp_path):
    (tmp_path / "shard").write_bytes(b"0123")
    cache.put("activations", "k", tmp_path / "shard")
    assert cache.get("activations", "k", tmp_path / "deep" / "er" / "shard")
    assert (tmp_path / "deep" / "er" / "shard").samefile(tmp_path / "shard")
    kept = cache.kept()["activations"]
    assert (kept.cells, kept.bytes, kept.alone) == (1, 4, 0)


def test_where_files_cannot_have_two_names_they_are_copied(cache, tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError

    monkeypatch.setattr("os.link", refuse)
    (tmp_path / "shard").write_bytes(b"0123")
    cache.put("activations", "k", tmp_path / "shard")
    assert cache.get("activations", "k", tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == b"0123"
    assert cache.kept()["activations"].alone == 4


@pytest.mark.parametrize("damage", [lambda b: b[:-1], lambda b: b"", lambda b: bytes([b[0] ^ 1]) + b[1:]])
def test_a_damaged_cell_is_none(cache, tmp_path, damage):
    """A crash leaves a file half-written: its name says what should be in it."""
    (tmp_path / "shard").write_bytes(b"0123")
    shutil.copy(tmp_path / "shard", tmp_path / "copy")
    cache.put("activations", "k", tmp_path / "shard")
    cache.save("decode", "k", values())
    for path in cache.root.rglob("*-*"):
        if path.is_file():
            path.write_bytes(damage(path.read_bytes()))
    assert not cache.get("activations", "k", tmp_path / "again")
    assert cache.load("decode", "k") is None
    assert not any(path.is_file() for path in cache.root.rglob("*"))  # nothing stands in the way of whole ones
    cache.put("activations", "k", tmp_path / "copy")
    cache.save("decode", "k", values())
    assert cache.get("activations", "k", tmp_path / "again")
    assert cache.load("decode", "k") is not None


def test_a_half_written_file_is_replaced(cache):
    path = cache.save("decode", "k", values())
    path.write_bytes(path.read_bytes()[:-1])
    assert cache.save("decode", "k", values()) == path
    assert cache.load("decode", "k") is not None


def test_comments_and_docstrings_do_not_count_as_code():
    meaning = provenance._meaning
    assert meaning('"""a"""\ndef f(x):\n    """b"""\n    return x  # c\n') == meaning("def f(x):\n\n    return (x)\n")
    assert meaning("def f(x):\n    return x\n") != meaning("def f(x):\n    return -x\n")


@pytest.mark.parametrize("stage", ["train", "decode", "probe", "transfer"])
def test_all_code_of_a_stage_counts_also_what_it_imports_late(stage):
    """A decoder that is imported when it is needed, and was edited, must not be served from the cache."""
    script = ROOT / "stages" / f"{stage}.py"
    told = subprocess.run(
        [
            *(sys.executable, "-c"),
            "import runpy, sys; from phasescope import provenance; runpy.run_path(sys.argv[1]); "
            "print(*provenance.code().values(), sep='\\n')",
            str(script),
        ],
        check=True,
        capture_output=True,
        text=True,
    )
    assert reached(script) <= {Path(line).relative_to(ROOT).as_posix() for line in told.stdout.splitlines()}


def test_maps_of_another_shape_are_another_cell():
    """A decoder of 2×2 maps is not that of as many flat features, even where their bytes are the same."""

    def address(shape):
        activations = xr.DataArray(np.zeros((1, 1, 3, 8)), attrs={"feature_shape": shape})
        run = SimpleNamespace(recorded={"tap": activations}, shard_digest=lambda *_: "digest")
        return cells._address(run, "tap", 0, 0)

    assert address([8]) != address([2, 2, 2])


# --- what is made with it


class Making:
    """Runs the stages of a project, and counts what is really computed."""

    def __init__(self, root: Path, cache: CellCache, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root, self.cache = root, cache
        self.updates = self.taken = self.recalibrated = self.decoded = self.described = self.shown = 0
        for owner, name, count in [
            (training._SeedTraining, "update", lambda *_: self.add("updates", 1)),
            (activations, "forward", lambda _network, _dtype, wanted, *_: self.add("taken", len(wanted))),
            (activations, "set_batchnorm", lambda *_: self.add("recalibrated", 1)),
        ]:
            monkeypatch.setattr(owner, name, self.counted(getattr(owner, name), count))

    def add(self, name: str, count: int) -> None:
        setattr(self, name, getattr(self, name) + count)

    @staticmethod
    def counted(function, count):
        def wrapper(*arguments):
            count(*arguments)
            return function(*arguments)

        return wrapper

    def make(self, job: TrainJob, chosen: ActivationsSettings) -> None:
        data, run = self.root / "datasets" / "d", self.root / "runs" / "r"
        for name in ("updates", "taken", "recalibrated", "decoded", "described", "shown"):
            setattr(self, name, 0)
        training.train(job, data, run / "train", ONE, "r", self.cache)
        activations.record(job, chosen, data, run / "train", run / "activations", ONE, "r", self.cache)
        stored = StoredRun("r", self.root)
        for name, function, settings, counter in [
            ("decode", decode, DecodeSettings(), lambda batch, *_: self.add("decoded", batch[:, :, 0, 0].size)),
            (
                "distributions",
                statistics,
                DISTRIBUTIONS,
                lambda batch, *_: self.add("described", batch[:, :, 0, 0].size),
            ),
        ]:
            counting = self.counted(function, counter)
            measured = cells.measure(stored, name, counting, settings, self.cache)
            if name == "distributions":
                showing = self.counted(shown_features, lambda *_: self.add("shown", 1))
                shown = cells.measure_over_steps(stored, "shown", showing, settings, self.cache)
                measured = replace(
                    measured, result=measured.result.merge(shown.result), cached=measured.cached | shown.cached
                )
            stored.write_measure(name, measured.result, settings.model_dump(), measured.cached)

    def contents(self) -> dict[str, bytes]:
        folders = [self.root / "runs", self.root / "results"]
        return {str(p.relative_to(self.root)): p.read_bytes() for top in folders for p in top.rglob("*") if p.is_file()}


@pytest.fixture
def new(tmp_path, monkeypatch):
    """Makes projects on the same small dataset, each with a cache of its own."""
    small = few_digits()

    def project(name: str) -> Making:
        root = tmp_path / name
        write_dataset(root / "datasets" / "d", small, {})
        return Making(root, CellCache(root / "cache", "code"), monkeypatch)

    return project


MORE = {
    "seed": (JOB.model_copy(update={"seeds": [3, 4, 5]}), taps("logits", "predense")),
    "first seed removed": (JOB.model_copy(update={"seeds": [5]}), taps("logits", "predense")),
    "tap": (JOB, taps("softmax", "logits", "predense")),
    "iterations": (JOB.model_copy(update={"iterations": 32}), taps("logits", "predense")),
    "all": (JOB.model_copy(update={"seeds": [5, 4, 3], "iterations": 32}), taps("predense", "conv-2", "logits")),
}
#: updates, activations taken, cells decoded, runs of (seed, tap) whose features are shown
COMPUTED = {
    "seed": (16, 6 * 2, 6 * 2, 2),
    "first seed removed": (0, 0, 0, 0),
    "tap": (0, 12, 12, 2),
    "iterations": (2 * 16, 2 * 2, 2 * 2, 4),
    "all": (2 * 16 + 32, 63 - 24, 63 - 24, 9),
}


@pytest.mark.parametrize("change", MORE)
def test_only_new_cells_are_computed_and_the_bytes_are_those_of_a_run_made_at_once(change, new):
    extended = new("extended")
    extended.make(JOB, taps("logits", "predense"))
    assert (extended.updates, extended.taken, extended.decoded, extended.described) == (32, 24, 24, 24)
    shutil.rmtree(extended.root / "runs")  # as DVC does before it lets a stage run
    shutil.rmtree(extended.root / "results")
    extended.make(*MORE[change])
    computed = (extended.updates, extended.taken, extended.decoded, extended.shown)
    assert computed == COMPUTED[change]
    assert extended.described == extended.decoded
    assert extended.recalibrated <= extended.taken // 2
    whole = new("whole")
    whole.make(*MORE[change])
    assert extended.contents() == whole.contents()


def test_the_same_again_computes_nothing(new):
    run = new("run")
    run.make(JOB, taps("logits"))
    before = run.contents()
    run.make(JOB, taps("logits"))
    assert (run.updates, run.taken, run.recalibrated, run.decoded, run.described, run.shown) == (0,) * 6
    assert run.contents() == before


@pytest.mark.parametrize(
    ("horizons", "updates"),
    [([20, 32], [40, 24]), ([16, 8, 16], [32, 16, 0]), ([8, 32, 20], [16, 48, 24]), ([5, 5], [10, 0])],
)
def test_a_training_goes_on_from_the_end_of_a_shorter_one(horizons, updates, new):
    run = new("run")
    for horizon, made in zip(horizons, updates, strict=True):
        run.make(JOB.model_copy(update={"iterations": horizon}), taps("logits"))
        assert run.updates == made
    whole = new("whole")
    whole.make(JOB.model_copy(update={"iterations": horizons[-1]}), taps("logits"))
    assert run.contents() == whole.contents()


def test_a_run_that_was_pulled_is_extended_too(new):
    """Its cells are put into the cache from its stores, before DVC removes these."""
    there, here, whole = new("there"), new("here"), new("whole")
    there.make(JOB, taps("logits", "predense"))
    for folder in ("runs", "results"):
        shutil.copytree(there.root / folder, here.root / folder)
    for path in stores(here.root):
        assert adopt(path, here.cache) > 0
        assert adopt(path, here.cache) == 0
    shutil.rmtree(here.root / "runs")
    shutil.rmtree(here.root / "results")
    here.make(*MORE["all"])
    assert (here.updates, here.taken, here.decoded, here.shown) == COMPUTED["all"]
    whole.make(*MORE["all"])
    assert here.contents() == whole.contents()


def stores(root: Path) -> list[Path]:
    return [path for path in (*root.glob("runs/*/*"), *root.glob("results/*/*")) if (path / manifest.MANIFEST).exists()]


@pytest.fixture
def made(new) -> Making:
    run = new("run")
    run.make(JOB.model_copy(update={"iterations": 2}), taps("logits"))
    return run


def test_a_damaged_shard_is_not_adopted_as_a_cell(made, tmp_path):
    other = CellCache(tmp_path / "other", "code")
    train = made.root / "runs" / "r" / "train"
    shard = next(path for path in train.rglob("weights/c.0.*"))
    content = shard.read_bytes()
    shard.unlink()
    shard.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    adopt(train, other)
    keys = manifest.read(train).extra["cells"]["files"]["train-weights"]["weights"]
    got = [other.get("train-weights", key, tmp_path / key) for of_seed in keys for key in of_seed]
    assert got.count(False) == 1


@pytest.mark.parametrize(
    "cells",
    [
        None,
        [],
        {"files": {}, "arrays": []},
        {"files": {"../../out": {"weights": [["k"]]}}, "arrays": {}},
        {"files": {"train-weights": {"weights": [["k"] * 99]}}, "arrays": {}},
        {"files": {"train-weights": {"weights": 3}}, "arrays": {}},
        {"files": {}, "arrays": {"../x": {"dims": [], "keys": "k", "names": [], "coords": [], "attributes": {}}}},
        {"files": {}, "arrays": {"x": {"dims": ["seed"], "keys": ["k"] * 9, "names": ["loss"], "coords": []}}},
        {"files": {}, "arrays": {"x": {"dims": [], "keys": "k", "names": ["no"], "coords": [], "attributes": {}}}},
    ],
)
def test_a_store_that_speaks_nonsense_of_its_cells_is_refused(made, tmp_path, cells):
    path = made.root / "runs" / "r" / "train" / manifest.MANIFEST
    content = json.loads(path.read_text())
    content["extra"]["cells"] = cells
    path.unlink()
    path.write_text(manifest.sealed(content))
    with pytest.raises(StoreError, match="does not say which cells it has"):
        adopt(path.parent, CellCache(tmp_path / "a" / "b" / "other", "code"))
    assert not any(p.is_file() for p in tmp_path.glob("a/**/*"))


def test_the_command_lists_and_clears(made, tmp_path, monkeypatch):
    monkeypatch.chdir(made.root)
    monkeypatch.setenv("PHASESCOPE_CACHE", str(made.cache.root))
    monkeypatch.setattr(provenance, "code_digest", lambda: "code")
    for path in stores(made.root):
        provenance.write(f"runs/r/{path.name}")
    shown = CliRunner().invoke(app, ["cache", "list"])
    assert shown.exit_code == 0
    rows = dict(re.findall(r"^ *([a-z-]+) +(\d+) ", shown.output, re.MULTILINE))
    assert rows["train-weights"] == rows["activations"] == rows["decode"] == "6"
    used = frozenset(address for path in stores(made.root) for address in addresses(path, made.cache))
    assert len(used) == 6 + 2 + 6 + 6 + 6 + 6 + 2
    made.cache.save("decode", "of another setting", values())
    unused = CliRunner().invoke(app, ["cache", "clear", "--unused"])
    assert unused.output.startswith("1 cells removed from ")
    assert made.cache.load("decode", "of another setting") is None
    assert CliRunner().invoke(app, ["cache", "clear", "--kind", "decode"]).output.startswith("6 cells removed")
    assert "decode" not in made.cache.kept()
    refused = CliRunner().invoke(app, ["cache", "clear", "--kind", "decod"])
    assert refused.exit_code == 1
    assert CliRunner().invoke(app, ["cache", "clear"]).exit_code == 0
    assert not made.cache.root.exists()


def refuse(*_):
    raise AssertionError("computed again")


def test_cells_of_several_decoders_come_back_from_the_result(new):
    """Also where one of them was asked for at some taps alone, and is NaN elsewhere."""
    project = new("a")
    project.make(JOB.model_copy(update={"iterations": 2}), taps("logits", "predense"))
    stored = StoredRun("r", project.root)
    settings = DecodeSettings(decoders=["deconvolution"], epochs=1, width=0.05)
    train = partial(decode_trained, compute=ONE)

    def measured(cache, function):
        exact = cells.measure(stored, "decode", decode if function is train else refuse, DecodeSettings(), cache)
        fitted = cells.measure(stored, "decode-deconvolution", function, settings, cache, taps=["predense"])
        return cells.combine({"linear": exact, "deconvolution": fitted}, "decoder")

    first = measured(project.cache, train)
    assert first.result["test_mse"].dims == ("seed", "step", "layer", "decoder")
    assert first.result["error"].dims == ("seed", "step", "layer", "decoder", "sample")
    absent = first.result.sel(decoder="deconvolution", layer="logits")
    assert absent["test_mse"].isnull().all()
    assert absent["epoch_mse"].isnull().all()
    there = first.result.sel(decoder="deconvolution", layer="predense")
    assert there["epoch_mse"].notnull().all()
    assert there["ridge"].isnull().all()
    assert first.result["baseline_mse"].dims == ()
    stored.write_measure("decode", first.result, settings.model_dump(), first.cached)

    again = CellCache(project.root / "again", "code")
    assert adopt(project.root / "results" / "r" / "decode", again) == 2 * 3 * 3
    assert len(addresses(project.root / "results" / "r" / "decode", again)) == 2 * 3 * 3
    second = measured(again, refuse)
    xr.testing.assert_equal(second.result, first.result)
    before = project.contents()
    stored.write_measure("decode", second.result, settings.model_dump(), second.cached)
    assert project.contents() == before


def test_several_processes_or_threads_measure_the_same(new):
    project = new("a")
    with threadpool_limits(1):  # as in a stage
        project.make(JOB.model_copy(update={"iterations": 2}), taps("logits", "predense"))
    stored = StoredRun("r", project.root)
    settings = DecodeSettings(decoders=["linear-adam"], epochs=1)
    train = partial(decode_trained, compute=ONE)
    caches = [CellCache(project.root / name, "code") for name in ("one", "two")]
    measure = partial(cells.measure, stored, "decode-linear-adam", train, settings)
    one, two = (
        measure(cache, replace(ONE, workers=workers), processes=True) for workers, cache in enumerate(caches, start=1)
    )
    xr.testing.assert_identical(one.result, two.result)
    assert caches[1].kept()["decode-linear-adam"].cells == 2 * 3 * 2
    measure = partial(cells.measure, stored, "decode", decode, DecodeSettings())
    one, three = (measure(cache, replace(ONE, workers=workers)) for workers, cache in zip((1, 3), caches, strict=True))
    xr.testing.assert_identical(one.result, three.result)
    assert caches[1].kept()["decode"].cells == 2 * 3 * 2


def test_what_fails_in_a_thread_ends_the_others():
    began, told = threading.Event(), []

    def piece(advance, place):
        if place == 1:
            assert began.wait(10)
            raise UserError("no")
        for done in range(1000):
            advance(done)
            began.set()
            time.sleep(0.01)
        told.append(place)

    with pytest.raises(UserError, match="no"):
        map_in_threads(
            piece, [(0,), (1,), (2,)], Compute("cpu", 1, 2), SimpleNamespace(update=lambda index, done: None)
        )
    assert not told
