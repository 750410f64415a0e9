"""Whatever a user gets wrong ends in one clear line, an exit code other than 0, and nothing lost.

The stages run as processes of their own, as DVC runs them. The wording of mistakes in params.yaml is in
test_settings_mistakes.
"""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from conftest import PARAMS, Project
from phasescope import compute, parallel, stage
from phasescope.cli import app
from phasescope.errors import UserError
from phasescope.params.models import ModelName
from phasescope.params.phases import PhasesJob
from phasescope.store import commit, manifest
from phasescope.store.files import MEND

OUTPUTS = ("configs", "datasets", "runs", "results", "figures", "metrics")


def outputs(project: Project) -> dict[str, str]:
    """What is at final places: every file with its hash. What is in scratch directories does not count."""
    files = [path for folder in OUTPUTS for path in (project.path / folder).rglob("*") if path.is_file()]
    return {
        path.relative_to(project.path).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
        if commit.SCRATCH not in path.parts
    }


def one_line(process: subprocess.CompletedProcess[str], code: int = 1) -> str:
    """The single line that a command ended with."""
    assert process.returncode == code, process.stderr
    assert process.stderr.count("\n") == 1, process.stderr
    return process.stderr.strip()


def refused(project: Project, stage: str, *arguments: str, **environment: str) -> str:
    """The line that a stage refuses its work with; what was there before is there still, and nothing is new."""
    before = outputs(project)
    line = one_line(project.run_stage(stage, *arguments, **environment))
    assert outputs(project) == before
    return line


def show(project: Project) -> subprocess.CompletedProcess[str]:
    return project.call([sys.executable, "-c", "from phasescope.cli import app; app()", "show"])


# --- settings


def test_mistakes_in_the_settings_leave_the_configs_as_they_were(project):
    project.write_params(PARAMS.replace("iterations: 16", "iterations: 0").replace("{name: f0}", "{name: f1}"))
    before = outputs(project)
    process = project.run_stage("resolve")
    assert process.returncode == 1
    assert process.stderr.splitlines() == [
        "params.yaml: train.iterations: expected a number of at least 1, got 0",
        f"params.yaml: runs.flat.model.name: unknown value 'f1'; known: {', '.join(get_args(ModelName))}",
    ]
    assert outputs(project) == before


def test_without_params(bare_project):
    (bare_project.path / "params.yaml").unlink()
    assert refused(bare_project, "resolve") == "params.yaml is not there: run this in the project's folder"
    told = CliRunner().invoke(app, ["budget", str(bare_project.path)])
    assert told.exit_code == 1
    assert told.stderr == f"{bare_project.path / 'params.yaml'} is not there: run this in the project's folder\n"


@pytest.mark.parametrize(
    ("stage", "arguments", "missing"),
    [
        ("prepare", ["digits"], "configs/datasets/digits.json"),
        ("decode", ["small"], "configs/runs/small/decode.json"),
        ("phases", [], "configs/phases.json"),
        ("theory", [], "configs/theory.json"),
        ("figures", [], "configs/figures.json"),
        ("report", [], "configs/figures.json"),
    ],
)
def test_outside_a_project(bare_project, stage, arguments, missing):
    line = refused(bare_project, stage, *arguments)
    assert line.startswith(f"{missing} is not there: run this in the project's folder")
    assert sorted(path.name for path in bare_project.path.iterdir()) == ["params.yaml", "stages"]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"runs": 3}', b"\xff", b"[" * 100_000])
