"""Perceptrons, squared errors, and numbers to learn: what a run needs to show when features are learned."""

from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from scipy.integrate import solve_ivp
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

from conftest import BARE
from phasescope.budget import images_of, outputs
from phasescope.data.dataset import standardised
from phasescope.data.properties import number
from phasescope.data.sources import load
from phasescope.figures.drawing import Results
from phasescope.figures.initialisation import families, initialisation_scale
from phasescope.measures.complexity import complexity, with_layers
from phasescope.measures.samples import Samples
from phasescope.models.losses import LOSSES, told_right
from phasescope.models.parts import hidden_layers
from phasescope.models.zoo import build
from phasescope.params.activations import ActivationsSettings, Tap
from phasescope.params.complexity import ComplexitySettings
from phasescope.params.datasets import DatasetSettings
from phasescope.params.figures import ScaledRun
from phasescope.params.models import ModelSettings
from phasescope.params.phases import PhasesSettings
from phasescope.params.settings import read, shares
from phasescope.params.train import TrainJob
from phasescope.phases import phases
from phasescope.store import arrays
from phasescope.store.datasets import read_dataset, write_dataset
from phasescope.training import write_curves
from small import ONE, record, train

LINE = DatasetSettings(source="linear-regression", inputs=1, train_samples=100)
LINEAR = ModelSettings(name="mlp", units=1000, nonlinearity="linear", bias=False, initialisation="xavier")


def mlp(seed=0, **settings) -> nn.Module:
    torch.manual_seed(seed)
    return build(ModelSettings(name="mlp", **settings), 1, 8, 10)


# --- losses


def test_squared_errors_are_those_of_their_formulas():
    rng = np.random.default_rng(0)
    outputs, classes = rng.normal(size=(7, 3)), np.array([0, 1, 2, 2, 1, 0, 0])
    squares = (outputs - np.eye(3)[classes]) ** 2
    given = torch.from_numpy(outputs), torch.from_numpy(classes)
    for loss, of_samples in (("mse", squares.mean(axis=1)), ("half-squared-error", squares.sum(axis=1) / 2)):
        for reduction in ("mean", "sum"):
            expected = getattr(of_samples, reduction)()
            assert LOSSES[loss](*given, reduction=reduction).item() == pytest.approx(expected, rel=1e-14)
        np.testing.assert_allclose(LOSSES[loss](*given, reduction="none"), of_samples, rtol=1e-14)
        # One output that tells a number.
        numbers = torch.from_numpy(outputs[:, :1]), torch.from_numpy(outputs[:, 1:2])
        share = {"mse": 1, "half-squared-error": 0.5}[loss]
        assert LOSSES[loss](*numbers).item() == pytest.approx(
            share * ((outputs[:, 0] - outputs[:, 1]) ** 2).mean(), rel=1e-14
        )
    assert told_right(*given).tolist() == (outputs.argmax(axis=1) == classes).tolist()
    assert told_right(*numbers).isnan().all()


# --- networks


def test_a_perceptron_has_the_layers_that_it_is_asked_for():
    network = mlp(depth=4, units=5, nonlinearity="swish")
    dense = [module for module in network.modules() if isinstance(module, nn.Linear)]
    assert [(each.in_features, each.out_features) for each in dense] == [(64, 5), (5, 5), (5, 5), (5, 10)]
    assert [name for name, _ in network.named_children()] == ["inputs", "blocks", "flatten", "head"]
    assert sum(p.numel() for p in mlp(units=256, bias=False).parameters()) == 64 * 256 + 256 * 10
    values = torch.linspace(-3, 3, 7)
    for name, expected in {
        "linear": values,
        "relu": values.clamp(min=0),
        "leaky-relu": torch.where(values > 0, values, 0.01 * values),
        "swish": values * values.sigmoid(),
        "gelu": values * torch.special.ndtr(values),
        "sigmoid": 1 / (1 + (-values).exp()),
        "tanh": 1 - 2 / ((2 * values).exp() + 1),
    }.items():
        torch.testing.assert_close(mlp(nonlinearity=name).blocks[0][1](values), expected)


