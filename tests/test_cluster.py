"""Pieces of work on the workers of a Dask scheduler: the same bits as here, whatever befalls workers."""

import os
import pickle
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest

import pieces
import remotes
from closure import ROOT
from clusters import Cluster, cluster
from conftest import STAGES, new_project, run_stages
from phasescope import activations, piece, scheduler, training
from phasescope.cluster import _Piece
from phasescope.compute import Compute, choose
from phasescope.errors import UserError
from phasescope.measures import cells
from phasescope.measures.decode import decode_trained, settings_of
from phasescope.parallel import map_in_processes
from phasescope.params.activations import ActivationsSettings
from phasescope.params.decode import DecodeSettings
from phasescope.run import Run
from phasescope.store.arrays import write_dataset as write_arrays
from phasescope.store.cache import CellCache
from phasescope.store.datasets import write_dataset
from phasescope.store.manifest import parse
from phasescope.store.shared import readable
from projects import wait_for
from small import JOB, few_digits

MEASURED = STAGES[:-3]
SILENT = SimpleNamespace(update=lambda index, done: None)


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Two workers for all tests; those that are killed in one come back for the next."""
    with cluster(tmp_path_factory.mktemp("cluster"), 2) as started:
        yield started


@contextmanager
def connected(started: Cluster, monkeypatch, folder: Path):
    """In a folder, with this process as a stage."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv(scheduler.VARIABLE, started.address)
    monkeypatch.setenv("DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT", "3s")
    try:
        yield choose("cpu")
    finally:
        scheduler.connect(started.address).close()
        scheduler.connect.cache_clear()


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def same_results(project: Path, expected: Path) -> None:
    for folder in ("runs", "results", "metrics"):
        found, wanted = contents(project / folder), contents(expected / folder)
        assert found.keys() == wanted.keys()
        assert [name for name in found if found[name] != wanted[name]] == []


@pytest.mark.parametrize(
    "workers", [pytest.param(1, marks=pytest.mark.slow), 2, pytest.param(4, marks=pytest.mark.slow)]
)
def test_all_stages_give_the_same_bytes(complete, tmp_path, monkeypatch, workers):
    with cluster(tmp_path / "cluster", workers) as started:
        monkeypatch.setenv(scheduler.VARIABLE, started.address)
        monkeypatch.delenv("PHASESCOPE_WORKERS")
        project = new_project(tmp_path / "project")
        run_stages(project, MEASURED)
    same_results(project.path, complete)
    made = (project.path / "provenance" / "runs" / "flat" / "decode.json").read_text()
    assert '"cluster": true' in made
    assert not list((project.path / ".phasescope" / "cluster").iterdir())
    assert not list(project.path.rglob(".scratch"))


def test_results_are_in_order_and_made_in_the_folder_of_the_stage(two, tmp_path, monkeypatch):
    told = {}
    with connected(two, monkeypatch, tmp_path) as compute:
        assert compute.cluster
        progress = SimpleNamespace(update=told.__setitem__)
        done = map_in_processes(pieces.square, [(number,) for number in range(20)], compute, progress)
    assert done == [(number**2, tmp_path) for number in range(20)]
    assert told == dict.fromkeys(range(20), 1)


def test_a_worker_that_dies_half_way_leaves_nothing_of_it(two, tmp_path, monkeypatch):
    group = tmp_path / "arrays.zarr"
    (group / "weights").mkdir(parents=True)
    (group / "weights" / "zarr.json").write_text("{}")
    with connected(two, monkeypatch, tmp_path) as compute:
        items = [(tmp_path / "mark", group)]
        assert map_in_processes(pieces.die_half_way, items, compute, SILENT, group) == [["c.0.0", "weights"]]
    assert contents(group) == {"c.0.0": b"whole", "weights/zarr.json": b"{}"}


