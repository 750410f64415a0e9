"""The stage `theory` and the command: they give what the library gives, and refuse what is outside of the model."""

import shutil
import subprocess
import sys

import numpy as np
import pytest
import xarray as xr
from typer.testing import CliRunner

from conftest import BARE, ROOT
from phasescope.cli import app
from phasescope.errors import UserError
from phasescope.params.settings import read, shares
from phasescope.params.theory import FeatureStrengthSettings, LinearNetworkSettings
from phasescope.schedule import checkpoint_steps
from phasescope.solve import feature_strength, linear_network
from phasescope.store.commit import write_file
from phasescope.store.manifest import canonical
from phasescope.store.run import read_theory
from phasescope.theory.feature_strength import extrema, lines, reconstruction, recursion, regimes, statements, tables
from phasescope.theory.feature_strength.model import FeatureStrength

#: A small map, for it is most of the work.
FEW = {"map_points": 8}


@pytest.fixture(scope="module")
def solved() -> xr.Dataset:
    return feature_strength(FeatureStrengthSettings(**FEW))


# --- the stage


@pytest.fixture
def project(tmp_path, params):
    shutil.copytree(ROOT / "stages", tmp_path / "stages", ignore=shutil.ignore_patterns("__pycache__"))
    section = """theory:
  feature_strength: {outputs: 4, inputs: 12, learning_rates: [0.5], iterations: 64, map_points: 8}
  linear_network: {width: 20, iterations: 8, map_points: 3}
"""
    for name, content in shares(read(params(f"{BARE}{section}\n"))).items():
        write_file(tmp_path / "configs" / name, canonical(content).encode())
    return tmp_path


def test_the_stage_keeps_what_the_library_gives(project, monkeypatch):
    command = [sys.executable, "stages/theory.py"]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    chosen = FeatureStrengthSettings(outputs=4, inputs=12, learning_rates=[0.5], iterations=64, map_points=8)
    expected = {
        "feature-strength": feature_strength(chosen),
        "linear-network": linear_network(LinearNetworkSettings(width=20, iterations=8, map_points=3)),
    }
    target = project / "theory"
    for model, wanted in expected.items():
        kept = read_theory(target / model).load()
        xr.testing.assert_equal(kept, wanted)
        assert kept.attrs == wanted.attrs
        # Any other reader opens it too, and finds what everything is.
        plain = xr.open_zarr(target / model / "arrays.zarr", chunks=None).load()
        xr.testing.assert_equal(plain, wanted)
        for name, variable in plain.variables.items():
            assert variable.attrs["long_name"], name
            assert variable.attrs["units"] in ("1", "iterations", "1/iterations"), name
    # The same bytes again, and `verify` knows it.
    before = [(target / model / "manifest.json").read_bytes() for model in expected]
    shutil.rmtree(target)
    subprocess.run(command, cwd=project, check=True)
    assert [(target / model / "manifest.json").read_bytes() for model in expected] == before
    monkeypatch.chdir(project)
    told = CliRunner().invoke(app, ["verify", "--full", "theory"])
    assert (told.exit_code, "all well in 2 directories" in told.stdout) == (0, True)


# --- its numbers


def test_errors_over_steps_are_those_of_the_plain_recursion(solved):
    rates, steps = FeatureStrengthSettings().learning_rates, checkpoint_steps(65536)
    few = steps[:12]
    gap = recursion.gaps(FeatureStrength(10, 2.0, 1000, rates), few)
    np.testing.assert_allclose(solved.gap.sel(step=few), gap, rtol=1e-12)
    for noise in (0.0, 0.01):
        expected = reconstruction.optimal(gap, 10, 2.0, noise)
        np.testing.assert_allclose(solved.error.sel(noise=noise, step=few), expected, rtol=1e-12)
    assert solved.step.values.tolist() == steps
    assert solved.learning_rate.values.tolist() == rates


def test_phases_come_with_noise_and_go_with_the_learning_rate(solved):
    """As in docs/theory.md: without noise there is no constant phase, a leap over everything leaves no rise."""
    assert not solved.constant.sel(noise=0.0).any()
    first = solved.sel(noise=0.01, learning_rate=0.0001)
    assert (bool(first.constant), bool(first.fall), bool(first.rise)) == (True, True, True)
    assert (int(first.constant_until), int(first.minimum_at)) == (32, 2048)
    leap = solved.sel(learning_rate=0.5)
    assert leap.fall.all()
    assert not (leap.constant | leap.rise).any()
    alone = feature_strength(FeatureStrengthSettings(noise=0.0, **FEW))
    assert alone.noise.values.tolist() == [0.0]