@pytest.mark.parametrize(("initialisation", "first", "last"), [("normal", 64, 400), ("xavier", 232, 205)])
def test_weights_begin_at_their_scale(initialisation, first, last):
    """Variances are scale²/fan-in, or scale²·2/(fan-in + fan-out), for 64 inputs, 400 units and 10 outputs."""
    plain, scaled = (mlp(units=400, initialisation=initialisation, initialisation_scale=scale) for scale in (1.0, 0.25))
    for one, other in zip(plain.parameters(), scaled.parameters(), strict=True):
        torch.testing.assert_close(0.25 * one, other)
    for weight, inverse in ((plain.blocks[0][0].weight, first), (plain.head.weight, last)):
        assert weight.std().item() == pytest.approx(inverse**-0.5, rel=0.05)
    assert not plain.head.bias.any()
    untouched, halved = (mlp(initialisation_scale=scale) for scale in (1.0, 0.5))
    torch.testing.assert_close(0.5 * untouched.head.weight, halved.head.weight)
    torch.testing.assert_close(untouched.head.bias, halved.head.bias)


def test_what_bends_at_zero_has_a_local_complexity_and_what_bends_elsewhere_is_not_linear():
    rng = np.random.default_rng(0)
    samples = Samples(
        rng.normal(size=(40, 64)).astype(np.float32), np.arange(40) % 10, np.arange(40) < 30, 10, (1, 8, 8)
    )
    settings = ComplexitySettings(line_samples=4, points=3)
    measured = {}
    for name in ("linear", "leaky-relu", "swish", "tanh", "sigmoid"):
        network = mlp(depth=3, units=6, nonlinearity=name).eval()
        asked = with_layers(settings, network, samples, ["logits", "predense"])
        assert asked.layers == hidden_layers(network, [], torch.zeros(1, 1, 8, 8))
        assert asked.layers == ([] if name == "linear" else ["blocks.0.1"])
        measured[name] = set(complexity(network, samples, asked).data_vars)
    local = {"local_complexity", "total_complexity", "radius"}
    assert measured["linear"] == set()
    assert measured["tanh"] == measured["sigmoid"] == {"linear_mapping_number"}
    assert measured["leaky-relu"] == measured["swish"] == {"linear_mapping_number", *local}


# --- datasets


def test_the_digits_of_the_methods(tmp_path):
    """500 for training, all others for testing, X/16 − 0.3: as scikit-learn draws them."""
    chosen = DatasetSettings(source="digits", resolution=8, train_samples=500, mean=0.3, std=1.0)
    dataset = load(chosen, tmp_path, download=False)
    bunch = load_digits()
    train, test = train_test_split(np.arange(1797), train_size=500, stratify=bunch.target, random_state=0)
    order = np.concatenate([np.sort(train), np.sort(test)])
    np.testing.assert_allclose(standardised(dataset).reshape(1797, 64), bunch.data[order] / 16 - 0.3, atol=1e-6)
    np.testing.assert_array_equal(dataset.labels, bunch.target[order])
    known = images_of(chosen, tmp_path)
    assert (known.train, known.test) == (dataset.train.sum(), (~dataset.train).sum()) == (500, 1297)
    other = load(chosen.model_copy(update={"draw_seed": 1}), tmp_path, download=False)
    assert not np.array_equal(other.labels, dataset.labels)


def test_samples_on_a_line(tmp_path):
    chosen = DatasetSettings(source="linear-regression", inputs=7, train_samples=2000, slope=-3, noise=0.5)
    write_dataset(tmp_path / "d", load(chosen, tmp_path, download=False), {})
    dataset = read_dataset(tmp_path / "d")
    inputs = standardised(dataset).reshape(4000, 7)
    place = inputs.sum(axis=1) / 7**0.5
    np.testing.assert_allclose(inputs, place[:, None] / 7**0.5 * np.ones(7), rtol=1e-12)  # one direction, of length 1
    assert [place.mean(), place.std()] == pytest.approx([0, 1], abs=0.05)
    slope, offset = np.polyfit(place, dataset.values, 1)
    assert [slope, offset] == pytest.approx([-3, 0], abs=0.03)
    assert (dataset.values - slope * place).std() == pytest.approx(0.5, rel=0.05)
    np.testing.assert_array_equal(dataset.labels, dataset.values > 0)
    assert dataset.train.sum() == 2000
    known = images_of(chosen, tmp_path)
    assert (known.channels, known.train, known.test, known.classes) == (7, 2000, 2000, 2)
    files = [path.stat().st_size for path in (tmp_path / "d").rglob("*") if path.is_file()]
    budgeted = outputs.dataset(known)
    assert budgeted.files == len(files)
    assert budgeted.bytes == pytest.approx(sum(files), rel=0.1)
    np.testing.assert_array_equal(number(dataset, "value"), dataset.values)