def test_a_piece_that_kills_every_worker_is_told_in_a_line(two, tmp_path, monkeypatch):
    with connected(two, monkeypatch, tmp_path) as compute, pytest.raises(UserError) as caught:
        map_in_processes(pieces.die, [(1,)], compute, SILENT)
    assert "4 workers in a row died over the same piece of work" in str(caught.value)


def test_pieces_end_when_nobody_waits_for_them(two, tmp_path, monkeypatch):
    began, ended = tmp_path / "began", tmp_path / "ended"
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # which is ignored in what runs in the background
    with connected(two, monkeypatch, tmp_path) as compute:
        main = threading.get_ident()

        def interrupt() -> None:
            wait_for(began.exists)
            signal.pthread_kill(main, signal.SIGINT)

        threading.Thread(target=interrupt).start()
        with pytest.raises(KeyboardInterrupt):
            map_in_processes(pieces.wait, [(began, ended)], compute, SILENT)
        wait_for(ended.exists)
        signal.signal(signal.SIGINT, before)
        # And the workers do other work.
        assert map_in_processes(pieces.square, [(3,)], compute, SILENT)[0][0] == 9


#: A stage whose only piece goes on for ever.
WAITING = """\
import sys
from pathlib import Path
from types import SimpleNamespace
import pieces
from phasescope.compute import choose
from phasescope.parallel import map_in_processes
from phasescope.params.activations import ActivationsSettings
from phasescope.params.decode import DecodeSettings
from phasescope.stage import guarded
items = [(Path("{began}"), Path("{ended}"))]
silent = SimpleNamespace(update=lambda index, done: None)
sys.exit(guarded(lambda: map_in_processes(pieces.wait, items, choose(), silent)))
"""


def stage_environment(started: Cluster) -> dict[str, str]:
    path = os.pathsep.join(map(str, (ROOT / "src", ROOT / "tests", ROOT / "tools")))
    return {**os.environ, "PYTHONPATH": path, scheduler.VARIABLE: started.address}


def test_pieces_end_when_their_stage_is_killed_and_the_next_one_tidies_up(two, tmp_path, monkeypatch):
    began, ended = tmp_path / "began", tmp_path / "ended"
    command = [sys.executable, "-c", WAITING.format(began=str(began), ended=str(ended))]
    with subprocess.Popen(command, cwd=tmp_path, env=stage_environment(two)) as process:
        wait_for(began.exists)
        process.kill()
    wait_for(ended.exists)
    meetings = tmp_path / ".phasescope" / "cluster"
    assert list(meetings.iterdir())
    with connected(two, monkeypatch, tmp_path) as compute:
        assert map_in_processes(pieces.square, [(3,)], compute, SILENT)[0][0] == 9
    assert not list(meetings.iterdir())


def test_the_scheduler_goes_away(tmp_path):
    began = tmp_path / "began"
    command = [sys.executable, "-c", WAITING.format(began=str(began), ended=str(tmp_path / "ended"))]
    with cluster(tmp_path / "cluster", 1) as started:
        environment = {**stage_environment(started), "DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "2s"}
        with subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True) as process:
            wait_for(began.exists)
            started.scheduler.kill()
            told = process.stderr.read()
    assert process.returncode == 1
    assert re.fullmatch("the Dask scheduler at .* went away: start it and run `dvc repro` again; .*\n", told)
    assert not list((tmp_path / ".phasescope" / "cluster").iterdir())


@pytest.mark.parametrize(
    ("preload", "told"),
    [
        (
            "import sys; sys.modules['phasescope'] = None",
            r"a worker at tcp://\S+ lacks a package \(.*phasescope.*\): give it the same environment as the stage",
        ),
        (
            "import importlib.metadata as m; "
            "m.version = lambda name: '0.1' if name == 'torch' else m.distribution(name).version",
            r"worker tcp://\S+ has torch 0.1 instead of [\d.+a-z]+: give it the same environment as the stage",
        ),
        (
            "import phasescope.imports as i; i.digest = lambda file: 'another'",
            r"worker tcp://\S+ has another phasescope\S+: give it the same version of phasescope",
        ),
    ],
    ids=["no package", "another torch", "another phasescope"],
)
def test_a_worker_that_does_not_fit_is_told_in_a_line(tmp_path, monkeypatch, preload, told):
    with cluster(tmp_path / "cluster", 0) as started:
        (tmp_path / "preloaded.py").write_text(preload)
        started.worker("--preload", str(tmp_path / "preloaded.py"), "--no-nanny")
        with connected(started, monkeypatch, tmp_path) as compute, pytest.raises(UserError, match=told) as caught:
            map_in_processes(pieces.square, [(1,)], compute, SILENT)
    assert "\n" not in str(caught.value)


