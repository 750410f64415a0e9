"""Closed forms of the reconstruction error: limits, extrema, decoders, and the published equations."""

import numpy as np
import pytest

from phasescope.theory.feature_strength import extrema, lines, reconstruction, tables

#: (l, k), also those at which differences are small or terms are large.
PAIRS = [(2, 2.0), (3, 2.0), (10, 1.01), (10, 2.0), (10, 5.0), (20, 3.0), (50, 2.0), (100, 10.0), (1000, 1.5)]


@pytest.mark.parametrize(("outputs", "strength"), PAIRS)
def test_limits(outputs, strength):
    square = (strength - 1) ** 2
    assert reconstruction.optimal(1e-9, outputs, strength) * outputs**2 / square == pytest.approx(0.25, rel=1e-9)
    assert reconstruction.optimal(60, outputs, strength) * outputs / square == pytest.approx(0.25, rel=1e-12)
    assert reconstruction.final(outputs, strength) * outputs / square == pytest.approx(0.25, rel=1e-12)
    assert reconstruction.paper(1e-9, outputs, strength) * outputs**2 / square == pytest.approx(0.5, rel=1e-9)
    assert reconstruction.paper(60, outputs, strength) * outputs / square == pytest.approx(0.5, rel=1e-12)
    attribute = np.r_[1, strength, np.zeros(2 * outputs - 2)]
    for form in (reconstruction.optimal, reconstruction.paper):
        assert form(0, outputs, strength) == pytest.approx(attribute.var(), rel=1e-12)


def test_a_thousandth_is_near_the_first_minimum_for_few_classes():
    for outputs, strength in [(3, 2), (10, 2), (10, 5), (20, 3), (50, 2)]:
        scaled = reconstruction.optimal(1e-3, outputs, strength) * outputs**2 / (strength - 1) ** 2
        assert scaled == pytest.approx(0.25, abs=1e-4)


@pytest.mark.parametrize("outputs", [3, 10, 50, 100, 1000])
def test_extrema_of_strength_two_are_known(outputs):
    bump, second = extrema.bump(outputs, 2.0), extrema.second_minimum(outputs, 2.0)
    assert bump == pytest.approx(np.log(outputs - 1) / 2, rel=1e-9)
    assert second == pytest.approx(np.log(outputs - 1), rel=1e-12)
    assert reconstruction.contrast(bump, outputs, 2.0) == pytest.approx(
        1 + outputs / (2 * np.sqrt(outputs - 1)), rel=1e-12
    )
    assert reconstruction.contrast(np.log(outputs - 1), outputs, 2.0) == pytest.approx(2, rel=1e-12)


@pytest.mark.parametrize(("outputs", "strength"), [pair for pair in PAIRS if pair[0] > 2])
def test_extrema_are_those_of_a_fine_grid(outputs, strength):
    gaps = np.linspace(1e-3, 20, 200_001)
    errors = reconstruction.optimal(gaps, outputs, strength)
    bump, second = extrema.bump(outputs, strength), extrema.second_minimum(outputs, strength)
    before = gaps < second
    assert gaps[before][errors[before].argmax()] == pytest.approx(bump, abs=2e-4)
    after = gaps > bump
    assert gaps[after][errors[after].argmin()] == pytest.approx(second, abs=2e-4)
    assert (np.diff(errors[gaps > second]) >= -1e-15).all()
    assert reconstruction.optimal(second, outputs, strength) == pytest.approx(
        reconstruction.floor(outputs, strength), rel=1e-12
    )
    regained = extrema.regained(outputs, strength, 0.9)
    assert reconstruction.optimal(regained, outputs, strength) == pytest.approx(
        0.9 * reconstruction.final(outputs, strength), rel=1e-9
    )
    leaving = extrema.leaving(outputs, strength)
    twice = 2 * reconstruction.floor(outputs, strength)
    assert np.isnan(leaving) == (reconstruction.optimal(bump, outputs, strength) < twice)
    if not np.isnan(leaving):
        assert reconstruction.optimal(leaving, outputs, strength) == pytest.approx(twice, rel=1e-9)


def test_with_two_classes_there_is_no_bump_and_no_second_minimum():
    assert np.isnan([extrema.bump(2, 3.0), extrema.second_minimum(2, 3.0), extrema.leaving(2, 3.0)]).all()
    assert (np.diff(reconstruction.optimal(np.linspace(0.01, 20, 1000), 2, 3.0)) > -1e-15).all()
    assert np.isnan(tables.shape([2], [3.0]).bump).all()


def test_the_table_of_the_shape():
    table = tables.shape()
    names = ("initial", "minimum", "bump", "bump_gap", "second_minimum_gap", "final")
    printed = {
        (2, 10): (2.275, 0.025, 0.0497, 1.10, 2.197, 0.25),
        (2, 100): (2.478, 0.0025, 0.2175, 2.30, 4.595, 0.25),
        (2, 1000): (2.498, 0.00025, 0.387, 3.45, 6.907, 0.25),
        (5, 10): (12.1, 0.40, 0.480, 0.54, 1.234, 4.0),
    }
    for (strength, outputs), numbers in printed.items():
        row = table.sel(strength=strength, outputs=outputs)
        for name, number in zip(names, numbers, strict=True):
            half = 0.5 * 10.0 ** -len(str(number).partition(".")[2])
            assert float(row[name]) == pytest.approx(number, abs=1.001 * half), (strength, outputs, name)


@pytest.mark.parametrize(("outputs", "strength"), PAIRS)
def test_closed_forms_are_the_errors_of_their_lines_in_the_four_groups(outputs, strength):
    gaps = np.r_[0, np.logspace(-3, 2, 300)]
    forms = [(lines.optimal_line, reconstruction.optimal), (lines.paper_line, reconstruction.paper)]
    for line, form in forms:
        errors = lines.group_errors(line(gaps, outputs, strength), gaps, outputs, strength)
        np.testing.assert_allclose(lines.error(errors, outputs), form(gaps, outputs, strength), rtol=1e-7, atol=1e-14)
    paper = lines.group_errors(lines.paper_line(gaps[1:], outputs, strength), gaps[1:], outputs, strength)
    np.testing.assert_allclose(paper.strong, 0, atol=1e-16)
    np.testing.assert_allclose(paper.strong_other, 0, atol=1e-16)


def test_equation_13_as_printed_is_more_than_twice_too_large():
    gaps = np.logspace(-3, 2, 300)
    for strength in (2, 5):
        errors = lines.group_errors(lines.paper_line(gaps, 10, strength), gaps, 10, strength)
        ratio = lines.printed_error(errors, 10) / lines.error(errors, 10)
        assert ratio.min() >= 2
        assert ratio.max() <= 2 + 1 / 9 + 1e-12


def test_equation_15_as_printed_is_no_better_than_zero():
    for outputs, strength in PAIRS:
        printed = lines.Line(np.asarray((1 + strength) / outputs), np.asarray(0.0))
        error = lines.error(lines.group_errors(printed, 0, outputs, strength), outputs)
        assert error == pytest.approx((1 + strength**2) / (2 * outputs), rel=1e-12)
