"""Solve the models of the theory: all that their figures show, as one labelled Dataset for each."""

from typing import Any

import numpy as np
from xarray import Dataset, merge

from phasescope.params.theory import FeatureStrengthSettings, LinearNetworkSettings
from phasescope.schedule import checkpoint_steps
from phasescope.theory.feature_strength import reconstruction, tables
from phasescope.theory.feature_strength.labels import labelled
from phasescope.theory.feature_strength.model import FeatureStrength
from phasescope.theory.feature_strength.regimes import PHASES, regimes
from phasescope.theory.feature_strength.stages import stages
from phasescope.theory.feature_strength.sweep import sweep
from phasescope.theory.linear_network import labels as network_labels
from phasescope.theory.linear_network import maps
from phasescope.theory.linear_network import tables as network_tables
from phasescope.theory.linear_network.courses import courses, even_inputs
from phasescope.theory.linear_network.training import gaussian

#: Points of a curve over the gap, and how far it goes beyond the last second minimum, where e^−Δ is the scale.
POINTS, BEYOND = 400, 5.0


def feature_strength(settings: FeatureStrengthSettings) -> Dataset:
    """The feature-strength model of Schneider & Prabhushankar (2024), without and with noise on what is decoded.

    Returns:
        On (noise, learning_rate, step): ``error``; on (learning_rate, step): ``gap``; on (noise, learning_rate):
        ``constant_until``, ``minimum_at``, ``constant``, ``fall``, ``rise`` of `sweep`; what `stages` gives; on
        (decoder, strength, outputs, curve_gap): ``curve_error``; on (strength, outputs): the tables `tables.shape` and
        `tables.times`, as ``shape_…`` and ``times_…``; what `regimes` gives; on (strength, map_outputs): l, R(0), and R
        at its minima, bump and end, as ``scaling_…``. The parameter set itself is in the attributes.
    """
    steps = checkpoint_steps(settings.iterations)
    noises = list(dict.fromkeys((0.0, settings.noise)))
    outputs = sorted({settings.outputs, *settings.compared_outputs})
    strengths = sorted({settings.strength, *settings.compared_strengths})
    (fewest, most), (lowest, highest), points = settings.map_outputs, settings.map_rates, settings.map_points
    across = np.unique(np.geomspace(fewest, most, points).round().astype(int)).tolist()
    rates = np.geomspace(lowest, highest, points)
    shape, times = tables.shape(outputs, strengths), tables.times(outputs, strengths)
    parts = [
        _over_steps(settings, steps, noises),
        stages(settings.stages, settings.outputs, settings.strength),
        _over_the_gap(shape),
        shape.rename({name: f"shape_{name}" for name in shape.data_vars}),
        times.rename({name: f"times_{name}" for name in times.data_vars}),
        regimes(across, strengths, rates, steps, noises),
        _over_outputs(tables.shape(across, strengths)),
    ]
    found = labelled(merge(parts, combine_attrs="drop", join="exact", compat="equals"))
    own = {name: getattr(settings, name) for name in ("outputs", "strength", "inputs", "iterations")}
    return found.assign_attrs(title="Feature-strength model of Schneider & Prabhushankar (2024)", **own)


def _over_steps(settings: FeatureStrengthSettings, steps: list[int], noises: list[float]) -> Dataset:
    rates = settings.learning_rates
    model = FeatureStrength(settings.outputs, settings.strength, settings.inputs, np.array(rates))
    found = [sweep(model, steps, noise) for noise in noises]
    phases = ("constant_until", "minimum_at", *PHASES)
    variables: dict[str, Any] = {
        name: (("noise", "learning_rate"), np.stack([one[name].values for one in found])) for name in phases
    }
    variables["error"] = (("noise", "learning_rate", "step"), np.stack([one.error.values for one in found]))
    variables["gap"] = (("learning_rate", "step"), found[0].gap.values)
    return Dataset(variables, {"noise": noises, "learning_rate": rates, "step": steps})


def _over_the_gap(shape: Dataset) -> Dataset:
    """R of both decoders for all l and k of the tables."""
    last = np.nanmax(np.append(shape.second_minimum_gap.values, 0.0))
    gap = np.linspace(0, last + BEYOND, POINTS)
    outputs, strength = shape.outputs.values, shape.strength.values[:, None]
    given = gap, outputs[:, None], strength[..., None]
    errors = np.stack([reconstruction.optimal(*given), reconstruction.paper(*given)])
    coords = {"decoder": ["optimal", "paper"], "strength": shape.strength.values, "outputs": outputs, "curve_gap": gap}
    return Dataset({"curve_error": (("decoder", "strength", "outputs", "curve_gap"), errors)}, coords)


def _over_outputs(shape: Dataset) -> Dataset:
    """R, not times l, at what is particular about it."""
    names = ("initial", "minimum", "bump", "final")
    found = (shape[[*names]] / shape.outputs).rename({name: f"scaling_{name}" for name in names})
    return found.rename(outputs="map_outputs")


def linear_network(settings: LinearNetworkSettings) -> Dataset:
    """The two-layer linear network of Xu & Ziyin (2025), and networks of other activations beside it.

    Returns:
        What `courses` gives, of small and of large initial weights; what `tables.parametrisations`,
        `maps.phase_map` and `maps.mechanism_map` give. Width and steps of the map, and the tolerance of the mechanisms,
        are in the attributes.
    """
    width, seed = settings.width, settings.seed
    initial = {
        "small": gaussian(width, settings.small, 0.0, seed),
        "large": gaussian(width, settings.large, settings.alignment, seed),
    }
    inputs, steps = even_inputs(settings.samples), checkpoint_steps(settings.iterations)
    parts = [
        courses(initial, settings.activations, inputs, inputs, settings.learning_rate, steps),
        network_tables.parametrisations(settings.widths, settings.draws, seed),
        maps.phase_map(settings.map_points, settings.map_width, settings.map_steps, seed),
        maps.mechanism_map(settings.map_points, settings.tolerance),
    ]
    found = network_labels.labelled(merge(parts, combine_attrs="drop", join="exact", compat="equals"))
    own = {name: getattr(settings, name) for name in ("map_width", "map_steps", "tolerance")}
    return found.assign_attrs(title="Two-layer linear network of Xu & Ziyin (2025)", **own)
