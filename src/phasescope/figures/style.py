"""One look for all figures: readable in print and without colours, the same bytes for the same input."""

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter
from numpy.typing import NDArray

Array = NDArray[Any]

#: Inches of a page of two columns; figures are drawn at the dimensions they are printed at.
PAGE = 7.2

BLACK, GREY = "#000000", "#7f7f7f"

#: Okabe & Ito's palette for the colour-blind, without its yellow, which is too pale for a line.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
#: As many classes as six colours and two kinds of line tell apart.
NAMED_CLASSES = 12
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_LINES = ("-", "--", "-.", ":")

#: The taps that networks share, from output to input.
_TAPS = ("softmax", "logits", "predense", "conv-2")
_DECODERS = ("linear", "linear-adam", "deconvolution")

_RC: dict[str, Any] = {
    "figure.constrained_layout.use": True,
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7.5,
    "legend.frameon": False,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.5,
    "axes.axisbelow": True,
    "hatch.linewidth": 0.5,
    "lines.linewidth": 1.2,
    "lines.markersize": 3,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.minor.size": 1.5,
    # Text stays text, and identifiers do not depend on the moment: unchanged figures keep their hash.
    "svg.fonttype": "none",
    "svg.hashsalt": "phasescope",
    "pdf.fonttype": 42,
}


@contextmanager
def style() -> Iterator[None]:
    """The context, also a decorator, in which figures are built and saved (ticks are only made on saving)."""
    with mpl.style.context(["default", _RC]):
        yield


def tap_styles(layers: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Colour, marker and line of each layer; the taps that networks share look alike in all figures."""
    return _told_apart(layers, _TAPS)


def decoder_styles(decoders: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Colour, marker and line of each decoder, alike in all figures."""
    return _told_apart(decoders, _DECODERS)


def _told_apart(names: Iterable[str], known: Sequence[str]) -> dict[str, dict[str, Any]]:
    """A look for each of the ``names``; that of a ``known`` one does not depend on what else is asked for."""
    asked = dict.fromkeys(names)
    order = [*known, *(name for name in asked if name not in known)]
    return {
        name: {
            "color": COLOURS[place % len(COLOURS)],
            "marker": _MARKERS[place % len(_MARKERS)],
            "linestyle": _LINES[place // len(COLOURS) % len(_LINES)],
        }
        for place, name in enumerate(order)
        if name in asked
    }


def class_styles(classes: int) -> list[dict[str, Any]]:
    """Colour and line of every class, of which there are no more than `NAMED_CLASSES`."""
    palette = (*COLOURS[:5], BLACK)
    return [{"color": palette[place % 6], "linestyle": ("-", (0, (3, 1)))[place // 6]} for place in range(classes)]


def step_axis(axes: Axes, steps: Array, labels: int = 6) -> None:
    """A logarithmic axis (base 2) of training ``steps`` with a place for step 0, as far from 1 as 1 from 2.

    Every step has a tick, at most ``labels`` of them, evenly spread, have a label.
    """
    axes.set_xscale("symlog", base=2, linthresh=1, linscale=0.5)
    axes.xaxis.set_major_locator(FixedLocator(steps[:: math.ceil(len(steps) / labels)].tolist()))
    axes.xaxis.set_minor_locator(FixedLocator(steps.tolist()))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda step, _: f"{step:.0f}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlim(-0.4, max(1, steps.max()) * 2**0.4)
