"""Learning phases: does the reconstruction loss of a layer stay constant, fall and rise again?

The three phases are those of Schneider & Prabhushankar (2024); the paper draws them and gives no rule.
Here the curve r(t), the mean over seeds of the test loss at step t, with its minimum at m and its last
step T, has

- a constant phase up to the last t with |r(s) - r(0)| ≤ tolerance · (max r - min r) for all s ≤ t; it counts
  if it reaches step 2 and a fall or a rise counts: a curve on which nothing happens has no phases;
- a fall if r(0) - r(m), and a rise if r(T) - r(m), exceeds both ``threshold`` · r(0) and
  ``standard_errors`` standard errors of that difference. Both losses come from the same seeds and samples,
  so the error is that of the paired differences: over seeds, or over test samples for a single seed.

m is chosen by looking, so noise from step to step makes falls and rises too: of 300 flat curves of 18 steps that
jump by 2 % (standard deviation), 78 % had a fall with one seed, 31 % with three and 21 % with five. What to
look at besides are ``seeds_with_fall`` and the same minimum in all seeds.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich import box
from rich.table import Table
from scipy.special import stdtrit  # Student's quantile; scipy.stats takes three times as long to import
from xarray import Dataset

from phasescope.outliers import outliers
from phasescope.params.phases import PhasesSettings

Array = NDArray[Any]
Numbers = dict[str, Any]

#: Numbers drawn at once for the bootstrap, which bounds its memory (8 bytes each, a few copies).
_DRAWN_AT_ONCE = 2**20


def of_decoders(decode: Dataset, probe: Dataset, settings: PhasesSettings) -> dict[str, Numbers]:
    """Phases of every layer by every decoder of a run: by layer for the first, by "layer (decoder)" for the others.

    Args:
        decode: as `phases` takes it, with a last dimension ``decoder`` of the cells; NaN where a layer was not decoded.
        probe: as `phases` takes it.
        settings: when a phase counts, and the number of resamples.
    """
    numbers: dict[str, Numbers] = {}
    for place, decoder in enumerate(decode.decoder.values.tolist()):
        cells = decode.sel(decoder=decoder)
        cells = cells.isel(layer=cells.test_mse.notnull().any(("seed", "step")).values) if place else cells
        found = phases(cells, probe, settings)
        numbers |= found if place == 0 else {f"{layer} ({decoder})": of_layer for layer, of_layer in found.items()}
    return numbers


def phases(decode: Dataset, probe: Dataset, settings: PhasesSettings) -> dict[str, Numbers]:
    """Phases of every layer of a run, as plain numbers that JSON can hold.

    A seed whose loss is not finite at some step is left out. Of each layer:

    - ``phases``: those present in the mean curve, such as ``"constant, fall, rise"``, or ``"none"``;
      ``seeds``: how many there are; ``seeds_with_…``: in how many of them the phase is present by itself;
    - ``constant_until`` (t_c) and ``minimum_at`` (m) in steps, ``fall`` = 1 - r(m)/r(0),
      ``rise`` = r(T)/r(m) - 1 and ``end_ratio`` = r(T)/r(0), all of the mean curve;
    - ``constant_until_min``, ``fall_min``, ``rise_min``: the smallest of any seed, each by its own minimum;
    - ``…_interval``: [low, high] by Student's t over the seeds' own values, None for a single seed; for steps
      by their logarithm, None where a seed has step 0;
    - ``…_interval_samples``: the same by percentile bootstrap of the mean curve over test samples, each
      resample used at all steps and its minimum sought anew; ``minimum_agreement``: the share of resamples
      with the same minimum;
    - ``fvu_start``, ``fvu_minimum``, ``fvu_end``: fraction of variance unexplained at 0, m and T;
    - ``accuracy_highest``, ``accuracy_highest_at``, ``accuracy_end``: test accuracy of the network itself;
    - ``outliers``: the run's checkpoints that are out of line (`phasescope.outliers`), or ``"none"``;
    - ``per_seed``: lists in the order of the seeds.

    Args:
        decode: ``error`` (seed, step, layer, sample), squared error of each test sample, mean over pixels;
            ``test_mse`` and ``fvu`` (seed, step, layer).
        probe: ``network_accuracy``, ``network_loss`` and ``weight_norm`` (seed, step).
        settings: when a phase counts, and the number of resamples.
    """
    found = "; ".join(map(str, outliers(probe.network_loss, probe.weight_norm))) or "none"
    layers = {str(layer): _layer(decode.sel(layer=layer), probe, settings) for layer in decode.layer.values}
    return {layer: {**numbers, "outliers": found} for layer, numbers in layers.items()}


def resampled_means(errors: Array, resamples: int) -> Array:
    """Means of the columns of ``errors`` (sample, column) over bootstrap resamples of its rows.

    One resample serves all columns, so that differences between steps are paired, and every call draws the
    same resamples, so that layers are paired too. Returns (resample, column) in float64.
    """
    samples = len(errors)
    generator = np.random.default_rng(0)
    means = np.empty((resamples, errors.shape[1]))
    rows = max(1, _DRAWN_AT_ONCE // samples)
    for start in range(0, resamples, rows):
        block = means[start : start + rows]
        drawn = generator.integers(samples, size=(len(block), samples))
        drawn += samples * np.arange(len(block))[:, None]
        weights = np.bincount(drawn.ravel(), minlength=drawn.size).reshape(drawn.shape)
        block[:] = weights @ errors / samples
    return means


def _layer(cells: Dataset, probe: Dataset, settings: PhasesSettings) -> Numbers:
    """All numbers of one layer, from the seeds whose loss is finite at all steps."""
    cells = cells.isel(seed=np.isfinite(cells.test_mse).all("step").values)
    if not cells.sizes["seed"]:
        return {"phases": "none", "seeds": 0}
    steps = cells.step.values
    losses = cells.test_mse.transpose("seed", "step").values.astype(np.float64)
    errors = cells.error.transpose("seed", "sample", "step").values.astype(np.float64)
    seeds = [_curve(error, steps, settings) for error in errors]
    mean = _curve(losses, steps, settings) if len(seeds) > 1 else seeds[0]
    per_seed = {key: [seed[key] for seed in seeds] for key in mean}

    resampled = resampled_means(errors.mean(axis=0), settings.resamples)
    lowest = resampled.min(axis=1)
    tail = (1 - settings.confidence) / 2
    fvu = cells.fvu.mean("seed")
    accuracy = probe.network_accuracy.sel(seed=cells.seed.values).mean("seed", skipna=False)
    highest = int(accuracy.values.argmax())  # the first step where a number is learnt, which has no accuracy
    return {
        "phases": mean["phases"],
        "seeds": len(seeds),
        **{
            f"seeds_with_{phase}": sum(phase in present for present in per_seed["phases"])
            for phase in ("constant", "fall", "rise")
        },
        "constant_until": mean["constant_until"],
        "constant_until_min": min(per_seed["constant_until"]),
        "constant_until_interval": _step_interval(per_seed["constant_until"], settings.confidence),
        "minimum_at": mean["minimum_at"],
        "minimum_at_interval": _step_interval(per_seed["minimum_at"], settings.confidence),
        "minimum_agreement": float(np.mean(steps[resampled.argmin(axis=1)] == mean["minimum_at"])),
        "fall": mean["fall"],
        "fall_min": min(per_seed["fall"]),
        "fall_interval": t_interval(per_seed["fall"], settings.confidence),
        "fall_interval_samples": np.quantile(1 - lowest / resampled[:, 0], [tail, 1 - tail]).tolist(),
        "rise": mean["rise"],
        "rise_min": min(per_seed["rise"]),
        "rise_interval": t_interval(per_seed["rise"], settings.confidence),
        "rise_interval_samples": np.quantile(resampled[:, -1] / lowest - 1, [tail, 1 - tail]).tolist(),
        "end_ratio": mean["end_ratio"],
        "fvu_start": _plain(fvu.sel(step=0)),
        "fvu_minimum": _plain(fvu.sel(step=mean["minimum_at"])),
        "fvu_end": _plain(fvu.isel(step=-1)),
        "accuracy_highest": _plain(accuracy[highest]),
        "accuracy_highest_at": int(accuracy.step[highest]) if np.isfinite(accuracy[highest]) else None,
        "accuracy_end": _plain(accuracy[-1]),
        "per_seed": per_seed,
    }


def _curve(replicates: Array, steps: Array, settings: PhasesSettings) -> Numbers:
    """Phases of the mean of paired curves (replicate, step); the replicates are seeds or test samples."""
    loss = replicates.mean(axis=0)
    lowest = int(loss.argmin())
    close = np.abs(loss - loss[0]) <= settings.tolerance * np.ptp(loss)
    constant_until = int(steps[-1] if close.all() else steps[close.argmin() - 1])

    def counts(differences: Array) -> bool:
        error = differences.std(ddof=1) / np.sqrt(len(differences))
        return bool(differences.mean() > max(settings.threshold * loss[0], settings.standard_errors * error))

    fall = counts(replicates[:, 0] - replicates[:, lowest])
    rise = counts(replicates[:, -1] - replicates[:, lowest])
    present = {"constant": constant_until >= 2 and (fall or rise), "fall": fall, "rise": rise}
    return {
        "phases": ", ".join(phase for phase, there in present.items() if there) or "none",
        "constant_until": constant_until,
        "minimum_at": int(steps[lowest]),
        "fall": float(1 - loss[lowest] / loss[0]),
        "rise": float(loss[-1] / loss[lowest] - 1),
        "end_ratio": float(loss[-1] / loss[0]),
    }


def t_interval(values: list[float], confidence: float) -> list[float] | None:
    """[low, high] of the mean by Student's t with n - 1 degrees of freedom; None for a single value."""
    if len(values) < 2:
        return None
    half = stdtrit(len(values) - 1, (1 + confidence) / 2) * np.std(values, ddof=1) / np.sqrt(len(values))
    return [float(np.mean(values) - half), float(np.mean(values) + half)]


