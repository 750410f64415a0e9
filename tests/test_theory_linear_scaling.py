"""Scaling exponents of the linear network: parametrisations, phases, and what gradient descent does there."""

import numpy as np
import pytest
import xarray as xr
from typer.testing import CliRunner

from phasescope.cli import app
from phasescope.errors import UserError
from phasescope.theory.linear_network import gaussian, maps, scaling, solution, tables
from phasescope.theory.linear_network.model import LinearNetwork
from phasescope.theory.linear_network.scaling import PARAMETRISATIONS, Exponents, placed, reduced

#: δ_F, δ_K, what becomes of D and of the kernel; slope of D, K(∞)/K(0) − 1 at d = 10⁶ for f(0) = 0, ζ(∞).
TABLE = """
NTK            -0.5  0    trains   kernel   0    5e-7   0.001
mean-field     0     0    trains   feature  0    0.4142 0.7071
SP,-rate-1/d   -1    0    trains   kernel   0    2e-12  0.001
Xavier         0     0    trains   feature  0    0.4142 0.7071
μP             0     0    trains   feature  0    0.4142 0.7071
small-init     0     -0.5 trains   rich     0    999    1
large-init     -0.5  0    trains   kernel   0    5e-7   0.001
unequal-rates  0     0.5  unstable kernel   0.5  2e-6   0.7071
"""


@pytest.fixture(scope="module")
def table() -> xr.Dataset:
    return tables.parametrisations()


def test_the_table_of_parametrisations(table):
    for line in TABLE.split("\n")[1:-1]:
        name, feature, kernel, training, learning, slope, growth, alignment = line.split()
        one = table.sel(parametrisation=name.replace("-", " ") if name.islower() or "," in name else name)
        assert (float(one.feature_exponent), float(one.kernel_exponent)) == (float(feature), float(kernel))
        assert (str(one.training.values), str(one.learning.values)) == (training, learning)
        wide = one.sel(width=1e6)
        assert float(wide.limit_kernel) == pytest.approx(float(growth), rel=2e-3)
        assert float(wide.limit_alignment) == pytest.approx(float(alignment), rel=1e-3)
        # What is drawn: slopes over four decades, with few units at one end.
        np.testing.assert_allclose(one.rate_slope, float(slope), atol=0.02)
        np.testing.assert_allclose(wide.drawn_alignment, float(alignment), rtol=0.01)
        if learning != "kernel" or name == "unequal-rates":
            np.testing.assert_allclose(wide.drawn_kernel, float(growth), rtol=0.01)
        else:
            # f(0) is as large as b, with variance 1, and K² changes by b² − f(0)²: by as much, up or down.
            assert (wide.drawn_kernel <= 1.01 * float(growth)).all()
            assert (abs(wide.drawn_kernel) < 10 * float(growth)).all()
        if name in ("NTK", "SP,-rate-1/d", "large-init"):
            np.testing.assert_allclose(one.alignment_slope, -0.5, atol=0.05)


def test_wide_gaussian_networks_tend_to_the_limit():
    """K(∞)/K(0) = √(1 + (b/ρ)²) within 1 % at d = 10⁵, weights drawn one by one; ζ(∞) with S = 0."""
    units = 100_000
    for lazy, ratio, alignment in ((1.0, 2**0.5, 0.5**0.5), (0.3, 3.4801, 0.9578), (3.0, 1.0541, 0.3162)):
        weights = np.random.default_rng(0).normal(scale=(lazy / units) ** 0.5, size=(2, units))
        network = LinearNetwork.of_weights(*weights)
        ends = solution.solve(network, [0.0, np.inf])
        assert ends.kernel[1] / ends.kernel[0] == pytest.approx(ratio, rel=0.01)
        assert ends.alignment[1] == pytest.approx(alignment, rel=0.01)
        limit = gaussian.network(gaussian.limit(units), lazy / units, lazy / units)
        assert float(limit.lazy_scale) == pytest.approx(lazy)
        assert float(np.exp(solution.kernel_growth(limit))) == pytest.approx(ratio, rel=1e-4)
    # Of unequal layers, by the formula with S.
    setting = {"output_scale": 0.2, "output_rate": 0.5, "input_rate": 0.1, "target_moment": 1.5}
    network = gaussian.network(gaussian.limit(1000), 0.02, 0.003, **setting)
    first, second = 0.1 * 0.02, 0.5 * 0.003
    lazy, share = 0.2 * 1000 * (first + second) / (2 * 0.05**0.5), (first - second) / (first + second)
    over = 1.5 / lazy
    assert float(network.lazy_scale) == pytest.approx(lazy)
    assert float(np.exp(solution.kernel_growth(network))) == pytest.approx((1 + over**2) ** 0.5)
    wanted = over / (1 + over**2 - share**2) ** 0.5
    assert float(solution.solve(network, np.inf).alignment) == pytest.approx(wanted)