def test_a_worker_with_several_threads_is_refused(tmp_path, monkeypatch):
    with cluster(tmp_path / "cluster", 0) as started:
        started.worker("--nthreads", "2")
        told = pytest.raises(UserError, match="has 2 threads: start it with --nthreads 1")
        with connected(started, monkeypatch, tmp_path) as compute, told:
            map_in_processes(pieces.square, [(1,)], compute, SILENT)


def test_a_worker_that_does_not_see_the_project(two, tmp_path, monkeypatch):
    hidden = piece.Call("x", tmp_path, tmp_path / "nowhere", False, {}, piece.versions(), piece.code())
    with connected(two, monkeypatch, tmp_path):
        client = scheduler.connect(two.address)
        with pytest.raises(UserError, match=r"does not see \S+: mount it there, or set PHASESCOPE_SHARED"):
            client.submit(pickle.loads, pickle.dumps(_Piece(hidden, 0, b""))).result()


def test_a_worker_with_code_that_was_edited_since_is_started_anew(two, tmp_path, monkeypatch):
    with connected(two, monkeypatch, tmp_path) as compute:
        client = scheduler.connect(two.address)
        assert map_in_processes(pieces.square, [(2,)] * 4, compute, SILENT)[0][0] == 4
        before = set(client.run(os.getpid).values())
        client.run(pieces.forget_a_module)
        assert map_in_processes(pieces.square, [(2,)] * 4, compute, SILENT)[0][0] == 4
        assert not before & set(client.run(os.getpid).values())


def test_it_waits_for_workers_that_come_later(tmp_path, monkeypatch, capfd):
    with cluster(tmp_path / "cluster", 0) as started, connected(started, monkeypatch, tmp_path) as compute:
        monkeypatch.setattr("phasescope.cluster.LOOK", 0.2)
        late = threading.Timer(2, started.worker)
        late.start()
        assert map_in_processes(pieces.square, [(3,)], compute, SILENT)[0][0] == 9
        late.join()
    assert len(re.findall("there is no worker at", capfd.readouterr().out)) == 1


def test_it_waits_for_a_gpu_where_there_are_workers_without_one(tmp_path, monkeypatch, capfd):
    with cluster(tmp_path / "cluster", 0) as started, connected(started, monkeypatch, tmp_path):
        monkeypatch.setattr("phasescope.cluster.LOOK", 0.2)
        late = [threading.Timer(0.1, started.worker), threading.Timer(3, started.worker, ("--resources", "GPU=1"))]
        for timer in late:
            timer.start()
        assert map_in_processes(pieces.square, [(3,)], choose("cuda"), SILENT)[0][0] == 9
        for timer in late:
            timer.join()
    assert len(re.findall("there is no worker with a GPU at", capfd.readouterr().out)) == 1


def test_a_folder_of_the_project_that_is_called_cells_stays_where_it_is(two, tmp_path, monkeypatch):
    (tmp_path / "cells").mkdir()
    (tmp_path / "cells" / "mine").write_text("mine")
    cache = CellCache(tmp_path / "kept", "code")
    with connected(two, monkeypatch, tmp_path) as compute:
        assert map_in_processes(pieces.first, [(3, cache)], compute, SILENT) == [3]
    assert contents(tmp_path / "kept") == {}


