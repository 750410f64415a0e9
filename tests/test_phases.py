import json

import numpy as np
import pytest
import scipy.stats
import xarray as xr
from rich.console import Console

from phasescope import phases as module
from phasescope.params.phases import PhasesSettings
from phasescope.phases import frame, of_decoders, phases, resampled_means, t_interval, table

STEPS = [0, 1, 2, 4, 8, 16, 32]
THREE_PHASES = [1.0, 1.0, 0.99, 0.9, 0.8, 0.85, 0.95]


def measures(losses, steps=STEPS, accuracy=None, noise=0.001, samples=400):
    """Decode and probe of one layer, ``logits``, whose mean errors are ``losses`` (seed, step)."""
    losses = np.atleast_2d(np.asarray(losses, dtype=float))
    error = losses[..., None] * (1 + noise * np.random.default_rng(0).standard_normal((*losses.shape, samples)))
    error += (losses - error.mean(axis=-1))[..., None]
    cells, seeds = ("seed", "step", "layer"), list(range(len(losses)))
    coords = {"seed": seeds, "step": steps, "layer": ["logits"]}
    decode = xr.Dataset(
        {
            "test_mse": (cells, losses[..., None]),
            "fvu": (cells, losses[..., None] / 2),
            "error": ((*cells, "sample"), error[:, :, None].astype(np.float32)),
        },
        coords=coords,
    )
    accuracy = np.linspace(0.1, 0.9, len(steps)) if accuracy is None else np.asarray(accuracy)
    shape = (len(seeds), len(steps))
    network = {
        "network_accuracy": np.tile(accuracy, (len(seeds), 1)),
        "network_loss": np.geomspace(2, 1, losses.size).reshape(shape),
        "weight_norm": np.geomspace(1, 2, losses.size).reshape(shape),
    }
    labelled = {name: (("seed", "step"), values) for name, values in network.items()}
    return decode, xr.Dataset(labelled, coords={"seed": seeds, "step": steps})


def logits(losses, settings=None, **options):
    return phases(*measures(losses, **options), settings or PhasesSettings(resamples=50))["logits"]


def test_other_decoders_have_rows_of_their_own():
    decode, probe = measures([THREE_PHASES, THREE_PHASES])
    flat, _ = measures([[1.0] * 7, [1.0] * 7])
    nothing = decode.where(decode.layer == "none")
    both = xr.concat([decode, flat, nothing], xr.DataArray(["linear", "slow", "other"], dims="decoder"))
    numbers = of_decoders(both, probe, PhasesSettings(resamples=50))
    assert list(numbers) == ["logits", "logits (slow)"]
    assert numbers["logits"] == phases(decode, probe, PhasesSettings(resamples=50))["logits"]
    assert numbers["logits (slow)"]["phases"] == "none"


def test_readme_run_of_the_paper():
    """VGG-8, predense, CIFAR-10: the only numbers the authors published (README of their code)."""
    result = logits(
        [
            *(0.5912, 0.5893, 0.5861, 0.5775, 0.5617, 0.5503, 0.5306, 0.5104, 0.5132),
            *(0.5281, 0.5205, 0.5607, 0.6163, 0.6930, 0.7311, 0.7595, 0.7871),
        ],
        steps=[0, *(2**i for i in range(1, 17))],
        accuracy=[
            *(0.097, 0.115, 0.138, 0.195, 0.274, 0.340, 0.398, 0.450, 0.498),
            *(0.577, 0.614, 0.658, 0.666, 0.676, 0.674, 0.670, 0.669),
        ],
    )
    assert result["phases"] == "constant, fall, rise"
    assert (result["constant_until"], result["minimum_at"]) == (8, 128)
    assert 1 - result["fall"] == pytest.approx(0.863, abs=5e-4)
    assert result["end_ratio"] == pytest.approx(1.331, abs=5e-4)
    assert result["rise"] == pytest.approx(0.7871 / 0.5104 - 1, rel=1e-6)
    assert (result["accuracy_highest_at"], result["accuracy_highest"]) == (8192, 0.676)
    assert result["accuracy_end"] == 0.669


