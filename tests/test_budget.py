"""What `phasescope budget` says before anything runs, compared with what finished runs have on the disk."""

import math
import re
from dataclasses import asdict
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from rich.console import Console
from torch.utils.flop_counter import FlopCounterMode
from typer.testing import CliRunner

from closure import ROOT
from conftest import PARAMS
from phasescope import activations
from phasescope.budget import Budget, Count, budget, outputs, speed, table, work
from phasescope.budget.runs import Images, Run
from phasescope.budget.stores import Array, Store
from phasescope.budget.work import Work
from phasescope.cli import app
from phasescope.compute import Compute
from phasescope.errors import UserError
from phasescope.measures.decoders import build
from phasescope.models import zoo
from phasescope.params.decode import DecodeSettings
from phasescope.params.information import Estimator
from phasescope.params.models import ModelSettings
from phasescope.params.settings import Settings, read
from phasescope.params.train import TrainJob
from phasescope.store.manifest import StoreError, parse

SECONDS = Work(**dict.fromkeys(asdict(Work()), 1e-9))
CIFAR = Images(3, 50_000, 10_000, 10, 32, "float16", 0.65)
DIGITS = Images(1, 1297, 500, 10, 8, "float16", 0.26)


def shown(found: Budget, seconds: dict[str, Work] | None = None, width: int = 120) -> str:
    console = Console(width=width)
    with console.capture() as capture:
        console.print(table(found, seconds))
    return capture.get()


def on_the_disk(folder: Path) -> tuple[int, int]:
    """Bytes and files."""
    lengths = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
    return sum(lengths), len(lengths)


def cells_in(folder: Path) -> int:
    """Cells that a manifest names, of whatever kind."""
    keys: list[object] = []
    cells = parse(folder).extra["cells"]
    kinds = [of_tap for kind in cells["files"].values() for of_tap in kind.values()]
    for nested in [*kinds, *(kind["keys"] for kind in cells["arrays"].values())]:
        keys += np.array(nested, dtype=object).ravel().tolist()
    return sum(key is not None for key in keys)


def assert_as_on_the_disk(project: Path) -> None:
    found = budget(read(project / "params.yaml"), project / "datasets")
    for name, run in found.runs.items():
        for stage in run.stages:
            kept, files = on_the_disk(project / stage.output)
            assert stage.store.files == files, stage.output
            assert stage.store.fingerprints == cells_in(project / stage.output), stage.output
            # How well histograms of few samples compress is guessed worst.
            assert stage.store.bytes == pytest.approx(kept, rel=0.25), stage.output
        total = sum(stage.store.bytes for stage in run.stages)
        kept = on_the_disk(project / "runs" / name)[0] + on_the_disk(project / "results" / name)[0]
        assert total == pytest.approx(kept, rel=0.1)


def test_bytes_and_files_of_finished_runs(made):
    assert_as_on_the_disk(made.path)


@pytest.mark.slow
def test_bytes_and_files_with_every_decoder_classifier_and_estimator(project):
    settings = (
        "decode: {decoders: [linear, linear-adam, deconvolution], trained_taps: [predense], epochs: 3, width: 0.1}\n"
        "probe: {classifiers: [ridge, logistic, sgd], epochs: 2}\n"
        f"information: {{estimators: [{', '.join(get_args(Estimator))}]}}\n"
    )
    project.change_params("distributions:", f"{settings}distributions:")
    for run in ("small", "flat"):
        for stage in ("decode", "probe", "information"):
            done = project.run_stage(stage, run)
            assert done.returncode == 0, done.stderr
    assert_as_on_the_disk(project.path)


@pytest.mark.parametrize(
    "asked", ["{measures: []}", "{measures: [local-complexity]}", "{layers: [blocks.0, blocks.1, blocks.2], points: 2}"]
)
def test_bytes_and_files_of_complexity(project, asked):
    project.change_params("{name: vgg8, width: 0.05}", f"{{name: vgg8, width: 0.05}}\n    complexity: {asked}")
    done = project.run_stage("complexity", "small")
    assert done.returncode == 0, done.stderr
    assert_as_on_the_disk(project.path)


