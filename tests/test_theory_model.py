"""The parameters and samples of the feature-strength model, and what is refused."""

import numpy as np
import pytest

from phasescope.errors import UserError
from phasescope.theory.feature_strength import descent, leap, recursion
from phasescope.theory.feature_strength.model import FeatureStrength, samples
from phasescope.theory.feature_strength.sweep import sweep

GOOD = {"outputs": 10, "strength": 2.0, "inputs": 100, "learning_rate": 0.1}


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [
        ("outputs", 1, "a whole number of at least 2"),
        ("outputs", 2.5, "a whole number of at least 2"),
        ("outputs", np.inf, "a whole number of at least 2"),
        ("strength", 1.0, "a finite number above 1"),
        ("strength", np.nan, "a finite number above 1"),
        ("strength", np.inf, "a finite number above 1"),
        ("inputs", 105, "a multiple of outputs"),
        ("inputs", 0, "a multiple of outputs"),
        ("inputs", np.nan, "a multiple of outputs"),
        ("learning_rate", 0.0, "a finite number above 0"),
        ("learning_rate", -0.1, "a finite number above 0"),
        ("learning_rate", np.nan, "a finite number above 0"),
        ("learning_rate", np.inf, "a finite number above 0"),
    ],
)
@pytest.mark.parametrize("many", [False, True])
def test_a_value_that_is_not_allowed_is_named_on_one_line(field, value, allowed, many):
    given = [GOOD[field], value, GOOD[field]] if many else value
    with pytest.raises(UserError) as raised:
        FeatureStrength(**{**GOOD, field: given})
    shown = np.asarray(given).flat[1 if many else 0]
    assert str(raised.value) == f"theory: {field} is {shown}; it must be {allowed}"


@pytest.mark.parametrize("value", ["ten", None, True, [1, "two"]])
def test_what_is_no_number_is_refused(value):
    with pytest.raises(UserError, match=r"^theory: outputs is .*; give a number, or an array of numbers$"):
        FeatureStrength(**{**GOOD, "outputs": value})


def test_arrays_that_do_not_broadcast_are_refused():
    with pytest.raises(UserError, match=r"outputs \(2,\), .*learning_rate \(3,\) do not go together"):
        FeatureStrength([2, 5], 2.0, 10, [0.1, 0.2, 0.3])


def test_fields_broadcast():
    assert FeatureStrength(10, 2.0, 100, 0.1).shape == ()
    assert FeatureStrength([[2], [5]], 2.0, 10, [0.1, 0.2, 0.3]).shape == (2, 3)


@pytest.mark.parametrize("steps", [[], [-1, 2], [0, 2, 2], [4, 1], [0.5, 1.0], 3])
def test_steps_must_be_whole_and_increase(steps):
    model = FeatureStrength(**GOOD)
    for gaps in (recursion.gaps, leap.gaps):
        with pytest.raises(UserError, match=r"^theory: steps are .*; give whole numbers, increasing, none below 0$"):
            gaps(model, steps)


def test_what_takes_one_parameter_set_or_one_dimension_of_them_says_so():
    with pytest.raises(UserError, match=r"one parameter set, this model has \(2,\) of them"):
        descent.start(FeatureStrength([2, 5], 2.0, 10, 0.1))
    with pytest.raises(UserError, match="a sweep takes one dimension"):
        sweep(FeatureStrength([[2, 5]], 2.0, 10, 0.1), [0, 1])
    with pytest.raises(UserError, match="the first step is 1; phases are told against step 0"):
        sweep(FeatureStrength(**GOOD), [1, 2])


def test_samples_are_the_weak_and_the_strong_one_of_each_class_on_its_own_block():
    found = samples(FeatureStrength(3, 2.5, 6, 0.1))
    block = np.kron(np.eye(3), [1.0, 1.0])
    np.testing.assert_array_equal(found.inputs, np.vstack([block, 2.5 * block]))
    assert found.label.tolist() == [0, 1, 2, 0, 1, 2]
    assert found.strength.tolist() == [1, 1, 1, 2.5, 2.5, 2.5]


def test_small_integers_do_not_overflow():
    small = FeatureStrength(np.uint8(200), np.uint8(3), np.uint8(200), 0.1)
    large = FeatureStrength(200, 3, 200, 0.1)
    np.testing.assert_array_equal(recursion.gaps(small, [0, 1, 8]), recursion.gaps(large, [0, 1, 8]))
