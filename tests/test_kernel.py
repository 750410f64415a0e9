"""The stage `kernel` over the checkpoints of a run, and the mechanisms that are read off it."""

import numpy as np
import pytest
import torch
import xarray as xr

import small
from phasescope import mechanisms, model_cells
from phasescope.errors import UserError
from phasescope.measures.kernel import kernel, over_course
from phasescope.models import zoo
from phasescope.params.activations import ActivationsSettings
from phasescope.params.kernel import KernelSettings
from phasescope.params.models import ModelSettings
from phasescope.params.phases import PhasesSettings
from phasescope.run import Run
from phasescope.store.adopt import adopt
from phasescope.store.cache import CellCache
from phasescope.store.datasets import write_dataset

SETTINGS = KernelSettings(probes=10)
RULES = PhasesSettings()


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A project with a run of VGG-8 and one of F0, two seeds each, steps 0 to 16."""
    root = tmp_path_factory.mktemp("project")
    write_dataset(root / "datasets" / "d", small.few_digits(), {})
    chosen = ActivationsSettings(taps=["logits"], train_samples=40, test_samples=20)
    for name, model in (("r", small.JOB.model), ("f", ModelSettings(name="f0"))):
        job, run = small.JOB.model_copy(update={"model": model}), root / "runs" / name
        small.train(job, root / "datasets" / "d", run / "train", small.ONE, name)
        small.record(job, chosen, root / "datasets" / "d", run / "train", run / "activations", small.ONE, name)
    return root


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return CellCache(tmp_path_factory.mktemp("cells") / "cache", "code")


def measured(root, cache, settings=SETTINGS, name="r"):
    return model_cells.measure(Run(name, root), "kernel", kernel, settings, small.ONE, cache)


def test_every_checkpoint_has_what_its_network_gives(root, cache):
    run, found = Run("r", root), measured(root, cache).result
    assert found.tangent_kernel.dims == ("seed", "step", "probe", "other_probe")
    assert found.alignment.dims == ("seed", "step", "pair")
    network = zoo.place(run.model(5, 8), torch.device("cpu"))
    xr.testing.assert_equal(
        found.sel(seed=5, step=8, drop=True), kernel(network, model_cells.samples_of(run), SETTINGS)
    )
    assert (run.recorded["split"].values[found.probe.values] == "test").all()
    np.testing.assert_array_equal(found.label.values, run.recorded["label"].values[found.probe.values])
    assert found.tangent_kernel.attrs["outputs"] == "mean"
    assert "not weighted by learning rates" in found.tangent_kernel.attrs["parameters"]
    assert "statistics are constants" in found.tangent_kernel.attrs["batchnorm"]
    np.testing.assert_allclose(found.relative_alignment, found.alignment * np.sqrt(found.width))
    # It is symmetric, and none of its eigenvalues is lost.
    np.testing.assert_allclose(found.tangent_kernel, found.tangent_kernel.transpose(..., "other_probe", "probe"))
    np.testing.assert_allclose(found.eigenvalue.sum("rank"), found.trace, rtol=1e-9)


def test_the_kernel_of_a_linear_network_stays_as_it_is_and_is_that_of_its_inputs(root, cache):
    run, found = Run("f", root), over_course(measured(root, cache, name="f").result)
    np.testing.assert_allclose(found.relative_change, 0, atol=1e-6)
    np.testing.assert_allclose(found.cosine, 1, rtol=1e-6)
    inputs = model_cells.samples_of(run).inputs[found.probe.values].astype(np.float64)
    np.testing.assert_allclose(found.tangent_kernel.values[0, 0], inputs @ inputs.T, rtol=1e-5, atol=1e-4)
    assert "alignment" not in found
    told = mechanisms.of_run(found, RULES)
    assert told["mechanisms"] == [["kernel"], ["kernel"]]
    assert told["pairs"] == []


def test_the_full_kernel_has_the_mean_one_on_its_diagonal(root, cache):
    settings = SETTINGS.model_copy(update={"outputs": "full", "probes": 4, "measures": ["tangent-kernel"]})
    full = over_course(measured(root, cache, settings, "f").result)
    assert full.tangent_kernel.dims == ("seed", "step", "probe", "output", "other_probe", "other_output")
    mean = measured(root, cache, settings.model_copy(update={"outputs": "mean"}), "f").result
    diagonal = np.einsum("...icjc->...ij", full.tangent_kernel.values) / 10
    np.testing.assert_allclose(diagonal, mean.tangent_kernel, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(full.target_alignment, mean.target_alignment, rtol=1e-4)


def test_no_checkpoint_is_measured_twice_and_a_pulled_result_is_taken_over(root, cache, tmp_path, capsys):
    def written(cache):
        found = measured(root, cache)
        Run("r", root).write_measure("kernel", over_course(found.result), SETTINGS.model_dump(), found.cached)
        folder = root / "results" / "r" / "kernel"
        return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    before = written(cache)
    elsewhere = CellCache(tmp_path / "elsewhere", "code")
    assert adopt(root / "results" / "r" / "kernel", elsewhere) == 12
    capsys.readouterr()
    assert written(elsewhere) == before
    assert "kernel r: 0 of 12 cells computed" in capsys.readouterr().out
    read = Run("r", root).measure("kernel")
    assert read.pair.values.tolist()[-1] == "blocks.4.0 to head"
    assert read.relative_change.values[:, 0].tolist() == [0, 0]


def test_networks_whose_samples_depend_on_each_other_are_refused(root, cache, tmp_path):
    chosen = ActivationsSettings(taps=["logits"], train_samples=40, test_samples=20, batchnorm="batch")
    run = tmp_path / "runs" / "b"
    run.mkdir(parents=True)
    (run / "train").symlink_to(root / "runs" / "r" / "train")
    (tmp_path / "datasets").symlink_to(root / "datasets")
    small.record(small.JOB, chosen, root / "datasets" / "d", run / "train", run / "activations", small.ONE, "b")
    with pytest.raises(UserError, match=r"batchnorm `batch` .* set kernel.measures to \[\] for this run") as caught:
        measured(tmp_path, cache, name="b")
    assert "\n" not in str(caught.value)


def test_a_network_that_diverged_is_told(root):
    run = Run("r", root)
    network = run.model(3, 16)
    network.head.weight.data[0, 0] = np.nan
    with pytest.raises(UserError, match=r"lower train.learning_rate .* kernel.measures to \[\]") as caught:
        kernel(network, model_cells.samples_of(run), SETTINGS)
    assert "\n" not in str(caught.value)


# --- mechanisms


@pytest.fixture
def course():
    """Two seeds, the first of which learns features."""
    zeta = [[[0.1, 0.3, 0.2], [0.5, 0.1, 0.22]], [[0.1, 0.3, 0.2], [0.1, 0.3, 0.2]]]  # seed, step, pair
    norm = [[[1, 1, 2], [1, 1.1, 1.8]], [[1, 1, 2], [1.04, 1, 2]]]
    return xr.Dataset(
        {
            "relative_change": (("seed", "step"), [[0, 0.8], [0, 0.04]]),
            "alignment": (("seed", "step", "pair"), zeta),
            "norm_product": (("seed", "step", "pair"), norm),
        },
        {"seed": [3, 5], "step": [0, 64], "pair": ["a to b", "b to c", "c to d"], "width": ("pair", [4, 16, 100])},
    )


def test_mechanisms_of_every_pair_and_of_the_run(course):
    found = mechanisms.of_run(course, RULES)
    assert found["seeds"] == [3, 5]
    assert found["relative_change"] == [0.8, 0.04]
    assert found["mechanisms"] == [["alignment", "disalignment", "rescaling"], ["kernel"]]
    assert [one["mechanisms"] for one in found["pairs"]] == [
        [["alignment"], []],
        [["disalignment", "rescaling"], []],
        [["rescaling"], []],
    ]
    (first, *_) = found["pairs"]
    assert (first["pair"], first["width"], first["alignment"]) == ("a to b", 4, [[0.1, 0.5], [0.1, 0.1]])
    assert first["norm_growth"] == pytest.approx([0, np.log(1.04)])


def test_the_threshold_is_a_setting(course):
    found = mechanisms.of_run(course, PhasesSettings(mechanism=0.035))
    assert found["mechanisms"] == [["alignment", "disalignment", "rescaling"], ["rescaling"]]
    found = mechanisms.of_run(course, PhasesSettings(mechanism=0.3))
    assert found["mechanisms"] == [["alignment"], ["kernel"]]


def test_rows_and_table_of_mechanisms(course):
    course.relative_change[1, 1] = np.nan
    course.norm_product[0, :, 2] = 2.0
    results = {"run": mechanisms.of_run(course, RULES), "bare": mechanisms.of_run(course[["seed", "step"]], RULES)}
    assert results["run"]["relative_change"] == [0.8, None]
    rows = mechanisms.frame(results)
    assert len(rows) == 2 * 4 + 2
    assert rows[0] == {
        "run": "run",
        "seed": 3,
        "mechanisms": "alignment disalignment rescaling",
        "relative_change": 0.8,
    }
    assert rows[3]["pair"] == "c to d"
    assert (rows[3]["alignment_start"], rows[3]["alignment_end"]) == (0.2, 0.22)
    cells = [list(column.cells) for column in mechanisms.table(results).columns]
    assert list(zip(*cells, strict=True)) == [
        ("run", "", "0.800", "", "", "", "", "alignment 1/2, disalignment 1/2, rescaling 1/2"),
        ("", "a to b", "", "0.100", "0.300", "0.500", "1.020", "alignment 1/2"),
        ("", "b to c", "", "0.300", "0.200", "0.250", "1.050", "disalignment 1/2, rescaling 1/2"),
        ("bare", "", "", "", "", "", "", "none"),
    ]