def test_what_was_written_and_is_not_seen_here_is_told_in_a_line(two, tmp_path, monkeypatch):
    group = tmp_path / "arrays.zarr"
    group.mkdir()
    (tmp_path / "mark").touch()
    monkeypatch.setattr("phasescope.cluster.move", lambda source, target: Path(f"{source}.gone").rename(target))
    with connected(two, monkeypatch, tmp_path) as compute, pytest.raises(UserError, match="is not seen here"):
        map_in_processes(pieces.die_half_way, [(tmp_path / "mark", group)], compute, SILENT, group)


def test_modules_of_ones_own_are_those_of_the_project_and_of_now(two, tmp_path, monkeypatch):
    """A worker takes them anew for each piece: from packages without __init__.py, too."""
    monkeypatch.setenv("PHASESCOPE_TRUST", "1")
    for name in ("a", "b", "a"):
        package = tmp_path / name / "own" / "mine"
        package.mkdir(parents=True, exist_ok=True)
        (package / "code.py").write_text(f"def name():\n    return {name!r}\n")
        if name == "b":
            (package / "__init__.py").touch()
        with connected(two, monkeypatch, tmp_path / name) as compute:
            assert map_in_processes(pieces.of_own, [("mine.code:name",)] * 4, compute, SILENT) == [name] * 4
    (package / "code.py").write_text("def name():\n    return 'edited'\n")
    with connected(two, monkeypatch, tmp_path / "a") as compute:
        assert map_in_processes(pieces.of_own, [("mine.code:name",)] * 4, compute, SILENT) == ["edited"] * 4


def test_a_worker_that_was_there_before_a_package_is_started_anew(two, tmp_path, monkeypatch):
    with connected(two, monkeypatch, tmp_path) as compute:
        client = scheduler.connect(two.address)
        map_in_processes(pieces.square, [(2,)] * 4, compute, SILENT)
        before = set(client.run(os.getpid).values())
        client.run(pieces.install_a_package)
        assert map_in_processes(pieces.square, [(2,)] * 4, compute, SILENT)[0][0] == 4
        assert not before & set(client.run(os.getpid).values())