@pytest.mark.parametrize("asked", ["{measures: [layer-alignment]}", "{outputs: full, probes: 4}"])
def test_bytes_and_files_of_kernel(project, asked):
    project.change_params("{name: vgg8, width: 0.05}", f"{{name: vgg8, width: 0.05}}\n    kernel: {asked}")
    done = project.run_stage("kernel", "small")
    assert done.returncode == 0, done.stderr
    assert_as_on_the_disk(project.path)


def test_the_number_of_fits():
    text = PARAMS.replace(
        "distributions:",
        "decode: {decoders: [linear, deconvolution], trained_taps: [predense]}\n"
        "probe: {classifiers: [ridge, sgd]}\n"
        "transfer: {ink: {run: small, dataset: digits, labels: [ink, quadrant]}}\n"
        "distributions:",
    )
    run = budget(parsed(text), Path("datasets")).runs["small"]
    cells = 2 * 6  # seeds, steps 0 to 16
    assert run.checkpoints == cells
    assert run.decoders == cells * (2 + 1)
    assert run.classifiers == cells * 2 * (2 + 2)


def parsed(text: str) -> Settings:
    path = Path("params.yaml")
    path.write_text(text)
    return read(path)


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("resolution", [8, 16])
@pytest.mark.parametrize("model", ["{name: vgg8, width: 0.25}", "{name: resnet10, width: 0.125}", "{name: mlp}"])
def test_the_parameters_that_have_gradients(model, resolution):
    run = Run(parsed(PARAMS.replace("{name: f0}", model)).runs["flat"], DIGITS._replace(resolution=resolution))
    network = zoo.build(run.settings.model, 1, resolution, 10)
    network(torch.randn(512, 1, resolution, resolution)).square().sum().backward()
    gradients = [parameter.grad for parameter in network.parameters()]
    moved = sum(int(gradient.count_nonzero()) for gradient in gradients if gradient is not None)
    assert run.moved == pytest.approx(moved / sum(map(torch.numel, network.parameters())), rel=0.03)


def test_nothing_is_kept_of_how_weights_moved_that_did_not():
    run = Run(parsed(PARAMS).runs["small"], DIGITS)
    imported = Run(parsed(PARAMS).runs["small"], DIGITS, job_of_others())
    plain = Run(parsed(PARAMS.replace("train: {", "train: {momentum: 0.0, ")).runs["small"], DIGITS)
    ratios = [outputs.train(each).arrays["last_moments"].ratio for each in (run, imported, plain)]
    assert ratios[0] > 0
    assert ratios[1:] == [0, 0]


# --- work


@pytest.mark.parametrize("name", ["linear-adam", "deconvolution"])
@pytest.mark.parametrize("tap", ["logits", "predense", "conv-2"])
def test_operations_of_a_decoder_are_those_that_torch_counts(name, tap):
    text = (
        "datasets: {cifar10: {source: cifar10}}\n"
        "activations: {taps: [logits, predense, conv-2]}\n"
        "runs: {vgg: {dataset: cifar10, model: {name: vgg8, width: 0.5}}}"
    )
    settings = DecodeSettings(width=0.5)
    run = Run(parsed(text).runs["vgg"], CIFAR)
    (layer,) = [layer for layer in run.layers if layer.name == tap]
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        build(name, layer.shape, (3, 32, 32), 0.5)(torch.zeros(1, *layer.shape))
    assert work.decoder_operations(name, layer, run.images, settings) == counter.get_total_flops()


def test_operations_of_a_training():
    run = Run(parsed(PARAMS).runs["small"], DIGITS)
    done = work.train(run, workers=2)
    assert done.updates == 16
    assert done.passes == (1297 + 500) * 6
    assert done.cells == 6
    # Steps 0 to 16: the weights by themselves, and with their momentum beside the logs.
    assert done.bytes == 3 * run.weights * 6 + 4 * 64 * 1797
    assert done.starts == 1
    alone = work.train(run, workers=1)
    assert (alone.updates, alone.passes, alone.starts) == (32, 2 * done.passes, 1)


