"""What `phasescope budget` says beside what stages took and kept: constants fitted on some runs, checked on others.

    python benchmarks/cost.py [--save FILE] [--saved FILE]

Runs in a project of their own, each stage a process with one worker and one thread on the CPU, in an empty cache: its
seconds on the clock and of the processor, and the bytes and files that it left. Counted seconds are counted work times
what the benchmark of `phasescope budget` takes, the least of before a run and after it, for a machine that is shared is
slower at times. The factors between the two, one for each kind of work, are fitted on the stages of the runs that are
called fit-… (least squares of relative errors, none below zero); those called check-… have no part in that. `--save`
writes what was measured, `--saved` fits to what was. The last lines are what `budget.speed` has as `FACTORS`.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import chdir
from dataclasses import asdict, astuple, fields
from pathlib import Path
from typing import Any

import numpy as np
import side_by_side
from scipy.optimize import nnls

from phasescope import own
from phasescope.budget import Stage, budget
from phasescope.budget.speed import FACTORS, measured, unfitted
from phasescope.budget.work import Work
from phasescope.compute import Compute
from phasescope.params.settings import read
from phasescope.stage import DATASETS

ROOT = Path(__file__).parents[1]
KINDS = [field.name for field in fields(Work)]
#: Those for which the benchmark does something else, as quick as the interpreter; and how far the others are trusted.
UNLIKE, BELIEF = ("cells", "starts", "imports"), 0.3

PARAMS = """\
datasets:
  digits: {source: digits, resolution: 8}
  digits-16: {source: digits, resolution: 16}
  addition: {source: binary-operation, operation: addition, modulus: 41, train_fraction: 0.5}
  noise: {source: "noise:load", channels: 3, resolution: 32, arguments: {count: 3000}}
  more-noise: {source: "noise:load", channels: 3, resolution: 32, arguments: {count: 8000}}
runs:
  fit-f0:
    dataset: digits
    model: {name: f0}
    train: {seeds: [0, 1, 2], iterations: 4096}
    activations: {taps: [softmax, logits]}
  fit-mlp:
    dataset: digits-16
    model: {name: mlp, depth: 3, units: 512}
    train: {seeds: [0, 1], iterations: 1024}
    activations: {taps: [softmax, logits, predense, blocks.0]}
    probe: {classifiers: [ridge, sgd], epochs: 5}
  fit-vgg8:
    dataset: digits-16
    model: {name: vgg8, width: 0.25}
    train: {seeds: [0, 1], iterations: 512}
    activations: {taps: [logits, predense, {name: blocks.1, pool: 2}], train_samples: 800}
    decode: {decoders: [linear, deconvolution], trained_taps: [predense], epochs: 4, width: 0.25}
  fit-tokens:
    dataset: addition
    model: {name: embedding-mlp}
    train: {optimiser: adamw, batch_size: 500, seeds: [0], iterations: 1024, evaluate_every: 50}
    activations: {taps: [softmax, logits, blocks.0]}
    complexity: {layers: [blocks.0], line_samples: 48, points: 128}
  fit-noise:
    dataset: noise
    model: {name: vgg11, width: 0.25}
    train: {seeds: [0], iterations: 64}
    activations: {taps: [logits, predense, {name: blocks.1, pool: 4}]}
  check-resnet10:
    dataset: digits-16
    model: {name: resnet10, width: 0.125}
    train: {seeds: [0, 1], iterations: 512}
    activations: {taps: [softmax, logits, predense, {name: blocks.1, pool: 4}]}
    decode: {decoders: [linear, deconvolution], trained_taps: [predense], epochs: 6, width: 0.125}
  check-vgg8:
    dataset: more-noise
    model: {name: vgg8, width: 0.5}
    train: {seeds: [0, 1], iterations: 256, batch_size: 64}
    activations: {taps: [softmax, logits, predense, {name: blocks.1, pool: 4}]}
    complexity: {line_samples: 20, points: 48}
    kernel: {probes: 32}