def test_a_damaged_config(tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    Path("configs").mkdir()
    Path("configs/phases.json").write_bytes(content)
    with pytest.raises(UserError, match=r"configs/phases.json: .*; run `dvc repro resolve`") as caught:
        stage.settings("phases.json", PhasesJob)
    assert "\n" not in str(caught.value)


# --- where things are computed


@pytest.mark.parametrize("value", ["x", "0", "-1", "1.5", "two"])
@pytest.mark.parametrize("name", ["PHASESCOPE_THREADS", "PHASESCOPE_WORKERS"])
def test_numbers_of_threads_and_workers(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    with pytest.raises(UserError) as caught:
        compute.choose("cpu")
    assert str(caught.value) == f"{name}={value!r}: expected a whole number of at least 1"


@pytest.mark.parametrize("device", ["nonsense", "cuda:x", "cpu:nonsense"])
def test_a_device_that_torch_does_not_know(device):
    with pytest.raises(UserError, match=rf"^device '{device}' cannot be used \(.*\); set PHASESCOPE_DEVICE=cpu$"):
        compute.Compute(device, threads=1, workers=1).start()


def test_a_stage_on_a_device_that_is_not_there(project):
    line = refused(project, "train", "flat", PHASESCOPE_DEVICE="cuda", CUDA_VISIBLE_DEVICES="")
    assert line.startswith("device 'cuda' cannot be used (")
    assert line.endswith("; set PHASESCOPE_DEVICE=cpu")


def test_a_stage_with_no_threads(project):
    line = refused(project, "train", "flat", "--threads", "0", PHASESCOPE_WORKERS="0")
    assert line == "--threads 0: expected a whole number of at least 1"


# --- datasets


@pytest.fixture
def images(bare_project):
    """A project with a folder of images of two classes, three each."""
    bare_project.change_params("source: digits", "source: image-folder, folder: pictures")
    rng = np.random.default_rng(0)
    for name in ("cats", "dogs"):
        folder = bare_project.path / "data" / "pictures" / name
        folder.mkdir(parents=True)
        for index in range(3):
            Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(folder / f"{index}.png")
    return bare_project


def remove_one(folder: Path) -> None:
    shutil.rmtree(folder / "dogs")


def break_one(folder: Path) -> None:
    path = folder / "dogs" / "1.png"
    path.write_bytes(path.read_bytes()[:60])


def keep_one(folder: Path) -> None:
    for index in (1, 2):
        (folder / "dogs" / f"{index}.png").unlink()


def empty(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (shutil.rmtree, "image folder data/pictures: no such folder; `folder` is relative to PHASESCOPE_DATA"),
        (empty, "image folder data/pictures: no class; put the images of each of two or more classes in a folder"),
        (remove_one, "image folder data/pictures: 1 class; put the images of each of two or more classes in a folder"),
        (break_one, "data/pictures/dogs/1.png: cannot be read as an image ("),
        (keep_one, "image folder: class data/pictures/dogs has one image; give two or more, to train and to test with"),
    ],
)
def test_a_folder_of_images_that_is_none(images, change, line):
    change(images.path / "data" / "pictures")
    assert refused(images, "prepare", "digits").startswith(line)


# --- stores


@pytest.fixture
def store(tmp_path):
    """A small complete store."""
    with commit.scratch(tmp_path / "store") as scratch:
        (scratch.path / "part").write_bytes(b"content")
        scratch.commit("thing", {"a": 1})
    return tmp_path / "store"


def rewritten(**changes):
    """A change of some entries of a manifest."""
    return lambda text: json.dumps({**json.loads(text), **changes})


@pytest.mark.parametrize(
    "change",
    [
        lambda text: "",
        lambda text: text[:-20],
        lambda text: "[]",
        lambda text: "3",
        lambda text: "null",
        lambda text: "[" * 100_000,
        lambda text: '{"format": 1}',
        lambda text: b"\xff" + text.encode(),
        rewritten(files=[]),
        rewritten(files={"part": 7}),
        rewritten(files={"part": {}}),
        rewritten(settings=[]),
        rewritten(extra=None),
        rewritten(files={"/etc/hostname": {"bytes": 7, "sha256": ""}}),
        rewritten(files={"../other": {"bytes": 7, "sha256": ""}}),
        rewritten(files={"a/../../other": {"bytes": 7, "sha256": ""}}),
        rewritten(files={"part\0": {"bytes": 7, "sha256": ""}}),
    ],
)
def test_a_damaged_manifest(store, change):
    (store.parent / "other").write_bytes(b"content")
    path = store / manifest.MANIFEST
    changed = change(path.read_text())
    path.write_bytes(changed if isinstance(changed, bytes) else changed.encode())
    with pytest.raises(manifest.StoreError) as caught:
        manifest.read(store)
    assert str(caught.value) == f"{path} is damaged: {MEND}"


def test_a_manifest_of_another_version(store):
    path = store / manifest.MANIFEST
    path.write_text(rewritten(format=99)(path.read_text()))
    with pytest.raises(manifest.StoreError) as caught:
        manifest.read(store)
    assert str(caught.value) == (
        f"{store} has format 99, and this version of phasescope reads 1: install the version that wrote it"
    )


def shards(project: Project, store: str) -> list[Path]:
    return sorted(path for path in (project.path / store).rglob("*") if path.is_file() and path.suffix != ".json")


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize(
    ("damage", "store", "stage", "arguments"),
    [
        (Path.unlink, "runs/small/activations", "decode", ["small"]),
        (truncate, "datasets/digits", "probe", ["small"]),
        (truncate, "results/small/decode", "phases", []),
        (Path.unlink, "results/small/distributions", "figures", []),
    ],
)
def test_a_store_with_a_file_missing_or_cut(project, damage, store, stage, arguments):
    shard = shards(project, store)[-1]
    damage(shard)
    line = refused(project, stage, *arguments)
    # Which cell or array it holds stands in brackets (see test_reading).
    assert line.startswith(f"{shard.relative_to(project.path)} (")
    assert line.endswith(f") is missing or not as it was written: {MEND}")


def test_a_store_without_a_manifest(project):
    (project.path / "runs" / "flat" / "activations" / manifest.MANIFEST).unlink()
    assert refused(project, "decode", "flat") == (
        "runs/flat/activations has no manifest.json, so it is not complete: "
        "remove it and run `dvc repro`, or `dvc pull` it again"
    )


def test_a_training_with_other_settings(project):
    project.change_params("iterations: 16", "iterations: 16, learning_rate: 0.5")
    assert refused(project, "activations", "flat") == (
        "runs/flat/train was written for other settings: learning_rate is 0.002 there and 0.5 in params.yaml; "
        "run `dvc repro`"
    )


def test_another_dataset_than_the_activations_were_taken_of(project):
    project.change_params("resolution: 8", "resolution: 16")
    assert project.run_stage("prepare", "digits").returncode == 0
    assert refused(project, "decode", "flat") == (
        "datasets/digits is not the dataset that the run was made with; run `dvc repro`"
    )


# --- results


@pytest.mark.parametrize("stage", ["phases", "figures"])
def test_results_of_a_run_are_missing(project, stage):
    shutil.rmtree(project.path / "results" / "flat" / "probe")
    assert refused(project, stage) == (
        "results/flat/probe is not there: make it with `dvc repro`, or fetch it with `dvc pull`"
    )


def test_figures_of_a_run_whose_phases_are_not_known(project):
    path = project.path / "metrics" / "phases.json"
    path.write_text(json.dumps({"small": json.loads(path.read_text())["small"]}))
    assert refused(project, "figures") == "metrics/phases.json knows no run 'flat': run `dvc repro phases`"
    path.unlink()
    assert refused(project, "figures") == "metrics/phases.json is not there: run `dvc repro`, or `dvc pull`"


def test_figures_without_the_theory(project):
    shutil.rmtree(project.path / "theory")
    assert refused(project, "figures") == (
        "theory/feature-strength is not there: make it with `dvc repro`, or fetch it with `dvc pull`"
    )


def test_show(project):
    process = show(project)
    assert process.returncode == 0, process.stderr
    assert "small" in process.stdout
    assert "flat" in process.stdout


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"small": 3}', '{"small": {"logits": {}}}', "[" * 100_000])
def test_show_with_damaged_metrics(tmp_path, text):
    path = tmp_path / "metrics" / "phases.json"
    path.parent.mkdir()
    path.write_text(text)
    shown = CliRunner().invoke(app, ["show", str(tmp_path)])
    assert shown.exit_code == 1
    assert shown.stderr == f"{path} is damaged: remove it and run `dvc repro`, or `dvc pull`\n"


