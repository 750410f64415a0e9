"""When the gap is reached: the flow, the recursion, and leaps over many of its steps."""

import numpy as np
import pytest
from scipy.integrate import quad

from phasescope.theory.feature_strength import clock, extrema, leap, reconstruction, recursion, tables
from phasescope.theory.feature_strength.model import FeatureStrength


def test_the_table_of_the_clock():
    table = tables.times(strengths=(2, 3, 5))
    names = ("corollary", "leaving", "bump", "second_minimum", "regained")
    printed = {
        (2, 10): "6.7 nan 87.4 270 5.7e3",
        (2, 100): "66.7 1.07e3 1.73e4 6.77e4 6.8e5",
        (2, 1000): "667 3.33e4 2.50e6 1.03e7 7.3e7",
        (3, 100): "50 782 1.01e4 5.64e4 5.0e5",
        (5, 10): "3.3 nan 23.9 122 3.3e3",
        (5, 100): "33.3 541 4.77e3 4.78e4 4.0e5",
    }
    for (strength, outputs), row in printed.items():
        for name, number in zip(names, row.split(), strict=True):
            digits = len(number.partition("e")[0].replace(".", ""))
            found = float(table[name].sel(strength=strength, outputs=outputs))
            expected = float(number)
            assert float(f"{found:.{digits - 1}e}") == pytest.approx(expected, nan_ok=True), (strength, outputs, name)


@pytest.mark.parametrize(("outputs", "strength"), [(2, 1.01), (10, 2.0), (100, 10.0), (1000, 3.0)])
@pytest.mark.parametrize("gap", [1e-6, 0.3, 5.0, 25.0])
def test_the_integral_is_that_of_an_adaptive_rule(outputs, strength, gap):
    def slowness(at):
        return 1 / recursion.rate(at, outputs, strength)

    expected = 2 * outputs * (outputs - 1) * quad(slowness, 0, gap, epsabs=0, epsrel=1e-12, limit=500)[0]
    assert clock.time(gap, outputs, strength) == pytest.approx(expected, rel=1e-11)


def test_the_recursion_keeps_time_when_its_steps_are_small():
    model = FeatureStrength(10, 2.0, 10, 0.01)
    gap = recursion.gaps(model, [1, 1000, 30_000])
    np.testing.assert_allclose(clock.time(gap, 10, 2.0), 0.1 * np.array([1, 1000, 30_000]), rtol=1e-3)


@pytest.mark.parametrize("strength", [2.0, 5.0])
def test_laws_for_many_classes(strength):
    outputs, root = 1e5, np.sqrt(2 * (1 + strength**2))
    assert extrema.leaving(outputs, strength) == pytest.approx(root / (strength * np.sqrt(outputs)), rel=0.05)
    expected = 2 * outputs**1.5 * root / (strength * (strength + 1))
    assert clock.milestones(outputs, strength).leaving == pytest.approx(expected, rel=0.05)
    late = np.array([25.0, 30.0])
    excess = reconstruction.contrast(late, outputs, strength) - 1
    np.testing.assert_allclose(excess * clock.time(late, outputs, strength), 2 * outputs**2, rtol=1e-3)


@pytest.mark.parametrize("speed", [1e-4, 1e-3, 1e-2, 0.1, 1.0, 100.0])
def test_leaps_end_where_the_plain_recursion_does(speed):
    # `speed` is c k², the largest |h'| there can be; around 0.01 it has not yet passed when leaps begin.
    rng = np.random.default_rng(0)
    outputs = np.floor(10 ** rng.uniform(0.31, 4, 100))
    strength = 10 ** rng.uniform(0.01, 2, 100)
    model = FeatureStrength(outputs, strength, outputs, 2 * (outputs - 1) * speed / strength**2)
    steps = [0, 1, 700, 1024, 1025, 1100, 2048, 4096]
    plain, fast = recursion.gaps(model, steps), leap.gaps(model, steps)
    np.testing.assert_array_equal(fast[:, :4], plain[:, :4])
    np.testing.assert_allclose(fast, plain, rtol=1e-11)


def test_leaps_reach_far_and_keep_the_shape_of_the_parameter_sets():
    model = FeatureStrength([[10], [100]], [2.0, 3.0, 5.0], 1000, 1e-6)
    gap = leap.gaps(model, [0, 2**40, 2**60])
    assert gap.shape == (2, 3, 3)
    elapsed = clock.time(gap, np.array([10, 100])[:, None, None], np.array([2.0, 3.0, 5.0])[:, None])
    np.testing.assert_allclose(
        elapsed[..., 1:], np.broadcast_to(1e-3 * np.array([2.0**40, 2.0**60]), (2, 3, 2)), rtol=1e-6
    )
    assert leap.gaps(FeatureStrength(10, 2.0, 1000, 1e-6), [0, 2**40]).tolist() == gap[0, 0, :2].tolist()


def test_a_learning_rate_that_saturates_at_once_stays_there():
    model = FeatureStrength([10, 10], 2.0, 10, [1e3, 1e8])
    gap = leap.gaps(model, [1, 2**20])
    np.testing.assert_array_equal(gap[1], recursion.gaps(model, [1])[1, 0])
    assert np.isfinite(gap).all()