def test_operations_of_activations():
    run = Run(parsed(PARAMS).runs["small"], DIGITS)
    done = work.activations(run, workers=1)
    # Two seeds, six steps: the samples kept, and those that BatchNorm is recalibrated with; logits and predense.
    assert done.passes == 12 * (150 + 1297)
    assert done.cells == 12 * 3
    assert done.bytes == 12 * (2 * 150 * (10 + 26) + run.weights) + 2 * 4 * 64 * 1797
    flat = Run(parsed(PARAMS).runs["flat"], DIGITS)
    assert work.activations(flat, workers=1).passes == 12 * 150


def test_a_network_that_others_trained_is_not_trained():
    run = Run(parsed(PARAMS).runs["small"], DIGITS, job_of_others())
    done = work.train(run, workers=1)
    assert (done.updates, done.calls) == (0, 0)
    assert done.passes == 3 * 1797
    assert done.cells == 3


def job_of_others() -> TrainJob:
    files = {"0": {str(step): [f"{step}.pt", "0"] for step in (10, 20, 30)}}
    return TrainJob(dataset="digits", model=ModelSettings(name="vgg8"), seeds=[0], iterations=30, files=files)


def test_operations_of_a_ridge_fall_with_the_smaller_side():
    settings = DecodeSettings()
    tall, wide = work._ridge(10_000, 0, 100, 1, settings), work._ridge(100, 0, 10_000, 1, settings)
    assert tall.spectra == wide.spectra == 100**3
    assert tall.matrices == pytest.approx(2 * 10_000 * 100**2, rel=0.02)
    assert wide.matrices == pytest.approx(tall.matrices, rel=0.02)


def test_many_targets_are_multiplied_in_single_precision(monkeypatch):
    settings = DecodeSettings()
    single = work._ridge(10_000, 2_000, 512, 3072, settings, single=True)
    assert single.products == 2 * 12_000 * 512 * 3072
    assert single.matrices == 2 * 10_000 * 512**2 + 2 * 12_000 * 512**2
    assert work._ridge(10_000, 2_000, 512, 3072, settings).products == 0
    run = Run(parsed(PARAMS).runs["small"], DIGITS)
    assert work.decode(run, workers=1).products == 0
    monkeypatch.setattr(work, "ROTATION_LIMIT", 63)  # fewer than the pixels of a digit
    products = 2 * (run.train + run.test) * 64 * sum(min(run.train, layer.features) for layer in run.layers)
    assert work.decode(run, workers=1).products == 2 * 6 * products
    assert work.decode(run, workers=4).products == 3 * products


def test_operations_of_information_are_those_of_the_samples_that_are_looked_at():
    settings = "information: {estimators: [gaussian, binned-pca, quantised], samples: 40}\n"
    run = Run(parsed(PARAMS.replace("distributions:", f"{settings}distributions:")).runs["small"], DIGITS)
    cells, features = 2 * 6, [layer.features for layer in run.layers]
    done = work.information(run, workers=1)
    assert done.pairs == cells * len(features) * 40**2
    assert done.matrices == cells * sum((4 * 40 + 2 * min(40, width)) * 40 * width for width in features)
    assert done.spectra == cells * sum(min(40, width) ** 3 for width in features)
    assert done.distributed == cells * 40 * sum(features)


def test_operations_of_complexity_are_those_that_torch_counts():
    text = PARAMS.replace("complexity: {line_samples: 4, points: 3}", "complexity: {line_samples: 5, points: 60}")
    run = Run(parsed(text).runs["small"], DIGITS)
    assert list(run.nonlinearities) == [f"blocks.{place}.2" for place in range(5)]
    assert run.hidden_layers == ["blocks.0.2"]
    blocks, flatten, head = run.network
    operations, image = {}, torch.zeros(1, run.images.channels, run.images.resolution, run.images.resolution)
    for name, layer, inputs in (
        ("whole", run.network, image),
        ("rest", torch.nn.Sequential(*blocks[1:], flatten, head), blocks[0](image)),
    ):
        with FlopCounterMode(display=False) as counter:
            layer(inputs)
        operations[name] = counter.get_total_flops()
    lines, vertices = 21 * 10 * operations["rest"] / operations["whole"], (60 + 50 + 60) * 50
    cells = 2 * 6
    assert work.complexity(run, workers=1).passes == pytest.approx(cells * (lines + vertices))
    assert work.complexity(run, workers=4).passes == pytest.approx(cells / 4 * (lines + vertices))
    linear = Run(parsed(text).runs["flat"], DIGITS)
    assert work.complexity(linear, workers=1).passes == 0