def test_draws_are_those_of_vectors():
    found = gaussian.draw([1, 40], seed=0, count=4000)
    vectors = np.random.default_rng(1).standard_normal((2, 4000, 40))
    wanted = (vectors[0] ** 2).sum(1), (vectors[1] ** 2).sum(1), (vectors[0] * vectors[1]).sum(1)
    for mine, theirs in zip(found, wanted, strict=True):
        assert mine.shape == (4000, 2)
        for power in (1, 2, 3):  # moments, to five standard errors
            gap = (mine[:, 1] ** power).mean() - (theirs**power).mean()
            assert abs(gap) < 5 * (2 / 4000) ** 0.5 * (theirs**power).std()
    # Of a single unit, overlap and norms are one number.
    np.testing.assert_allclose(found.overlap[:, 0] ** 2, found.output_square[:, 0] * found.input_square[:, 0])


# --- phases


def test_many_scalings_at_once_are_each_by_itself():
    rng = np.random.default_rng(0)
    several = Exponents(*rng.integers(-2, 3, (5, 3, 40)) / 2)
    for name in ("feature", "kernel", "rate", "lazy_scale", "output", "training", "learning"):
        together = getattr(several, name)
        for place in np.ndindex(3, 40):
            one = Exponents(**{field: values[place] for field, values in vars(several).items()})
            assert together[place] == getattr(one, name)
    assert set(several.training.ravel()) == set(scaling.TRAINING)
    assert set(several.learning.ravel()) == set(scaling.LEARNING)


def test_two_exponents_are_all_that_counts():
    rng = np.random.default_rng(1)
    several = Exponents(*rng.normal(size=(5, 200)))
    place = reduced(several)
    np.testing.assert_allclose(several.feature, -place.rate, atol=1e-12)
    np.testing.assert_allclose(several.kernel, 1 - place.scale - place.rate, atol=1e-12)
    np.testing.assert_allclose(several.lazy_scale, 1 - place.scale, atol=1e-12)


def test_exponents_are_those_of_wide_networks():
    """D, ρ and f(0) over six decades of width, in all phases."""
    rng = np.random.default_rng(2)
    several = Exponents(*rng.uniform(-1, 2, (5, 60, 1)))
    widths = np.array([1e4, 1e10])
    drawn = gaussian.Draw(*(np.broadcast_to(values, (2,)) for values in (widths, widths, widths**0.5)))
    network = several.at(widths, drawn)
    for found, exponent, clear in (
        (network.lazy_scale, several.lazy_scale, True),
        # Beside a ρ that is far larger f(0) has no digits.
        (np.abs(solution.start(network)) + 1e-300, several.output, several.output > several.lazy_scale - 1),
        # Near each other, features and kernel both count over some decades.
        (solution.rate(network), several.rate, np.abs(several.feature - several.kernel) > 0.2),
    ):
        slope = np.log(found[:, 1] / found[:, 0]) / np.log(1e6)
        apart = np.broadcast_to(clear, exponent.shape)[:, 0]
        assert apart.sum() > 20
        np.testing.assert_allclose(slope[apart], exponent[apart, 0], atol=0.06)


@pytest.mark.parametrize(("wanted", "phase"), [(1.0, "kernel"), (0.25, "kernel"), (0.0, "feature"), (-0.5, "rich")])
def test_any_initial_weights_can_be_put_in_any_phase(wanted, phase):
    of_output, of_input, difference = np.random.default_rng(3).uniform(-1, 2, (3, 50))
    found = placed(of_output, of_input, difference, wanted)
    np.testing.assert_allclose(found.output_rate - found.input_rate, difference, atol=1e-12)
    np.testing.assert_array_equal(found.output_variance, of_output)
    assert set(found.training) == {"trains"}
    assert set(found.learning) == {phase}
    np.testing.assert_allclose(found.lazy_scale, wanted, atol=1e-12)
    if wanted == 0:
        # The scale c_γ* at which features and kernel count alike.
        np.testing.assert_allclose(
            found.output_scale, 1 + np.maximum(difference / 2 - of_output, -difference / 2 - of_input)
        )


def test_parametrisations_are_where_placed_puts_them():
    for name, one in PARAMETRISATIONS.items():
        if name == "unequal rates":
            continue
        put = placed(one.output_variance, one.input_variance, one.output_rate - one.input_rate, one.lazy_scale)
        for field, value in vars(one).items():
            assert float(getattr(put, field)) == pytest.approx(float(value), abs=1e-12), (name, field)


# --- maps


