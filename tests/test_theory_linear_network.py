"""The two-layer linear network: its closed form against integrators, gradient descent and automatic differentiation."""

import itertools

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from phasescope.errors import UserError
from phasescope.theory.linear_network import solution
from phasescope.theory.linear_network.descent import Batches, alignment_time, descend, draw_batches, gradient_variance
from phasescope.theory.linear_network.model import LinearNetwork
from phasescope.theory.mechanisms import mechanisms

SCALES = ("output_scale", "output_rate", "input_rate", "input_moment")
#: By the last step of gradient descent with steps of 1, that many times 1/D.
LATE = 30.0


def drawn(count, units, seed=0):
    """Settings over two decades each, with targets of both signs; weights (count, unit)."""
    rng = np.random.default_rng(seed)
    setting = {name: 10 ** rng.uniform(-1, 1, count) for name in SCALES}
    setting |= {"loss_factor": rng.choice([1.0, 2.0], count), "target_moment": rng.normal(scale=2, size=count)}
    deviation = 10 ** rng.uniform(-1.5, 0.5, (2, count, 1)) / np.sqrt(units)
    output, input_ = deviation * rng.standard_normal((2, count, units))
    return output, input_, setting


def measured(output, input_, setting):
    """f, K, |u|, |w| and ζ of weights (…, unit), from their definitions."""
    of_output, of_input, overlap = (output**2).sum(-1), (input_**2).sum(-1), (output * input_).sum(-1)
    scale = setting["output_scale"]
    kernel = scale**2 * (setting["output_rate"] * of_input + setting["input_rate"] * of_output)
    return scale * overlap, kernel, of_output**0.5, of_input**0.5, overlap / (of_output * of_input) ** 0.5


def test_the_closed_form_is_what_an_integrator_gives():
    for place, units in enumerate([1, 2, 3, 5, 8, 13, 21, 34, 60, 1] * 2):
        output, input_, setting = drawn(1, units, seed=place)
        setting = {name: values[0] for name, values in setting.items()}
        network = LinearNetwork.of_weights(output[0], input_[0], **setting)
        times = np.append(0, np.geomspace(0.01, LATE, 8)) / solution.rate(network)

        def flow(_, both, setting=setting, units=units):
            u, w = both[:units], both[units:]
            scale = setting["output_scale"]
            wrong = setting["target_moment"] - setting["input_moment"] * scale * (u @ w)
            pull = setting["loss_factor"] * scale * wrong
            return np.append(setting["output_rate"] * pull * w, setting["input_rate"] * pull * u)

        start = np.append(output[0], input_[0])
        options = {"method": "DOP853", "t_eval": times, "rtol": 1e-12, "atol": 1e-14}
        expected = np.split(solve_ivp(flow, (0, times[-1]), start, **options).y.T, 2, axis=1)
        for found, wanted in zip(solution.weights(network, output[0], input_[0], times), expected, strict=True):
            np.testing.assert_allclose(found, wanted, rtol=1e-8, atol=1e-9 * np.abs(wanted).max())
        for found, wanted in zip(solution.solve(network, times), measured(*expected, setting), strict=True):
            np.testing.assert_allclose(found, wanted, rtol=1e-8, atol=1e-9 * np.abs(wanted).max())


def test_gradient_descent_tends_to_it_in_the_first_order_of_the_step():
    """Full-batch descent of torch's own gradients; and the tangent kernel from them is the closed form's at the end."""
    rng = np.random.default_rng(3)
    units, samples, end = 20, 50, 1.0
    data = rng.standard_normal(samples)
    targets = 1.3 * data + 0.5 * rng.standard_normal(samples)
    setting = {"output_scale": 0.7, "output_rate": 0.3, "input_rate": 0.8}
    moments = {"input_moment": (data**2).mean(), "target_moment": (data * targets).mean()}
    output, input_ = 0.4 * rng.standard_normal((2, units))
    exact = solution.solve(LinearNetwork.of_weights(output, input_, **setting, **moments), end)
    x, y, errors = torch.tensor(data), torch.tensor(targets), []
    for step in (1e-2, 1e-3, 1e-4):
        u, w = (torch.tensor(one, requires_grad=True) for one in (output, input_))
        for _ in range(round(end / step)):
            loss = ((setting["output_scale"] * (u @ w) * x - y) ** 2).mean() / 2
            of_output, of_input = torch.autograd.grad(loss, (u, w))
            with torch.no_grad():
                u -= step * setting["output_rate"] * of_output
                w -= step * setting["input_rate"] * of_input
        slope = setting["output_scale"] * (u @ w)
        errors.append(abs(slope.item() / float(exact.output) - 1))
    assert errors[-1] <= 1e-3
    assert all(8 <= before / after <= 12 for before, after in itertools.pairwise(errors))
    of_output, of_input = torch.autograd.grad(slope, (u, w))
    kernel = (setting["output_rate"] * (of_output**2).sum() + setting["input_rate"] * (of_input**2).sum()).item()
    assert kernel == pytest.approx(float(exact.kernel), rel=1e-3)
    by_hand = setting["output_scale"] ** 2 * (0.3 * (w**2).sum() + 0.8 * (u**2).sum())
    assert kernel == pytest.approx(by_hand.item(), rel=1e-10)