def test_f0_on_mnist():
    """F0, logits, MNIST: computed independently of this code with an exact decoder."""
    result = logits(
        [0.5225, 0.5113, 0.4601, 0.4207, 0.4059, 0.4108, 0.4134, 0.4226, 0.4346, 0.4430, 0.4564],
        steps=[0, 4, 8, 16, 32, 64, 128, 512, 2048, 8192, 65536],
    )
    assert result["phases"] == "constant, fall, rise"
    assert (result["constant_until"], result["minimum_at"]) == (4, 32)
    assert 1 - result["fall"] == pytest.approx(0.777, abs=5e-4)
    assert result["end_ratio"] == pytest.approx(0.874, abs=1e-3)
    assert result["fvu_start"] == pytest.approx(0.5225 / 2)
    assert result["fvu_minimum"] == pytest.approx(0.4059 / 2)
    assert result["fvu_end"] == pytest.approx(0.4564 / 2)


@pytest.mark.parametrize(
    ("losses", "present", "minimum"),
    [
        ([1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4], "fall", 32),
        ([1.0, 1.0, 1.0, 1.0, 0.6, 0.5, 0.4], "constant, fall", 32),
        ([1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6], "rise", 0),
        ([1.0, 1.001, 1.002, 1.003, 1.2, 1.5, 1.6], "constant, rise", 0),
        ([1.0, 0.9, 0.8, 0.81, 0.9, 1.0, 1.1], "fall, rise", 2),
        ([1.0, 1.01, 0.995, 1.005, 0.99, 1.008, 1.0], "none", 8),  # within 2 % of the start
        ([1.0, *[1.0001] * 6], "none", 0),
    ],
)
def test_phases_of_hand_made_curves(losses, present, minimum):
    result = logits(losses)
    assert result["phases"] == present
    assert result["minimum_at"] == minimum
    assert result["fall"] == pytest.approx(1 - min(losses), abs=1e-6)
    assert result["rise"] == pytest.approx(losses[-1] / min(losses) - 1, abs=1e-6)


def test_a_change_counts_only_beyond_its_standard_errors():
    """A fall of 5 % is beyond the threshold; by samples its standard error is √2 · noise / √400."""
    losses = [1.0, 1.0, 1.0, 0.95, 0.95, 0.95, 0.95]
    assert "fall" in logits(losses, noise=0.2)["phases"]  # 2 standard errors: 0.028
    assert logits(losses, noise=0.5)["phases"] == "none"  # 0.071
    assert "fall" in logits(losses, noise=0.5, settings=PhasesSettings(standard_errors=1, resamples=50))["phases"]
    strict = PhasesSettings(threshold=0.06, resamples=50)
    assert logits(losses, noise=0.001, settings=strict)["phases"] == "none"


def test_standard_errors_are_over_seeds_where_there_are_several():
    lower = np.array([1.0, 1.0, 1.0, 0.9, 0.9, 0.9, 0.9])
    agreeing = logits([lower, lower * 2, lower * 3])
    assert agreeing["phases"] == "constant, fall"
    disagreeing = logits([lower, lower, 2 - lower - 0.05 * (lower < 1)])  # two fall by 0.1, one rises by 0.05
    assert disagreeing["phases"] == "none"
    assert disagreeing["seeds_with_fall"] == 2
    assert disagreeing["fall_min"] == 0


def test_seeds_are_reported_each_and_together():
    flat_end = [1.0, 1.0, 0.99, 0.9, 0.7, 0.701, 0.702]
    result = logits([THREE_PHASES, flat_end, THREE_PHASES])
    assert result["seeds"] == result["seeds_with_fall"] == result["seeds_with_constant"] == 3
    assert result["seeds_with_rise"] == 2
    assert result["per_seed"]["phases"] == ["constant, fall, rise", "constant, fall", "constant, fall, rise"]
    assert result["per_seed"]["minimum_at"] == [8, 8, 8]
    assert result["rise_min"] == pytest.approx(0.702 / 0.7 - 1, rel=1e-4)
    assert result["fall_min"] == pytest.approx(0.2)
    assert result["constant_until_min"] == 2
    falls = [0.2, 0.3, 0.2]
    expected = scipy.stats.t.interval(0.95, 2, loc=np.mean(falls), scale=scipy.stats.sem(falls))
    assert result["fall_interval"] == pytest.approx(expected, rel=1e-5)
    assert result["minimum_at_interval"] == [8, 8]
    assert result["fall"] == pytest.approx(1 - (0.8 + 0.7 + 0.8) / 3)


def test_single_seed_has_no_interval_over_seeds():
    result = logits(THREE_PHASES)
    assert result["fall_interval"] is result["rise_interval"] is result["minimum_at_interval"] is None
    low, high = result["fall_interval_samples"]
    assert low < result["fall"] < high
    assert result["minimum_agreement"] == 1