def test_descent_freezes_trains_and_diverges_where_the_exponents_say():
    """A million units, 256 steps, which move the edge of what trains by ln(256)/ln(10⁶) = 0.4 at most."""
    found = maps.phase_map(41, 10**6, 256, seed=0)
    edge = np.maximum(0, 1 - found.map_scale)
    over = found.map_rate - edge
    assert (found.map_training.where(over > 1e-6, "frozen") == "frozen").all()
    assert (found.map_training.where(over < -1e-6, "unstable") == "unstable").all()
    missing, inside = abs(found.map_missing), (over > -0.05) & (over < 0.1)
    assert (missing.where(inside, 0) < 0.5).all()
    assert (missing.where(over > 0.45, 1) > 0.5).all()
    assert found.map_missing.where(over < -0.25, np.nan).isnull().all()
    # The kernel grows by √(1 + (b/ρ)²), ρ = d^(1 − X), with f(0) = 0; a step of a quarter takes some of it away.
    learned = found.map_kernel.sel(map_rate=0.1, method="nearest").where(found.map_scale >= 1, drop=True)
    wanted = np.sqrt(1 + 10 ** (12 * (learned.map_scale - 1)))
    np.testing.assert_allclose(np.log10(learned), np.log10(wanted), atol=0.02)
    lazy = found.map_kernel.where((found.map_scale < 0.8) & inside)
    assert (abs(lazy - 1) < 0.01).where(lazy.notnull(), True).all()


def test_mechanisms_over_initial_output_and_lazy_scale():
    """In closed form ζ = f/√(f² + ρ²), and K and N are as √(f² + ρ²)."""
    found = maps.mechanism_map(21, 0.05)
    start, lazy = found.map_start, found.map_lazy
    change = 1 / np.hypot(1, lazy) - start / np.hypot(start, lazy)
    growth = np.log(np.hypot(1, lazy) / np.hypot(start, lazy))
    for name, wanted in {
        "alignment": change > 0.05,
        "disalignment": change < -0.05,
        "rescaling": abs(growth) > 0.05,
        "kernel_kept": abs(growth) <= 0.05,
    }.items():
        xr.testing.assert_equal(found[f"map_{name}"], wanted.transpose("map_lazy", "map_start").rename(f"map_{name}"))


# --- the command, and mistakes


def test_the_command_prints_the_table(table):
    told = CliRunner().invoke(app, ["theory", "linear-network"])
    assert told.exit_code == 0
    assert max(map(len, told.stdout.splitlines())) <= 80
    lines = [line.strip() for line in told.stdout.splitlines()]
    for name in PARAMETRISATIONS:
        first, second = (line.removeprefix(name).split() for line in lines if line.startswith(f"{name} "))
        one = table.sel(parametrisation=name)
        exponents = [*one.exponent.values.tolist(), float(one.feature_exponent), float(one.kernel_exponent)]
        phase = [str(one.training.values), str(one.learning.values)]
        assert first == [*(f"{value + 0:g}" for value in exponents), *phase]
        wide = one.sel(width=1e6)
        shown = [one.rate_slope.mean(), wide.limit_kernel, wide.drawn_kernel.min(), wide.drawn_kernel.max()]
        shown += [wide.limit_alignment, wide.drawn_alignment.mean(), one.alignment_slope.mean()]
        last = 5.1e-4 * np.array([1, 0, 0, 0, 0, 0, 1])  # slopes have three digits, other numbers two or three
        close = np.isclose([float(value) for value in second], [float(value) for value in shown], rtol=0.06, atol=last)
        assert close.all(), (second, shown)
    everything = CliRunner().invoke(app, ["theory"]).stdout
    assert everything.endswith(told.stdout)
    assert len(everything) > len(told.stdout)
    alone = CliRunner().invoke(app, ["theory", "feature-strength"]).stdout
    assert everything == alone + told.stdout


def test_the_command_takes_other_widths():
    told = CliRunner().invoke(app, ["theory", "linear-network", "--widths", "1e4,100"])
    assert "at d = 10000, slopes from d = 100" in told.stdout


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (
            ["linear"],
            "theory: unknown model 'linear'; did you mean 'linear-network'? known: feature-strength, linear-network",
        ),
        (["linear-network", "--widths", "10"], "theory: widths are 10; a slope takes two or more"),
        (["--widths", "10,10"], "theory: widths are 10; a slope takes two or more"),
        (["--widths", "10,0"], "theory: width is 0.0; it must be a whole number of at least 1"),
        (["--widths", "10,nan"], "theory: width is nan; it must be a whole number of at least 1"),
        (["--widths", "1e13,1"], "--widths: 1e+13 is above 1e+12, and no more is computed; give less"),
        (["--widths", "wide"], "--widths: 'wide' is no list of numbers; give such as --widths 100,10000"),
        (
            ["linear-network", "--outputs", "3"],
            "--outputs is of the model feature-strength: leave it out, or ask for that model",
        ),
    ],
)
def test_the_command_refuses_what_it_cannot_do(arguments, line):
    told = CliRunner().invoke(app, ["theory", *arguments])
    assert (told.exit_code, told.stderr, told.stdout) == (1, f"{line}\n", "")


def test_exponents_are_finite():
    with pytest.raises(UserError, match=r"^theory: input_rate is inf; it must be a finite number$"):
        Exponents(0, 0, 0, 0, [0, np.inf])
