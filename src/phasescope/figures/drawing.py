"""What a figure is made from and what it leaves behind: measures of runs, curves, a picture, its numbers."""

import csv
import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.transforms import Bbox
from xarray import DataArray, Dataset

from phasescope.figures.style import Array, style, tap_styles
from phasescope.params.figures import FiguresSettings

Row = dict[str, Any]
#: Whose line it is: run, layer, quantity.
Names = tuple[str, str, str]
_NAMES = ("run", "layer", "quantity")

#: No dates: the same input gives the same bytes.
_METADATA: dict[str, dict[str, Any]] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {}}


@dataclass(frozen=True)
class Results:
    """The measures of one run that figures are drawn from."""

    #: ``test_mse``, ``fvu`` (seed, step, layer) and ``baseline_mse`` ().
    decode: Dataset
    #: ``accuracy``, ``shuffled_accuracy`` (seed, step, layer), ``network_accuracy`` (seed, step) and
    #: ``pixel_accuracy`` ().
    probe: Dataset
    #: What `phasescope.phases.phases` returns: numbers by layer.
    phases: Mapping[str, Mapping[str, Any]]
    #: What `distributions` measures, for the runs that have it.
    distributions: Dataset | None = None


@dataclass(frozen=True)
class Drawing:
    """A figure, the name of its files, and the numbers it shows in long form: a row for each number."""

    name: str
    figure: Figure
    rows: list[Row]


@dataclass(frozen=True)
class Curve:
    """Mean and standard deviation over seeds (None for a single one) of a quantity at each step: (step,)."""

    steps: Array
    mean: Array
    std: Array | None

    @classmethod
    def of(cls, values: DataArray) -> "Curve":
        """From ``values`` (seed, step); a seed with a value that is not finite is left out, as in the phases."""
        table = values.transpose("seed", "step").values.astype(np.float64)
        table = table[np.isfinite(table).all(axis=1)]
        mean = table.mean(axis=0) if len(table) else np.full(values.sizes["step"], np.nan)
        return cls(values.step.values, mean, table.std(axis=0, ddof=1) if len(table) > 1 else None)

    def scaled(self, low: float, high: float) -> "Curve":
        """With ``low`` at 0 and ``high`` at 1; a constant lies at 0."""
        width = high - low if high > low else 1.0
        return Curve(self.steps, (self.mean - low) / width, None if self.std is None else self.std / width)

    def draw(self, axes: Axes, rows: list[Row], names: Names, **look: Any) -> None:
        """Draw the mean as a line, ± one standard deviation as a band, and note both in ``rows``."""
        axes.plot(self.steps, self.mean, **look)
        labels = dict(zip(_NAMES, names, strict=True))
        noted = {"mean": self.mean}
        if self.std is not None:
            low, high = self.mean - self.std, self.mean + self.std
            axes.fill_between(self.steps, low, high, color=look["color"], alpha=0.2, linewidth=0)
            noted["std"] = self.std
        rows += [
            {**labels, "seed": seed, "step": step, "value": value}
            for seed, values in noted.items()
            for step, value in zip(self.steps.tolist(), values.tolist(), strict=True)
            if math.isfinite(value)
        ]


def normalised(curves: Sequence[Curve]) -> list[Curve]:
    """(v - min)/(max - min) with one range for all ``curves``, that of their means."""
    means = np.concatenate([curve.mean for curve in curves])
    means = means[np.isfinite(means)]
    return [curve.scaled(means.min(initial=np.inf), means.max(initial=-np.inf)) for curve in curves]


def level(axes: Axes, rows: list[Row], names: Names, value: float, **look: Any) -> None:
    """Draw a horizontal line, such as a baseline, and note its value in ``rows``."""
    axes.axhline(value, **look)
    rows.append({**dict(zip(_NAMES, names, strict=True)), "value": value})


def heading(axes: Axes, title: str, below: str = "") -> None:
    """A bold title at the left, broken where it is too long for a panel, and a plain line below it."""
    axes.set_title(textwrap.fill(title, 30), loc="left", fontweight="bold", pad=13 if below else 4)
    axes.text(0, 1.02, below, transform=axes.transAxes, fontsize=7, va="bottom")


def legend(figure: Figure, handles: Sequence[Artist]) -> None:
    """A legend above all panels, where it hides no data, on as many lines as the figure's width demands."""
    # At this font a letter is about 0.06 inches wide, the sample of a line with its margins 0.55.
    width = sum(0.55 + 0.06 * len(str(handle.get_label())) for handle in handles)
    lines = math.ceil(width / (figure.get_figwidth() - 0.3))
    figure.legend(handles=handles, loc="outside upper center", ncols=math.ceil(len(handles) / lines))


def taps(results: Mapping[str, Results]) -> tuple[dict[str, dict[str, Any]], list[Artist]]:
    """The look of every tap of any run, and the legend's entries for them."""
    looks = tap_styles(str(layer) for result in results.values() for layer in result.decode.layer.values)
    return looks, [Line2D([], [], **look, label=layer) for layer, look in looks.items()]


def save(drawing: Drawing, folder: Path, settings: FiguresSettings) -> list[Path]:
    """Write ``name.svg``, the other formats of ``settings`` in folders of their own, and the numbers as ``name.csv``.

    The folders keep a page of plots from showing every figure twice. Returns the files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    with style():
        _settle(drawing.figure)
        for suffix in settings.formats:
            files.append((folder if suffix == "svg" else folder / suffix) / f"{drawing.name}.{suffix}")
            files[-1].parent.mkdir(exist_ok=True)
            drawing.figure.savefig(files[-1], dpi=settings.dpi, metadata=_METADATA[suffix])
    files.append(folder / f"{drawing.name}.csv")
    columns = list(dict.fromkeys(key for row in drawing.rows for key in row))
    with files[-1].open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(drawing.rows)
    return files


def _settle(figure: Figure) -> None:
    """Lay the panels out once, at rounded places.

    The solver's last digits depend on memory addresses; SVG names its clip paths by a hash of them.
    """
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for axes in figure.axes:
        axes.set_position(Bbox(axes.get_position(original=True).get_points().round(4)))
