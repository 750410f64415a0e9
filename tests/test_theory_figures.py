"""Figures of the theory: their numbers are the library's, and the same input gives the same bytes."""

import numpy as np
import pytest
from xarray import DataArray

from drawn import drawn_twice
from phasescope.figures.drawing import save
from phasescope.figures.theory import draw
from phasescope.params.figures import FiguresSettings, SolvedRun
from phasescope.params.settings import read, shares
from phasescope.params.theory import FeatureStrengthSettings
from phasescope.solve import feature_strength
from phasescope.theory.feature_strength import reconstruction, recursion, regimes, sweep
from phasescope.theory.feature_strength.model import FeatureStrength, samples

NAMES = ["figure-3", "figure-5", "curve", "phases", "regimes", "scaling", "runs"]
#: A small map; and two classes, where there is no bump, without the curves with noise.
SETTINGS = FeatureStrengthSettings(map_points=12)
FEW = FeatureStrengthSettings(
    outputs=2, inputs=2, noise=0, compared_outputs=[3], compared_strengths=[1.5], map_points=4
)

#: A run of two seeds that are 1 % beside the theory.
MODELS = {"trained": SolvedRun(outputs=10, strength=2.0, inputs=100, learning_rate=0.05)}
STEPS = [0, 1, 2, 4, 8, 16]
EXACT = reconstruction.optimal(recursion.gaps(FeatureStrength(10, 2.0, 100, 0.05), STEPS), 10, 2.0)
RUNS = {"trained": DataArray([0.99 * EXACT, 1.01 * EXACT], {"seed": [0, 1], "step": STEPS}, ("seed", "step"))}


@pytest.fixture(scope="module")
def solved():
    return feature_strength(SETTINGS)


@pytest.fixture(scope="module")
def drawings(solved):
    return {drawing.name.removeprefix("theory-"): drawing for drawing in draw(solved, RUNS, MODELS)}


def values(rows, key="value", **wanted):
    return np.array([row[key] for row in rows if all(row.get(name) == value for name, value in wanted.items())])


def test_each_figure_is_drawn_once_and_the_same_bytes_twice(solved, drawings, tmp_path):
    assert list(drawings) == NAMES
    files = drawn_twice(lambda: draw(solved, RUNS, MODELS), tmp_path, FiguresSettings(formats=["svg"]))
    assert len(files) == 3 * len(NAMES)


def test_figures_of_two_classes_without_noise(tmp_path):
    found = {drawing.name.removeprefix("theory-"): drawing for drawing in draw(feature_strength(FEW), {}, {})}
    assert list(found) == NAMES[:-1]
    for drawing in found.values():
        save(drawing, tmp_path, FiguresSettings(formats=["svg"]))
    headings = [text.get_text() for axes in found["figure-5"].figure.axes for text in axes.texts]
    assert headings.count("not with two classes") == 2
    assert {row["stage"] for row in found["figure-5"].rows} == {"initial", "first-minimum", "end"}
    assert len(found["phases"].figure.axes) == 1
    assert "<svg" in (tmp_path / "theory-regimes.svg").read_text()


def test_figure_3_shows_samples_of_the_data(drawings):
    data = samples(FeatureStrength(10, 2.0, 1000, 1.0))
    rows = drawings["figure-3"].rows
    shown = values(rows, key="attribute", sample="weak").tolist()
    assert shown == [0, 1, 99, 100, 101, 199, 900, 901, 999]
    for sample, place in (("weak", 1), ("strong", 11)):
        assert data.label[place] == 1
        np.testing.assert_array_equal(values(rows, sample=sample), data.inputs[place, shown])


def test_figure_5_shows_points_lines_and_residuals(solved, drawings):
    drawing = drawings["figure-5"]
    assert len(drawing.figure.axes) == 5
    for axes, stage in zip(drawing.figure.axes, SETTINGS.stages, strict=True):
        assert axes.get_title("left") == stage.replace("-", " ")
        (gap,) = values(drawing.rows, stage=stage, quantity="gap")
        read = values(drawing.rows, stage=stage, quantity="probability")
        np.testing.assert_allclose(read, recursion.probabilities(gap, 10, 2.0))
        (error,) = values(drawing.rows, stage=stage, quantity="error", decoder="optimal")
        assert error == reconstruction.optimal(gap, 10, 2.0)
        points = [line.get_xydata()[0] for line in axes.lines if len(line.get_xdata()) == 1]
        np.testing.assert_allclose(points, np.column_stack([read, [1, 2, 0, 0]]))
        # A bar from each point to each line, of the length of the residual.
        bars = np.concatenate([bar.get_segments() for bar in axes.collections])
        decoded = values(drawing.rows, stage=stage, quantity="decoded")
        np.testing.assert_allclose(bars[:, 0, 1], [1, 2, 0, 0] * 2)
        np.testing.assert_allclose(bars[:, 1, 1], decoded)
    texts = [{text.get_text() for text in axes.texts} for axes in drawing.figure.axes]
    assert "Δ = 0, iteration 0" in texts[0]
    # At λ d = 0.1 the clock says 874 for the bump and 2,696 for the second minimum.
    assert "Δ = 1.1, iterations 512–1024" in texts[2]
    assert "Δ = 2.2, iterations 2048–4096" in texts[3]
    assert "$l R$ = 0.0497, with $g_j$ 0.0781" in texts[2]


