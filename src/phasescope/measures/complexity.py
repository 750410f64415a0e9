"""How far from linear a network is: linear mapping number from its layers, local complexity of its nonlinearities."""

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
import xarray as xr

from phasescope.measures.linear_mapping import linear_mapping_number
from phasescope.measures.local import frame, local_complexity, random_points, spread
from phasescope.measures.samples import Samples, Variable
from phasescope.models.parts import BENT_AT_ZERO, activations, embed, from_layer, hidden_layers, pre_activations
from phasescope.params.complexity import ComplexitySettings

#: Bytes of all pre-activations that are held at once, about, by kind of device (docs/log.md).
BLOCK = {"cpu": 16 << 20, "cuda": 1 << 30}
#: Where the points of the local complexity are from.
PARTS = ("train", "test", "random")

LINEAR = {"linear_mapping_number": Variable("linear mapping number from a layer to the logits", dims=("layer",))}
LOCAL = {
    "local_complexity": Variable(
        "neurons that bend near a point, mean over points", "neuron", dims=("nonlinearity", "part")
    ),
    "total_complexity": Variable("the same, summed over all nonlinearities", "neuron", dims=("part",)),
    "radius": Variable("distance of the vertices from their point", "embedded input"),
}
NEURONS = Variable("numbers that a nonlinearity takes", "neuron", dims=("nonlinearity",))


def complexity(network: torch.nn.Module, samples: Samples, settings: ComplexitySettings) -> xr.Dataset:
    """The measures that `settings` ask for, of the network at one checkpoint.

    Args:
        network: in eval mode, a function of each sample alone.
        samples: inputs, and which of them are for training; of these, some are taken, always the same.
        settings: with the `layers` named; see `ComplexitySettings`.

    Returns:
        `linear_mapping_number` (layer), from 1 to the number of training samples that it has as an attribute.
        `local_complexity` (nonlinearity, part), `total_complexity` (part) and `radius` (): the part is that of the
        points, "train", "test" or "random". The coordinate `neurons` (nonlinearity) says how many there are at all.
        Nothing of a network that is linear as a whole: there they are 1 and 0; and no local complexity where no
        nonlinearity bends at zero, as of sigmoid and tanh, for it counts zeros.
    """
    weight = next(network.parameters())

    def embedded(among: np.ndarray, count: int) -> torch.Tensor:
        """What the network sees of some of the samples, which are among more that are asked for."""
        chosen = np.random.default_rng(0).permutation(np.flatnonzero(among))[:count]
        inputs = torch.from_numpy(samples.inputs[chosen].reshape(-1, *samples.image))
        return embed(network, inputs.to(weight))

    with torch.inference_mode():
        one = embedded(samples.train, 1)
        units = sum(values.shape[1] for values in pre_activations(network, one).values())
        rows = BLOCK[weight.device.type] // (one.element_size() * max(1, units))
        bent = pre_activations(network, one, kinds=BENT_AT_ZERO)
        neurons = {path: values.shape[1] for path, values in bent.items()}
        result = xr.Dataset()
        if "linear-mapping-number" in settings.measures and settings.layers:
            ends = embedded(samples.train, settings.line_samples)
            result = result.merge(_linear(network, ends, settings.layers, rows))
        if "local-complexity" in settings.measures and neurons:
            train = embedded(samples.train, settings.points)
            parts = (train, embedded(samples.test, settings.points), random_points(train, settings.points))
            result = result.merge(_local(network, parts, neurons, settings, rows))
    return result


def with_layers(
    settings: ComplexitySettings, network: torch.nn.Module, samples: Samples, taps: Sequence[str]
) -> ComplexitySettings:
    """The settings with the layers named that they leave to the network and the taps of its run."""
    if settings.layers is not None:
        return settings
    inputs = torch.from_numpy(samples.inputs[:1].reshape(-1, *samples.image))
    layers = hidden_layers(network, taps, embed(network, inputs.to(next(network.parameters()))))
    return settings.model_copy(update={"layers": layers})


def _linear(network: torch.nn.Module, embedded: torch.Tensor, layers: list[str], rows: int) -> xr.Dataset:
    variable = LINEAR["linear_mapping_number"]
    numbers = [
        linear_mapping_number(from_layer(network, layer, embedded), activations(network, layer, embedded), rows)
        for layer in layers
    ]
    attributes = {**variable.attributes, "samples": len(embedded)}
    named = xr.DataArray(np.array(layers, dtype=object), dims="layer", attrs={"long_name": "layer"})
    return xr.Dataset({"linear_mapping_number": (variable.dims, np.array(numbers), attributes)}, {"layer": named})


def _local(
    network: torch.nn.Module,
    parts: tuple[torch.Tensor, ...],
    neurons: dict[str, int],
    settings: ComplexitySettings,
    rows: int,
) -> xr.Dataset:
    train = parts[0]
    directions = torch.from_numpy(frame(settings.directions, train[0].numel())).to(train).view(-1, *train.shape[1:])
    radius = settings.radius * spread(train)
    bent = partial(pre_activations, network, kinds=BENT_AT_ZERO)
    counts = [local_complexity(bent, part, directions, radius, rows) for part in parts]
    means = np.array([[found[path].mean() for found in counts] for path in neurons]).reshape(len(neurons), len(parts))
    values = {"local_complexity": means, "total_complexity": means.sum(axis=0), "radius": np.array(radius)}
    attributes = {"directions": len(directions), "relative_radius": settings.radius}
    named = {"long_name": "nonlinearity"}
    return xr.Dataset(
        {name: (LOCAL[name].dims, value, LOCAL[name].attributes | attributes) for name, value in values.items()},
        {
            "nonlinearity": ("nonlinearity", np.array(list(neurons), dtype=object), named),
            "part": ("part", np.array(PARTS, dtype=object), {"long_name": "where the points are from"}),
            "neurons": (NEURONS.dims, np.array(list(neurons.values()), dtype=np.int64), NEURONS.attributes),
        },
    )
