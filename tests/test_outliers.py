"""A checkpoint that does not go with its neighbours is flagged, and a steep curve is not."""

import numpy as np
import pytest
import xarray as xr
from rich.console import Console

import phasescope
from phasescope.outliers import outliers
from phasescope.params.phases import PhasesSettings
from phasescope.phases import frame, phases, table
from test_phases import THREE_PHASES, measures

STEPS = [0, *(2**power for power in range(11))]


def labelled(values):
    values = np.atleast_2d(values)
    return xr.DataArray(
        values, dims=("seed", "step"), coords={"seed": range(len(values)), "step": STEPS[: values.shape[1]]}
    )


def curves(seeds=3, steps=12, noise=0.02, seed=0):
    """Losses that fall steeply by a factor of 50, and norms that grow by a tenth, each seed in its own way."""
    rng = np.random.default_rng(seed)
    place = np.arange(steps)
    middle = rng.normal(6, 0.1, (seeds, 1))
    loss = -4 / (1 + np.exp(middle - place)) + rng.normal(0, 0.05, (seeds, 1)) + noise * rng.normal(size=(seeds, steps))
    norm = 0.1 / (1 + np.exp(middle - place)) + rng.normal(0, 1e-3, (seeds, 1)) + 1e-4 * rng.normal(size=(seeds, steps))
    return np.exp(loss), 18 * np.exp(norm)


def flagged(loss, norm):
    return [(outlier.seed, outlier.step) for outlier in outliers(labelled(loss), labelled(norm))]


@pytest.mark.parametrize("seeds", [1, 2, 3, 5])
def test_a_steep_fall_is_no_outlier(seeds):
    assert flagged(*curves(seeds)) == []


@pytest.mark.parametrize("step", range(12))
@pytest.mark.parametrize("quantity", [0, 1])
def test_a_deviation_from_the_other_seeds_is_found_anywhere(step, quantity):
    values = curves()
    values[quantity][1, step] *= [8, 1.1][quantity]
    assert flagged(*values) == [(1, STEPS[step])]


@pytest.mark.parametrize("seeds", [1, 2])
def test_with_too_few_seeds_to_compare_a_spike_beyond_both_neighbours_is_found(seeds):
    loss, norm = curves(seeds)
    loss[0, 3] *= 30
    assert flagged(loss, norm) == [(0, STEPS[3])]


def test_the_reason_names_the_quantity_and_its_surroundings():
    loss, norm = curves()
    loss[:, 4:7] = [1.5, 1.0, 0.5], [1.5, 12.0, 0.5], [1.5, 1.0, 0.5]
    (outlier,) = outliers(labelled(loss), labelled(norm))
    assert str(outlier) == (
        "seed 1, step 16: its loss of 12 is out of line, where its seed goes 1.5, 12, 0.5 around that step"
    )


def test_a_copy_of_another_checkpoint_is_found_with_its_original():
    loss, norm = curves(2)
    loss[1, 4], norm[1, 4] = loss[1, 5], norm[1, 5]
    first, second = outliers(labelled(loss), labelled(norm))
    assert str(first) == "seed 1, step 8: its loss and weight norm are exactly those of seed 1, step 16"
    assert str(second) == "seed 1, step 16: its loss and weight norm are exactly those of seed 1, step 8"


def test_what_is_not_finite_is_flagged_and_its_seed_left_out():
    loss, norm = curves(4)
    loss[2, -1], norm[3, 0] = np.nan, np.inf
    loss[0, 5] *= 8
    assert flagged(loss, norm) == [(0, 16), (2, 1024), (3, 0)]
    assert len(flagged(np.full((2, 3), np.nan), np.ones((2, 3)))) == 6


@pytest.mark.parametrize("steps", [1, 2])
def test_few_steps_bend_nowhere(steps):
    assert flagged(*(values[:, :steps] for values in curves())) == []


def test_a_loss_that_reaches_zero_is_no_outlier():
    loss, norm = curves(3, noise=0)
    loss[:, 8:] = [0, 1e-9, 0, 0]
    assert flagged(loss, norm) == []


@pytest.mark.parametrize(("seeds", "noise", "share"), [(1, 0.03, 0), (3, 0.03, 2e-3), (5, 0.03, 5e-4), (5, 0.1, 0)])
def test_noise_raises_next_to_no_alarm(seeds, noise, share):
    alarms = sum(len(flagged(*curves(seeds, noise=noise, seed=seed))) for seed in range(100))
    assert alarms <= share * 100 * 12 * seeds


def test_phases_tell_what_is_out_of_line():
    decode, probe = measures([THREE_PHASES] * 3)
    probe["weight_norm"][2, 3] *= 1.5
    result = phases(decode, probe, PhasesSettings(resamples=20))
    assert result["logits"]["outliers"].startswith("seed 2, step 4: its weight norm of ")
    assert frame({"a": result})[0]["outliers"] == result["logits"]["outliers"]
    assert told({"a": result}).startswith(
        "checkpoints out of line with their neighbours: a: seed 2, step 4: its weight norm"
    )


def test_a_run_in_line_is_told_so():
    result = phases(*measures([THREE_PHASES] * 3), PhasesSettings(resamples=20))
    assert result["logits"]["outliers"] == "none"
    assert told({"a": result, "b": result}) == "checkpoints out of line with their neighbours: none"


def told(results):
    """What stands below the table."""
    console = Console(width=100)
    with console.capture() as capture:
        console.print(table(results))
    text = " ".join(capture.get().split())
    return text[text.index("checkpoints") :]


def test_norm_and_loss_are_recorded_with_the_activations_and_reach_the_results(complete):
    run = phasescope.open_run(complete / "runs" / "small")
    for seed, step in [(0, 0), (1, 16)]:
        parameters = [weights.detach().numpy().ravel() for weights in run.model(seed, step).parameters()]
        expected = np.linalg.norm(np.concatenate(parameters).astype(np.float64))
        assert run.recorded["weight_norm"].sel(seed=seed, step=step).item() == pytest.approx(expected, rel=1e-12)
    probe = run.measure("probe")
    xr.testing.assert_equal(probe["weight_norm"], run.recorded["weight_norm"])
    loss = run.recorded["loss"].sel(part="test", drop=True)
    xr.testing.assert_equal(probe["network_loss"], loss.rename("network_loss"))