def test_nobody_at_the_address(project):
    done = project.run_stage(
        "decode", "flat", DASK_SCHEDULER_ADDRESS="tcp://127.0.0.1:9", DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT="1s"
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("no Dask scheduler can be reached at tcp://127.0.0.1:9 (")
    assert line.endswith("start it with `dask scheduler`, or unset DASK_SCHEDULER_ADDRESS to compute here")


def test_an_address_that_is_none(project):
    done = project.run_stage("decode", "flat", DASK_SCHEDULER_ADDRESS="elsewhere:")
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1


def test_dask_is_not_installed(monkeypatch):
    monkeypatch.setenv(scheduler.VARIABLE, "tcp://127.0.0.1:9")
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(UserError, match=r"Dask is not installed: pip install 'phasescope\[dask\]'"):
        choose()


def test_the_address_may_be_in_a_file_of_dask(tmp_path):
    (tmp_path / "mine.yaml").write_text("scheduler-address: tcp://scheduler:8786\n")
    command = [sys.executable, "-c", "from phasescope import scheduler; print(scheduler.address())"]
    for folder, address in ((tmp_path, "tcp://scheduler:8786"), (tmp_path / "nowhere", "None")):
        environment = {**os.environ, "DASK_CONFIG": str(folder)}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == address


def test_workers_with_a_gpu_get_the_work(tmp_path, monkeypatch):
    with cluster(tmp_path / "cluster", 1) as started:
        card = started.worker("--resources", "GPU=1", "--no-nanny")
        wait_for(lambda: started.log().count("Registered to:") >= 2)
        with connected(started, monkeypatch, tmp_path):
            monkeypatch.delenv("PHASESCOPE_WORKERS")
            monkeypatch.delenv("PHASESCOPE_DEVICE")
            assert choose() == Compute("cuda", 1, 1, cluster=True)
            assert choose("cpu") == Compute("cpu", 1, 2, cluster=True)
            assert {*map_in_processes(pieces.process, [()] * 6, choose(), SILENT)} == {card.pid}


def test_what_is_set_in_no_cluster_stays_here(monkeypatch):
    monkeypatch.setattr(scheduler, "_has_files", lambda: False)  # Dask remembers the addresses of other tests
    assert not choose("cpu").cluster
    assert choose("cpu", cluster=False) == choose("cpu")


def test_workers_that_do_not_see_the_project_read_from_s3(project, tmp_path, monkeypatch):
    """Nothing but what is in the bucket can give the right bytes: the files of the project are other ones by then."""
    measured = [("decode", "small"), ("complexity", "small"), ("probe", "flat")]
    folder = project.path
    expected = tmp_path / "expected"
    shutil.copytree(folder / "results", expected)
    with remotes.s3(tmp_path) as bucket, cluster(tmp_path / "cluster", 0) as started:
        url = bucket.substitutes["https://s3.example.org"]
        keys = {"AWS_ACCESS_KEY_ID": "tester", "AWS_SECRET_ACCESS_KEY": "tester", "AWS_DEFAULT_REGION": "us-east-1"}
        environment = {**keys, "AWS_ENDPOINT_URL": url}
        for _ in range(2):
            started.worker(**environment)
        environment |= {scheduler.VARIABLE: started.address, scheduler.SHARED: "s3://my-bucket/stores"}
        environment |= {"PHASESCOPE_CACHE": str(tmp_path / "cells"), "PHASESCOPE_WORKERS": ""}
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        for stage, run in measured:
            shutil.rmtree(folder / "results" / run / stage)
        with monkeypatch.context() as patch:
            patch.delenv(scheduler.VARIABLE)
            for run in ("small", "flat"):
                stored = Run(run, folder)
                parts = [stored.path / "train", stored.path / "activations", stored.dataset]
                readable(folder, parts, Compute("cpu", 1, 1, cluster=True))
        shards = [path for name in ("logits", "predense") for path in folder.glob(f"runs/*/activations/*/{name}/c.*")]
        # The stage itself looks at the first checkpoint.
        shards += folder.glob("runs/*/train/*/weights/c.*[1-9].0")
        assert len(shards) > 50
        for shard in shards:
            shard.write_bytes(bytes(shard.stat().st_size))
        run_stages(project, measured)
        kept = bucket.client.list_objects_v2(Bucket="my-bucket", MaxKeys=1000)
    for stage, run in measured:
        assert contents(folder / "results" / run / stage) == contents(expected / run / stage), (stage, run)
    # Cells were kept here, so that nothing is asked of anybody again.
    shutil.rmtree(folder / "results" / "small" / "decode")
    monkeypatch.delenv(scheduler.VARIABLE)
    run_stages(project, [("decode", "small")])
    assert contents(folder / "results" / "small" / "decode") == contents(expected / "small" / "decode")
    # What is there is named by what it holds, and is there once.
    places = {key["Key"].split("/")[1] for key in kept["Contents"]}
    assert places == {parse(folder / part).digest for part in ("datasets/digits", *PARTS)}


PARTS = [f"runs/{run}/{store}" for run in ("small", "flat") for store in ("train", "activations")]


def test_what_writes_stores_runs_here_where_workers_do_not_see_the_project(two, project, tmp_path):
    environment = {scheduler.VARIABLE: two.address, scheduler.SHARED: (tmp_path / "there").as_uri()}
    kept = contents(project.path / "runs" / "flat" / "train")
    shutil.rmtree(project.path / "runs" / "flat" / "train")
    done = project.run_stage("train", "flat", **environment, PHASESCOPE_CACHE=str(tmp_path / "cells"))
    assert done.returncode == 0, done.stderr
    assert "workers that read from PHASESCOPE_SHARED cannot write into this project: computed here" in done.stdout
    assert contents(project.path / "runs" / "flat" / "train") == kept
    # What reads goes to the workers, here from a folder that stands for any url.
    kept = contents(project.path / "results" / "flat" / "information")
    shutil.rmtree(project.path / "results" / "flat" / "information")
    shard = next(project.path.glob("runs/flat/activations/*/logits/c.*"))
    right = shard.read_bytes()
    shard.unlink()  # a hard link to the cells
    shard.write_bytes(bytes(len(right)))
    done = project.run_stage("information", "flat", **environment, PHASESCOPE_CACHE=str(tmp_path / "cells"))
    assert "is not as it was written: run `phasescope verify --full --mend`" in done.stderr
    shard.write_bytes(right)
    done = project.run_stage("information", "flat", **environment, PHASESCOPE_CACHE=str(tmp_path / "cells"))
    assert done.returncode == 0, done.stderr
    assert contents(project.path / "results" / "flat" / "information") == kept


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("nowhere://bucket", "PHASESCOPE_SHARED: Protocol not known: nowhere"),
        ("/proc/nowhere", r"PHASESCOPE_SHARED=/proc/nowhere: \S+ cannot be brought there"),
    ],
)
def test_an_url_that_cannot_be_written(two, project, tmp_path, url, told):
    environment = {scheduler.VARIABLE: two.address, "PHASESCOPE_CACHE": str(tmp_path / "cells"), scheduler.SHARED: url}
    done = project.run_stage("decode", "flat", **environment)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert re.match(told, line)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_random_worker_is_killed_at_a_random_time(tmp_path, monkeypatch):
    """20 times; what trains, records or fits ends with the bytes that it has undisturbed, in the same process."""
    monkeypatch.delenv("PHASESCOPE_WORKERS")
    data, kept = tmp_path / "datasets" / "d", tmp_path / "runs" / "r"
    write_dataset(data, few_digits(), {})
    job = JOB.model_copy(update={"iterations": 1024, "seeds": [3, 5, 7]})
    taps = ActivationsSettings.model_validate({"taps": ["logits", "predense"], "train_samples": 100})
    decoder = settings_of("linear-adam", DecodeSettings(decoders=["linear-adam"], epochs=40))

    def trained(place: Path, compute: Compute, cache: CellCache) -> None:
        training.train(job, data, place, compute, "r", cache)

    def recorded(place: Path, compute: Compute, cache: CellCache) -> None:
        activations.record(job, taps, data, kept / "train", place, compute, "r", cache)

    def decoded(place: Path, compute: Compute, cache: CellCache) -> None:
        fit = partial(decode_trained, compute=compute.here())
        measured = cells.measure(Run("r", tmp_path), "fit", fit, decoder, cache, compute, processes=True)
        write_arrays(place, measured.result)

    works = (trained, recorded, decoded)
    one, drawn, killed = Compute("cpu", 1, 1), random.Random(0), 0
    expected = [kept / "train", kept / "activations", tmp_path / "decoded"]
    for work, place in zip(works, expected, strict=True):
        work(place, one, CellCache(tmp_path / "cells", "code"))
    with cluster(tmp_path / "cluster", 2) as started, connected(started, monkeypatch, tmp_path) as compute:
        client, workers = scheduler.connect(started.address), []

        def both_there() -> bool:
            with suppress(OSError):  # of one that has just died
                workers[:] = sorted(client.run(os.getpid).values())
            return len(workers) == 2

        for number in range(20):
            work, right = works[number % 3], expected[number % 3]
            wait_for(both_there)
            victim = drawn.choice(workers)
            kill = threading.Timer(drawn.uniform(0, 4), os.kill, (victim, signal.SIGKILL))
            kill.start()
            work(tmp_path / f"{number}", compute, CellCache(tmp_path / f"cells-{number}", "code"))
            killed += not kill.is_alive()
            kill.join()
            assert contents(tmp_path / f"{number}") == contents(right), (number, work)
            workers.clear()
    assert killed > 10