train: {batch_size: 32, learning_rate: 0.001}
complexity: {line_samples: 16, points: 24}
kernel: {probes: 16}
transfer:
  fit: {run: fit-vgg8, dataset: digits-16, labels: [ink, quadrant]}
  check: {run: check-resnet10, dataset: digits-16, labels: [quadrant]}
  check-other: {run: check-vgg8, dataset: more-noise, labels: [class]}
"""
#: Noise of ten classes, as a dataset of one's own.
NOISE = """\
import numpy as np

def load(channels, resolution, count):
    rng = np.random.default_rng(0)
    labels = np.arange(count) % 10
    images = rng.integers(128, size=(count, channels, resolution, resolution)) + 12 * labels[:, None, None, None]
    images, half = images.astype(np.uint8), count // 2
    return {"train_images": images[:half], "train_labels": labels[:half],
            "test_images": images[half:], "test_labels": labels[half:]}
"""
OF_RUN = ("train", "activations", "decode", "probe", "distributions", "information", "complexity", "kernel")
OF_TARGET = ("transfer", "advise")


def make(project: Path) -> None:
    """A project with its datasets prepared."""
    for name in ("stages", "src"):
        shutil.copytree(ROOT / name, project / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    (project / "own").mkdir()
    (project / "own" / "noise.py").write_text(NOISE)
    (project / "params.yaml").write_text(PARAMS)
    run_stage(project, "resolve")
    for dataset in read(project / "params.yaml").datasets:
        run_stage(project, "prepare", dataset)


def run_stage(project: Path, stage: str, *names: str) -> tuple[float, float]:
    """Run a stage as a process of its own: seconds on the clock, and of the processor."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(project / "src"),
        "PHASESCOPE_DEVICE": "cpu",
        "PHASESCOPE_WORKERS": "1",
        "PHASESCOPE_THREADS": "1",
    }
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    command = [sys.executable, f"stages/{stage}.py", *names]
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True)
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode != 0:
        raise SystemExit(f"{stage} {' '.join(names)} failed\n{done.stdout}{done.stderr}")
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def kept(folder: Path) -> tuple[int, int]:
    """Bytes and files on the disk."""
    lengths = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
    return sum(lengths), len(lengths)


def measure(project: Path, save: Path | None) -> list[dict[str, Any]]:
    """A row for every stage of every run: what was counted, and what it took and left; saved as they come."""
    settings, rows = read(project / "params.yaml"), list[dict[str, Any]]()
    save = save and save.absolute()
    compute = Compute("cpu", threads=1, workers=1)
    with chdir(project):
        own.trust()
        found = budget(settings, DATASETS)
        for name, run in found.runs.items():
            before = measured(compute, {name: run.run})[name]
            stages = [stage for stage in run.stages if stage.output != f"results/{name}/training"]
            transfers = [key for key, transfer in settings.transfer.items() if transfer.run == name]
            taken = []
            for stage in stages:
                taken.append(run_stage(project, stage.name, *(transfers if stage.name in OF_TARGET else [name])))
                tell(name, stage.name, *taken[-1])
            after = measured(compute, {name: run.run})[name]
            seconds = Work(*map(min, astuple(before), astuple(after)))
            rows += [row(stage, seconds, *times) for stage, times in zip(stages, taken, strict=True)]
            if save:
                save.write_text(json.dumps(rows, indent=1))
    return rows


def row(stage: Stage, seconds: Work, wall: float, processor: float) -> dict[str, Any]:
    """What is known of a stage that has run."""
    length, files = kept(Path(stage.output))
    return {
        "run": stage.run,
        "stage": stage.name,
        "counted": asdict(stage.work),
        "seconds": asdict(unfitted(seconds)),
        "wall": wall,
        "processor": processor,
        "bytes": [stage.store.bytes, length],
        "files": [stage.store.files, files],
    }


