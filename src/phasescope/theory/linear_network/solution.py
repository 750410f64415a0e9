"""The closed form: the network at any time of gradient flow, from any initial weights.

With P = P(0) ξ and Q = Q(0)/ξ the flow is a Riccati equation, ξ' = a0 + a1 ξ − a2 ξ², ξ(0) = 1, with

    a0 = κAγ²Q(0)/2,   a1 = 2κη̄γB,   a2 = κAγ²P(0)/2,   D = √(a1² + 4 a0 a2),   E = e^(−Dt),
    ξ = N/M,   N = (D + a1) + (D − a1) E + 2 a0 (1 − E),   M = (D − a1) + (D + a1) E + 2 a2 (1 − E).

No term of N and M is negative, so that nothing cancels. D is the rate at which learning ends, 1/D the time constant.
With ρ = γ√(PQ)/(2η̄) and G = (PQ − R²)/(4η̄²) = |u|²|w|² − (u·w)², both conserved, the slope f tells everything else:

    b − f = (b − f(0)) · 4 D² E/(N M),   K = 2η̄γ √(f² + ρ²),   |u||w| = √(f²/γ² + G),   ζ = f/(γ|u||w|),

and f' = −κ A K (f − b). So D = κ A K(∞), and the layers are more aligned in the end just where |b| > |f(0)|.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from phasescope.errors import UserError
from phasescope.theory.arrays import Array, Numbers, floats
from phasescope.theory.linear_network.model import LinearNetwork, rotated


class State(NamedTuple):
    """What can be told of the network without its single weights, arrays of one shape."""

    output: Array  #: f, the slope of the network's output: f(x) = f x
    kernel: Array  #: K = γ²(η_u|w|² + η_w|u|²), the tangent kernel weighted with learning rates: K(x, x') = K x x'
    output_norm: Array  #: |u|
    input_norm: Array  #: |w|
    alignment: Array  #: ζ = u·w/(|u||w|); NaN where a layer is zero

    @property
    def norm(self) -> Array:
        """N = |u||w|, so that f = γ N ζ."""
        return self.output_norm * self.input_norm


def rate(network: LinearNetwork) -> Array:
    """D = κγ √(4η̄²B² + A²γ²PQ), (*shape): what the target adds to it, and what the initial kernel does."""
    return np.hypot(*_terms(network))


def time_constant(network: LinearNetwork) -> Array:
    """1/D, the characteristic time in steps; infinite where learning slows down for ever (B = 0, and P or Q is 0)."""
    with np.errstate(divide="ignore"):
        return 1 / rate(network)


def solve(network: LinearNetwork, time: ArrayLike) -> State:
    """The network at times of gradient flow, each array (*shape, *time.shape); ∞ for the end.

    Raises:
        UserError: for a time below 0.
    """
    network, times = _spread(network, time)
    # Each form loses digits in proportion to what it subtracts: ρ or b.
    missing, plus, minus = _course(network, times)
    target = np.asarray(network.slope)
    near = target - (target - start(network)) * missing
    output = np.where(network.lazy_scale > np.abs(target), near, _output(network, plus - minus))
    kernel = 2 * network.rate * network.output_scale * np.hypot(output, network.lazy_scale)
    return state(network, output, kernel, network.balance)


def kernel_growth(network: LinearNetwork) -> Array:
    """ln(K(∞)/K(0)), (*shape), exact also where the kernel hardly changes: K² − K(0)² = 4η̄²γ²(f² − f(0)²).

    NaN where K(0) = 0, and with f → b, that is for PQ > 0.
    """
    first = start(network)
    ratio = 4 * network.rate / (network.output_scale * (network.plus + network.minus))
    return np.log1p((network.slope - first) * (network.slope + first) * ratio**2) / 2


def start(network: LinearNetwork) -> Array:
    """f(0), (*shape)."""
    return _output(network, np.asarray(network.plus - network.minus))


def weights(
    network: LinearNetwork, output_weights: Array, input_weights: Array, time: ArrayLike
) -> tuple[Array, Array]:
    """The weights u and w, (*shape, *time.shape, unit) each.

    Args:
        network: made by `LinearNetwork.of_weights` of the next two.
        output_weights: u at the start, (*shape, unit).
        input_weights: w at the start, (*shape, unit).
        time: from 0 on; ∞ for the end.

    Raises:
        UserError: for a time below 0.
    """
    spread, times = _spread(network, time)
    _, plus, minus = _course(spread, times)
    rates = {name: np.asarray(getattr(network, name)) for name in ("output_rate", "input_rate")}
    axes = (*network.shape, *(1,) * times.ndim, np.shape(output_weights)[-1])
    first, second = (one.reshape(axes) for one in rotated(output_weights, input_weights, **rates))
    first = first * np.sqrt(_over(plus, spread.plus))[..., None]
    second = second * np.sqrt(_over(minus, spread.minus))[..., None]
    of_output, of_input = (np.sqrt(np.asarray(one))[..., None] for one in (spread.input_rate, spread.output_rate))
    return (first + second) / (2 * of_output), (first - second) / (2 * of_input)


def state(network: LinearNetwork, output: Array, kernel: Array, balance: Numbers) -> State:
    """The state of a network of the given setting with the slope f, the kernel K and R, which broadcast."""
    total, twice = 2 * kernel / network.output_scale**2, 2 * np.asarray(balance)
    output_norm = np.sqrt(np.maximum(total + twice, 0) / (4 * network.input_rate))
    input_norm = np.sqrt(np.maximum(total - twice, 0) / (4 * network.output_rate))
    with np.errstate(divide="ignore", invalid="ignore"):
        alignment = np.clip(output / (network.output_scale * output_norm * input_norm), -1, 1)
    return State(output, kernel, output_norm, input_norm, alignment)


def _terms(network: LinearNetwork) -> tuple[Array, Array]:
    """a1 and 2√(a0 a2)."""
    kernel = network.input_moment * network.output_scale**2 * np.sqrt(network.plus) * np.sqrt(network.minus)
    target = 2 * network.rate * network.output_scale * network.target_moment
    return np.asarray(network.loss_factor * target), np.asarray(network.loss_factor * kernel)


def _course(network: LinearNetwork, times: Array) -> tuple[Array, Array, Array]:
    """(b − f)/(b − f(0)), P and Q at times that broadcast with the network."""
    target, kernel = _terms(network)
    fall, half = np.hypot(target, kernel), network.loss_factor * network.input_moment * network.output_scale**2 / 2
    size = np.abs(target)
    # D − |a1| without cancellation.
    little = kernel * _over(kernel, fall + size)
    up, down = np.where(target > 0, fall + size, little), np.where(target > 0, little, fall + size)
    clock = _product(fall, times)
    left, gone, still = np.exp(-clock), np.where(fall > 0, -np.expm1(-clock), times), np.where(fall > 0, 0.0, 2.0)
    above = up + down * left + still + 2 * _product(half * network.minus, gone)
    below = down + up * left + still + 2 * _product(half * network.plus, gone)
    plus, minus = _product(network.plus, _over(above, below)), _product(network.minus, _over(below, above))
    return _product(left, 4 * _over(fall, above) * _over(fall, below)), plus, minus


def _spread(network: LinearNetwork, time: ArrayLike) -> tuple[LinearNetwork, Array]:
    """The network with as many dimensions more as the times have."""
    times = np.asarray(time, dtype=np.float64)
    fit = times >= 0
    if not fit.all():
        raise UserError(f"theory: time is {times[~fit].ravel()[0]}; it must be a number of at least 0")
    axes = (*network.shape, *(1,) * times.ndim)
    fields = {name: np.broadcast_to(value, network.shape).reshape(axes) for name, value in vars(network).items()}
    return LinearNetwork(**fields), times


def _output(network: LinearNetwork, difference: Array) -> Array:
    """F of P − Q."""
    return network.output_scale * difference / (4 * network.rate)


def _product(first: Numbers, second: Numbers) -> Array:
    """The product, in which zero times infinity is zero."""
    with np.errstate(over="ignore", invalid="ignore"):
        return np.where(np.equal(first, 0), 0.0, np.multiply(first, second))


def _over(first: Array, second: Numbers) -> Array:
    """The quotient, in which zero over zero is zero."""
    first, second = floats(first, second)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(first == 0, 0.0, first / second)
