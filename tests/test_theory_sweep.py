"""Many parameter sets at once: the numbers of the plain recursion, and the phases of known curves."""

import numpy as np
import pytest

from phasescope.schedule import checkpoint_steps
from phasescope.theory.feature_strength import reconstruction, recursion, statements
from phasescope.theory.feature_strength.model import FeatureStrength
from phasescope.theory.feature_strength.sweep import sweep


def drawn(count):
    rng = np.random.default_rng(0)
    outputs = rng.choice([2, 3, 10, 30, 100, 1000], count)
    return FeatureStrength(outputs, rng.uniform(1.5, 10, count), 10 * outputs, 10 ** rng.uniform(-5, 1, count))


def test_ten_thousand_sets_are_those_of_the_plain_recursion():
    model, steps = drawn(10_000), checkpoint_steps(2**14)
    found = sweep(model, steps)
    assert dict(found.sizes) == {"set": 10_000, "step": len(steps)}
    some = np.random.default_rng(1).choice(10_000, 50, replace=False)
    fields = {name: values[some] for name, values in vars(model).items()}
    gap = recursion.gaps(FeatureStrength(**fields), steps)
    np.testing.assert_allclose(found.gap.values[some], gap, rtol=1e-11)
    expected = reconstruction.optimal(gap, fields["outputs"][:, None], fields["strength"][:, None])
    np.testing.assert_allclose(found.error.values[some], expected, rtol=1e-9)


def test_every_set_falls_below_its_start_and_ends_below_it():
    found = sweep(drawn(1000), checkpoint_steps(2**40))
    assert found.fall.all()
    assert not found.constant.any()
    assert (found.end_ratio < 1).all()
    ends = reconstruction.final(found.outputs.values, found.strength.values)
    np.testing.assert_allclose(found.error[:, -1], ends, rtol=0.02)


def test_a_set_that_jumps_over_its_minimum_does_not_rise():
    # First steps of 0.15, 1.5 and 7.5 against ln((l − 1)/(k − 1)) = 2.2.
    found = sweep(FeatureStrength(10, 2.0, 1000, [0.01, 0.1, 0.5]), checkpoint_steps(2**12))
    assert found.rise.values.tolist() == [True, True, False]
    assert (1e4 * found.error[0, :9]).values == pytest.approx(
        [2275, 26.2, 29.4, 38.5, 49.5, 36.2, 27.6, 75, 145], abs=0.5
    )
    assert (1e4 * found.error[1, :5]).values == pytest.approx([2275, 42.7, 25.0, 51.9, 113], abs=0.5)


def test_with_noise_there_are_three_phases():
    found = sweep(FeatureStrength(10, 2.0, 1000, 1e-4), checkpoint_steps(2**20), noise=0.01).isel(set=0)
    assert found.constant
    assert found.fall
    assert found.rise
    assert int(found.constant_until) == 32  # 2158 is within a tenth of 2275 − 35, 1849 is not
    assert int(found.minimum_at) == 2048
    assert float(found.fall_share) == pytest.approx(1 - 35.3 / 2275, abs=1e-4)
    assert float(found.end_ratio) == pytest.approx(0.110, abs=2e-3)


def test_the_first_minimum_is_at_step_one_when_steps_are_small():
    model = drawn(200)
    found = sweep(model, checkpoint_steps(8))
    small = statements.plateau_end(model) >= 8
    twice = 2 * reconstruction.floor(model.outputs, model.strength)
    assert small.sum() > 50
    assert (found.error[small, 1:].max("step") <= twice[small]).all()