def benchmarked(rows: list[dict[str, Any]]) -> np.ndarray:
    """Seconds of the benchmark for what was counted, (stage, kind)."""
    return np.array([[each["counted"][kind] * each["seconds"][kind] for kind in KINDS] for each in rows])


def fit(rows: list[dict[str, Any]]) -> Work:
    """The factors with which the counted seconds come nearest to those of the processor, in relative terms.

    Where the benchmark does what stages do, a factor is 1 unless the rows say otherwise: 1 off counts as a row that is
    off by `BELIEF`.
    """
    counted, taken = benchmarked(rows), np.array([each["processor"] for each in rows])
    believed = BELIEF * np.diag([float(kind not in UNLIKE) for kind in KINDS])
    wanted = np.concatenate([np.ones(len(rows)), np.diag(believed)])
    return Work(*nnls(np.concatenate([counted / taken[:, None], believed]), wanted)[0].tolist())


def tell(run: str, stage: str, wall: float, processor: float) -> None:
    """Print a stage, as it has run."""
    print(f"{run:15} {stage:14} {wall:6.1f} s of the clock, {processor:6.1f} of the processor", flush=True)


def table(rows: list[dict[str, Any]], factors: Work) -> None:
    """Print what was counted of each stage and run, and what it took."""
    counted = benchmarked(rows) @ np.array(astuple(factors))
    print(f"\n{'run':15} {'stage':14} {'counted':>8} {'processor':>9} {'ratio':>6} {'clock':>7}   bytes   files")

    def line(run: str, stage: str, own_rows: list[int]) -> None:
        processor, wall = (sum(rows[place][what] for place in own_rows) for what in ("processor", "wall"))
        said = sum(counted[place] for place in own_rows)
        pairs = [[sum(rows[place][what][side] for place in own_rows) for side in (0, 1)] for what in ("bytes", "files")]
        print(
            f"{run:15} {stage:14} {said:8.1f} {processor:9.1f} {said / processor:6.2f} {wall:7.1f}   "
            f"{pairs[0][0] / pairs[0][1]:5.3f}   {pairs[1][0] - pairs[1][1]:+d}"
        )

    for run in dict.fromkeys(each["run"] for each in rows):
        places = [place for place, each in enumerate(rows) if each["run"] == run]
        for place in places:
            line(run, rows[place]["stage"], [place])
        line(run, "all", places)


def spread(rows: list[dict[str, Any]], factors: Work) -> str:
    """How far single stages are off."""
    ratios = benchmarked(rows) @ np.array(astuple(factors)) / [each["processor"] for each in rows]
    near = float(np.mean(np.abs(ratios - 1) <= 0.3))
    return f"stages {side_by_side.spread(ratios.tolist())} times what they took, {near:.0%} of {len(ratios)} within 30%"


def main() -> None:
    """Print the factors, and counted and measured seconds, bytes and files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--save", type=Path, help="write what was measured to this file")
    parser.add_argument("--saved", type=Path, help="fit to what was measured before")
    given = parser.parse_args()
    if given.saved:
        rows = json.loads(given.saved.read_text())
    else:
        side_by_side.tell_machine(1)
        with tempfile.TemporaryDirectory() as folder:
            make(Path(folder))
            rows = measure(Path(folder), given.save)
    fitted, checked = ([each for each in rows if each["run"].startswith(kind)] for kind in ("fit-", "check-"))
    factors = fit(fitted)
    for title, some, constants in (
        ("fitted here", fitted, factors),
        ("not fitted on, with those", checked, factors),
        ("not fitted on, with the constants of phasescope", checked, FACTORS),
    ):
        print(f"\n{title}: {spread(some, constants)}")
        table(some, constants)
    print("\nFACTORS = Work(")
    for kind, value in asdict(factors).items():
        print(f"    {kind}={float(f'{value:.3g}'):g},")
    print(")")


if __name__ == "__main__":
    main()
