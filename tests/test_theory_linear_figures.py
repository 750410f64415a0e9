"""Networks trained beside the linear network's theory, the stage's arrays, and the figures of them."""

import math

import numpy as np
import pytest
import torch

from drawn import drawn_twice
from phasescope.errors import UserError
from phasescope.figures.drawing import save
from phasescope.figures.linear_network import alignment, draw
from phasescope.params.figures import FiguresSettings
from phasescope.params.theory import LinearNetworkSettings
from phasescope.solve import linear_network
from phasescope.theory.linear_network import courses, maps, solution, tables, training
from phasescope.theory.linear_network.model import LinearNetwork

NAMES = ["alignment", "phases", "mechanisms"]
SETTINGS = LinearNetworkSettings(map_points=9, map_width=10_000)
FEW = LinearNetworkSettings(
    width=1, activations=["swish"], samples=2, iterations=1, alignment=-1, widths=[1, 2], draws=1, map_points=2
)


@pytest.fixture(scope="module")
def solved():
    return linear_network(SETTINGS)


@pytest.fixture(scope="module")
def drawings(solved):
    return {drawing.name.removeprefix("linear-network-"): drawing for drawing in draw(solved)}


def values(rows, key="value", **wanted):
    return np.array([row[key] for row in rows if all(row.get(name) == value for name, value in wanted.items())])


# --- training


@pytest.mark.parametrize("activation", list(training.ACTIVATIONS))
def test_training_is_that_of_torch(activation):
    functions = {
        "linear": lambda z: z,
        "relu": torch.relu,
        "leaky-relu": lambda z: torch.nn.functional.leaky_relu(z, training.LEAK),
        "swish": torch.nn.functional.silu,
        "sigmoid": lambda z: 2 * torch.sigmoid(z) - 1,
    }
    start = training.gaussian(30, 0.8, 0.4, seed=0)
    rng = np.random.default_rng(1)
    inputs, targets = rng.standard_normal((2, 12))
    found = training.train(activation, start, inputs, targets, 0.05, [0, 3, 20], scale=0.6)
    u, w = (torch.tensor(one, requires_grad=True) for one in start)
    x, y = torch.tensor(inputs), torch.tensor(targets)
    optimiser = torch.optim.SGD([u, w], lr=0.05)
    for step in range(21):
        if step in (0, 3, 20):
            place = (0, 3, 20).index(step)
            np.testing.assert_allclose(found.output[place], u.detach().numpy(), rtol=1e-12)
            np.testing.assert_allclose(found.input[place], w.detach().numpy(), rtol=1e-12)
            assert found.norm[place] == pytest.approx((u.norm() * w.norm()).item(), rel=1e-12)
            assert found.alignment[place] == pytest.approx(torch.cosine_similarity(u, w, dim=0).item(), rel=1e-12)
        optimiser.zero_grad()
        (((0.6 * (functions[activation](w[:, None] * x) * u[:, None]).sum(0) - y) ** 2).mean() / 2).backward()
        optimiser.step()


def test_every_activation_learns_as_the_linear_network_with_its_mean_slope(solved):
    """Small and large weights, over all of training: the alignment within 0.006, the norms within 0.4 %."""
    theory = LinearNetwork.of_weights(
        *training.gaussian(1000, 0.02, 0.0, seed=0), output_scale=0.55, output_rate=0.005, input_rate=0.005
    )
    exact = solution.solve(theory, solved.time.values)
    here = solved.sel(initialisation="small", activation="leaky-relu")
    np.testing.assert_allclose(here.theory_alignment, exact.alignment, rtol=1e-12)
    np.testing.assert_allclose(here.theory_kernel, exact.kernel, rtol=1e-12)
    assert solved.mean_slope.values.tolist() == [1, 0.5, 0.55, 0.5, 0.5]
    for name, apart in (("alignment", 0.006), ("norm", 0.004)):
        trained, lines = solved[f"trained_{name}"], solved[f"theory_{name}"]
        at = lines.interp(time=solved.step.values, kwargs={"fill_value": "extrapolate"}).rename(time="step")
        gap = abs(trained - at) if name == "alignment" else abs(trained / at - 1)
        assert float(gap.max()) < apart, name


def test_small_weights_align_and_large_ones_disalign(solved):
    """From 0.06 to 0.93 and 0.98, and from 0.36 to 0.10 and 0.2: ζ(∞) of the target b/m."""
    small, large = (solved.trained_alignment.sel(initialisation=name) for name in ("small", "large"))
    for values, wanted in ((small, [0.929, 0.981, 0.977, 0.981, 0.981]), (large, [0.104, 0.206, 0.188, 0.206, 0.207])):
        np.testing.assert_allclose(values[:, -1], wanted, atol=2e-3)
        np.testing.assert_allclose(values[:, 0], values[0, 0])
    lazy = solved.lazy_ratio.sel(activation="linear").values
    np.testing.assert_allclose(lazy, [0.4, 9.5], rtol=0.05)


def test_training_that_diverges_is_left_out_of_the_figures(tmp_path):
    found = linear_network(LinearNetworkSettings(learning_rate=10, iterations=64, width=50, map_points=3))
    assert not np.isfinite(found.trained_alignment.isel(step=-1)).all()
    drawing = alignment(found)
    save(drawing, tmp_path, FiguresSettings(formats=["svg"]))
    assert all(math.isfinite(row["value"]) for row in drawing.rows)