def test_operations_of_the_kernel_are_those_of_an_update_for_each_probe_and_output():
    run = Run(parsed(PARAMS).runs["small"], DIGITS)
    cells = 2 * 6
    assert work.kernel(run, workers=1).passes == cells * 3 * 8 * 10
    channels = [2, 3, 6, 13, 26]
    columns = [9, *(9 * width for width in channels[:-1])]
    rows = [*(9 * width for width in channels[1:]), 10]
    products = sum(2 * h * h * (a + b) for h, a, b in zip(channels, columns, rows, strict=True))
    assert work.kernel(run, workers=1).matrices == pytest.approx(cells * products)
    alone = Run(parsed(PARAMS.replace("{probes: 8}", "{measures: []}")).runs["small"], DIGITS)
    assert work.kernel(alone, workers=1) == Work(starts=1, imports=1)


def test_the_benchmark_gives_the_time_of_an_operation():
    runs = {name: Run(settings, DIGITS) for name, settings in parsed(PARAMS).runs.items()}
    seconds = speed.measured(Compute("cpu", threads=1, workers=1), runs)
    assert seconds.keys() == runs.keys()
    for each in seconds.values():
        assert all(math.isfinite(value) and value >= 0 for value in asdict(each).values())
        # No core makes fewer than a billion or more than a trillion operations in a second.
        assert 1e-12 < each.matrices < 1e-9
        # A batch of 32 takes longer than one of them that only passes.
        assert each.updates > each.passes
    assert seconds["small"].updates > seconds["flat"].updates
    assert work.RECALIBRATION_IMAGES == activations.RECALIBRATION_IMAGES
    assert Work(matrices=3.6e12).hours(Work(matrices=1e-9)) == pytest.approx(1.0)


def test_networks_that_are_not_trained_or_tell_a_number_are_timed():
    text = PARAMS.replace("model: {name: f0}", "model: {name: f0}\n    train: {target: ink, loss: mse}")
    runs = {"number": Run(parsed(text).runs["flat"], DIGITS), "others": Run(parsed(text).runs["small"], DIGITS)}
    runs["others"].updates = 0
    seconds = speed.measured(Compute("cpu", threads=1, workers=1), runs)
    assert seconds["number"].updates > 0
    assert seconds["others"].updates == 0
    assert seconds["others"].passes > 0


# --- what is told


@pytest.mark.parametrize("folder", [".", "paper", "reproduction"])
def test_the_tables_fit_120_columns_and_have_every_run(folder):
    settings = read(ROOT / folder / "params.yaml")
    text = shown(budget(settings, ROOT / folder / "datasets"), dict.fromkeys(settings.runs, SECONDS))
    assert "…" not in text
    assert all(run in text for run in settings.runs)


def test_a_store_that_no_reader_would_accept(tmp_path):
    taps = "activations: {taps: [logits, predense, softmax, conv-2, blocks.0]}"
    text = PARAMS.replace("seeds: [0, 1], iterations: 16", f"seeds: {list(range(1000))}, iterations: 10000000")
    text = text.replace("{name: vgg8, width: 0.05}", f"{{name: vgg8, width: 0.05}}\n    {taps}")
    told = shown(budget(parsed(text), tmp_path), width=1000)
    (line,) = [line for line in told.splitlines() if "WARNING" in line]
    assert line.startswith("WARNING runs/small/activations: a manifest of ")
    assert line.endswith("spread seeds or taps over several runs")
    assert "WARNING" not in shown(budget(parsed(PARAMS), tmp_path))


