"""Maps: phases over scaling exponents, with what gradient descent does there, and mechanisms over initial outputs."""

import numpy as np
from xarray import Dataset

from phasescope.theory.linear_network import gaussian
from phasescope.theory.linear_network.descent import descend
from phasescope.theory.linear_network.labels import labelled
from phasescope.theory.linear_network.model import LinearNetwork
from phasescope.theory.linear_network.scaling import Exponents
from phasescope.theory.linear_network.solution import solve
from phasescope.theory.mechanisms import mechanisms

#: Of the learning rates on the map; with 1, D is above 2 on the line between what trains and what diverges.
FACTOR = 0.25
#: Exponents on the map, X and Y.
SCALES, RATES = (0.0, 2.0), (-0.5, 1.5)
#: |f(0)/b| and ρ/|b| on the other one.
RATIOS = (0.01, 100.0)


def phase_map(points: int, width: int, steps: int, seed: int) -> Dataset:
    """Phases over the two exponents that count, and networks of a finite width after so many steps there.

    The five exponents make two, X = cγ + min(cu − (eu − ew)/2, cw + (eu − ew)/2) and Y = cγ + (eu + ew)/2, with
    δ_F = −Y and δ_K = 1 − X − Y. The networks here have cγ = 0, cu = cw = X and eu = ew = Y, A = b = 1,
    factors of 1 but for the learning rates, and one draw.

    Args:
        points: of each exponent.
        width: d.
        steps: of gradient descent.
        seed: of the draw.

    Returns:
        On (map_rate, map_scale): ``map_training`` and ``map_learning``, the phases; ``map_kernel`` K/K(0), and
        ``map_missing`` (b − f)/(b − f(0)), after the last step; NaN where descent diverges.
    """
    scale, rate = np.linspace(*SCALES, points), np.linspace(*RATES, points)
    exponents = Exponents(0.0, scale, scale, rate[:, None], rate[:, None])
    found = descend(exponents.at(width, gaussian.draw(width, seed), FACTOR), [0, steps])
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        kernel = found.kernel[..., 1] / found.kernel[..., 0]
        missing = (1 - found.output[..., 1]) / (1 - found.output[..., 0])
    bounded = np.isfinite(kernel) & np.isfinite(missing)
    dims = ("map_rate", "map_scale")
    variables = {
        "map_training": (dims, exponents.training),
        "map_learning": (dims, np.broadcast_to(exponents.learning, (points, points))),
        "map_kernel": (dims, np.where(bounded, kernel, np.nan)),
        "map_missing": (dims, np.where(bounded, missing, np.nan)),
    }
    return labelled(Dataset(variables, {"map_rate": rate, "map_scale": scale}))


def mechanism_map(points: int, tolerance: float) -> Dataset:
    """Which mechanisms there are, of balanced layers (R = 0), over initial output and ρ, both in units of b.

    Returns:
        On (map_lazy, map_start): ``map_alignment``, ``map_disalignment``, ``map_rescaling``, ``map_kernel_kept``.

    Raises:
        UserError: for a tolerance that is not above 0.
    """
    ratios = np.geomspace(*RATIOS, points)
    # With γ, η̄, A and b of 1: P − Q = 4 f(0), and PQ = 4ρ².
    lazy, first = ratios[:, None], ratios[None, :]
    half = np.hypot(first, lazy)
    plus = 2 * (half + first)
    state = solve(LinearNetwork(plus, 4 * lazy**2 / plus, 0.0), [0, np.inf])
    alignment, norm, kernel = (np.moveaxis(values, -1, 0) for values in (state.alignment, state.norm, state.kernel))
    found = mechanisms(alignment, norm, kernel, tolerance)
    variables = {
        "map_alignment": found.alignment,
        "map_disalignment": found.disalignment,
        "map_rescaling": found.rescaling,
        "map_kernel_kept": found.kernel,
    }
    dims = ("map_lazy", "map_start")
    return labelled(Dataset({name: (dims, values) for name, values in variables.items()}, dict.fromkeys(dims, ratios)))
