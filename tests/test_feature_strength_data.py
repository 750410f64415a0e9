"""The data model of the theory as a dataset: what is trained, recorded and decoded is what the theory says."""

from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest

from conftest import BARE
from phasescope.data.dataset import standardised
from phasescope.data.feature_strength import load_feature_strength
from phasescope.measures import cells
from phasescope.measures.decode import decode
from phasescope.measures.probe import probe
from phasescope.params.activations import ActivationsSettings, Tap
from phasescope.params.datasets import DatasetSettings
from phasescope.params.decode import DecodeSettings
from phasescope.params.models import ModelSettings
from phasescope.params.phases import PhasesSettings
from phasescope.params.probe import ProbeSettings
from phasescope.params.train import TrainJob
from phasescope.phases import phases
from phasescope.store.datasets import read_dataset, write_dataset
from phasescope.store.run import StoredRun
from phasescope.theory.feature_strength import descent, reconstruction, recursion
from phasescope.theory.feature_strength.model import FeatureStrength
from small import ONE, cache_of, record, train

#: l, d, k, λ, number of steps: table 5.1 of the methods.
SETS = [
    (3, 12, 2, 0.1, 400),
    (10, 100, 2, 0.05, 2000),
    (10, 1000, 5, 0.01, 1000),
    (20, 400, 3, 0.1, 1000),
    (50, 500, 2, 0.2, 1500),
    (10, 100, 2, 50, 50),
]
#: Recorded as the theory has it: all of a batch, nothing rounded but to float64.
EXACT = ActivationsSettings(taps=[Tap(name="softmax"), Tap(name="logits")], dtype="float64")
LEAST_SQUARES = DecodeSettings(selection="none")


def settings_of(outputs, inputs, strength) -> DatasetSettings:
    return DatasetSettings(source="feature-strength", outputs=outputs, inputs=inputs, strength=strength)


def run_of(root, data: DatasetSettings, **job) -> StoredRun:
    """A run of F0 by full-batch gradient descent, in float64."""
    write_dataset(root / "datasets" / "d", load_feature_strength(data), data.model_dump())
    model = ModelSettings(name="f0", initialisation=job.pop("initialisation"), dtype="float64")
    settings = TrainJob(dataset="d", model=model, batch_size=10**6, momentum=0, **job)
    trained, recorded = root / "runs" / "r" / "train", root / "runs" / "r" / "activations"
    train(settings, root / "datasets" / "d", trained, ONE, "r")
    record(settings, EXACT, root / "datasets" / "d", trained, recorded, ONE, "r")
    return StoredRun("r", root)


def decoded(run: StoredRun):
    return cells.measure(run, "decode", decode, LEAST_SQUARES, cache_of(run.path / "decode")).result


@pytest.mark.parametrize(("outputs", "inputs", "strength", "rate", "iterations"), SETS)
def test_training_gives_the_error_of_the_theory(tmp_path, outputs, inputs, strength, rate, iterations):
    data = settings_of(outputs, inputs, strength)
    run = run_of(tmp_path, data, initialisation="equal", seeds=[0], iterations=iterations, learning_rate=rate)
    measured = decoded(run).test_mse.isel(seed=0)
    gaps = recursion.gaps(FeatureStrength(outputs, strength, inputs, rate), run.recorded.step.values)
    np.testing.assert_allclose(
        measured.sel(layer="softmax"), reconstruction.optimal(gaps, outputs, strength), rtol=0, atol=1e-10
    )
    # From logits all is recovered as soon as there is a gap, as section 5.6 of the methods has it.
    start = reconstruction.from_logits(np.zeros(1), outputs, strength)
    np.testing.assert_allclose(measured.sel(layer="logits")[0], start[0], rtol=1e-12)
    assert measured.sel(layer="logits")[1:].max() < 1e-10


def test_random_weights_give_a_constant_phase_before_the_fall_and_the_rise(tmp_path):
    data = settings_of(outputs=10, inputs=10, strength=2)
    seeds = [0, 1, 2, 3]
    run = run_of(tmp_path, data, initialisation="normal", seeds=seeds, iterations=2048, learning_rate=0.1)
    measured = decoded(run)
    errors = 10 * measured.test_mse.sel(layer="softmax")
    steps = run.recorded.step.values
    weights = run.training["weights"].sel(step=0).values.reshape(len(seeds), 10, 10)
    model = FeatureStrength(10, 2.0, 10, 0.1)
    for place, drawn in enumerate(weights):
        expected = 10 * descent.from_softmax(model, descent.descend(model, drawn, steps))
        np.testing.assert_allclose(errors[place], expected, rtol=0, atol=1e-10)
    probed = cells.measure(run, "probe", probe_of, ProbeSettings(shuffles=1), cache_of(run.path / "probe")).result
    probed["network_accuracy"] = run.recorded["accuracy"].sel(part="test", drop=True).load()
    for quantity, name in (("network_loss", "loss"), ("weight_norm", "weight_norm")):
        probed[quantity] = run.recorded[name].load() if name == "weight_norm" else run.recorded[name][:, :, 1].load()
    found = phases(measured, probed, PhasesSettings(resamples=20))["softmax"]
    assert found["phases"] == "constant, fall, rise"
    assert found["constant_until"] >= 8
    assert found["minimum_at"] == 256
    mean = errors.mean("seed").sel(step=[256, 1024, 2048])
    np.testing.assert_allclose(mean, [0.027, 0.124, 0.182], atol=0.001)  # section 5.7b of the methods


