"""Gradient descent and stochastic gradient descent of the network, exactly, in three numbers.

A step is p_i → (1 + η̄g) p_i, q_i → (1 − η̄g) q_i, and so, with s = u·w and V = P + Q,

    s → (1 + η̄²g²) s + g V/2,   V → (1 + η̄²g²) V + 8η̄²g s,   R → (1 − η̄²g²) R,   g = κγ(B − Aγs),

whatever the width. PQ and R, which the flow conserves, shrink, PQ by the factor (1 − η̄²g²)² at each step. Gradient
descent ends that, for g → 0. Where the gradients of batches differ at the solution, as with noise in the labels, it
goes on until PQ and R are zero: noise balances the layers, and aligns them.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from phasescope.errors import UserError
from phasescope.theory.arrays import Array, Numbers, increasing_steps, require
from phasescope.theory.linear_network.model import LinearNetwork
from phasescope.theory.linear_network.solution import State, start, state


class Batches(NamedTuple):
    """What gradient descent sees of the data at every update."""

    input_moment: Array  #: A of each batch, (update, …), where … broadcasts with the settings of the network
    target_moment: Array  #: B of each batch, likewise


def descend(network: LinearNetwork, steps: ArrayLike, batches: Batches | None = None) -> State:
    """The network after so many steps, each array (*shape, step); infinite or NaN where it diverges.

    Args:
        network: one setting, or many.
        steps: whole, increasing, from 0 on.
        batches: of the updates; without them the network's own A and B, which is full-batch gradient descent.

    Raises:
        UserError: for other steps, or fewer batches than updates.
    """
    numbers = increasing_steps(steps)
    if batches is not None and min(map(len, batches)) < numbers[-1]:
        raise UserError(f"theory: {min(map(len, batches))} batches for {numbers[-1]} updates; give one for each")
    shape = network.shape
    overlap = np.broadcast_to(start(network) / network.output_scale, shape)
    total, balance = (np.broadcast_to(one, shape) for one in (network.plus + network.minus, network.balance))
    squared_rate, pull = network.output_rate * network.input_rate, network.loss_factor * network.output_scale
    moments, done, found = (network.input_moment, network.target_moment), 0, np.empty((3, *shape, len(numbers)))
    with np.errstate(over="ignore", invalid="ignore"):
        for place, step in enumerate(numbers.tolist()):
            for update in range(done, step):
                if batches is not None:
                    moments = batches.input_moment[update], batches.target_moment[update]
                gradient = pull * (moments[1] - moments[0] * network.output_scale * overlap)
                second = squared_rate * gradient**2
                overlap, total, balance = (
                    (1 + second) * overlap + gradient * total / 2,
                    (1 + second) * total + 8 * squared_rate * gradient * overlap,
                    (1 - second) * balance,
                )
            found[..., place], done = (overlap, total, balance), step
        scale = np.broadcast_to(network.output_scale, shape)[..., None]
        spread = LinearNetwork(
            **{name: np.broadcast_to(value, shape)[..., None] for name, value in vars(network).items()}
        )
        return state(spread, scale * found[0], scale**2 / 2 * found[1], found[2])


def draw_batches(inputs: Array, targets: Array, batch: int, updates: int, seed: int) -> Batches:
    """Batches of samples drawn with replacement from inputs x and targets y, (sample,) each.

    Raises:
        UserError: for a batch of no sample.
    """
    require("batch", np.array(batch), np.array(batch >= 1), "a whole number of at least 1")
    chosen = np.random.default_rng(seed).integers(len(inputs), size=(updates, batch))
    drawn, wanted = inputs[chosen], targets[chosen]
    return Batches((drawn**2).mean(axis=1), (drawn * wanted).mean(axis=1))


def gradient_variance(inputs: Array, targets: Array, batch: int) -> float:
    """Var[x(y − bx)] over samples, (sample,) each, divided by those in a batch: the noise of B − Ab at the solution."""
    slope = (inputs * targets).mean() / (inputs**2).mean()
    return float((inputs * (targets - slope * inputs)).var() / batch)


def alignment_time(network: LinearNetwork, variance: Numbers) -> Array:
    """Steps 1/(2η̄²γ²κ²V) in which PQ falls by e where the gradients have the variance V at the solution; (*shape).

    To first order in the step: f does not stay at b either, which makes it faster by the share
    κK m/(2A − κK m) with m = E[A²] over batches and K as it is then.
    """
    with np.errstate(divide="ignore"):
        speed = 2 * (network.rate * network.output_scale * network.loss_factor) ** 2
        return np.asarray(1 / (speed * np.asarray(variance, dtype=np.float64)))