@pytest.mark.parametrize(("outputs", "strength"), [(10, 2.0), (100, 5.0), (3, 5.0), (10, 100.0)])
def test_the_stages_of_figure_5(outputs, strength):
    found = feature_strength(FeatureStrengthSettings(outputs=outputs, strength=strength, inputs=outputs, **FEW))
    gaps = found.stage_gap.values
    assert (np.diff(gaps) > 0).all()
    floor, final = (what(outputs, strength) for what in (reconstruction.floor, reconstruction.final))
    best = found.stage_error.sel(decoder="optimal").values
    assert best[0] == reconstruction.initial(outputs, strength)
    assert floor < best[1] <= statements.early(outputs, strength).high
    assert best[2] == reconstruction.optimal(gaps[2], outputs, strength)
    np.testing.assert_allclose(best[3:], [floor, 0.9 * final], rtol=1e-9)
    # Both lines, held to the errors of the four groups.
    for decoder, make in (("optimal", lines.optimal_line), ("paper", lines.paper_line)):
        here = found.sel(decoder=decoder)
        missed = here.intercept + here.slope * here.probability - here.target
        shares = xr.DataArray([1, 1, outputs - 1, outputs - 1], dims="group") / (2 * outputs)
        np.testing.assert_allclose((missed**2 * shares).sum("group"), here.stage_error, rtol=1e-7)
        np.testing.assert_array_equal(here.slope, make(gaps, outputs, strength).slope)
    # g_j goes through (p_k, 0) and (q_k, k).
    through = found.sel(decoder="paper", group=["strong", "strong_other"]).isel(stage=slice(1, None))
    np.testing.assert_allclose(through.intercept + through.slope * through.probability, [[strength, 0]] * 4, atol=1e-9)


def test_two_classes_have_neither_bump_nor_second_minimum():
    found = feature_strength(FeatureStrengthSettings(outputs=2, **FEW))
    there = {name: bool(np.isfinite(found.stage_gap.sel(stage=name))) for name in found.stage.values}
    assert [name for name, is_there in there.items() if not is_there] == ["bump", "second-minimum"]
    assert found.probability.notnull().all("group").values.tolist() == list(there.values())


def test_curves_tables_and_scaling_are_those_of_the_closed_forms(solved):
    gap = solved.curve_gap.values
    for k in (2.0, 3.0, 5.0):
        for classes in (10, 100, 1000):
            here = solved.curve_error.sel(strength=k, outputs=classes)
            np.testing.assert_array_equal(here.sel(decoder="optimal"), reconstruction.optimal(gap, classes, k))
            np.testing.assert_array_equal(here.sel(decoder="paper"), reconstruction.paper(gap, classes, k))
            assert gap[-1] > extrema.second_minimum(classes, k)
    for prefix, table in (("shape", tables.shape()), ("times", tables.times())):
        for name, values in table.items():
            np.testing.assert_array_equal(solved[f"{prefix}_{name}"], values)
    classes, k = solved.map_outputs.values, solved.strength.values[:, None]
    assert (classes[0], classes[-1]) == (3, 1000)
    np.testing.assert_allclose(solved.scaling_initial, reconstruction.initial(classes, k), rtol=1e-12)
    np.testing.assert_allclose(solved.scaling_minimum, reconstruction.floor(classes, k), rtol=1e-12)
    np.testing.assert_allclose(solved.scaling_final, reconstruction.final(classes, k), rtol=1e-12)
    np.testing.assert_allclose(
        solved.scaling_bump, reconstruction.optimal(extrema.bump(classes, k), classes, k), rtol=1e-12
    )


def test_the_model_itself_is_among_what_it_is_compared_with():
    found = feature_strength(FeatureStrengthSettings(outputs=7, strength=2.5, inputs=14, **FEW))
    assert found.outputs.values.tolist() == [7, 10, 100, 1000]
    assert found.strength.values.tolist() == [2.0, 2.5, 3.0, 5.0]
    assert (found.attrs["outputs"], found.attrs["strength"], found.attrs["inputs"]) == (7, 2.5, 14)


# --- regimes


def test_a_point_of_the_map_is_that_parameter_set():
    steps = checkpoint_steps(1024)
    found = regimes.regimes([10, 100], [2.0, 5.0], [1.0, 10.0, 1000.0], steps, (0.0, 0.01))
    for k in (2.0, 5.0):
        for classes in (10, 100):
            for rate in (1.0, 10.0, 1000.0):
                cell = found.sel(strength=k, map_outputs=classes, map_rate=rate)
                for noise in (0.0, 0.01):
                    gap = recursion.gaps(FeatureStrength(classes, k, 10 * classes, rate / (10 * classes)), steps)
                    error = reconstruction.optimal(gap, classes, k, noise)
                    start = error[0]
                    assert bool(cell.map_fall.sel(noise=noise)) == (start - error.min() > 0.02 * start)
                    assert bool(cell.map_rise.sel(noise=noise)) == (error[-1] - error.min() > 0.02 * start)
                    if noise == 0:
                        assert bool(cell.map_resolved) == (error[1] <= 2 * reconstruction.floor(classes, k))