def probe_of(activations, samples, settings):
    return probe(activations, samples, settings, ONE)


@lru_cache
def weights_of(initialisation: str, name: str = "f0", seed: int = 0):
    import torch

    from phasescope.models.zoo import build

    torch.manual_seed(seed)
    network = build(ModelSettings(name=name, initialisation=initialisation, dtype="float64"), 400, 2, 10)
    return {key: value.numpy() for key, value in network.state_dict().items()}


def test_initial_weights_are_those_of_the_paper():
    equal, normal = weights_of("equal")["head.weight"], weights_of("normal")["head.weight"]
    assert (equal == 1 / 1600).all()
    # 16,000 numbers: the standard deviation of their standard deviation is 0.6 %.
    assert normal.std() == pytest.approx(1600**-0.5, rel=0.02)
    assert abs(normal.mean()) < 4 * 1600**-0.5 / 16_000**0.5
    assert np.abs(normal).max() > 3 * 1600**-0.5
    convolutional = weights_of("normal", "vgg8")
    assert convolutional["blocks.1.0.weight"].std() == pytest.approx((32 * 9) ** -0.5, rel=0.02)
    assert (convolutional["head.bias"] == 0).all()
    assert (convolutional["blocks.0.1.weight"] == 1).all()


def test_float32_and_float64_networks_begin_alike():
    import torch

    from phasescope.models.zoo import build

    drawn = []
    for dtype in ("float32", "float64"):
        torch.manual_seed(3)
        drawn.append(build(ModelSettings(name="vgg8", width=0.1, dtype=dtype), 1, 8, 10).state_dict()["head.weight"])
    assert drawn[1].dtype == torch.float64
    np.testing.assert_array_equal(*(weight.numpy() for weight in drawn))


def test_the_dataset_holds_every_sample_for_training_and_for_testing(tmp_path):
    data = settings_of(outputs=3, inputs=6, strength=2.1)
    write_dataset(tmp_path / "d", load_feature_strength(data), data.model_dump())
    dataset = read_dataset(tmp_path / "d")
    assert dataset.images.shape == (12, 6, 1, 1)
    assert dataset.images.dtype == np.float64
    expected = np.kron(np.eye(3), [1, 1])
    for part in (dataset.train, ~dataset.train):
        np.testing.assert_array_equal(dataset.images[part][:, :, 0, 0], [*expected, *2.1 * expected])
        np.testing.assert_array_equal(dataset.labels[part], [0, 1, 2, 0, 1, 2])
    np.testing.assert_array_equal(standardised(dataset), dataset.images)
    assert standardised(dataset).dtype == np.float64
    assert standardised(replace(dataset, images=dataset.images.astype(np.float16))).dtype == np.float32


MODEL = "{source: feature-strength, outputs: 10, strength: 2, inputs: 100}"


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("strength: 2,", "strength: 1,", "datasets.model.strength: expected a number above 1, got 1"),
        ("outputs: 10", "outputs: 1", "datasets.model.outputs: expected a number of at least 2, got 1"),
        (
            "inputs: 100",
            "inputs: 95",
            "datasets.model.inputs: expected a multiple of `outputs`, which is 10, for classes have as many each; "
            "got 95",
        ),
        (
            ", inputs: 100",
            "",
            "datasets.model: `inputs` is needed for the source feature-strength; "
            "got {'source': 'feature-strength', 'outputs': 10, 'strength': 2",
        ),
        (
            "inputs: 100",
            "inputs: 100, resolution: 8",
            "datasets.model: `resolution` is of images, which the source feature-strength has none of; leave it out; "
            "got {'source': 'feature-strength', 'outputs': 10, 'strength': 2",
        ),
        (
            "feature-strength, ",
            "digits, ",
            "datasets.model: `outputs` is for the source feature-strength alone; leave it out; "
            "got {'source': 'digits', 'outputs': 10, 'strength': 2, 'inputs':",
        ),
        (
            "name: vgg8",
            "name: vgg8, initialisation: equal",
            "runs.small.model.initialisation: with equal weights the units of a hidden layer of vgg8 stay alike: "
            "choose another",
        ),
        (
            "name: vgg8}",
            "name: f0}\n    decode: {decoders: [deconvolution]}",
            "runs.small.decode.decoders: 'deconvolution' draws images, and the samples of 'model' are attributes; "
            "choose another",
        ),
        (
            "name: vgg8}",
            "name: f0}\n    train: {learning_rate: 0}",
            "runs.small.train.learning_rate: expected a number above 0, got 0",
        ),
        (
            "name: vgg8}",
            "name: f0}\ntransfer: {x: {run: small, dataset: model, labels: [quadrant]}}",
            "transfer.x.labels[0]: 'quadrant' is a label of grey images or images in colour, and those of 'model' are "
            "attributes; choose another",
        ),
    ],
)
def test_parameters_outside_the_model_are_told_in_one_line(mistakes, old, new, line):
    text = BARE.replace("digits: {source: digits}", f"model: {MODEL}").replace("dataset: digits", "dataset: model")
    assert text.count(old) == 1
    (told,) = mistakes(text.replace(old, new))
    assert told.startswith(line)