def test_what_is_conserved_and_what_is_monotone():
    output, input_, setting = drawn(300, 7)
    network = LinearNetwork.of_weights(output, input_, **setting)
    rate, end = solution.rate(network), solution.solve(network, np.inf)
    of_kernel = setting["loss_factor"] * setting["input_moment"] * end.kernel
    np.testing.assert_allclose(rate / of_kernel, 1, atol=1e-10)
    np.testing.assert_allclose(end.output, network.slope, rtol=1e-12)
    np.testing.assert_array_equal(solution.time_constant(network), 1 / rate)
    for place in range(0, 300, 10):
        one = LinearNetwork(**{name: values[place] for name, values in vars(network).items()})
        times = np.append(0, np.geomspace(1e-3, 50, 60)) / rate[place]
        found = solution.solve(one, times)
        sign = np.sign(network.slope[place] - found.output[0])
        assert (np.diff(sign * found.alignment) >= -1e-13).all()
        np.testing.assert_allclose(found.output, one.output_scale * found.norm * found.alignment, rtol=1e-6, atol=1e-12)
        u, w = solution.weights(one, output[place], input_[place], times)
        products = one.input_rate * u**2 - one.output_rate * w**2  # p_i q_i
        np.testing.assert_allclose(products - products[0], 0, atol=1e-9 * np.abs(products).max())
    # Layers end more aligned than they began just where the target is larger than the initial output.
    begun = solution.solve(network, 0.0)
    more = np.abs(end.alignment) > np.abs(begun.alignment)
    np.testing.assert_array_equal(more, np.abs(network.slope) > np.abs(begun.output))
    assert 200 < more.sum() < 290
    assert (np.sign(network.slope) != np.sign(begun.output)).sum() > 50
    # That makes the mechanisms, whose parts add up.
    ends = [np.stack([first, last]) for first, last in zip(begun, end, strict=True)]
    found = mechanisms(ends[4], ends[2] * ends[3], ends[1])
    assert not (found.alignment & ~more).any()
    assert not (found.disalignment & more).any()
    np.testing.assert_allclose(found.output_growth, np.log(np.abs(end.output / begun.output)), atol=1e-6)
    np.testing.assert_allclose(found.kernel_growth, solution.kernel_growth(network), atol=1e-11)


def test_many_settings_at_once_are_each_by_itself():
    output, input_, setting = drawn(6, 4)
    grid = {name: values.reshape(2, 3) for name, values in setting.items()}
    weights = output.reshape(2, 3, 4), input_.reshape(2, 3, 4)
    network, times = LinearNetwork.of_weights(*weights, **grid), [[0.0, 0.3], [2.0, np.inf]]
    together, moved = solution.solve(network, times), solution.weights(network, *weights, times)
    assert together.output.shape == (2, 3, 2, 2)
    assert moved[0].shape == (2, 3, 2, 2, 4)
    for place in np.ndindex(2, 3):
        own = {name: values[place] for name, values in grid.items()}
        single = LinearNetwork.of_weights(weights[0][place], weights[1][place], **own)
        assert single.shape == ()
        for found, wanted in zip(together, solution.solve(single, times), strict=True):
            np.testing.assert_allclose(found[place], wanted, rtol=1e-14)
        alone = solution.weights(single, weights[0][place], weights[1][place], times)
        np.testing.assert_allclose(np.stack(moved)[:, *place], alone, rtol=1e-14)
        assert float(solution.rate(network)[place]) == pytest.approx(float(solution.rate(single)), rel=1e-15)
    # One setting for all weights, and norms instead of weights.
    several = LinearNetwork.of_weights(output, input_, input_rate=0.3)
    norms = (output**2).sum(-1), (input_**2).sum(-1), (output * input_).sum(-1)
    for found, wanted in zip(
        solution.solve(LinearNetwork.of_norms(*norms, input_rate=0.3), 1.0), solution.solve(several, 1.0), strict=True
    ):
        np.testing.assert_allclose(found, wanted, rtol=1e-12)


