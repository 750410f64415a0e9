"""Results of runs for the tests of figures, made up, and what a figure shows of them."""

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import xarray as xr

from phasescope.figures.drawing import Drawing, Results, save
from phasescope.measures.kernel import over_course
from phasescope.params.figures import FiguresSettings
from phasescope.params.phases import PhasesSettings
from phasescope.phases import phases

STEPS = np.array([0, 1, 2, 4, 8, 16, 32])
SETTINGS = FiguresSettings(formats=["svg"])
RISING = np.linspace(0.5, 0.9, len(STEPS))
#: A run with everything that can be drawn.
FULL = {
    "decoders": ("linear", "linear-adam", "deconvolution"),
    "classifiers": ("ridge", "logistic", "sgd"),
    "targets": (("fashion", ("class",)), ("digits", ("class", "ink"))),
    "estimators": ("gaussian", "binned-pca"),
    "bends": ("stem.2", "blocks.0.relu1", "blocks.0.relu2"),
    "pairs": ("stem.0 to blocks.0.conv1", "blocks.0.conv1 to head"),
}


def results_of_a_run(
    layers=("softmax", "logits", "predense"),
    seeds=3,
    classes=4,
    bins=60,
    distributions=True,
    decoders=("linear",),
    classifiers=("ridge",),
    targets=(),
    estimators=(),
    bends=(),
    pairs=(),
):
    """Measures of a run with the three phases, with small random differences between seeds and layers.

    Trained decoders are not asked for at the last layer; ``targets`` are datasets and labels, ``bends`` nonlinearities,
    ``pairs`` pairs of layers.
    """
    generator = np.random.default_rng(0)
    cells = ("seed", "step", "layer")
    shape = (seeds, len(STEPS), len(layers))

    def about(curve, spread=0.01):
        return np.asarray(curve)[:, None] + spread * generator.standard_normal(shape)

    def stacked(dim, names, values):
        return xr.concat([xr.DataArray(value, coords, cells) for value in values], dim).assign_coords({dim: names})

    coords = {"seed": range(seeds), "step": STEPS, "layer": list(layers)}
    loss = about([0.5, 0.5, 0.49, 0.4, 0.3, 0.35, 0.4])
    decode = trained(stacked("decoder", list(decoders), [loss * (1 + place / 10) for place in range(len(decoders))]))
    decode["error"] = decode.test_mse * xr.DataArray(generator.uniform(0.9, 1.1, (*shape, 20)), dims=(*cells, "sample"))
    ridge = np.where(np.array(classifiers) == "ridge", 1.0, np.nan)
    probe = xr.Dataset(
        {
            "accuracy": stacked("classifier", list(classifiers), [about(RISING) - i / 20 for i in range(len(ridge))]),
            "shuffled_accuracy": stacked("classifier", list(classifiers), [about([0.1] * 7) * one for one in ridge]),
            "network_accuracy": (cells[:2], about(np.linspace(0.1, 0.9, len(STEPS)))[:, :, 0]),
            "network_loss": (cells[:2], about(np.linspace(2.0, 0.5, len(STEPS)))[:, :, 0]),
            "weight_norm": (cells[:2], about(np.linspace(1.0, 2.0, len(STEPS)))[:, :, 0]),
            "pixel_accuracy": ("classifier", np.full(len(classifiers), 0.8)),
        },
        coords,
    )
    numbers = phases(decode.isel(decoder=0), probe, PhasesSettings(resamples=20))
    transfers = {}
    for target, labels in dict(targets).items():
        best = stacked("label", list(labels), [about([0.3, 0.3, 0.4, 0.5, 0.6, 0.7, 0.65]) for _ in labels])
        transfers[target] = xr.Dataset(
            {
                "accuracy": xr.concat([best - i / 20 for i in range(len(classifiers))], "classifier"),
                "majority_accuracy": ("label", np.full(len(labels), 0.25)),
                "pixel_accuracy": (("label", "classifier"), np.full((len(labels), len(classifiers)), 0.55)),
            },
            {"classifier": list(classifiers)},
        ).transpose(*cells, "label", "classifier")
    informed = None
    if estimators:
        x, y = ([about(curve) for _ in estimators] for curve in (np.linspace(5, 3, 7), np.linspace(1.0, 1.3, 7)))
        bounded = [1.0 if name == "gaussian" else np.nan for name in estimators]
        informed = xr.Dataset({"h_x": ((), np.log(500)), "h_y": ((), np.log(4))})
        for name, values in (("i_x", x), ("i_y", y)):
            informed[name] = stacked("estimator", list(estimators), values)
            for bound, by in (("lower", -0.4), ("upper", 0.1)):
                of_each = [value + by * one for value, one in zip(values, bounded, strict=True)]
                informed[f"{name}_{bound}"] = stacked("estimator", list(estimators), of_each)
    bent = complexities(bends, seeds, generator) if bends else None
    learned = course_of_a_kernel(pairs, seeds, generator) if pairs else None
    more = {"transfers": transfers, "information": informed, "complexity": bent, "kernel": learned}
    if not distributions:
        return Results("digits", decode, probe, numbers, **more)
    place = ("seed", "layer", "row")
    of_row = (seeds, len(layers), 3)
    density = generator.gamma(0.5, size=(*of_row, len(STEPS), classes, bins)).round(1)  # with empty bins
    index = np.tile([0.0, 17.0, np.nan], (seeds, len(layers), 1))
    quantities = ("zero_fraction", "selectivity", "class_variance", "js_divergence", "js_divergence_shuffled")
    measured = xr.Dataset(
        {
            **{quantity: (cells, about(np.linspace(0.1, 0.6, len(STEPS)))) for quantity in quantities},
            "density": ((*place, "step", "class", "bin"), density),
            "zero": ((*place, "step", "class"), generator.uniform(size=density.shape[:-1])),
            "edge": ((*place, "end"), np.tile(np.linspace(0, 3, bins + 1), (*of_row, 1))),
            "feature_index": (place, index, {"fixed": [0]}),
        },
        {**coords, "class": range(classes)},
    )
    return Results("digits", decode, probe, numbers, measured, **more)