# --- training


@pytest.fixture(scope="module")
def line(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("data") / "line"
    write_dataset(path, load(LINE, path, download=False), {})
    return path


def parts(store: xr.Dataset, seed: int, step: int) -> tuple[np.ndarray, np.ndarray]:
    """The first layer (unit,) and the last (unit,)."""
    return np.split(store["weights"].sel(seed=seed, step=step).values.astype(np.float64), 2)


@pytest.mark.parametrize(("scale", "rate"), [(0.45, 0.01), (4.5, 0.002)])
def test_a_linear_network_learns_a_line_as_theory_says(line, tmp_path, scale, rate):
    """Against the differential equations of gradient flow, d(w, u)/dt = ⟨a (y − f a)⟩ (u, w), which scipy solves."""
    job = TrainJob(
        dataset="line", model=LINEAR.model_copy(update={"initialisation_scale": scale, "dtype": "float64"}),
        target="value", loss="half-squared-error", seeds=[0], iterations=256, batch_size=100, learning_rate=rate,
        momentum=0.0,
    )  # fmt: skip
    train(job, line, tmp_path / "train", ONE, "line")
    store = xr.open_zarr(tmp_path / "train" / arrays.GROUP, chunks=None)
    dataset = read_dataset(line)
    x, y = standardised(dataset).ravel()[:100], dataset.values[:100]

    def flow(_, weights):
        w, u = np.split(weights, 2)
        pull = np.mean(x * (y - x * (u @ w)))
        return np.concatenate([pull * u, pull * w])

    start = np.concatenate(parts(store, 0, 0))
    end = solve_ivp(flow, (0, 256 * rate), start, rtol=1e-9, atol=1e-12).y[:, -1]
    for found, known in zip(parts(store, 0, 256), np.split(end, 2), strict=True):
        assert np.linalg.norm(found - known) < 0.02 * np.linalg.norm(known)
    w, u = parts(store, 0, 256)
    alignment = abs(u @ w) / np.linalg.norm(u) / np.linalg.norm(w)
    assert alignment > 0.8 if scale < 1 else alignment < 0.1  # features are learned, or are not
    assert store["train_loss"].values[0, -1] == pytest.approx(((x * (u @ w) - y) ** 2).mean() / 2, rel=1e-9)


def test_a_network_that_learns_a_number_has_a_loss_and_no_accuracy(line, tmp_path):
    job = TrainJob(
        dataset="line", model=LINEAR.model_copy(update={"units": 8}), target="value", loss="mse", seeds=[0, 1],
        iterations=8, batch_size=32, optimiser="adamw", sampling="replacement", evaluate_every=3,
    )  # fmt: skip
    train(job, line, tmp_path / "train", ONE, "line")
    taps = ActivationsSettings(taps=[Tap(name="logits"), Tap(name="predense")], dtype="float64")
    record(job, taps, line, tmp_path / "train", tmp_path / "activations", ONE, "line")
    write_curves("line", tmp_path / "train", tmp_path / "curves")
    curves = xr.open_zarr(tmp_path / "curves" / arrays.GROUP, chunks=None)
    assert curves.step.values.tolist() == [0, 1, 2, 3, 4, 6, 8]
    assert np.isfinite(curves["test_loss"]).all()
    assert curves["test_accuracy"].isnull().all()
    assert curves["train_accuracy"].isnull().all()
    recorded = xr.open_zarr(tmp_path / "activations" / arrays.GROUP, chunks=None)
    assert recorded["logits"].shape[2:] == (200, 1)
    assert recorded["accuracy"].isnull().all()
    test = recorded["split"].values == "test"
    outputs = recorded["logits"].sel(seed=1, step=8).values[test, 0]
    expected = np.mean((outputs - read_dataset(line).values[100:]) ** 2)
    assert recorded["loss"].sel(seed=1, step=8, part="test").item() == pytest.approx(expected, rel=1e-5)
    assert curves["test_loss"].sel(seed=1, step=8).item() == pytest.approx(expected, rel=1e-5)
    assert recorded["loss"].attrs["units"] == "1"


def test_phases_of_a_network_without_accuracy():
    steps = [0, 1, 2, 4]
    losses = np.array([1.0, 1.0, 0.5, 0.9])[None, :, None] * np.ones((2, 4, 1))
    error = losses[..., None] * np.ones((2, 4, 1, 5))
    coords = {"seed": [0, 1], "step": steps, "layer": ["logits"]}
    cells = ("seed", "step", "layer")
    decode = xr.Dataset(
        {"test_mse": (cells, losses), "fvu": (cells, losses), "error": ((*cells, "sample"), error)}, coords
    )
    network = {name: (("seed", "step"), np.full((2, 4), value)) for name, value in
               {"network_accuracy": np.nan, "network_loss": 1.0, "weight_norm": 1.0}.items()}  # fmt: skip
    found = phases(decode, xr.Dataset(network, {"seed": [0, 1], "step": steps}), PhasesSettings(resamples=10))["logits"]
    assert found["phases"] == "fall, rise"
    assert (found["accuracy_highest"], found["accuracy_highest_at"], found["accuracy_end"]) == (None, None, None)


def test_ink_is_a_number_of_standard_deviation_one(tmp_path):
    dataset = load(DatasetSettings(source="digits", resolution=8), tmp_path, download=False)
    ink = number(dataset, "ink")
    of_training = ink[dataset.train]
    assert [of_training.mean(), of_training.std()] == pytest.approx([0, 1], abs=1e-12)
    assert np.corrcoef(ink, dataset.images.sum(axis=(1, 2, 3), dtype=float))[0, 1] == pytest.approx(1)
    with pytest.raises(ValueError, match="no number"):
        number(dataset, "value")


# --- settings

PERCEPTRON = BARE.replace("digits}", "digits, resolution: 8}").replace("{name: vgg8}", "{name: mlp}")


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        (
            "name: mlp",
            "name: vgg8, depth: 3",
            "runs.small.model: `depth` is for the network mlp alone; leave it out; got",
        ),
        (
            "name: mlp",
            "name: f0, bias: false",
            "runs.small.model: `bias` is for the network mlp alone; leave it out; got",
        ),
        (
            "name: mlp",
            "name: mlp, width: 0.5",
            "runs.small.model.width: the hidden layers of mlp are as wide as `units` says: leave it at 1; got 0.5",
        ),
        ("name: mlp", "name: mlp, depth: 1", "runs.small.model.depth: expected a number of at least 2, got 1"),
        (
            "name: mlp",
            "name: mlp, nonlinearity: silu",
            "runs.small.model.nonlinearity: unknown value 'silu'; known: linear, relu, leaky-relu, swish, gelu, "
            "sigmoid, tanh",
        ),
        (
            "name: mlp}",
            "name: mlp}\n    train: {target: ink}",
            "runs.small.train.target: cross-entropy is a loss of classes: set `loss` to mse or half-squared-error for "
            "a number; got the text 'ink'",
        ),
        (
            "name: mlp}",
            "name: mlp}\n    train: {target: value, loss: mse}\n    activations: {taps: [logits]}",
            "runs.small.train.target: 'value' is the number of a sample of linear-regression, and the source of "
            "'digits' is digits; choose another",
        ),
        (
            "name: mlp}",
            "name: mlp}\n    train: {target: ink, loss: mse}",
            "runs.small.activations.taps: 'softmax' is of classes, and train.target is none; leave it out",
        ),
        (
            "{source: digits, resolution: 8}",
            "{source: cifar10}\ntrain: {target: ink, loss: mse}\nactivations: {taps: [logits]}",
            "runs.small.train.target: 'ink' is a number of grey images, and those of 'digits' are images in colour; "
            "choose another",
        ),
        (
            "source: digits, resolution: 8",
            "source: linear-regression, inputs: 3",
            "datasets.digits: `train_samples` is needed for the source linear-regression; got",
        ),
        (
            "source: digits, resolution: 8",
            "source: digits, train_samples: 1797",
            "datasets.digits: `train_samples` of digits can be 10 to 1,787; leave it out for all; got",
        ),
        (
            "source: digits, resolution: 8",
            "source: mnist, draw_seed: 3",
            "datasets.digits: `draw_seed` is of the draw of `train_samples`: set that too, or leave it out; got",
        ),
        (
            "source: digits, resolution: 8",
            "source: digits, slope: 2",
            "datasets.digits: `slope` is for the source linear-regression alone; leave it out; got",
        ),
        (
            "source: digits, resolution: 8",
            "source: digits, inputs: 2",
            "datasets.digits: `inputs` is for the sources feature-strength, linear-regression alone; leave it out; got",
        ),
        (
            "source: digits, resolution: 8",
            "source: linear-regression, inputs: 3, train_samples: 9, mean: 0.5",
            "datasets.digits: `mean` is for the sources digits, mnist, fashion-mnist, cifar10, cifar100, image-folder "
            "alone; leave it out; got",
        ),
    ],
)
def test_mistakes_are_told_in_one_line(mistakes, old, new, line):
    assert PERCEPTRON.count(old) == 1
    (told,) = mistakes(PERCEPTRON.replace(old, new))
    assert told.startswith(line)