def test_regimes_change_at_the_boundaries():
    """Below each λ d and above it, far enough for what the laws leave out: the last rise is gone five times above."""
    classes, k, steps = 1000, 3.0, checkpoint_steps(2**62)
    edges = {name: float(value) for name, value in regimes.boundaries(classes, k, 4096).items()}
    assert list(edges) == ["corollary_rate", "resolved_rate", "rise_rate", "time_rate"]

    def at(rate, last=steps):
        return regimes.regimes([classes], [k], [rate], last).isel(strength=0, map_outputs=0, map_rate=0)

    assert at(0.9 * edges["resolved_rate"]).map_resolved
    assert not at(1.1 * edges["resolved_rate"]).map_resolved
    # A first step to the second minimum, where R is as low again, is not near the first one.
    assert not at(2 * classes**2 / (k + 1) * float(extrema.second_minimum(classes, k))).map_resolved
    # R rises, in the end, after every second minimum that was not leapt over.
    assert at(0.9 * edges["rise_rate"]).map_rise
    assert not at(5 * edges["rise_rate"]).map_rise
    # At the boundary the last step is at the second minimum.
    gap = recursion.gaps(FeatureStrength(classes, k, classes, edges["time_rate"] / classes), [4096])
    assert float(gap[0]) == pytest.approx(float(extrema.second_minimum(classes, k)), rel=1e-3)
    # Corollary 4's interval [1, …] is empty above.
    for share, last in ((0.99, 1), (1.01, 0)):
        model = FeatureStrength(classes, k, classes, share * edges["corollary_rate"] / classes)
        assert int(statements.early_end(model)) == last


def test_where_no_second_minimum_can_be_leapt_over_there_is_no_boundary():
    found = regimes.boundaries(np.array([2, 3, 10]), 5.0, 1024)
    assert np.isnan(found["rise_rate"]).tolist() == [True, True, False]
    assert np.isnan(found["time_rate"]).tolist() == [True, False, False]


# --- mistakes


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ("width: 0", "width: expected a number of at least 1, got 0"),
        (
            "activations: [tanh]",
            "activations[0]: unknown value 'tanh'; known: linear, relu, leaky-relu, swish, sigmoid",
        ),
        ("activations: [relu, relu]", "activations: relu is listed twice; got ['relu', 'relu']"),
        ("learning_rate: 0", "learning_rate: expected a number above 0, got 0"),
        ("small: 11", "small: expected a number of at most 10, got 11"),
        ("alignment: 1.1", "alignment: expected a number of at most 1, got 1.1"),
        ("widths: [100]", "widths: expected 2 or more entries, got [100]"),
        ("widths: [100, 1.5]", "widths[1]: expected a whole number, got 1.5"),
        ("map_points: 1", "map_points: expected a number of at least 2, got 1"),
        ("tolerance: 0", "tolerance: expected a number above 0, got 0"),
        ("d: 2", "d: unknown key 'd'; known: " + ", ".join(sorted(LinearNetworkSettings.model_fields))),
    ],
)
def test_a_mistake_in_the_linear_network_is_told_in_one_line_with_its_place(params, given, line):
    assert mistake(params, "linear_network", given) == line


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ("strength: 1", "strength: expected a number above 1, got 1"),
        ("outputs: 1", "outputs: expected a number of at least 2, got 1"),
        ("outputs: 2.5", "outputs: expected a whole number, got 2.5"),
        ("inputs: 15", "inputs: expected a multiple of outputs, which is 10, such as 10; got 15"),
        ("outputs: 30", "inputs: expected a multiple of outputs, which is 30, such as 990; got 1000"),
        ("outputs: 2000", "inputs: expected a multiple of outputs, which is 2000, such as 2000; got 1000"),
        ("learning_rates: [0.1, 0]", "learning_rates[1]: expected a number above 0, got 0"),
        ("learning_rates: [-1]", "learning_rates[0]: expected a number above 0, got -1"),
        ("learning_rates: 0.1", "learning_rates: expected a list, got 0.1"),
        ("learning_rates: [0.1, 0.1]", "learning_rates: 0.1 is listed twice; got [0.1, 0.1]"),
        ("noise: -0.1", "noise: expected a number of at least 0, got -0.1"),
        ("noise: 1e-200", "noise: expected 0, or 1e-100 and more; got 1e-200"),
        ("map_rates: [2, 1]", "map_rates: expected the lower end, then the higher one; got [2, 1]"),
        ("map_outputs: [2]", "map_outputs: expected 2 or more entries, got [2]"),
        (
            "stages: [bumb]",
            "stages[0]: unknown value 'bumb'; did you mean 'bump'? "
            "known: initial, first-minimum, bump, second-minimum, end",
        ),
        ("k: 2", "k: unknown key 'k'; known: " + ", ".join(sorted(FeatureStrengthSettings.model_fields))),
    ],
)
def test_a_mistake_is_told_in_one_line_with_its_place(params, given, line):
    assert mistake(params, "feature_strength", given) == line


