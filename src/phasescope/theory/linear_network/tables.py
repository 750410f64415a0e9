"""The table of parametrisations: their exponents and phases, and what networks of several widths do there."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from rich import box
from rich.table import Table
from xarray import DataArray, Dataset

from phasescope.errors import UserError
from phasescope.theory.arrays import Array, require
from phasescope.theory.linear_network import gaussian
from phasescope.theory.linear_network.labels import labelled
from phasescope.theory.linear_network.model import LinearNetwork
from phasescope.theory.linear_network.scaling import PARAMETRISATIONS, Exponents
from phasescope.theory.linear_network.solution import kernel_growth, rate, solve

WIDTHS = (100, 1000, 10_000, 100_000, 1_000_000)
DRAWS = 5
#: The fields of `Exponents`, by the letters of their exponents.
QUANTITIES = {
    "output_scale": "cγ",
    "output_variance": "cu",
    "input_variance": "cw",
    "output_rate": "eu",
    "input_rate": "ew",
}


def parametrisations(widths: Sequence[float] = WIDTHS, draws: int = DRAWS, seed: int = 0) -> Dataset:
    """Every parametrisation by its exponents, and by networks that are drawn, with A = b = 1 and all factors 1.

    Args:
        widths: d, two or more.
        draws: of initial weights at each width.
        seed: of the draws.

    Returns:
        On (parametrisation): ``training`` and ``learning``, the phases; ``feature_exponent`` and ``kernel_exponent``;
        ``exponent`` (…, quantity). For wide networks with f(0) = 0, (parametrisation, width): ``limit_rate`` D,
        ``limit_kernel`` K(∞)/K(0) − 1, ``limit_alignment`` ζ(∞); the same of those that are drawn, ``drawn_…``,
        (parametrisation, draw, width); ``rate_slope`` and ``alignment_slope``, of log D and log ζ(∞) over log d,
        (parametrisation, draw).

    Raises:
        UserError: for a width that is no whole number of at least 1, or fewer than two of them.
    """
    width = np.asarray(widths, dtype=np.float64)
    if len(np.unique(width)) < 2:
        raise UserError(f"theory: widths are {', '.join(f'{one:g}' for one in widths)}; a slope takes two or more")
    require("width", width, (width >= 1) & (width == np.floor(width)), "a whole number of at least 1")
    exponents = {
        quantity: np.array([getattr(one, quantity) for one in PARAMETRISATIONS.values()]) for quantity in QUANTITIES
    }
    known = Exponents(**{quantity: values[:, None, None] for quantity, values in exponents.items()})
    limit = _ends(known.at(width, gaussian.limit(width)))
    drawn = _ends(known.at(width, gaussian.draw(width, seed, draws)))
    per, of_draws = ("parametrisation",), ("parametrisation", "draw", "width")
    variables = {
        "exponent": ((*per, "quantity"), np.stack(list(exponents.values()), axis=1)),
        "feature_exponent": (per, known.feature[:, 0, 0]),
        "kernel_exponent": (per, known.kernel[:, 0, 0]),
        "training": (per, known.training[:, 0, 0]),
        "learning": (per, known.learning[:, 0, 0]),
        **{f"limit_{name}": ((*per, "width"), values[:, 0]) for name, values in limit.items()},
        **{f"drawn_{name}": (of_draws, values) for name, values in drawn.items()},
        "rate_slope": (of_draws[:2], _slopes(width, drawn["rate"])),
        "alignment_slope": (of_draws[:2], _slopes(width, np.abs(drawn["alignment"]))),
    }
    coords: dict[str, Any] = {"parametrisation": list(PARAMETRISATIONS), "quantity": list(QUANTITIES), "width": width}
    coords["draw"] = list(range(draws))
    return labelled(Dataset(variables, coords))


def _ends(network: LinearNetwork) -> dict[str, Array]:
    return {
        "rate": rate(network),
        "kernel": np.expm1(kernel_growth(network)),
        "alignment": solve(network, np.inf).alignment,
    }


def _slopes(width: Array, values: Array) -> Array:
    """Of log values (…, width) over log width, by least squares; (…)."""
    across = np.log(width) - np.log(width).mean()
    return (np.log(values) * across).sum(-1) / (across**2).sum()


def printed(table: Dataset) -> tuple[Table, Table]:
    """What `parametrisations` gives as two tables for a terminal: the theory, and the networks that are drawn."""
    headings = ("", *QUANTITIES.values(), "δ_F", "δ_K", "D", "kernel")
    theory = _table("Linear network: exponents over the width d, and the phase", headings)
    widths = table.width.values
    title = f"Drawn: K(∞)/K(0) − 1 and ζ(∞) at d = {widths.max():g}, slopes from d = {widths.min():g}"
    headings = ("", "slope\nof D", "K for\nf(0) = 0", "K, least\ndrawn", "K, most\ndrawn")
    drawn = _table(title, (*headings, "ζ for\nf(0) = 0", "ζ\ndrawn", "slope\nof ζ"))
    for name in table.parametrisation.values.tolist():
        one = table.sel(parametrisation=name)
        wide = one.isel(width=int(widths.argmax()))
        exponents = [*one.exponent.values.tolist(), float(one.feature_exponent), float(one.kernel_exponent)]
        phase = str(one.training.values), str(one.learning.values)
        theory.add_row(name, *(f"{exponent + 0:g}" for exponent in exponents), *phase)
        kernels = (wide.limit_kernel, wide.drawn_kernel.min(), wide.drawn_kernel.max())
        alignments = (wide.limit_alignment, wide.drawn_alignment.mean())
        shown = [_mean(one.rate_slope), *(f"{float(value):.2g}" for value in kernels)]
        shown += [f"{float(value):.3g}" for value in alignments]
        drawn.add_row(name, *shown, _mean(one.alignment_slope))
    return theory, drawn


def _mean(slopes: DataArray) -> str:
    return f"{round(float(slopes.mean()), 3) + 0:.3f}"


def _table(title: str, headings: Sequence[str]) -> Table:
    shown = Table(box=box.SIMPLE_HEAD, padding=(0, 0, 0, 1), title=title, title_justify="left", title_style="bold")
    for heading in headings:
        shown.add_column(heading, justify="right" if heading else "left", no_wrap=True)
    return shown
