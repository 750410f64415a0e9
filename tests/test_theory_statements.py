"""Corollary 4 and Theorem 5 in the form that is true, held against exact numbers."""

import numpy as np
import pytest

from phasescope.theory.feature_strength import lines, reconstruction, recursion, statements
from phasescope.theory.feature_strength.model import FeatureStrength

OUTPUTS = np.array([2, 3, 5, 10, 20, 30, 50, 100, 1000, 10_000.0])[:, None, None]
STRENGTHS = np.array([1.001, 1.1, 1.3, 1.5, 2, 3, 5, 6, 10, 100.0])[:, None]
GAPS = np.logspace(-4, 2, 2001)


def test_corollary_4_at_the_start():
    low, high = statements.start(OUTPUTS, STRENGTHS)
    initial = reconstruction.initial(OUTPUTS, STRENGTHS)
    assert (low <= initial).all()
    assert (initial < high).all()
    assert (initial >= STRENGTHS**2 / (4 * OUTPUTS)).all()


def test_the_central_inequality():
    low, high = statements.universal(GAPS, OUTPUTS, STRENGTHS)
    found = reconstruction.optimal(GAPS, OUTPUTS, STRENGTHS)
    assert (found >= low).all()
    assert (found <= high * (1 + 1e-12)).all()


@pytest.mark.parametrize("growth", [1.5, 2.0, 10.0])
@pytest.mark.parametrize("outputs", [3, 10, 100])
def test_corollary_4_on_its_interval(outputs, growth):
    model = FeatureStrength(outputs, [2.0, 3.0, 5.0], outputs, 0.02)
    last = statements.early_end(model, growth).astype(int)
    gap = recursion.gaps(model, np.arange(1, last.max() + 1))
    bounds = statements.early(outputs, model.strength, growth)
    for each in range(3):
        reached = gap[each, : last[each]]
        assert recursion.own_sum(reached[-1], outputs) <= growth / outputs
        errors = reconstruction.optimal(reached, outputs, model.strength[each])
        assert bounds.low[each] <= errors.min()
        assert errors.max() <= bounds.high[each]


def test_corollary_4_says_nothing_at_large_learning_rates():
    # λ d (k + 1) ≤ 2 l (c_f − 1) is where its interval begins to hold step 1.
    assert statements.early_end(FeatureStrength(10, 3.0, 10, 0.5)) == 1
    assert statements.early_end(FeatureStrength(10, 3.0, 10, 0.51)) == 0


@pytest.mark.parametrize("outputs", [10, 100])
def test_the_first_minimum_lasts_longer_than_corollary_4_says(outputs):
    model = FeatureStrength(outputs, 2.0, outputs, 0.01)
    last = int(statements.plateau_end(model))
    assert last > statements.early_end(model)
    errors = reconstruction.optimal(recursion.gaps(model, np.arange(1, last + 1)), outputs, 2.0)
    assert errors.max() <= 2 * reconstruction.floor(outputs, 2.0)


def test_corollary_4_at_the_end():
    strength = np.array([2, 3, 10, 1000.0])
    bounds = statements.end(OUTPUTS[..., 0], strength)
    np.testing.assert_allclose(reconstruction.optimal(100, OUTPUTS[..., 0], strength), bounds.low, rtol=1e-9)
    assert (bounds.low >= strength**2 / (16 * OUTPUTS[..., 0])).all()
    end_ratio = reconstruction.final(OUTPUTS, STRENGTHS) / reconstruction.initial(OUTPUTS, STRENGTHS)
    assert (end_ratio < OUTPUTS / (2 * OUTPUTS - 1)).all()


def test_orders_of_corollary_4_over_many_classes():
    outputs = np.logspace(1, 4, 20)
    at_start = np.polyfit(np.log(outputs), np.log(reconstruction.initial(outputs, 2.0)), 1)[0]
    assert at_start == pytest.approx(-1, abs=0.02)
    # While own weights add up to no more than 2/l, that is up to Δ = 1/(l − 1).
    highest = [one**2 * reconstruction.optimal(1 / (one - 1), one, 2.0) for one in (10, 100, 1000)]
    assert highest == pytest.approx([0.257, 0.251, 0.250], abs=6e-4)


def test_theorem_5_as_a_ratio():
    ratio = reconstruction.paper(GAPS, OUTPUTS, STRENGTHS) / reconstruction.optimal(GAPS, OUTPUTS, STRENGTHS)
    low, high = statements.theorem_ratio()
    assert (ratio > low).all()
    assert (ratio <= high * (1 + 1e-12)).all()
    assert ratio.max() == pytest.approx(2)


def test_theorem_5_as_a_distance():
    line, best = lines.paper_line(GAPS, OUTPUTS, STRENGTHS), lines.optimal_line(GAPS, OUTPUTS, STRENGTHS)
    given = recursion.probabilities(GAPS, OUTPUTS, STRENGTHS)
    largest = np.max([np.abs(line(one) - best(one)) for one in given], axis=(0, 1, 3))
    limit = statements.theorem_distance(STRENGTHS[:, 0])
    assert (largest <= limit * (1 + 1e-9)).all()
    # No smaller number would do; close to k = 1 that takes still more classes.
    np.testing.assert_allclose(largest[2:], limit[2:], rtol=2e-3)
    assert statements.theorem_distance([5.0, 6.0, 10.0]).tolist() == [2, 2.5, 4.5]