def test_the_limit_is_that_of_the_reader(tmp_path):
    (tmp_path / "manifest.json").write_bytes(b" " * (16 << 20) + b"x")
    with pytest.raises(StoreError, match="longer than"):
        parse(tmp_path)
    many = Store({"weights": Array((1000, 120, 3), "float32", cell=2)})
    assert not many.readable
    assert many.manifest > 16 << 20
    assert Store({"weights": Array((1000, 90, 3), "float32", cell=2)}).readable


def test_images_that_nobody_has_counted_yet(tmp_path):
    told = shown(budget(parsed(PHOTOGRAPHS), tmp_path))
    assert "known when the images are prepared, or told by --images: small, flat" in told


PHOTOGRAPHS = PARAMS.replace("{source: digits, resolution: 8}", "{source: image-folder, folder: photographs}")


def test_images_that_the_user_counts(tmp_path):
    counts = {"digits": Count(1000, 200, 5)}
    found = budget(parsed(PHOTOGRAPHS), tmp_path, counts=counts)
    dataset = found.datasets["digits"]
    assert dataset is not None
    assert dataset.arrays["images"].shape == (1200, 3, 32, 32)
    run = found.runs["small"]
    assert run is not None
    assert run.run.images[:4] == (3, 1000, 200, 5)
    assert "known when" not in shown(found)
    fewer = PHOTOGRAPHS.replace("folder: photographs", "folder: photographs, train_samples: 300")
    drawn = budget(parsed(fewer), tmp_path, counts=counts).runs["small"]
    assert drawn is not None
    assert drawn.run.images.train == 300


@pytest.mark.parametrize(
    ("name", "told"), [("digit", "did you mean 'digits'"), ("digits", "how many images digits has is known")]
)
def test_images_that_nobody_has_to_count(tmp_path, name, told):
    with pytest.raises(UserError, match=told):
        budget(parsed(PARAMS), tmp_path, counts={name: Count(10, 10, 2)})


def test_cells_stand_beside_the_files():
    settings = parsed(PARAMS)
    lines = shown(budget(settings, Path("datasets")), dict.fromkeys(settings.runs, SECONDS)).splitlines()
    heading = next(line for line in lines if "stage" in line)
    assert heading.split() == ["stage", "bytes", "files", "cells", "hours"]
    # Two runs of two seeds at six steps: two taps and the record of a checkpoint.
    assert any(re.match(r" +activations .* 72 +< 0.01", line) for line in lines)
    assert any(re.match(r" +decode .* 48 +< 0.01", line) for line in lines)


def test_the_command_before_anything_has_run(bare_project):
    told = CliRunner().invoke(app, ["budget", str(bare_project.path)])
    assert told.exit_code == 0, told.output
    assert [word for word in ("small", "flat", "activations", "cells", "hours") if word not in told.output] == []
    assert not (bare_project.path / "configs").exists()


def test_the_command_with_workers_and_images(bare_project):
    bare_project.write_params(PHOTOGRAPHS)
    counted = ["budget", str(bare_project.path), "--images", "digits=1000,200,5"]
    told = CliRunner().invoke(app, [*counted, "--workers", "12"])
    assert told.exit_code == 0, told.output
    assert "known when" not in told.output
    assert "with 12 workers" in told.output


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--workers", "0"], "--workers 0: expected a whole number of at least 1"),
        (["--images", "digits"], "--images digits: expected NAME=TRAINING,TEST,CLASSES"),
        (["--images", "digits=1,2"], "--images digits=1,2: expected NAME=TRAINING,TEST,CLASSES"),
        (["--images", "digits=9,0,2"], "--images digits=9,0,2: expected NAME=TRAINING,TEST,CLASSES"),
        (["--images", "digit=9,9,2"], "unknown dataset 'digit'; did you mean 'digits'?"),
    ],
)
def test_a_mistake_in_the_command_is_told_in_a_line(bare_project, options, told):
    bare_project.write_params(PHOTOGRAPHS)
    done = CliRunner().invoke(app, ["budget", str(bare_project.path), *options])
    assert done.exit_code == 1
    assert told in done.output
    assert len(done.output.splitlines()) == 1