def mistake(params, model: str, given: str) -> str:
    """What is said of settings of a model, behind its place."""
    path = params(f"{BARE}theory: {{{model}: {{{given}}}}}\n")
    with pytest.raises(UserError) as caught:
        read(path)
    return str(caught.value).removeprefix(f"{path}: theory.{model}.")


# --- the command

#: docs/theory.md: l times R, and gaps.
SHAPE = """
2 10   2.275 0.025   0.0497 1.10 2.197 0.25
2 100  2.478 0.0025  0.2175 2.30 4.595 0.25
2 1000 2.498 0.00025 0.387  3.45 6.907 0.25
5 10   12.1  0.40    0.480  0.54 1.234 4.0
"""
#: docs/theory.md: λ d t; – for never.
TIMES = """
2 10   6.7  –      87.4   270    5.7e3
2 100  66.7 1.07e3 1.73e4 6.77e4 6.8e5
2 1000 667  3.33e4 2.50e6 1.03e7 7.3e7
3 100  50   782    1.01e4 5.64e4 5.0e5
5 10   3.3  –      23.9   122    3.3e3
5 100  33.3 541    4.77e3 4.78e4 4.0e5
"""


def rows(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines() if line.strip()[:1].isdigit()]


def agree(printed: str, expected: str) -> bool:
    """Whether a printed number is the expected one, to half of the expected one's last digit."""
    if "–" in (printed, expected):
        return printed == expected
    mantissa, _, exponent = expected.partition("e")
    last = 10.0 ** (int(exponent or 0) - len(mantissa.partition(".")[2]))
    return abs(float(printed) - float(expected)) <= 0.501 * last


def test_the_command_prints_the_tables():
    told = CliRunner().invoke(app, ["theory"])
    assert told.exit_code == 0
    assert max(map(len, told.stdout.splitlines())) <= 80
    found = rows(told.stdout)
    assert len(found) == 18
    for printed, expected in ((found[:9], SHAPE), (found[9:], TIMES)):
        by_set = {tuple(row[:2]): row[2:] for row in printed}
        for k, classes, *numbers in rows(expected):
            assert all(map(agree, by_set[k, classes], numbers)), (k, classes)
            assert len(by_set[k, classes]) == len(numbers)


def test_the_command_takes_other_parameters():
    told = CliRunner().invoke(app, ["theory", "--outputs", "2,20", "--strengths", "1.5"])
    first, second, *times = rows(told.stdout)
    assert (first[:2], second[:2], len(times)) == (["1.5", "2"], ["1.5", "20"], 2)
    assert first[4:7] == ["–", "–", "–"]  # with two classes there is no bump
    assert float(second[6]) == pytest.approx(float(extrema.second_minimum(20, 1.5)), rel=1e-3)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--outputs", "1"], "theory: outputs is 1.0; it must be a whole number of at least 2"),
        (["--outputs", "10,2.5"], "theory: outputs is 2.5; it must be a whole number of at least 2"),
        (["--strengths", "1"], "theory: strength is 1.0; it must be a finite number above 1"),
        (["--strengths", "nan"], "theory: strength is nan; it must be a finite number above 1"),
        (["--outputs", "ten"], "--outputs: 'ten' is no list of numbers; give such as --outputs 10,100"),
        (["--outputs", "10,1e300"], "--outputs: 1e+300 is above 1e+06, and no more is computed; give less"),
        (["--strengths", "inf"], "--strengths: inf is above 100, and no more is computed; give less"),
        (["--strengths", ""], "--strengths: '' is no list of numbers; give such as --strengths 2,3"),
    ],
)
def test_the_command_refuses_what_is_outside_of_the_model(arguments, line):
    told = CliRunner().invoke(app, ["theory", *arguments])
    assert (told.exit_code, told.stderr, told.stdout) == (1, f"{line}\n", "")
