"""What the page shows, before it is a page: runs, tables, pictures, feature distributions, and what made them."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.filesize import decimal
from rich.table import Table
from xarray import Dataset

from phasescope.params.activations import ActivationsSettings
from phasescope.params.train import TrainJob

#: What a figure shows, by its name without that of a set of runs, in the order of the page.
CAPTIONS = {
    "figure-1": "Test accuracy and reconstruction loss: the phases of a layer",
    "figure-2": "Reconstruction loss of all layers",
    "probes": "Accuracy of linear probes",
    "decoders": "Reconstruction loss by several decoders",
    "convergence": "How far the decoders were trained",
    "figure-6": "Transfer to other datasets",
    "figure-7": "Transfer to other properties of the images",
    "advice": "Which checkpoint to transfer from: held-out accuracy on the target",
    "measures": "Measures of one's own",
    "distributions": "How far single features tell classes apart",
    "information-plane": "The information plane",
    "information": "Information about inputs and labels",
    "time-scales": "All curves of a run over one axis, with their onsets",
    "two-phases": "Fitting and compression",
    "complexity": "Complexity of the function: linear mapping number and local complexity",
    "kernel": "The tangent kernel over training",
    "alignment": "Alignment of consecutive layers",
    "initialisation-scale": "Runs that differ in the scale of their initial weights",
    "figure-4": "Distribution of single features in every class",
    "theory-runs": "Trained networks beside the feature-strength model",
    "theory-figure-3": "Weights of the feature-strength model",
    "theory-figure-5": "What decoders of the feature-strength model tell",
    "theory-curve": "Reconstruction error of the feature-strength model",
    "theory-phases": "Reconstruction error over iterations, in the feature-strength model",
    "theory-regimes": "Where the feature-strength model has which phases",
    "theory-scaling": "Minima and bump against the number of classes",
    "linear-network-phases": "In which regime a linear network is trained",
    "linear-network-mechanisms": "Mechanisms of feature learning in a linear network",
    "linear-network-alignment": "Alignment in a linear network",
}
#: Figures that belong to no set of runs, by the beginning of their name, and the heading they stand under.
_APART = {
    "figure-4": "Distributions of features",
    "advice-": "Which checkpoint to transfer from",
    "theory-": "Theory",
    "linear-network-": "Theory",
}

#: Bins of a histogram on the page at most, for few classes and for many, which are drawn as a map.
_BINS, _BINS_OF_MANY = 60, 20
_FEW = 12


@dataclass(frozen=True)
class Shown:
    """A table as text: its headings, groups of rows that share their first cell, and the words below it."""

    name: str
    title: str
    headings: list[str]
    numeric: list[bool]
    groups: list[list[list[str]]]
    caption: str
    #: The numbers behind it.
    csv: bytes

    @classmethod
    def of(cls, name: str, title: str, table: Table, csv: bytes) -> "Shown":
        """From the table that the command line prints, whose first column names a group once."""
        columns = [[str(cell) for cell in column.cells] for column in table.columns]
        rows = [list(row) for row in zip(*columns, strict=True)]
        groups: list[list[list[str]]] = []
        for row in rows:
            if row[0] or not groups:
                groups.append([])
            groups[-1].append(row)
        headings = [" ".join(str(column.header).split()) for column in table.columns]
        numeric = [column.justify == "right" for column in table.columns]
        return cls(name, title, headings, numeric, groups, str(table.caption or ""), csv)


@dataclass(frozen=True)
class Course:
    """When a layer is in which phase, on an axis of log2(step + 1) that is 100 long."""

    run: str
    layer: str
    #: Place and width of each phase, by its name.
    phases: dict[str, tuple[float, float]]
    words: str


@dataclass(frozen=True)
class Picture:
    """A figure, its words, and the files it is in."""

    name: str
    caption: str
    #: Type of the picture, such as image/svg+xml; none where no browser shows it.
    kind: str | None
    data: bytes
    #: What `phasescope.figures.points.points` gives.
    points: dict[str, Any]
    files: list[str]

    @property
    def words(self) -> str:
        """What is to be seen, for those who do not see it."""
        titles = [panel["title"] for panel in self.points["panels"] if panel["title"]]
        told = "; ".join(dict.fromkeys(titles))
        return f"{self.caption}. Panels: {told}." if told else f"{self.caption}."


def about(job: TrainJob, recorded: ActivationsSettings, stores: Mapping[str, int | None]) -> dict[str, str]:
    """The settings of a run at a glance, in words by what they are about; bytes by the name of the store."""
    model, steps = job.model, job.steps
    network = model.name if model.width == 1 else f"{model.name}, width {model.width:g}"
    if model.name == "mlp":
        network = f"mlp, {model.depth} layers, {model.units} {model.nonlinearity}"
    network = ", ".join([network, *(f"{name} {value}" for name, value in model.arguments.items())])
    if job.checkpoints is not None:
        training = f"checkpoints of others: {job.checkpoints}"
    else:
        training = (
            f"{job.optimiser}, learning rate {job.learning_rate:g}, batches of {job.batch_size}, {job.loss}, "
            f"{job.iterations} iterations"
        )
    listed = ", ".join(map(str, steps)) if len(steps) <= 5 else f"{steps[0]}, {steps[1]}, {steps[2]}, …, {steps[-1]}"
    kept = [f"{name} {'not here' if length is None else decimal(length)}" for name, length in stores.items()]
    return {
        "dataset": job.dataset,
        "network": network,
        "training": training,
        "seeds": ", ".join(map(str, job.seeds)),
        "steps": f"{len(steps)} checkpoints: {listed}",
        "taps": ", ".join(tap.name for tap in recorded.taps),
        "kept": ", ".join(kept),
    }


def courses(found: Mapping[str, Mapping[str, Mapping[str, Any]]], last: Mapping[str, int]) -> list[Course]:
    """The phases of every layer in time, of what `phasescope.phases.phases` gives; ``last`` step of each run."""
    longest = math.log2(1 + max(last.values(), default=1))
    shown = []
    for run, layers in found.items():
        for layer, numbers in layers.items():
            present, place, words = str(numbers["phases"]).split(", "), 0.0, []
            phases: dict[str, tuple[float, float]] = {}
            if present != ["none"]:
                ends = {"constant": numbers["constant_until"], "fall": numbers["minimum_at"], "rise": last[run]}
                for phase, end in ends.items():
                    if phase in present:
                        # A fall that is little beside the rise after it may lie where the curve still is constant.
                        till = max(place, 100 * math.log2(1 + end) / longest)
                        phases[phase] = (round(place, 2), round(till - place, 2))
                        place = till
                        words.append(f"{phase} until {end}")
            shown.append(Course(run, layer, phases, ", ".join(words) or "no phases"))
    return shown


def arranged(pictures: Sequence[Picture], sets: Mapping[str, Sequence[str]]) -> dict[str, list[Picture]]:
    """Pictures by the heading they stand under: the sets of runs, the distributions of features, and theory."""
    order = [*(sets or {"all runs": []}), *dict.fromkeys(_APART.values())]
    groups: dict[str, list[Picture]] = {heading: [] for heading in order}
    kinds = list(CAPTIONS)

    def place(picture: Picture) -> tuple[int, str]:
        kind = kind_of(picture.name)
        return kinds.index(kind) if kind else len(kinds), picture.name

    for picture in sorted(pictures, key=place):
        apart = next((title for start, title in _APART.items() if picture.name.startswith(start)), None)
        mine = [name for name in sets if picture.name.endswith(f"-{name}")]
        groups[apart or max(mine, key=len, default=order[0])].append(picture)
    return {heading: found for heading, found in groups.items() if found}


def kind_of(name: str) -> str | None:
    """The figure that one of this name is, without the set or the run it is of: the longest that it begins with."""
    return max((kind for kind in CAPTIONS if f"{name}-".startswith(f"{kind}-")), key=len, default=None)


def grid(distributions: Dataset) -> dict[str, Any]:
    """Class-conditional histograms of the features that Figure 4 shows, of the first seed and all layers.

    Args:
        distributions: as `phasescope.figures.distributions.figure_4` takes it.

    Returns:
        JSON values: ``seed``, ``steps``, ``classes``, and in ``layers`` by ``name`` the ``features``, each with its
        ``index``, whether it is ``fixed`` or was chosen for being selective, the ``edges`` of its bins, ``zero``
        [step][class], the share of exact zeros, and ``density`` [step][class][bin] of the others; to three digits,
        None for a class without samples. More than 60 bins (20 with more than 12 classes) are averaged.
    """
    first = distributions.isel(seed=0)
    many = first.sizes["class"] > _FEW
    merged = math.ceil(first.sizes["bin"] / (_BINS_OF_MANY if many else _BINS))
    density = first.density.coarsen(bin=merged, boundary="pad").mean().rename(bin="merged")
    fixed = np.atleast_1d(distributions.feature_index.attrs["fixed"]).tolist()
    layers = []
    for layer in first.layer.values.tolist():
        of_layer = first.sel(layer=layer)
        means = density.sel(layer=layer).transpose("row", "step", "class", "merged").values
        features = []
        for row in np.flatnonzero(of_layer.feature_index.values >= 0).tolist():
            one = of_layer.isel(row=row)
            edges = one.edge.values
            features.append(
                {
                    "index": int(one.feature_index),
                    "fixed": int(one.feature_index) in fixed,
                    "edges": [float(f"{edge:.6g}") for edge in (*edges[:-1:merged], edges[-1])],
                    "zero": _digits(one.zero.transpose("step", "class").values),
                    "density": _digits(means[row]),
                }
            )
        layers.append({"name": str(layer), "features": features})
    return {
        "seed": int(first.seed),
        "steps": first.step.values.tolist(),
        "classes": [str(name) for name in first["class"].values],
        "layers": [layer for layer in layers if layer["features"]],
    }


def _digits(values: np.ndarray) -> Any:
    """Nested lists of numbers with three digits, None for NaN; of all numbers there are few different ones."""
    distinct, places = np.unique(values, return_inverse=True)
    short = np.array([float(f"{value:.3g}") if math.isfinite(value) else None for value in distinct], dtype=object)
    short = np.array([int(value) if value == 0 else value for value in short], dtype=object)
    return short[places].reshape(values.shape).tolist()


def makers(recorded: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[list[str], dict[str, str]]]:
    """The different surroundings in which something was made: what was, and the words for them.

    Args:
        recorded: what `phasescope.provenance.describe` gave, by what was made.
    """
    made: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for what, told in recorded.items():
        libraries = told.get("libraries")
        libraries = libraries if isinstance(libraries, dict) else {}
        words = {
            "libraries": ", ".join(f"{name} {libraries[name]}" for name in libraries),
            "Python": str(told.get("python", "")),
            "system": " ".join(str(told.get(key, "")) for key in ("system", "machine")).strip(),
            "processor": str(told.get("processor", "")),
            "GPU": ", ".join(map(str, told["gpus"])) if isinstance(told.get("gpus"), list) else "none used",
        }
        made.setdefault(tuple(words.items()), []).append(what)
    for surroundings, results in made.items():
        yield results, dict(surroundings)