def test_arrows_lead_from_one_stage_to_the_next(solved, drawings):
    for place, axes in enumerate(drawings["figure-5"].figure.axes):
        arrows = [text for text in axes.texts if getattr(text, "arrow_patch", None) is not None]
        assert len(arrows) == (4 if place else 0)
        for arrow, group in zip(arrows, solved.group.values, strict=False):
            there, here = (float(solved.probability.isel(stage=which).sel(group=group)) for which in (place - 1, place))
            assert (arrow.xyann[0], arrow.xy[0]) == (there, here)


def test_the_universal_curve_is_l_times_r(drawings):
    rows = drawings["curve"].rows
    gap = values(rows, key="gap", strength=2.0, outputs=100, decoder="paper")
    assert gap[0] == 0
    found = values(rows, strength=2.0, outputs=100, decoder="paper")
    np.testing.assert_allclose(found, 100 * reconstruction.paper(gap, 100, 2.0))
    assert values(rows, strength=5.0, outputs=10, decoder="optimal")[0] == pytest.approx(12.1)


def test_phases_are_those_of_a_sweep(drawings):
    drawing = drawings["phases"]
    steps = values(drawing.rows, key="step", noise=0.0, learning_rate=0.01)
    for noise, axes in zip((0.0, 0.01), drawing.figure.axes, strict=True):
        expected = sweep.sweep(FeatureStrength(10, 2.0, 1000, SETTINGS.learning_rates), steps, noise).error.values
        for rate, errors in zip(SETTINGS.learning_rates, expected, strict=True):
            np.testing.assert_allclose(values(drawing.rows, noise=noise, learning_rate=rate), errors)
        lines = [line.get_ydata() for line in axes.lines if len(line.get_ydata()) == len(steps)]
        np.testing.assert_allclose(lines, expected)
    assert values(drawing.rows, quantity="minimum") == pytest.approx([0.0025])
    assert values(drawing.rows, quantity="end") == pytest.approx([0.025])


def test_the_map_is_that_of_the_regimes(solved, drawings):
    rows = drawings["regimes"].rows
    classes = solved.map_outputs.values
    for strength in (2.0, 3.0, 5.0):
        for noise in (0.0, 0.01):
            here = solved.sel(noise=noise, strength=strength)
            told = values(rows, key="phases", noise=noise, strength=strength).reshape(here.map_rise.shape)
            for phase in ("constant", "fall", "rise"):
                np.testing.assert_array_equal(np.char.find(told, phase) >= 0, here[f"map_{phase}"])
        near = values(rows, key="resolved", noise=0.0, strength=strength).reshape(here.map_resolved.shape)
        np.testing.assert_array_equal(near, here.map_resolved)
        for name, rates in regimes.boundaries(classes, strength, 65536).items():
            found = values(rows, key="rate", boundary=name, strength=strength)
            np.testing.assert_allclose(found, rates[np.isfinite(rates)])
    assert values(rows, key="rate", noise=0.01, strength=2.0, outputs=3)[[0, -1]] == pytest.approx([0.01, 1e7])


def test_scaling_falls_as_corollary_4_has_it(drawings):
    rows = drawings["scaling"].rows
    for strength in (2.0, 3.0, 5.0):
        classes = values(rows, key="outputs", strength=strength, quantity="end")
        np.testing.assert_allclose(
            values(rows, strength=strength, quantity="minima"), reconstruction.floor(classes, strength)
        )
        for quantity, slope in (("step 0", -1), ("minima", -2), ("end", -1)):
            (found,) = values(rows, strength=strength, quantity=f"slope of {quantity}")
            assert found == pytest.approx(slope, abs=0.002)
        # The bump of k = 2 is not yet at 1/(2l) with a thousand classes.
        (bump,) = values(rows, strength=strength, quantity="slope of bump")
        assert -1 < bump < -0.85


def test_trained_networks_are_shown_over_the_theory(drawings):
    rows = drawings["runs"].rows
    theory = {row["step"]: row["value"] for row in rows if row["quantity"] == "theory"}
    np.testing.assert_allclose([theory[step] for step in STEPS], EXACT, rtol=1e-10)
    np.testing.assert_allclose(values(rows, quantity="measured", seed="mean"), EXACT, rtol=1e-12)
    np.testing.assert_allclose(values(rows, quantity="measured", seed="std"), 0.02 / 2**0.5 * EXACT, rtol=1e-9)


MODEL_RUN = """\
datasets: {model: {source: feature-strength, outputs: 4, strength: 3, inputs: 8}}
runs:
  solved:
    dataset: model
    model: {name: f0}
    train: {batch_size: 8, momentum: 0, learning_rate: 0.5}
    decode: {selection: none}
"""


@pytest.mark.parametrize(
    ("old", "new", "known"),
    [
        ("batch_size: 8", "batch_size: 8", True),
        ("batch_size: 8", "batch_size: 7", False),
        ("momentum: 0", "momentum: 0.9", False),
        ("momentum: 0", "momentum: 0, weight_decay: 0.1", False),
        ("momentum: 0", "momentum: 0, loss: hinge", False),
        ("name: f0", "name: vgg8", False),
        ("selection: none", "selection: gcv", False),
        ("selection: none", "selection: none, decoders: [linear-adam]", False),
        ("name: f0}", "name: f0}\n    activations: {train_samples: 7}", False),
        ("name: f0}", "name: f0}\n    activations: {taps: [logits]}", False),
    ],
)
def test_theory_is_drawn_for_runs_that_do_what_it_says(params, old, new, known):
    solved = shares(read(params(MODEL_RUN.replace(old, new))))["figures.json"]["solved"]
    model = {"outputs": 4, "strength": 3.0, "inputs": 8, "learning_rate": 0.5}
    assert solved == ({"solved": model} if known else {})