def test_show_before_anything_was_run(bare_project):
    assert one_line(show(bare_project)) == "metrics/phases.json is not there: run `dvc repro`, or `dvc pull`"


# --- a full disk

# Runs a command whose files may not grow beyond a limit.
LIMITED = """\
import os, resource, sys
limit = int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
os.execv(sys.argv[2], sys.argv[2:])
"""


@pytest.mark.parametrize(
    ("limit", "stage", "arguments"),
    [
        (128, "resolve", []),
        (8192, "prepare", ["digits"]),
        (8192, "train", ["flat", "--workers", "2"]),
        (4096, "decode", ["flat"]),
        (4096, "phases", []),
        (8192, "figures", []),
        (8192, "report", []),
    ],
)
def test_files_may_not_grow(project, limit, stage, arguments):
    """The kernel refuses writes beyond a limit: a full disk that every machine can have."""
    before = outputs(project)
    line = one_line(project.call([sys.executable, "-c", LIMITED, str(limit), *project.command(stage, *arguments)]))
    assert line.startswith("File too large")
    assert line.endswith(": mend that and run `dvc repro` again; finished parts are kept")
    assert outputs(project) == before


@pytest.fixture
def small_disk(project):
    """A project whose results/flat is a disk of its own with 2 MiB."""
    folder = project.path / "results" / "flat"
    kept = shutil.move(folder, project.path / "kept")
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting a small disk is not allowed here")
    try:
        shutil.copytree(kept, folder, dirs_exist_ok=True)
        yield project
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_is_full(small_disk):
    folder = small_disk.path / "results" / "flat"
    before = outputs(small_disk)
    (folder / "filler").write_bytes(bytes(shutil.disk_usage(folder).free - 20_000))
    line = one_line(small_disk.run_stage("decode", "flat"))
    assert line.startswith("No space left on device")
    assert line.endswith(": mend that and run `dvc repro` again; finished parts are kept")
    (folder / "filler").unlink()
    assert outputs(small_disk) == before
    assert small_disk.run_stage("decode", "flat").returncode == 0
    assert outputs(small_disk) == before  # the same bytes again
    assert not (folder / commit.SCRATCH).exists()