# --- figure


def test_runs_that_differ_in_the_scale_of_their_weights_are_a_family(params):
    text = "datasets: {digits: {source: digits}}\ntrain: {loss: mse}\nruns:\n"
    for name, model, more in (
        ("small", "initialisation_scale: 0.1", ""),
        ("large", "initialisation_scale: 2", "train: {learning_rate: 0.1}"),
        ("deep", "depth: 3", ""),
        ("deep-large", "depth: 3, initialisation_scale: 2", ""),
        ("alone", "depth: 4", ""),
        ("other", "initialisation_scale: 2", "train: {iterations: 3}"),
    ):
        text += f"  {name}:\n    dataset: digits\n    model: {{name: mlp, {model}}}\n    {more}\n"
    scaled = shares(read(params(text)))["figures.json"]["scaled"]
    two, three = "digits: 2 layers, 256 relu", "digits: 3 layers, 256 relu"
    assert scaled == {
        "small": {"family": two, "scale": 0.1},
        "large": {"family": two, "scale": 2.0},
        "deep": {"family": three, "scale": 1.0},
        "deep-large": {"family": three, "scale": 2.0},
    }


def of_a_scale(scale, accuracy, family="2 layers") -> Results:
    curves = {f"{part}_accuracy": (("seed", "step"), np.array([[0.1, a], [0.1, a - 0.1]]))
              for part, a in (("train", 1.0), ("test", accuracy))}  # fmt: skip
    training = xr.Dataset(curves, {"seed": [0, 1], "step": [0, 8]})
    return Results(
        "digits", xr.Dataset(), xr.Dataset(), {}, training=training, scaled=ScaledRun(family=family, scale=scale)
    )


def test_the_figure_shows_mean_and_range_of_the_seeds_over_the_scale():
    results = {"large": of_a_scale(4.0, 0.7), "small": of_a_scale(0.1, 0.9), "number": of_a_scale(9.0, np.nan)}
    found = families(results | {"alone": of_a_scale(1.0, 0.9, "3 layers")})
    assert {name: list(family) for name, family in found.items()} == {"2 layers": [0.1, 4.0]}
    drawing = initialisation_scale(found)
    (axes,) = drawing.figure.axes
    train_line, test_line = (container.lines[0] for container in axes.containers)
    assert list(test_line.get_xdata()) == [0.1, 4.0]
    np.testing.assert_allclose(test_line.get_ydata(), [0.85, 0.65])
    np.testing.assert_allclose(train_line.get_ydata(), [0.95, 0.95])
    rows = {(row["run"], row["quantity"], row["seed"]): row["value"] for row in drawing.rows}
    assert rows["large", "test accuracy", "min"] == pytest.approx(0.6)
    assert rows["small", "train accuracy", "max"] == 1.0
    assert not families({name: result for name, result in results.items() if name != "large"})
