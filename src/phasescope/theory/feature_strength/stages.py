"""The stages of learning as Figure 5 shows them: what the decoder reads there, and the lines through it."""

from collections.abc import Sequence

import numpy as np
from xarray import Dataset

from phasescope.theory.feature_strength import extrema, reconstruction
from phasescope.theory.feature_strength.labels import labelled
from phasescope.theory.feature_strength.lines import optimal_line, paper_line
from phasescope.theory.feature_strength.recursion import Probabilities, probabilities

#: In the order of time.
STAGES = ("initial", "first-minimum", "bump", "second-minimum", "end")


def stage_gap(stage: str, outputs: int, strength: float) -> float:
    """The gap Δ of a stage; NaN for the bump and the second minimum where there is none (l = 2).

    The first minimum, which is at Δ → 0, is shown at 1/l, where weights of a class have doubled their sum (the end of
    Corollary 4's interval), or at a tenth of the bump's gap where that is less (few classes, large k); the end, which
    is at Δ → ∞, where R is at 90 % of its final value.
    """
    match stage:
        case "initial":
            return 0.0
        case "first-minimum":
            return float(np.fmin(1 / outputs, extrema.bump(outputs, strength) / 10))
        case "bump":
            return float(extrema.bump(outputs, strength))
        case "second-minimum":
            return float(extrema.second_minimum(outputs, strength))
    return float(extrema.regained(outputs, strength))


def stages(names: Sequence[str], outputs: int, strength: float) -> Dataset:
    """What the decoder reads at each stage in the four groups of samples, and the two lines.

    Args:
        names: of `STAGES`; they are given in the order of time.
        outputs: l.
        strength: k.

    Returns:
        ``stage_gap`` (stage); ``probability`` (stage, group) and ``target`` (group); ``intercept``, ``slope`` and
        ``stage_error``, which is R, (stage, decoder). NaN where there is no such stage.
    """
    names = [name for name in STAGES if name in names]
    gaps = np.array([stage_gap(name, outputs, strength) for name in names])
    there = ~np.isnan(gaps)
    shown = np.where(there, gaps, 0.0)
    lines = {"optimal": optimal_line(shown, outputs, strength), "paper": paper_line(shown, outputs, strength)}
    errors = (reconstruction.optimal(shown, outputs, strength), reconstruction.paper(shown, outputs, strength))
    columns = {
        "probability": np.stack(probabilities(shown, outputs, strength), axis=1),
        "intercept": np.stack([line.intercept for line in lines.values()], axis=1),
        "slope": np.stack([line.slope for line in lines.values()], axis=1),
        "stage_error": np.stack(errors, axis=1),
    }
    dims = {"probability": "group"}
    found = Dataset(
        {"stage_gap": ("stage", gaps), "target": ("group", np.array([1.0, strength, 0.0, 0.0]))}
        | {
            name: (("stage", dims.get(name, "decoder")), np.where(there[:, None], values, np.nan))
            for name, values in columns.items()
        },
        {"stage": list(names), "group": list(Probabilities._fields), "decoder": list(lines)},
    )
    return labelled(found)