def test_an_unknown_activation_is_refused():
    start = training.gaussian(3, 1.0, 0.0, seed=0)
    with pytest.raises(UserError, match=r"^theory: activation is 'tanh'; known: linear, relu, leaky-relu, swish, sigm"):
        training.train("tanh", start, np.ones(2), np.ones(2), 0.1, [0, 1])


# --- the arrays of the stage


def test_the_arrays_are_what_the_library_gives(solved):
    table = tables.parametrisations()
    for name in ("training", "limit_kernel", "drawn_alignment", "rate_slope"):
        np.testing.assert_array_equal(solved[name], table[name])
    phases, mechanism = maps.phase_map(9, 10_000, 256, 0), maps.mechanism_map(9, 0.05)
    for part in (phases, mechanism):
        for name in part.data_vars:
            np.testing.assert_array_equal(solved[name], part[name])
    assert solved.attrs["map_width"] == 10_000
    inputs = courses.even_inputs(8)
    assert (inputs**2).mean() == pytest.approx(1)
    np.testing.assert_allclose(inputs, -inputs[::-1])
    for name, variable in solved.variables.items():
        assert variable.attrs["long_name"], name
        assert variable.attrs["units"] in ("1", "iterations", "1/iterations"), name


# --- figures


def test_each_figure_is_drawn_once_and_the_same_bytes_twice(solved, drawings, tmp_path):
    assert list(drawings) == NAMES
    files = drawn_twice(lambda: draw(solved), tmp_path, FiguresSettings(formats=["svg"]))
    assert len(files) == 3 * len(NAMES)


def test_figures_of_the_fewest_settings(tmp_path):
    for drawing in draw(linear_network(FEW)):
        save(drawing, tmp_path, FiguresSettings(formats=["svg"]))
    assert len(list(tmp_path.glob("*.svg"))) == len(NAMES)


def test_alignment_over_time_shows_points_and_lines(solved, drawings):
    drawing = drawings["alignment"]
    assert len(drawing.figure.axes) == 4
    titles = [axes.get_title("left") for axes in drawing.figure.axes]
    assert titles == ["small initial weights", "large initial weights", "", ""]
    below = [text.get_text() for axes in drawing.figure.axes for text in axes.texts]
    assert below[:2] == ["closed form (linear): alignment, rescaling", "closed form (linear): disalignment, rescaling"]
    for initialisation in ("small", "large"):
        for activation in SETTINGS.activations:
            names = {"initialisation": initialisation, "activation": activation}
            here = solved.sel(names)
            shown = values(drawing.rows, **names, quantity="alignment", source="trained")
            np.testing.assert_array_equal(shown, here.trained_alignment)
            norms = values(drawing.rows, **names, quantity="norm", source="theory")
            np.testing.assert_allclose(norms, here.theory_norm / here.theory_norm[0])
    points = [line for line in drawing.figure.axes[0].lines if line.get_linestyle() == "None"]
    assert len(points) == 5
    np.testing.assert_array_equal(points[0].get_xdata(), solved.step)


def test_the_phases_have_the_named_parametrisations_where_they_are(solved, drawings):
    drawing = drawings["phases"]
    rows = [row for row in drawing.rows if row["quantity"] == "parametrisation"]
    places = {row["parametrisation"]: (row["scale"], row["rate"]) for row in rows}
    assert places == {
        "NTK": (0.5, 0.5),
        "mean field": (1, 0),
        "SP, rate 1/d": (0, 1),
        "Xavier": (1, 0),
        "μP": (1, 0),
        "small init": (1.5, 0),
        "large init": (0.5, 0.5),
        "unequal rates": (0.5, 0),
    }
    texts = [text.get_text() for text in drawing.figure.axes[0].texts]
    assert {"NTK\nlarge init", "mean field\nXavier\nμP"} <= set(texts)
    for row in drawing.rows[:81]:
        cell = solved.sel(map_scale=row["scale"], map_rate=row["rate"])
        assert (row["training"], row["learning"]) == (str(cell.map_training.values), str(cell.map_learning.values))
        assert row.get("kernel", 0) == np.nan_to_num(float(cell.map_kernel))


def test_the_mechanisms_are_those_of_the_map(solved, drawings):
    rows = drawings["mechanisms"].rows
    for row in rows[:81]:
        cell = solved.sel(map_start=row["start"], map_lazy=row["lazy"])
        shown = [row[name] for name in ("alignment", "disalignment", "rescaling", "kernel")]
        flags = ("map_alignment", "map_disalignment", "map_rescaling", "map_kernel_kept")
        assert shown == [int(cell[flag]) for flag in flags]
    small, large = rows[81:]
    assert (small["initialisation"], large["initialisation"]) == ("small", "large")
    assert large["start"] == pytest.approx(3.6, rel=0.05)  # ζ of 0.36 times |u||w| of 10


def test_the_maps_beside_each_other_are_as_wide_as_each_other(drawings, tmp_path):
    """Though one of them has a scale of colours."""
    save(drawings["phases"], tmp_path, FiguresSettings(formats=["png"], dpi=40))
    theory, trained = (axes.get_position() for axes in drawings["phases"].figure.axes[:2])
    assert theory.width == pytest.approx(trained.width, abs=2e-3)
    assert trained.x0 > theory.x1