def complexities(bends, seeds, generator):
    """What `complexity` gives of a network with these nonlinearities, and the first and conv-2 as its layers."""
    sizes = {"seed": seeds, "step": len(STEPS), "layer": 2, "nonlinearity": len(bends), "part": 3}

    def drawn(*dims):
        shape = [sizes[dim] for dim in ("seed", "step", *dims)]
        return ("seed", "step", *dims), generator.uniform(5, 9, shape)

    found = xr.Dataset(
        {"linear_mapping_number": drawn("layer"), "local_complexity": drawn("nonlinearity", "part")},
        {
            "seed": range(seeds),
            "step": STEPS,
            "layer": [bends[0], "conv-2"],
            "nonlinearity": list(bends),
            "neurons": ("nonlinearity", 100 // np.arange(1, len(bends) + 1)),
            "part": ["train", "test", "random"],
        },
    )
    return found.assign(total_complexity=found.local_complexity.sum("nonlinearity"))


def course_of_a_kernel(pairs, seeds, generator):
    """What `kernel` gives of a network with these pairs of layers."""
    cells = (seeds, len(STEPS))
    rows = generator.standard_normal((*cells, 5, 20))
    measured = xr.Dataset(
        {
            "tangent_kernel": (("seed", "step", "probe", "other_probe"), rows @ rows.swapaxes(2, 3)),
            "effective_rank": (("seed", "step"), generator.uniform(2, 5, cells)),
            "target_alignment": (("seed", "step"), generator.uniform(-0.1, 0.9, cells)),
            "alignment": (("seed", "step", "pair"), generator.uniform(0.1, 0.9, (*cells, len(pairs)))),
            "norm_product": (("seed", "step", "pair"), generator.uniform(1, 9, (*cells, len(pairs)))),
        },
        {
            "seed": range(seeds),
            "step": STEPS,
            "pair": list(pairs),
            "width": ("pair", 4 ** np.arange(1, len(pairs) + 1)),
        },
    )
    return over_course(measured)


def trained(loss, epochs=6):
    """What `decode` gives of test losses (decoder, seed, step, layer), with how those that are trained were trained."""
    loss = loss.copy()
    untrained = loss.decoder == "linear"
    if loss.sizes["layer"] > 1:
        loss = loss.where(untrained | (loss.layer != loss.layer[-1]))
    decode = xr.Dataset({"test_mse": loss, "fvu": loss / 0.7, "baseline_mse": ((), 0.7)})
    if not untrained.all():
        left = xr.DataArray(2.0 ** -np.arange(epochs), dims="epoch")
        share = xr.DataArray(np.geomspace(0.3, 0.003, len(STEPS)), {"step": STEPS}, "step")
        known = loss.where(loss.decoder == "linear-adam")
        decode["epoch_mse"] = loss.where(~untrained) * (1 + left)
        decode["optimum_mse"] = known / (1 + share)
        decode["excess"] = known / decode.optimum_mse - 1
        decode["test_excess"] = decode.excess / 2
    return decode.transpose("seed", "step", "layer", "decoder", ...)


def numbers(rows, **wanted):
    return np.array([row["value"] for row in rows if all(row.get(key) == value for key, value in wanted.items())])


def drawn(axes):
    """The y values of all lines of a panel that run over steps."""
    return [line.get_ydata() for line in axes.lines if len(line.get_ydata()) > 2]


def named_in_legend(drawing):
    return [text.get_text() for text in drawing.figure.legends[0].get_texts()]


def drawn_twice(draw: Callable[[], Iterable[Drawing]], folder: Path, settings: FiguresSettings) -> list[str]:
    """Draw and save twice, see that both are the same bytes; the files, below `folder`/first."""
    for name in ("first", "second"):
        for drawing in draw():
            save(drawing, folder / name, settings)
    first, second = (folder / name for name in ("first", "second"))
    files = sorted(str(file.relative_to(first)) for file in first.rglob("*") if file.is_file())
    for file in files:
        assert (first / file).read_bytes() == (second / file).read_bytes(), file
    return files