def _step_interval(steps: list[int], confidence: float) -> list[float] | None:
    """The same for steps, on the axis they are spaced evenly on (log2), given back in steps."""
    interval = t_interval(np.log2(steps).tolist(), confidence) if min(steps) > 0 else None
    return interval and [2.0**bound for bound in interval]


def _plain(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None


def frame(results: Mapping[str, Mapping[str, Numbers]]) -> list[Numbers]:
    """One flat row per run and layer, for a CSV file; intervals become ``…_low`` and ``…_high``."""
    rows = []
    for run, layers in results.items():
        for layer, numbers in layers.items():
            row: Numbers = {"run": run, "layer": layer}
            for key, value in numbers.items():
                if "_interval" in key:
                    row[f"{key}_low"], row[f"{key}_high"] = value or (None, None)
                elif key != "per_seed":
                    row[key] = value
            rows.append(row)
    return rows


def table(results: Mapping[str, Mapping[str, Numbers]]) -> Table:
    """The main numbers in 100 columns, and what is out of line below them.

    The intervals are over seeds, or over samples for a single seed.
    """
    shown = Table(box=box.SIMPLE_HEAD, padding=0)
    for heading in ("run", "layer"):
        shown.add_column(heading, overflow="fold")
    for heading in ("constant\nuntil", "minimum\nat", "fall %", "rise %"):
        shown.add_column(heading, justify="right", no_wrap=True)
    shown.add_column("phases", overflow="fold")
    for run, layers in results.items():
        for place, (layer, numbers) in enumerate(layers.items()):
            present = numbers["phases"]
            shown.add_row(
                run if place == 0 else "",
                layer,
                str(numbers["constant_until"]) if "constant" in present else "–",
                str(numbers["minimum_at"]) if numbers["seeds"] else "–",
                _percent(numbers, "fall"),
                _percent(numbers, "rise"),
                present,
            )
        shown.add_section()
    found = {run: numbers["outliers"] for run, layers in results.items() for numbers in layers.values()}
    flagged = [f"{run}: {told}" for run, told in found.items() if told != "none"]
    shown.caption = "\n".join(
        ["checkpoints out of line with their neighbours: " + ("" if flagged else "none"), *flagged]
    )
    shown.caption_justify = "left"
    return shown


def _percent(numbers: Numbers, key: str) -> str:
    if not numbers["seeds"]:
        return "–"
    low, high = numbers[f"{key}_interval"] or numbers[f"{key}_interval_samples"]
    return f"{100 * numbers[key]:.1f} [{100 * low:.1f}, {100 * high:.1f}]"
