"""Grokking, on the run of the default job and on one without weight decay: acceptance tests of the two phases."""

from pathlib import Path

import pytest

from closure import ROOT
from phasescope import mechanisms, model_cells
from phasescope.activations import record
from phasescope.compute import Compute
from phasescope.data.operations import load_binary_operation
from phasescope.measures import cells
from phasescope.measures.complexity import complexity
from phasescope.measures.information import information
from phasescope.measures.kernel import kernel, over_course
from phasescope.params.settings import read
from phasescope.params.train import TrainJob
from phasescope.run import Run
from phasescope.store.cache import CellCache
from phasescope.store.datasets import write_dataset
from phasescope.timescales import time_scales
from phasescope.training import train, write_curves

pytestmark = pytest.mark.slow
SETTINGS = read(ROOT / "params.yaml")
GROKKING = SETTINGS.runs["grokking"]
COMPUTE = Compute("cpu", threads=1, workers=2)


def trained(root: Path, **changes) -> Run:
    """The run `grokking` of the default job with some settings of its training changed, in a project of its own."""
    data = SETTINGS.datasets[GROKKING.dataset]
    write_dataset(root / "datasets" / GROKKING.dataset, load_binary_operation(data), data.model_dump())
    job = TrainJob(
        dataset=GROKKING.dataset, model=GROKKING.model, **{**GROKKING.train.model_dump(), "seeds": [0, 1], **changes}
    )
    paths = (root / "datasets" / GROKKING.dataset, root / "runs" / "run" / "train")
    cache = CellCache(root / "cache", "code")
    train(job, *paths, COMPUTE, "run", cache)
    write_curves("run", paths[1], root / "results" / "run" / "training")
    record(job, GROKKING.activations, *paths, root / "runs" / "run" / "activations", COMPUTE, "run", cache)
    return Run("run", root)


@pytest.fixture(scope="module")
def grokked(tmp_path_factory):
    """The run, and what is measured of it."""
    root = tmp_path_factory.mktemp("grokked")
    run, cache = trained(root), CellCache(root / "cache", "code")
    told = cells.measure(run, "information-gaussian", information, GROKKING.information, cache).result
    bent = model_cells.measure(run, "complexity", complexity, GROKKING.complexity, COMPUTE, cache).result
    return run, told, bent


def test_test_samples_are_told_long_after_training_samples(grokked):
    run, told, bent = grokked
    training = run.measure("training")
    times = time_scales(training, told.expand_dims(estimator=["gaussian"]), bent, SETTINGS.phases)
    assert max(times["fit"]) <= 256
    assert max(times["generalise"]) <= 2048
    assert min(late / early for late, early in zip(times["generalise"], times["fit"], strict=True)) > 5
    declines = {(one["curve"], one["layer"]): one["onset"] for one in times["declines"]}
    # The second descent begins after fitting and before generalisation, and so does compression of the last layer.
    for curve in (("test_loss", ""), ("i_x", "predense")):
        for fit, onset, late in zip(times["fit"], declines[curve], times["generalise"], strict=True):
            assert fit < onset < late
    loss = training.test_loss
    assert (loss.max("step") > 10).all()
    assert (loss.isel(step=-1) < 0.05).all()


def test_the_last_hidden_layer_is_compressed_and_keeps_the_class(grokked):
    _, told, _ = grokked
    last = told.sel(layer="predense")
    change = last.sel(step=2048) - last.sel(step=512)
    assert (change.i_x <= -1).all()
    assert (abs(change.i_y) < 0.5).all()
    assert (last.i_x_lower <= last.i_x).all()
    assert (last.i_x <= last.i_x_upper).all()


def test_the_network_becomes_more_linear(grokked):
    _, _, bent = grokked
    number = bent.linear_mapping_number.isel(layer=0)
    assert (number.sel(step=2048) <= 0.6 * number.max("step")).all()
    second = bent.local_complexity.sel(nonlinearity="blocks.1.1", part="train")
    assert (second.sel(step=2048) <= 0.3 * second.max("step")).all()


def test_features_are_learned_when_test_samples_come_to_be_told_right(grokked, tmp_path):
    run, _, _ = grokked
    cache = CellCache(tmp_path / "cache", "code")
    found = over_course(model_cells.measure(run, "kernel", kernel, GROKKING.kernel, COMPUTE, cache).result)
    early, late = found.sel(step=512), found.sel(step=2048)
    assert (late.effective_rank < 0.7 * early.effective_rank).all()
    assert (late.target_alignment > early.target_alignment).all()
    first, middle, last = (late.relative_alignment.isel(pair=pair) for pair in range(3))
    assert (first > 2).all()
    assert (last > 2).all()
    assert (middle < 0.6).all()
    for words in mechanisms.of_run(found, SETTINGS.phases)["mechanisms"]:
        assert words == ["alignment", "disalignment", "rescaling"]


def test_without_weight_decay_it_only_remembers(grokked, tmp_path):
    """Read after the step at which the decaying run had generalised."""
    run, _, _ = grokked
    control = trained(tmp_path, weight_decay=0.0).measure("training")
    late = run.measure("training").test_accuracy
    generalised = int(late.step.where((late >= 0.99).all("seed"), drop=True)[0])
    after = control.sel(step=slice(generalised, None))
    assert after.sizes["step"] > 10
    # AdamW stumbles now and then, other processors at other steps, and recovers.
    assert (after.train_accuracy.median("step") == 1).all()
    assert (after.test_accuracy < 0.05).all()