def test_a_seed_that_diverged_is_left_out():
    broken = [*THREE_PHASES[:-1], np.nan]
    decode, probe = measures([THREE_PHASES, broken])
    result = phases(decode, probe, PhasesSettings(resamples=50))["logits"]
    assert result["seeds"] == 1
    assert result["phases"] == "constant, fall, rise"
    result = phases(decode.isel(seed=[1]), probe, PhasesSettings(resamples=50))
    assert result["logits"] == {"phases": "none", "seeds": 0, "outliers": "none"}
    assert frame({"a": result}) == [{"run": "a", "layer": "logits", "phases": "none", "seeds": 0, "outliers": "none"}]
    assert table({"a": result}).row_count == 1


def test_minimum_at_step_0_has_no_logarithm():
    assert logits([[1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6]] * 2)["minimum_at_interval"] is None


def test_t_interval_is_students():
    values = [0.1, 0.4, 0.35, 0.8]
    expected = scipy.stats.t.interval(0.9, 3, loc=np.mean(values), scale=scipy.stats.sem(values))
    assert t_interval(values, 0.9) == pytest.approx(expected)


def test_interval_over_samples_covers_the_truth():
    """300 experiments of 100 samples, as layers; E[error] is 1 at step 0 and 0.7 at step 1: fall 0.3."""
    generator = np.random.default_rng(1)
    image = generator.gamma(4, 1 / 4, size=(300, 1, 100))
    error = image * generator.gamma(20, 1 / 20, size=(300, 2, 100)) * np.array([1, 0.7])[:, None]
    error = error.transpose(1, 0, 2)[None]
    coords = {"seed": [0], "step": [0, 1], "layer": [f"l{i}" for i in range(300)]}
    cells = ("seed", "step", "layer")
    decode = xr.Dataset(
        {"error": ((*cells, "sample"), error), "test_mse": (cells, error.mean(-1)), "fvu": (cells, error.mean(-1))},
        coords=coords,
    )
    network = {"network_accuracy": [[0.1, 0.9]], "network_loss": [[2.0, 1.0]], "weight_norm": [[1.0, 1.1]]}
    labelled = {name: (("seed", "step"), values) for name, values in network.items()}
    probe = xr.Dataset(labelled, {"seed": [0], "step": [0, 1]})
    results = phases(decode, probe, PhasesSettings(resamples=400))
    intervals = np.array([numbers["fall_interval_samples"] for numbers in results.values()])
    covered = np.mean((intervals[:, 0] <= 0.3) & (intervals[:, 1] >= 0.3))
    assert 0.91 <= covered <= 0.98  # nominal 0.95, standard error 0.013


def test_resamples_are_paired_and_bounded_in_memory(monkeypatch):
    errors = np.random.default_rng(2).exponential(size=(50, 3))
    errors[:, 1] = errors[:, 0] + 0.5
    means = resampled_means(errors, 2000)
    np.testing.assert_allclose(means[:, 1] - means[:, 0], 0.5, rtol=1e-12)
    reference = scipy.stats.bootstrap((errors[:, 0],), np.mean, n_resamples=2000, rng=0).standard_error
    assert means[:, 0].std() == pytest.approx(reference, rel=0.1)
    monkeypatch.setattr(module, "_DRAWN_AT_ONCE", 120)  # two resamples at once
    np.testing.assert_allclose(resampled_means(errors, 2000), means, rtol=1e-12)


def test_results_are_plain_json():
    result = {"logits": logits([THREE_PHASES, THREE_PHASES])}
    assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_frame_is_flat():
    (row,) = frame({"digits-f0": {"logits": logits([THREE_PHASES, THREE_PHASES])}})
    assert (row["run"], row["layer"], row["constant_until"]) == ("digits-f0", "logits", 2)
    assert {"fall_interval_low", "fall_interval_high", "rise_interval_samples_low"} <= set(row)
    assert all(value is None or isinstance(value, str | int | float) for value in row.values())


def test_table_fits_a_terminal():
    result = logits([THREE_PHASES, [2 * loss for loss in THREE_PHASES]])
    console = Console(width=100)
    with console.capture() as capture:
        console.print(table({"digits-resnet10": {"logits": result}, "digits-f0": {"softmax": result}}))
    lines = capture.get().splitlines()
    assert max(map(len, lines)) <= 100
    (line,) = [line for line in lines if "digits-resnet10" in line]
    assert " ".join(line.split()) == (
        "digits-resnet10 logits 2 8 20.0 [20.0, 20.0] 18.7 [18.7, 18.8] constant, fall, rise"
    )
