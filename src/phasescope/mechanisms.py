"""When features are learned: by which mechanisms, over the course of a run, in its kernel and its pairs of layers.

*Three Mechanisms of Feature Learning in a Linear Network* (2401.07085) are alignment, disalignment and rescaling of its
two layers; where there are none it is a kernel method. Here both are asked of any network, from its first checkpoint to
its last one, seed by seed:

- layers align (disalign) where their ζ rises (falls) by more than ``mechanism``, and are rescaled where the logarithm
  of the product N of their norms changes by more. A run does so where any pair of its layers does;
- a run learns as a kernel method where ln(1 + |K_T − K_0| / |K_0|) is no more than that: a matrix can turn into
  another of the same norm, so that it is the change that counts.

All of it can be there at once, or none.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from rich import box
from rich.table import Table
from xarray import Dataset

from phasescope.params.phases import PhasesSettings
from phasescope.theory.mechanisms import mechanisms

#: Of a pair of layers and of a run.
CHANGES = ("alignment", "disalignment", "rescaling")


def of_run(measured: Dataset, settings: PhasesSettings) -> dict[str, Any]:
    """The mechanisms of a run, as plain values that JSON can hold, a list with one for each seed.

    Args:
        measured: what `kernel` measures, or some of it: ``relative_change`` (seed, step); ``alignment`` and
            ``norm_product`` (seed, step, pair).
        settings: the threshold.

    Returns:
        ``seeds``; the numbers, None where one is not finite: ``relative_change``, and in ``pairs`` for every pair of
        layers, by its name and ``width``, ``alignment`` at the first and the last step and ``norm_growth``, Δ ln N; and
        the words that hold, by seed: ``mechanisms`` of every pair and of the run.
    """
    seeds = measured.seed.values.tolist()
    found: dict[str, Any] = {"seeds": seeds, "pairs": [], "mechanisms": [[] for _ in seeds]}
    one = np.ones((2, len(seeds)))
    if "relative_change" in measured:
        change = measured.relative_change.isel(step=-1).values
        judged = mechanisms(one, one, 1 + np.stack([0 * change, change]), settings.mechanism)
        found["relative_change"] = _plain(change)
        found["mechanisms"] = [["kernel"] if kernel else [] for kernel in judged.kernel]
    for name in measured.pair.values.tolist() if "pair" in measured else []:
        ends = measured.sel(pair=name).isel(step=[0, -1]).transpose("step", "seed", ...)
        judged = mechanisms(ends.alignment.values, ends.norm_product.values, one, settings.mechanism)
        words = [[word for word in CHANGES if getattr(judged, word)[seed]] for seed in range(len(seeds))]
        of_pair = {
            "pair": name,
            "width": int(ends.width),
            "alignment": [_plain(of_seed) for of_seed in ends.alignment.values.T],
            "norm_growth": _plain(judged.norm_growth),
            "mechanisms": words,
        }
        found["pairs"].append(of_pair)
        found["mechanisms"] = [
            [word for word in ("kernel", *CHANGES) if word in known + new]
            for known, new in zip(found["mechanisms"], words, strict=True)
        ]
    return found


def _plain(values: np.ndarray) -> list[float | None]:
    return [float(value) if np.isfinite(value) else None for value in values]


def frame(results: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One flat row for every run, seed and pair of layers, the run itself first, for a CSV file."""
    rows = []
    for run, found in results.items():
        for place, seed in enumerate(found["seeds"]):
            change = found.get("relative_change", [None] * len(found["seeds"]))[place]
            of_seed = {"run": run, "seed": seed}
            rows.append({**of_seed, "mechanisms": " ".join(found["mechanisms"][place]), "relative_change": change})
            for one in found["pairs"]:
                start, end = one["alignment"][place]
                rows.append(
                    {
                        **of_seed,
                        "mechanisms": " ".join(one["mechanisms"][place]),
                        "pair": one["pair"],
                        "width": one["width"],
                        "alignment_start": start,
                        "alignment_end": end,
                        "norm_growth": one["norm_growth"][place],
                    }
                )
    return rows


def table(results: Mapping[str, Mapping[str, Any]]) -> Table:
    """What was learned how, in 100 columns: means over seeds, and for each mechanism in how many seeds it is there.

    Networks have many layers: pairs with no mechanism in any seed are left out.
    """
    shown = Table(
        box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), title="mechanisms of feature learning", title_justify="left"
    )
    shown.caption, shown.caption_justify = "layers: pairs with a mechanism in any seed", "left"
    shown.add_column("run", overflow="fold")
    shown.add_column("layers", overflow="fold")
    for heading in ("kernel\nchange", "ζ from", "to", "1/√h", "N ×"):
        shown.add_column(heading, justify="right", no_wrap=True)
    shown.add_column("mechanisms,\nof how many seeds", overflow="fold")
    for run, found in results.items():
        change = _number(found.get("relative_change", []))
        shown.add_row(run, "", change, "", "", "", "", _counted(found["mechanisms"]))
        for one in found["pairs"]:
            if not any(one["mechanisms"]):
                continue
            start, end = (_number(values) for values in zip(*one["alignment"], strict=True))
            growth = [None if value is None else float(np.exp(value)) for value in one["norm_growth"]]
            shown.add_row(
                "",
                one["pair"],
                "",
                start,
                end,
                f"{one['width'] ** -0.5:.3f}",
                _number(growth),
                _counted(one["mechanisms"]),
            )
        shown.add_section()
    return shown


def _number(values: Any) -> str:
    there = [value for value in values if value is not None]
    return f"{np.mean(there):.3f}" if there else ""


def _counted(words: list[list[str]]) -> str:
    seeds = {word: sum(word in of_seed for of_seed in words) for word in ("kernel", *CHANGES)}
    return ", ".join(f"{word} {count}/{len(words)}" for word, count in seeds.items() if count) or "none"