@pytest.mark.parametrize("target", [-1.0, 0.0, 1.0])
def test_extremes_end_where_they_must(target):
    """No warning, no NaN but for the alignment of layers that are zero."""
    times = [0.0, 1e-3, 1.0, 1e5, 1e300, np.inf]
    cases = [(0, 0), (1, 0), (0, 1), (1, 1), (1e-30, 1e-30), (1e12, 1e12), (1, 1e-300), (1e-40, 0), (1e-200, 1e200)]
    for plus, minus in cases:
        found = solution.solve(LinearNetwork(plus, minus, 0.0, target_moment=target), times)
        assert np.isfinite(found.output).all()
        assert np.isfinite(found.kernel).all()
        zero = (found.output_norm == 0) | (found.input_norm == 0)
        np.testing.assert_array_equal(np.isnan(found.alignment), zero)
        # On the wrong side alone, PQ = 0, the weights go to zero and stay there.
        stuck = plus * minus == 0 and (plus if target < 0 else minus) > 0
        expected = 0.0 if stuck or plus == minus == 0 else target
        if plus * minus > 0 or target:
            assert found.output[-1] == pytest.approx(expected, abs=1e-12), (plus, minus)
    # Nothing to learn and all on one side: f falls as 1/t, not exponentially.
    slow = solution.solve(LinearNetwork(1.0, 0.0, 0.0, target_moment=0.0), [0.0, 100.0, np.inf])
    np.testing.assert_allclose(slow.output, [0.25, 0.25 / 51, 0.0], rtol=1e-12)
    assert solution.time_constant(LinearNetwork(1.0, 0.0, 0.0, target_moment=0.0)) == np.inf


def test_layers_of_almost_nothing_have_an_alignment():
    """While f is far below b, P and Q go as e^(±2t), and ζ as tanh 2t; f is 10⁻³⁹ there."""
    found = solution.solve(LinearNetwork(4e-40, 4e-40, 0.0), [0.0, 0.1, 1.0, 5.0])
    np.testing.assert_allclose(found.alignment, np.tanh([0, 0.2, 2, 10]), rtol=1e-12)


def test_a_kernel_that_hardly_changes_is_known_to_the_last_digits():
    """K(∞)/K(0) − 1 of f(0) = 0 is b²/(2ρ²) there, far below the rounding of K."""
    network = LinearNetwork(4e20, 4e20, 0.0)
    assert float(network.lazy_scale) == 2e20
    assert float(solution.kernel_growth(network)) == pytest.approx(0.5 / 4e40, rel=1e-12)


# --- descent


def test_descent_in_three_numbers_is_descent_of_all_weights():
    output, input_, setting = drawn(40, 9)
    # Steps that gradient descent can take.
    slow = 0.3 / solution.rate(LinearNetwork.of_weights(output, input_, **setting))
    setting |= {name: np.minimum(slow, 1) * setting[name] for name in ("output_rate", "input_rate")}
    network = LinearNetwork.of_weights(output, input_, **setting)
    rng = np.random.default_rng(0)
    moments = Batches(*(rng.uniform(0.8, 1.2, (60, 40)) * setting[f"{name}_moment"] for name in ("input", "target")))
    for batches in (None, moments):
        found = descend(network, [0, 1, 60], batches)
        u, w = output, input_
        for step in range(60):
            squares, products = setting["input_moment"], setting["target_moment"]
            if batches is not None:
                squares, products = (values[step] for values in batches)
            wrong = products - squares * setting["output_scale"] * (u * w).sum(-1)
            pull = (setting["loss_factor"] * setting["output_scale"] * wrong)[:, None]
            u, w = u + setting["output_rate"][:, None] * pull * w, w + setting["input_rate"][:, None] * pull * u
            if step in (0, 59):
                rounding = 1e-12 if step == 0 else 1e-11  # which gathers over sixty steps
                for mine, wanted in zip(found, measured(u, w, setting), strict=True):
                    np.testing.assert_allclose(mine[:, 1 + (step > 0)], wanted, rtol=rounding, atol=1e-12)
    many = [float(value[0, 2]) for value in descend(network, [0, 1, 60])]
    first = LinearNetwork(**{name: values[0] for name, values in vars(network).items()})
    assert many == pytest.approx([float(value[2]) for value in descend(first, [0, 1, 60])], rel=1e-14)


def test_descent_that_diverges_says_so():
    found = descend(LinearNetwork([0.4, 40.0], 0.4, 0.0), [0, 400])
    assert np.isfinite(found.output[0]).all()
    assert not np.isfinite(found.output[1, 1])


