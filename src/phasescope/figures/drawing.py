"""What a figure is made from and what it leaves behind: measures of runs, curves, a picture, its numbers."""

import csv
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox
from xarray import DataArray, Dataset

from phasescope.figures.points import points
from phasescope.figures.style import Array, style
from phasescope.params.figures import FiguresSettings, ScaledRun

Row = dict[str, Any]

#: No dates: the same input gives the same bytes.
_METADATA: dict[str, dict[str, Any]] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {}}


@dataclass(frozen=True)
class Results:
    """The measures of one run that figures are drawn from."""

    #: Name of the dataset that the run is trained on.
    dataset: str
    #: ``test_mse`` (seed, step, layer, decoder), NaN where a decoder was not asked for, and ``baseline_mse`` ();
    #: of runs with trained decoders also ``excess`` (seed, step, layer, decoder) and ``epoch_mse`` (…, epoch).
    decode: Dataset
    #: ``accuracy`` (seed, step, layer, classifier), ``network_accuracy`` (seed, step) and ``pixel_accuracy``
    #: (classifier); where ridge is among the classifiers, ``shuffled_accuracy`` (seed, step, layer, classifier) too.
    probe: Dataset
    #: What `phasescope.phases.phases` returns: numbers by layer.
    phases: Mapping[str, Mapping[str, Any]]
    #: What `distributions` measures, for the runs that have it.
    distributions: Dataset | None = None
    #: What `information` measures, for the runs that have it: ``i_x`` and ``i_y`` (seed, step, layer, estimator), with
    #: ``i_x_lower`` and so on where an estimator has bounds, and the ceilings ``h_x`` and ``h_y`` ().
    information: Dataset | None = None
    #: What `transfer` measures, by the name of the target dataset: ``accuracy`` (seed, step, layer, label,
    #: classifier), ``majority_accuracy`` (label) and ``pixel_accuracy`` (label, classifier).
    transfers: Mapping[str, Dataset] = field(default_factory=dict)
    #: What measures of the user's own give, by name: variables on (seed, step, layer).
    measured: Mapping[str, Dataset] = field(default_factory=dict)
    #: What `advise` measures, by the name of the target dataset: ``correct`` (seed, step, layer, label, sample), ….
    advised: Mapping[str, Dataset] = field(default_factory=dict)
    #: What `complexity` measures: ``linear_mapping_number`` (seed, step, layer), ``local_complexity`` (seed, step,
    #: nonlinearity, part), ``total_complexity`` (seed, step, part), ``neurons`` (nonlinearity); or some of these.
    complexity: Dataset | None = None
    #: What `kernel` measures: ``relative_change``, ``cosine``, ``effective_rank``, ``target_alignment`` (seed, step);
    #: ``alignment`` and ``norm_product`` (seed, step, pair), ``width`` (pair); or some of these.
    kernel: Dataset | None = None
    #: ``train_accuracy``, ``test_accuracy``, ``test_loss`` (seed, step), as often as they were looked at.
    training: Dataset | None = None
    #: What `phasescope.timescales.time_scales` returns.
    times: Mapping[str, Any] = field(default_factory=dict)
    #: The scale of its initial weights, for the runs that others differ from in nothing else.
    scaled: ScaledRun | None = None

    @property
    def loss(self) -> DataArray:
        """Test loss of the headline decoder, which is the first: (seed, step, layer)."""
        return self.decode.test_mse.isel(decoder=0)

    def headline(self, wanted: Sequence[str]) -> str:
        """The first of the ``wanted`` taps that the headline decoder has a loss of, or else the run's first."""
        decoded = known(self.loss, "layer") or self.loss.layer.values.tolist()
        return next((tap for tap in wanted if tap in decoded), decoded[0])


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

    def draw(self, axes: Axes, rows: list[Row], names: Row, **look: Any) -> None:
        """Draw the mean as a line, ± one standard deviation as a band, and note both in ``rows``."""
        axes.plot(self.steps, self.mean, **look)
        if self.std is not None:
            low, high = self.mean - self.std, self.mean + self.std
            axes.fill_between(self.steps, low, high, color=look["color"], alpha=0.2, linewidth=0)
        rows += self.rows(names)

    def rows(self, names: Row) -> list[Row]:
        """A row for every finite number."""
        noted = {"mean": self.mean} | ({} if self.std is None else {"std": self.std})
        return [
            {**names, "seed": seed, "step": step, "value": value}
            for seed, values in noted.items()
            for step, value in zip(self.steps.tolist(), values.tolist(), strict=True)
            if math.isfinite(value)
        ]


def known(values: DataArray, dim: str) -> list[str]:
    """The labels of a dimension at which there is any value that is not NaN."""
    there = values.notnull().any([other for other in values.dims if other != dim])
    return [str(label) for label in there[dim].values[there.values]]


def named(run: str, layer: str, quantity: str, **more: str) -> Row:
    """Whose numbers they are, which their rows begin with."""
    return {"run": run, "layer": layer, "quantity": quantity, **more}


def normalised(curves: Sequence[Curve]) -> list[Curve]:
    """(v - min)/(max - min) with one range for all ``curves``, that of their means."""
    means = np.concatenate([curve.mean for curve in curves])
    means = means[np.isfinite(means)]
    return [curve.scaled(means.min(initial=np.inf), means.max(initial=-np.inf)) for curve in curves]


def level(axes: Axes, rows: list[Row], names: Row, value: float, **look: Any) -> None:
    """Draw a horizontal line, such as a baseline, and note its value in ``rows``."""
    axes.axhline(value, **look)
    rows.append({**names, "value": value})


def save(drawing: Drawing, folder: Path, settings: FiguresSettings) -> list[Path]:
    """Write ``name.svg``, the other formats of ``settings`` in folders of their own, and the numbers as ``name.csv``.

    The folders keep a page of plots from showing every figure twice. ``points/name.json`` says where in the picture
    which values are. Returns the files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    with style(), _settled(drawing.figure):
        for suffix in settings.formats:
            files.append((folder if suffix == "svg" else folder / suffix) / f"{drawing.name}.{suffix}")
            files[-1].parent.mkdir(exist_ok=True)
            drawing.figure.savefig(files[-1], dpi=settings.dpi, metadata=_METADATA[suffix])
        files.append(folder / "points" / f"{drawing.name}.json")
        files[-1].parent.mkdir(exist_ok=True)
        files[-1].write_text(json.dumps(points(drawing.figure), separators=(",", ":")) + "\n", encoding="utf-8")
    files.append(folder / f"{drawing.name}.csv")
    columns = list(dict.fromkeys(key for row in drawing.rows for key in row))
    with files[-1].open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(drawing.rows)
    return files


@contextmanager
def _settled(figure: Figure) -> Iterator[None]:
    """Lay the panels out once, at rounded places: the context in which they stay there.

    The solver's last digits depend on memory addresses; SVG names its clip paths by a hash of them.
    """
    engine = figure.get_layout_engine()
    if engine is not None:  # there is none in a figure that was saved before
        engine.execute(figure)
    # With an engine, even "none", matplotlib would draw twice for every file.
    with mpl.rc_context({"figure.constrained_layout.use": False}):
        figure.set_layout_engine(None)
        for axes in figure.axes:
            axes.set_position(Bbox(axes.get_position(original=True).get_points().round(4)))
        yield
