"""Whatever is changed in what is kept is found and named, and what is whole passes."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import zarr
from typer.testing import CliRunner, Result

from phasescope import regenerate
from phasescope.cli import app
from phasescope.store import manifest, verify
from phasescope.store.files import MEND
from phasescope.store.manifest import MANIFEST, sealed

#: Of the random bits that are flipped.
SEED = 20260
FLIPS = 50


@pytest.fixture
def folder(project, monkeypatch) -> Path:
    """The folder of a project in which every stage has run, and the current one."""
    monkeypatch.chdir(project.path)
    monkeypatch.setenv("PHASESCOPE_WORKERS", "1")
    return project.path


def checked(*arguments: str) -> Result:
    result = CliRunner().invoke(app, ["verify", *arguments])
    assert "Traceback" not in result.output
    return result


def problems(*arguments: str) -> list[str]:
    """The lines about what is wrong, of a check that finds something."""
    result = checked(*arguments)
    assert result.exit_code == 1, result.output
    lines = [line for line in result.stdout.splitlines() if not line.startswith(("note: ", "verify", "compute"))]
    assert result.stderr.startswith(f"{len(lines)} problem")
    return lines


def rewrite(directory: Path, **extra: object) -> str:
    """Write a manifest that fits the files as they are now; gives the new digest."""
    content = json.loads((directory / MANIFEST).read_bytes())
    files = {path.relative_to(directory).as_posix(): path for path in directory.rglob("*") if path.is_file()}
    content["files"] = {
        name: {"bytes": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        for name, path in sorted(files.items())
        if name != MANIFEST
    }
    content["extra"] |= extra
    text = manifest.sealed(content).encode()
    (directory / MANIFEST).write_bytes(text)
    return hashlib.sha256(text).hexdigest()


def rewrite_run(run: str) -> None:
    """Manifests of a whole run that fit each other and the files as they are now."""
    train = rewrite(Path("runs", run, "train"))
    activations = rewrite(Path("runs", run, "activations"), train=train)
    for result in Path("results", run).iterdir():
        inputs = json.loads((result / MANIFEST).read_bytes())["extra"]["inputs"]
        made_now = {f"runs/{run}/train": train, f"runs/{run}/activations": activations}
        rewrite(result, inputs=inputs | {name: digest for name, digest in made_now.items() if name in inputs})


def swap(one: str | Path, other: str | Path) -> None:
    Path(one).rename("aside")
    Path(other).rename(one)
    Path("aside").rename(other)


WEIGHTS = "runs/small/train/arrays.zarr/weights/c"
LOGITS = "runs/small/activations/arrays.zarr/logits/c"
#: Results that are made from the training itself, and not from the activations.
OF_THE_NETWORKS = ("complexity", "kernel", "training")


# --- all is well


def directories(folder: str) -> int:
    """How many kept directories there are."""
    return len(list(Path().glob(f"{folder}/**/{MANIFEST}")))


def test_what_was_made_passes(folder):
    for how, told in [([], "--full hashes every file"), (["--full"], "every file hashed")]:
        result = checked(*how)
        assert result.exit_code == 0, result.output
        summary = result.stdout.splitlines()[-1]
        assert summary.startswith(f"all well in {directories('.')} directories, ")
        assert summary.endswith(told)
        assert "note" not in result.output


@pytest.mark.parametrize("path", ["runs", "runs/small", "runs/small/train", "results/flat", "theory", "figures"])
def test_a_part_of_a_project_is_checked_alone(folder, path):
    assert f"all well in {directories(path)} directories" in checked(path).stdout


def test_a_directory_outside_of_a_project_is_checked(folder, tmp_path):
    shutil.copytree("runs/small/train", tmp_path / "copy")
    assert "all well in 1 directories" in checked("--full", str(tmp_path / "copy")).stdout
    (tmp_path / "copy" / "arrays.zarr" / "zarr.json").unlink()
    (line,) = problems(str(tmp_path / "copy"))
    assert line.startswith(f"{tmp_path / 'copy'}/arrays.zarr/zarr.json: is missing")


def test_paths_with_nothing_to_check(folder, tmp_path):
    (tmp_path / "empty").mkdir()
    lines = problems("nowhere", str(tmp_path / "empty"), "params.yaml", "runs")
    assert [line.partition(":")[0] for line in lines] == [
        "nowhere is not there, or no folder",
        f"{tmp_path / 'empty'} holds nothing that is kept",
        "params.yaml is not there, or no folder",
    ]


# --- every changed bit


@pytest.mark.parametrize(
    "pattern",
    [
        "runs/*/train/arrays.zarr/weights/c*",
        "runs/*/activations/arrays.zarr/*/c*",
        "results/*/*/arrays.zarr/*/c*",
        "datasets/digits/arrays.zarr/*/c*",
        "figures/*.*[!n]",
        "**/manifest.json",
        "**/zarr.json",
    ],
)
def test_no_flipped_bit_is_silent(folder, pattern):
    files = sorted(path for path in folder.glob(pattern) if path.is_file())
    assert len(files) >= 4
    rng = np.random.default_rng(SEED)
    print(f"seed {SEED}, {FLIPS} flips in {len(files)} files")
    silent = []
    for _ in range(FLIPS):
        path = files[rng.integers(len(files))]
        whole = path.read_bytes()
        if not whole:
            continue
        bit = int(rng.integers(8 * len(whole)))
        path.write_bytes(whole[: bit // 8] + bytes([whole[bit // 8] ^ 1 << bit % 8]) + whole[bit // 8 + 1 :])
        (place,) = [place for place in verify.in_project(folder) if path.is_relative_to(folder / place.name)]
        found = list(verify.Check(full=True).directory(place))
        if not any(place.name in str(finding) and not finding.note for finding in found):
            silent.append((path, bit))
        path.write_bytes(whole)
    assert not silent
    assert checked("--full").exit_code == 0


# --- what is wrong is named, with what to do


def test_everything_that_is_wrong_is_listed_at_once(folder):
    Path(f"{WEIGHTS}.1.3.0").unlink()
    cut = Path(f"{LOGITS}.0.2.0.0")
    length = cut.stat().st_size
    cut.write_bytes(cut.read_bytes()[:-3])
    Path("results/flat/decode/notes.txt").write_text("mine")
    Path("figures", MANIFEST).unlink()
    lines = problems()
    assert sorted(lines) == sorted(
        [
            f"{WEIGHTS}.1.3.0 (run small, weights of seed 1, step 4): is missing; {MEND}",
            f"{cut} (run small, logits of seed 0, step 2): has {length - 3} bytes, and {length} were written; {MEND}",
            "results/flat/decode/notes.txt: is not in the manifest; remove it",
            "figures has no manifest.json, so it is not complete: remove it and run `dvc repro`, "
            "or `dvc pull` it again",
        ]
    )


def test_a_foreign_shard_of_the_right_length_takes_hashing(folder):
    shard = Path(f"{LOGITS}.1.5.0.0")
    shard.write_bytes(np.random.default_rng(0).bytes(shard.stat().st_size))
    assert checked().exit_code == 0
    (line,) = problems("--full")
    expected = f"{shard} (run small, logits of seed 1, step 16): is not what was written; "
    assert line == expected + MEND


def test_swapped_shards_are_named_both(folder):
    swap(f"{WEIGHTS}.0.1.0", f"{WEIGHTS}.1.4.0")
    lines = problems("--full")
    assert [line.partition(":")[0] for line in lines] == [
        f"{WEIGHTS}.0.1.0 (run small, weights of seed 0, step 1)",
        f"{WEIGHTS}.1.4.0 (run small, weights of seed 1, step 8)",
    ]


def test_a_shard_in_the_place_of_another_is_recognised(folder):
    """Of the same length, as shards that do not compress are."""
    train = Path("runs/small/train")
    for name in ("0.1", "1.4"):
        Path(f"{WEIGHTS}.{name}.0").write_bytes(np.random.default_rng(len(name) + int(name[0])).bytes(1000))
    rewrite(train)
    swap(f"{WEIGHTS}.0.1.0", f"{WEIGHTS}.1.4.0")
    first, second = problems("--full", str(train))
    assert ": holds weights of seed 1, step 8; " in first
    assert ": holds weights of seed 0, step 1; " in second


def test_swapped_trainings_are_seen_from_what_was_made_of_them(folder):
    swap("runs/small/train", "runs/flat/train")
    assert sorted(problems()) == sorted(
        f"{made} was made from another runs/{run}/train than the one that is there now: "
        "`dvc pull` both again, or run `dvc repro`"
        for run in ("flat", "small")
        for made in (f"runs/{run}/activations", *(f"results/{run}/{name}" for name in OF_THE_NETWORKS))
    )


def test_swapped_results_are_seen(folder):
    swap("results/small/decode", "results/flat/decode")
    for run, other in zip(("flat", "small"), problems(), strict=True):
        assert other.startswith(f"results/{run}/decode was made from runs/")
        assert "it belongs to another run" in other
    swap("results/small/decode", "results/flat/decode")
    swap("results/small/decode", "results/small/probe")
    assert [line.partition(":")[0] for line in problems()] == [
        "results/small/decode holds 'probe', where 'decode' is expected",
        "results/small/probe holds 'decode', where 'probe' is expected",
    ]


def test_another_dataset_is_seen_from_all_that_was_made_of_it(folder):
    rewrite(Path("datasets/digits"), remade=True)
    lines = problems()
    logs = directories("results/*/training")  # whose dataset is that of the weights beside them
    assert len(lines) == directories("runs") + directories("results") - logs
    assert all("was made from another datasets/digits than" in line for line in lines)


def test_what_is_not_here_cannot_be_compared(folder):
    shutil.rmtree("runs/small/train")
    result = checked()
    assert result.exit_code == 0
    told = "note: runs/small/activations was made from runs/small/train, which is not here to compare"
    assert told in result.stdout.splitlines()


# --- directories that come from anyone


def test_links_and_special_files_are_not_followed(folder):
    target = Path(f"{WEIGHTS}.0.0.0")
    target.rename(folder / "elsewhere")
    target.symlink_to(folder / "elsewhere")
    os.mkfifo("runs/small/train/pipe")  # opening it would wait for ever
    losses = Path("runs/small/train/arrays.zarr/loss")
    shutil.move(losses, "elsewhere-1")
    losses.symlink_to(folder / "elsewhere-1", target_is_directory=True)
    lines = problems("--full", "runs/small/train")
    assert sum(": is missing;" in line for line in lines) == 2
    assert sum(": is no plain file;" in line for line in lines) == 1
    assert sum(": is not in the manifest;" in line for line in lines) == 2
    assert len(lines) == 5


def test_only_what_is_damaged_is_removed(folder):
    """Not what another version wrote, nor what a link leads to."""
    newer = Path("runs/small/train", MANIFEST)
    newer.write_text(sealed({**json.loads(newer.read_bytes()), "format": 99}))
    link = Path("results/small/decode/arrays.zarr/fvu/c.0.0.0.0")
    link.rename(folder / "elsewhere")
    link.symlink_to(folder / "elsewhere")
    flip = Path(f"{WEIGHTS.replace('small', 'flat')}.0.0.0")
    flip.write_bytes(flip.read_bytes()[:-1] + b"\0")
    result = checked("--mend")
    assert result.exit_code == 1
    assert "1 damaged files removed here, 0 in DVC's cache" in result.stdout
    assert newer.exists()
    assert link.is_symlink()
    assert (folder / "elsewhere").exists()
    assert not flip.exists()


def test_links_into_the_cache_of_dvc_are_followed(folder):
    """As DVC leaves them where `cache.type` is symlink."""
    for number, path in enumerate(sorted(Path("runs/small").rglob("*"))):
        if path.is_file():
            place = folder / ".dvc" / "cache" / "files" / "md5" / "ab" / f"{number:030x}"
            place.parent.mkdir(parents=True, exist_ok=True)
            path.rename(place)
            path.symlink_to(place)
    result = checked("--full", "runs/small")
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize("name", ["/etc/hostname", "../../../params.yaml", "a/../../b", "part\0"])
def test_names_that_lead_elsewhere_are_refused_or_absent(folder, name):
    path = Path("runs/small/train", MANIFEST)
    content = json.loads(path.read_bytes())
    content["files"][name] = {"bytes": 7, "sha256": "0" * 64}
    path.write_text(manifest.sealed(content))
    assert all(line.startswith("runs/small/train") for line in problems("--full", "runs/small/train"))


def test_names_cannot_write_to_the_terminal(folder):
    Path("figures/evil\n\x1b[2Jname").write_text("")
    (line,) = problems("figures")
    assert line == r"figures/evil\n\x1b[2Jname: is not in the manifest; remove it"


@pytest.mark.parametrize("extra", [{"cells": 3}, {"cells": {"seeds": 1}}, {"train": [1]}, {"dataset": {}}])
def test_a_manifest_that_fits_and_says_nonsense_ends_in_lines(folder, extra):
    rewrite(Path("runs/small/activations"), **extra)
    result = checked("--full", "--regenerate", "2", "--seed", "0", "runs/small/activations")
    assert result.exit_code in (0, 1)
    assert result.exception is None or isinstance(result.exception, SystemExit)


# --- computed again


def test_cells_computed_again_are_the_same_bits(folder):
    result = checked("--regenerate", "5", "--seed", "7")
    assert result.exit_code == 0, result.output
    assert "note: 5 cells are computed again, chosen by --seed 7\n" in result.stdout
    told = (
        "note: 5 cells were computed again: 5 are the same bits, the largest deviation is 0.0e+00 of its layer's RMS\n"
    )
    assert told in result.stdout


def test_a_swapped_checkpoint_behind_consistent_manifests_is_found(folder):
    swap(f"{WEIGHTS}.0.2.0", f"{WEIGHTS}.0.5.0")
    rewrite_run("small")
    assert checked("--full").exit_code == 0
    lines = problems("--regenerate", "100", "runs/small")
    assert len(lines) == 4
    assert all("computed again, it differs by up to" in line for line in lines)
    cells = [f"runs/small/activations (run small, {tap} of seed 0, step" for tap in ("logits", "predense")]
    assert all(any(line.startswith(cell) for cell in cells) for line in lines)


def alter_activations(change: Callable[[np.ndarray], np.ndarray]) -> None:
    """Change one value of a cell, and make all manifests fit."""
    array = zarr.open_array("runs/small/activations/arrays.zarr/predense", mode="r+")
    values = array[1, 3]
    values[17] = change(values[17])
    array[1, 3] = values
    rewrite_run("small")


ALTERED = "runs/small/activations (run small, predense of seed 1, step 4): computed again, it differs by up to"


def test_altered_activations_behind_consistent_manifests_are_found(folder):
    """One step of float16 is told, for another machine may give it; more is an error."""
    alter_activations(lambda values: np.nextafter(values, np.float16(9)))
    assert checked("--full").exit_code == 0
    result = checked("--regenerate", "100", "runs/small")
    assert result.exit_code == 0, result.output
    (line,) = [line for line in result.stdout.splitlines() if ALTERED in line]
    assert line.endswith("as it may on another machine, device or number of threads")
    alter_activations(lambda values: values + np.float16(0.1))
    (line,) = problems("--regenerate", "100", "runs/small")
    assert line.startswith(ALTERED)
    assert ", and 0.01 beyond a step of float16 are allowed; these activations" in line


def test_without_a_training_nothing_can_be_computed_again(folder):
    shutil.rmtree("runs/flat/train")
    (line,) = problems("--regenerate", "3", "runs/flat")
    assert line.startswith("runs/flat/activations cannot be computed again: runs/flat/train is not there")
    (line,) = problems("--regenerate", "3", "figures")
    assert line == "nothing can be computed again: there are no activations to compare with"


def test_every_cell_can_be_drawn_and_none_twice(folder):
    recordings = [place for place in verify.in_project(folder) if place.kind == "activations"]
    everything = regenerate.draw(recordings, 1000, np.random.default_rng(0))
    assert len(everything) == len(set(everything)) == 2 * 6 * (2 + 2)
    rng = np.random.default_rng(1)
    drawn = [cell for _ in range(400) for cell in regenerate.draw(recordings, 3, rng)]
    assert set(drawn) == set(everything)


def test_a_deviation_is_beyond_one_step_of_the_dtype_and_relative_to_the_rms():
    stored = np.array([[1.0, -1.0], [1.0, 1.0]], dtype=np.float16)
    beside = np.nextafter(stored, np.float16(2))
    assert regenerate.deviation(stored, stored) == 0
    assert regenerate.deviation(stored, beside) == 0
    assert regenerate.deviation(stored, beside, steps=0) == pytest.approx(2**-10, rel=1e-2)
    other = stored.copy()
    other[0, 1] = -1.5
    assert regenerate.deviation(other, stored) == pytest.approx(0.5, rel=1e-2)
    assert regenerate.deviation(stored * np.float16(np.nan), stored) == np.inf
    assert regenerate.deviation(0 * stored, 0 * stored) == 0


# --- notes


def test_a_checkpoint_out_of_line_is_a_note_and_no_fault(folder):
    array = zarr.open_array("runs/small/activations/arrays.zarr/weight_norm", mode="r+")
    values = array[...]
    values[1, 3] *= 1.5
    array[...] = values
    rewrite_run("small")
    result = checked()
    assert result.exit_code == 0, result.output
    (note,) = [line for line in result.stdout.splitlines() if line.startswith("note: ")]
    assert note.startswith("note: runs/small/activations (run small, seed 1, step 4: its weight norm of ")
