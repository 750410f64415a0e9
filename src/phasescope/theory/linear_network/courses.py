"""Alignment over training: networks of several activations that are trained, and the closed form for each."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from xarray import Dataset

from phasescope.theory.arrays import Array
from phasescope.theory.linear_network.labels import labelled
from phasescope.theory.linear_network.model import LinearNetwork
from phasescope.theory.linear_network.solution import solve, start
from phasescope.theory.linear_network.training import Weights, mean_slope, train

#: Times of the closed form up to the first step, and from there on, evenly spread over their logarithm.
FIRST, TIMES = 8, 120


def even_inputs(samples: int) -> Array:
    """Inputs (sample,) evenly spaced about zero, with a mean square of 1."""
    inputs = np.linspace(-1, 1, samples)
    return inputs / np.sqrt((inputs**2).mean())


def courses(
    initial: Mapping[str, Weights],
    activations: Sequence[str],
    inputs: Array,
    targets: Array,
    learning_rate: float,
    steps: ArrayLike,
) -> Dataset:
    """Train a network of every activation from all initial weights, and solve each as a linear one with γm for γ.

    Args:
        initial: weights by name.
        activations: of `training.ACTIVATIONS`.
        inputs: (sample,), as often x as −x.
        targets: (sample,).
        learning_rate: of both layers.
        steps: whole, increasing, from 0 on, with more than one.

    Returns:
        ``trained_alignment`` and ``trained_norm`` (initialisation, activation, step); ``theory_alignment``,
        ``theory_norm`` and ``theory_kernel`` (initialisation, activation, time), for times from 0 to the last step;
        ``lazy_ratio`` and ``start_ratio`` (initialisation, activation); ``mean_slope`` (activation).

    Raises:
        UserError: for another activation, other steps, or a network that the theory does not have.
    """
    numbers = np.asarray(steps)
    times = np.append(np.linspace(0, 1, FIRST, endpoint=False), np.geomspace(1, max(int(numbers[-1]), 2), TIMES))
    slopes = np.array([mean_slope(activation) for activation in activations])
    setting: dict[str, Any] = {"output_rate": learning_rate, "input_rate": learning_rate, "output_scale": slopes}
    setting |= {"input_moment": (inputs**2).mean(), "target_moment": (inputs * targets).mean()}
    columns: dict[tuple[str, str], list[Array]] = defaultdict(list)
    for weights in initial.values():
        found = [train(activation, weights, inputs, targets, learning_rate, numbers) for activation in activations]
        columns["trained_alignment", "step"].append(np.stack([one.alignment for one in found]))
        columns["trained_norm", "step"].append(np.stack([one.norm for one in found]))
        network = LinearNetwork.of_weights(*weights, **setting)
        state = solve(network, times)
        columns["theory_alignment", "time"].append(state.alignment)
        columns["theory_norm", "time"].append(state.norm)
        columns["theory_kernel", "time"].append(state.kernel)
        columns["lazy_ratio", ""].append(network.lazy_scale / network.slope)
        columns["start_ratio", ""].append(start(network) / network.slope)
    variables: dict[str, Any] = {
        name: (("initialisation", "activation", *([over] if over else [])), np.stack(values))
        for (name, over), values in columns.items()
    }
    variables["mean_slope"] = ("activation", slopes)
    coords = {"initialisation": list(initial), "activation": list(activations), "step": numbers, "time": times}
    return labelled(Dataset(variables, coords))