# --- interrupted, and gone astray


def processes_of(session: int) -> list[str]:
    """The command lines of the processes of a session, dead ones left out."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            if int(fields[3]) == session and fields[0] != "Z":
                found.append((folder / "cmdline").read_text().replace("\0", " "))
        except (OSError, IndexError):
            continue
    return found


def wait_until(true, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
@pytest.mark.parametrize("workers", ["1", "2"])
def test_ctrl_c_ends_a_training_that_then_goes_on(project, workers):
    project.change_params("iterations: 16", "iterations: 512")
    folder = project.path / "runs" / "small"
    shutil.rmtree(folder)
    running = subprocess.Popen(
        project.command("train", "small", "--workers", workers),
        cwd=project.path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A shell starts what runs in its background with Ctrl-C ignored, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    weights = project.path / ".phasescope" / "cache" / "train-weights"
    before = set(weights.rglob("*-*"))
    wait_until(lambda: set(weights.rglob("*-*")) - before, 60)
    os.killpg(running.pid, signal.SIGINT)  # to every process, as a terminal does it
    _, errors = running.communicate(timeout=10)
    assert (running.returncode, errors) == (130, "interrupted; `dvc repro` goes on from what is finished\n")
    wait_until(lambda: not processes_of(running.pid), 10)
    assert not (folder / "train").exists()
    finished = {path: path.stat().st_mtime_ns for path in weights.rglob("*-*")}
    assert project.run_stage("train", "small").returncode == 0
    assert manifest.read(folder / "train", "train").extra["weights"]["1"].keys() >= {"0", "256", "512"}
    assert not (folder / ".scratch").exists()
    # What was finished before was not trained again.
    assert finished == {path: path.stat().st_mtime_ns for path in finished}


def test_ctrl_c_waits_until_the_workers_are_there():
    reached = False
    with pytest.raises(KeyboardInterrupt), parallel._interrupts_held_back():
        os.kill(os.getpid(), signal.SIGINT)
        reached = True
    assert reached


def test_ctrl_c_while_a_stage_still_imports(bare_project):
    process = bare_project.call([sys.executable, "-c", "import phasescope.stage; raise KeyboardInterrupt"])
    assert one_line(process, -signal.SIGINT) == "interrupted; `dvc repro` goes on from what is finished"


def test_a_training_that_diverges(project):
    project.change_params("iterations: 16", "iterations: 64, learning_rate: 1000")
    line = refused(project, "train", "small")
    assert line.startswith("seed 0 diverged before step ")
    assert line.endswith("its weights are not finite; lower train.learning_rate (now 1000.0)")