@pytest.fixture(scope="module")
def noisy():
    """Five networks of 50 units by descent, by SGD without and with noise in the labels: 40,000 steps of 0.05."""
    updates, units, cases = 40_000, 50, ((0, 1), (1, 1), (1, 4), (0.5, 1))
    networks, batches, times = [], [], []
    for seed in range(5):
        rng = np.random.default_rng(seed)
        data, noise = rng.standard_normal((2, 1000))
        weights = rng.standard_normal((2, units))
        for deviation, batch in cases:
            targets = 1.5 * data + deviation * noise
            moments = {"input_moment": (data**2).mean(), "target_moment": (data * targets).mean()}
            rates = {"output_scale": units**-0.5, "output_rate": 0.05, "input_rate": 0.05}
            networks.append(LinearNetwork.of_weights(*weights, **rates, **moments))
            batches.append(draw_batches(data, targets, batch, updates, seed=10 * seed + batch))
            times.append(float(alignment_time(networks[-1], gradient_variance(data, targets, batch))))
    network = LinearNetwork(**{name: np.array([vars(one)[name] for one in networks]) for name in vars(networks[0])})
    together = Batches(*(np.stack(moments, axis=1) for moments in zip(*batches, strict=True)))
    steps = [0, 2000, updates]
    shape = (5, len(cases))
    return network, descend(network, steps), descend(network, steps, together), np.reshape(times, shape), shape


def test_noise_aligns_the_layers_and_descent_does_not(noisy):
    network, plain, stochastic, _, shape = noisy
    closed = solution.solve(network, np.inf).alignment
    np.testing.assert_allclose(plain.alignment[:, -1], closed, atol=0.01)
    assert (np.abs(plain.alignment[:, -1]) < 0.35).all()
    silent, loud, *_ = stochastic.alignment[:, -1].reshape(shape).T
    assert (np.abs(loud) > 0.65).all()
    np.testing.assert_allclose(silent, closed.reshape(shape)[:, 0], atol=0.01)


def test_noise_aligns_them_when_predicted(noisy):
    """PQ falls by 2η̄²κ²γ²V a step, and by a few per cent more, for f is unsteady."""
    network, _, stochastic, times, shape = noisy
    total = 2 * stochastic.kernel / network.output_scale[:, None] ** 2
    difference = 4 * network.rate[:, None] * stochastic.output / network.output_scale[:, None]
    product = (total**2 - difference**2)[:, 1:] / 4
    fall = np.log(product[:, 0] / product[:, 1]).reshape(shape) / 38_000
    assert (times[:, 0] > 1e20).all()  # without noise at the solution they never align
    ratio = (fall[:, 1:] * times[:, 1:]).mean(axis=0)
    np.testing.assert_allclose(ratio, [1.08, 1.07, 1.15], atol=0.04)


# --- mistakes


@pytest.mark.parametrize(
    ("call", "line"),
    [
        (lambda: LinearNetwork(-1.0, 1.0, 0.0), "plus is -1.0; it must be a finite number of at least 0"),
        (lambda: LinearNetwork(1.0, np.nan, 0.0), "minus is nan; it must be a finite number of at least 0"),
        (
            lambda: LinearNetwork(1.0, 4.0, 2.1),
            "balance is 2.1; it must be between −√(plus · minus) and √(plus · minus)",
        ),
        (lambda: LinearNetwork(1, 1, 0, output_rate=[1, 0]), "output_rate is 0; it must be a finite number above 0"),
        (lambda: LinearNetwork(1, 1, 0, target_moment=np.inf), "target_moment is inf; it must be a finite number"),
        (lambda: LinearNetwork(1, 1, "0"), "balance is '0'; give a number, or an array of numbers"),
        (lambda: LinearNetwork.of_norms(1.0, 4.0, -2.5), "overlap is -2.5; it must be at most |u||w| in size"),
        (
            lambda: LinearNetwork(np.ones(2), np.ones(3), 0.0),
            "shapes plus (2,), minus (3,), balance (), output_scale (), output_rate (), input_rate (), "
            "loss_factor (), input_moment (), target_moment () do not go together; give arrays that broadcast",
        ),
        (lambda: solution.solve(LinearNetwork(1, 1, 0), [0, -1.0]), "time is -1.0; it must be a number of at least 0"),
        (lambda: solution.solve(LinearNetwork(1, 1, 0), np.nan), "time is nan; it must be a number of at least 0"),
        (
            lambda: descend(LinearNetwork(1, 1, 0), [0, 5], Batches(np.ones(4), np.ones(4))),
            "4 batches for 5 updates; give one for each",
        ),
        (
            lambda: descend(LinearNetwork(1, 1, 0), [3, 2]),
            "steps are [3 2]; give whole numbers, increasing, none below 0",
        ),
        (
            lambda: draw_batches(np.ones(3), np.ones(3), 0, 2, seed=0),
            "batch is 0; it must be a whole number of at least 1",
        ),
    ],
)
def test_bad_input_is_told_in_one_line(call, line):
    with pytest.raises(UserError) as caught:
        call()
    assert str(caught.value) == f"theory: {line}"
