"""Time scales of the two phases: when a network has fitted, when it generalises, when it is compressed.

*A Two-Phase Perspective on Deep Learning Dynamics* (2504.12700) says that fast fitting is followed by slow compression,
and that test accuracy, the second descent of the test loss and the fall of I(T;X) share their time scale. It draws
curves and gives no rule. Here

- a network has fitted at the first step with a training accuracy of ``fitted``, and generalises at the first one with a
  test accuracy of ``generalised``;
- a curve m(t), looked at from where the network has fitted, with its largest value M and its last m_T, declines if
  M − m_T is more than ``decline`` · M. The decline begins at the last step with m ≥ M − ``margin`` · (M − m_T), and
  ends at the first one after it with m ≤ m_T + ``margin`` · (M − m_T).

Steps are those at which a curve is known: powers of two, but for loss and accuracy, which may be known more often.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich import box
from rich.table import Table
from xarray import DataArray, Dataset

from phasescope.params.phases import PhasesSettings

Array = NDArray[Any]
#: A step of each seed, None where there is none.
Steps = list[int | None]

#: What can decline, by the name of its curve, in the words of the table.
DECLINES = {
    "test_loss": "second descent of the test loss",
    "i_x": "compression, I(T;X)",
    "linear_mapping_number": "linear mapping number",
    "local_complexity": "local complexity",
}

NONE = "none"

#: What I(T;X) depends on besides the layer.
RESOLUTION = ("part", "samples", "draw_seed", "noise", "variance", "bins", "components", "bin_width", "bits")


def time_scales(
    training: Dataset, information: Dataset | None, complexity: Dataset | None, settings: PhasesSettings
) -> dict[str, Any]:
    """The time scales of a run, as plain numbers that JSON can hold: a step for each seed, None for "there is none".

    Args:
        training: ``train_accuracy``, ``test_accuracy`` and ``test_loss`` (seed, step).
        information: ``i_x`` (seed, step, layer, estimator), of which the first estimator counts.
        complexity: ``linear_mapping_number`` (seed, step, layer), ``local_complexity`` (seed, step, nonlinearity, part)
            around training samples.
        settings: the rules.

    Returns:
        ``seeds``; ``fit`` and ``generalise``, a step for each seed; the estimator of ``information`` with its settings;
        and in ``declines`` for every curve, by its name and layer (none for the loss), ``onset`` and ``end``.
    """
    fit = [first(curve, settings.fitted) for curve in _seeds(training.train_accuracy)]
    found: dict[str, Any] = {
        "seeds": training.seed.values.tolist(),
        "fit": fit,
        "generalise": [first(curve, settings.generalised) for curve in _seeds(training.test_accuracy)],
        "declines": [],
    }
    if information is not None:
        told = {name: value for name, value in information.attrs.items() if name in RESOLUTION}
        found["information"] = {"estimator": str(information.estimator.values[0]), **told}
    for name, layer, values in _curves(training, information, complexity):
        pairs = [
            decline(curve, start, settings) if start is not None else (None, None)
            for curve, start in zip(_seeds(values), fit, strict=True)
        ]
        onset, end = (list(steps) for steps in zip(*pairs, strict=True))
        found["declines"].append({"curve": name, "layer": layer, "onset": onset, "end": end})
    return found


def first(curve: DataArray, level: float) -> int | None:
    """The first step at which a curve (step,) is at a level or above; None if it never is."""
    reached = np.flatnonzero(curve.values >= level)
    return int(curve.step.values[reached[0]]) if len(reached) else None


def decline(curve: DataArray, start: int, settings: PhasesSettings) -> tuple[int | None, int | None]:
    """The steps at which the decline of a curve (step,) from step ``start`` on begins and ends, if there is one."""
    seen = curve.where(curve.step >= start, drop=True).dropna("step")
    values, steps = seen.values, seen.step.values
    if len(values) < 2:
        return None, None
    highest, last = values.max(), values[-1]
    if not highest - last > settings.decline * abs(highest):
        return None, None
    margin = settings.margin * (highest - last)
    onset = int(np.flatnonzero(values >= highest - margin)[-1])
    end = onset + int(np.flatnonzero(values[onset:] <= last + margin)[0])
    return int(steps[onset]), int(steps[end])


def _seeds(values: DataArray) -> list[DataArray]:
    return [values.isel(seed=seed) for seed in range(values.sizes["seed"])]


def _curves(
    training: Dataset, information: Dataset | None, complexity: Dataset | None
) -> list[tuple[str, str, DataArray]]:
    """Every curve that can decline, (seed, step), with its name and its layer."""
    curves = [("test_loss", "", training.test_loss)]
    if information is not None:
        told = information.i_x.isel(estimator=0)
        curves += [("i_x", str(layer), told.sel(layer=layer)) for layer in told.layer.values]
    if complexity is not None and "linear_mapping_number" in complexity:
        numbers = complexity.linear_mapping_number
        curves += [("linear_mapping_number", str(layer), numbers.sel(layer=layer)) for layer in numbers.layer.values]
    if complexity is not None and "local_complexity" in complexity:
        around = complexity.local_complexity.sel(part="train")
        paths = around.nonlinearity.values
        curves += [("local_complexity", str(path), around.sel(nonlinearity=path)) for path in paths]
    return curves


def frame(results: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One flat row for every run, curve, layer and seed, for a CSV file."""
    rows = []
    for run, found in results.items():
        for place, seed in enumerate(found["seeds"]):
            of_seed = {"run": run, "seed": seed}
            rows += [{**of_seed, "curve": name, "onset": found[name][place]} for name in ("fit", "generalise")]
            rows += [
                {**of_seed, **one, "onset": one["onset"][place], "end": one["end"][place]} for one in found["declines"]
            ]
    return rows


def table(results: Mapping[str, Mapping[str, Any]]) -> Table:
    """When what happens, in 100 columns: the median over the seeds in which it does, and in how many.

    Networks have many layers: those of which a complexity declines in no seed are left out.
    """
    shown = Table(box=box.SIMPLE_HEAD, padding=0, title="time scales, in iterations", title_justify="left")
    shown.caption, shown.caption_justify = "complexity: layers in which it declines", "left"
    shown.add_column("run", overflow="fold")
    shown.add_column("what", overflow="fold")
    shown.add_column("layer", overflow="fold")
    for heading in ("begins", "ends", "seeds"):
        shown.add_column(heading, justify="right", no_wrap=True)
    for run, found in results.items():
        seeds = len(found["seeds"])
        words = {"fit": "training samples fitted", "generalise": "test samples too"}
        for place, (name, told) in enumerate(words.items()):
            steps = found[name]
            shown.add_row(run if place == 0 else "", told, "", _median(steps), "", _count(steps, seeds))
        for one in found["declines"]:
            if one["curve"] in ("linear_mapping_number", "local_complexity") and _median(one["onset"]) == NONE:
                continue
            what = DECLINES[one["curve"]]
            shown.add_row(
                "", what, one["layer"], _median(one["onset"]), _median(one["end"]), _count(one["onset"], seeds)
            )
        shown.add_section()
    return shown


def _median(steps: Steps) -> str:
    there = [step for step in steps if step is not None]
    return f"{np.median(there):.0f}" if there else NONE


def _count(steps: Steps, seeds: int) -> str:
    return f"{sum(step is not None for step in steps)} of {seeds}"
