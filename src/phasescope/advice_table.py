"""An advice on what to transfer from, for the terminal and for machines."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text
from xarray import DataArray, Dataset

from phasescope.advice import CONFIDENCE, Advice, Candidate, advise
from phasescope.errors import UserError

#: Candidates that are shown, besides those with a name.
SHOWN = 8


def few_labels(measured: Dataset, label: str, losses: DataArray | None) -> dict[int, Advice | None]:
    """The advice for each number of labels per class that was measured; None where there are too few samples."""
    found: dict[int, Advice | None] = {}
    for per_class in measured.per_class.values.tolist():
        try:
            found[per_class] = advise(measured, label, per_class, losses)
        except UserError:
            found[per_class] = None
    return found


def plain(run: str, target: str, advice: Advice, few: Mapping[int, Advice | None], pixels: float) -> dict[str, Any]:
    """All of it as JSON has it; of few labels without the rankings."""
    return {
        "run": run,
        "target": target,
        "classifier": "ridge",
        "pixel_accuracy": pixels,
        **advice.plain(),
        "few": {
            str(per_class): each and {key: value for key, value in each.plain().items() if key != "ranking"}
            for per_class, each in few.items()
        },
    }


def table(run: str, target: str, advice: Advice, few: Mapping[int, Advice | None], pixels: float) -> Group:
    """The ranking and the advice in words; below it that for few labels, where it is given."""
    shown = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), title_justify="left")
    shown.title = f"{run} → {target}: {advice.label}"
    for heading in ("\nrank", "\nstep"):
        shown.add_column(heading, justify="right")
    shown.add_column("\nlayer")
    interval = f"{100 * CONFIDENCE:.0f} %"
    for heading in (
        "\naccuracy %",
        f"{interval} of\nthese",
        f"{interval} of\nnew seeds",
        "costs\npoints",
        f"\n{interval}",
    ):
        shown.add_column(heading, justify="right", no_wrap=True)
    shown.add_column("")
    names = _names(advice)
    for rank, candidate in enumerate(advice.ranking, start=1):
        if rank <= SHOWN or candidate in names:
            costs = (
                ("–", "") if candidate == advice.best else (_points(candidate.cost), _between(candidate.cost_interval))
            )
            accuracy = (
                f"{100 * candidate.measured:.1f}",
                _between(candidate.interval),
                "?" if candidate.anew_interval is None else _between(candidate.anew_interval),
            )
            told = names.get(candidate, []) + ["tied"] * (
                candidate.tied and candidate not in (advice.best, advice.earliest)
            )
            shown.add_row(str(rank), str(candidate.step), candidate.layer, *accuracy, *costs, ", ".join(told))
    parts: list[RenderableType] = [shown, *(Text(line) for line in sentences(advice, pixels))]
    if few:
        parts.append(_few(few))
    return Group(*parts)


def sentences(advice: Advice, pixels: float) -> list[str]:
    """The advice in words, a line each."""
    best, last, earliest = advice.best, advice.last, advice.earliest
    each = "" if advice.per_class is None else f"{advice.per_class} labels per class, tested on the others of "
    lines = [
        f"take step {best.step}, {best.layer}: expect {100 * best.accuracy:.1f} % of new samples right, "
        f"{_between(best.interval)} ({each}{advice.labels:,} labels, {advice.seeds} seed{'s' * (advice.seeds > 1)}"
        + (
            f"; trained anew {_between(best.anew_interval)})"
            if best.anew_interval
            else ", which says nothing of others)"
        )
        + ("" if advice.per_class else f"; of pixels {100 * pixels:.1f} %")
    ]
    if last == best:
        lines.append("the last checkpoint is the best")
    else:
        costs = f"costs {_points(last.cost)} points, {_between(last.cost_interval)}"
        lines.append(f"the last checkpoint, step {last.step}, {last.layer}, {costs}" + (": a tie" if last.tied else ""))
    if earliest.step < best.step:
        lines.append(
            f"step {earliest.step}, {earliest.layer}, is within a standard error of it and cheaper to train: costs "
            f"{_points(earliest.cost)} points, {_between(earliest.cost_interval)}"
        )
    if all(candidate.tied for candidate in advice.ranking):
        lines.append(f"all {len(advice.ranking)} checkpoints and layers are tied: these labels cannot tell them apart")
    if advice.minimum:
        at, correlation = advice.minimum.candidate, advice.minimum.correlation
        costs = "is the best" if at == best else f"costs {_points(at.cost)} points, {_between(at.cost_interval)}"
        tied = ": a tie" if at.tied and at != best else ""
        related = (
            ""
            if correlation is None
            else f"; over steps, accuracy and −loss have a rank correlation of {_signed(correlation)}"
        )
        lines.append(f"the reconstruction loss of {at.layer} is lowest at step {at.step}, which {costs}{tied}{related}")
    return lines


def _few(few: Mapping[int, Advice | None]) -> Table:
    shown = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    interval = f"{100 * CONFIDENCE:.0f} %"
    for heading in (
        "labels\nper class",
        "best\nstep",
        "\nlayer",
        "\naccuracy %",
        f"\n{interval}",
        "the last\ncosts points",
    ):
        shown.add_column(heading, justify="left" if heading == "\nlayer" else "right", no_wrap=True)
    shown.add_column(f"\n{interval}", justify="right", no_wrap=True)
    shown.add_column("earliest\nnear step", justify="right")
    for per_class, advice in few.items():
        if advice is None:
            shown.add_row(str(per_class), "–", "too few samples")
            continue
        best, last = advice.best, advice.last
        costs = (
            ("–", "")
            if last == best
            else (_points(last.cost) + (" tie" if last.tied else ""), _between(last.cost_interval))
        )
        accuracy = f"{100 * best.accuracy:.1f}", _between(best.interval)
        shown.add_row(str(per_class), str(best.step), best.layer, *accuracy, *costs, str(advice.earliest.step))
    return shown


def _names(advice: Advice) -> dict[Candidate, list[str]]:
    """What the candidates are called that have a name."""
    named: list[tuple[Candidate, str]] = [(advice.best, "best"), (advice.earliest, "earliest")]
    named += [(advice.last, "last"), (advice.last_same_layer, "last")]
    if advice.minimum:
        named.append((advice.minimum.candidate, "reconstruction minimum"))
    names: dict[Candidate, list[str]] = {}
    for candidate, name in named:
        if name not in names.setdefault(candidate, []):
            names[candidate].append(name)
    return names


def _points(share: float) -> str:
    return f"{100 * share + 0.0:.1f}".replace("-0.0", "0.0").replace("-", "−")


def _signed(number: float) -> str:
    return f"{number:.2f}".replace("-", "−")


def _between(interval: Sequence[float]) -> str:
    return f"[{_points(interval[0])}, {_points(interval[1])}]"
