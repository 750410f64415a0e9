"""Networks, datasets and losses of one's own: found, called, told of in one line, and never run for a stranger."""

import os

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

import phasescope
from conftest import BARE
from phasescope import own
from phasescope.data.sources import load as load_dataset
from phasescope.errors import UserError
from phasescope.measures.own import measure
from phasescope.measures.samples import Samples
from phasescope.models.taps import Capture, shapes
from phasescope.models.zoo import build, build_for, outline
from phasescope.params.activations import ActivationsSettings, Tap
from phasescope.params.datasets import DatasetSettings
from phasescope.params.measures import OwnMeasureJob
from phasescope.params.models import ModelSettings
from phasescope.params.settings import shares
from phasescope.params.train import TrainJob
from phasescope.resolve import resolve
from phasescope.store import arrays
from phasescope.store.datasets import read_dataset, write_dataset
from small import ONE, few_digits, record, train

NETWORK = """
from torch import nn
from {helper} import WIDTH

class Own(nn.Module):
    def __init__(self, channels, resolution, outputs, hidden):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(channels, WIDTH, 3, padding=1), nn.BatchNorm2d(WIDTH), nn.ReLU())
        self.register_buffer("scale", 2 * __import__("torch").ones(1), persistent=False)
        self.read = nn.Linear(WIDTH * resolution ** 2, hidden)
        self.tell = nn.Linear(hidden, outputs)

    def forward(self, images):
        maps = self.features(images) * self.scale
        return self.tell(self.read(maps.view(len(images), -1)).relu())

def build(channels, resolution, outputs, hidden=12):
    return Own(channels, resolution, outputs, hidden)

def broken(channels):
    raise KeyError("no such\\nthing")

def nothing():
    return 3

def loss(outputs, targets):
    return nn.functional.cross_entropy(outputs, targets, reduction="none")

def mean_loss(outputs, targets):
    return nn.functional.cross_entropy(outputs, targets)
"""

DATA = """
import numpy as np

def load(channels, resolution, count=40, seed=0):
    rng = np.random.default_rng(seed)
    images = rng.integers(256, size=(count, channels, resolution, resolution), dtype=np.uint8)
    labels = np.arange(count) % 3
    halves = {"train": slice(8, None), "test": slice(8)}
    return {
        f"{half}_{what}": values[part]
        for half, part in halves.items() for what, values in (("images", images), ("labels", labels))
    }

def mixed(channels, resolution):
    given = load(channels, resolution)
    return {**given, "test_images": given["test_images"] / 255.0}

def short(channels, resolution):
    return {**load(channels, resolution), "test_labels": np.zeros(3)}
"""

MEASURE = """
import numpy as np

def spread(activations, train, scale=1.0):
    return scale * activations[train].std(dtype=float)

def several(activations, labels, shape):
    return {"mean": activations.mean(dtype=float), "rank": len(shape) + labels.max()}

def writing(labels):
    labels += 1
    return 0

def array(activations):
    return activations.mean(axis=0)
"""


@pytest.fixture
def name(tmp_path, monkeypatch, request) -> str:
    """The name of a module in `own/` of the present folder, another one for each test."""
    name = f"net_{abs(hash(request.node.name)):x}"
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / f"{name}.py").write_text(NETWORK.format(helper=f"{name}_helper"))
    (tmp_path / "own" / f"{name}_helper.py").write_text("WIDTH = 3\n")
    (tmp_path / "own" / f"{name}_data.py").write_text(DATA)
    (tmp_path / "own" / f"{name}_measure.py").write_text(MEASURE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(own.TRUST, "1")
    monkeypatch.syspath_prepend(tmp_path)  # so that what `load` adds to the path is taken off again
    return name


def settings(name: str, **more) -> ModelSettings:
    return ModelSettings(name=f"{name}:build", **more)


def test_a_network_of_ones_own_is_called_with_what_it_takes(name):
    network = build(settings(name, arguments={"hidden": 7}), 1, 8, 10)
    assert network.read.out_features == 7
    assert network(torch.zeros(2, 1, 8, 8)).shape == (2, 10)
    taps = [Tap(name=tap) for tap in ("softmax", "logits", "predense", "features", "features.0")]
    found = shapes(outline(settings(name), 1, 8, 10), taps, 1, 8)
    wanted = {"softmax": (10,), "logits": (10,), "predense": (12,), "features": (3, 8, 8), "features.0": (3, 8, 8)}
    assert found == wanted


def test_torchvisions_networks_go_by_their_names():
    network = outline(ModelSettings(name="torchvision:resnet18"), 3, 32, 7)
    assert shapes(network, [Tap(name="logits"), Tap(name="predense")], 3, 32) == {"logits": (7,), "predense": (512,)}
    with pytest.raises(UserError, match=r"unknown network of torchvision 'resnet17'; did you mean 'resnet1"):
        build(ModelSettings(name="torchvision:resnet17"), 3, 32, 7)


def test_a_tap_is_what_its_module_gave_also_where_the_next_one_writes_into_it():
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(inplace=True))
    images = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    with Capture(model, [Tap(name="0"), Tap(name="1")]) as capture, torch.no_grad():
        model(images)
        found = capture.read()
        torch.testing.assert_close(found["0"], model[0](images))
    assert (found["0"] < 0).any()
    assert torch.equal(found["1"], found["0"].relu())


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"name": "{}_gone:build"}, "there is no own/{}_gone.py, and no package '{}_gone' is installed"),
        ({"name": "{}:biuld"}, "{} has no function 'biuld'; did you mean 'build'?"),
        ({"name": "{}:broken"}, "own/{}.py, line 21: KeyError: 'no such\\nthing'"),
        ({"name": "{}:nothing"}, "gives a int, where a torch.nn.Module is expected"),
        (
            {"name": "{}:build", "arguments": {"hiden": 3}},
            "got an unexpected keyword argument 'hiden'; it is called with",
        ),
        ({"name": "{}:build", "arguments": {"hidden": "x"}}, "own/{}.py, line 10: TypeError: "),
    ],
)
def test_what_is_wrong_with_it_is_one_line(name, given, told):
    given = {key: value.format(name) if key == "name" else value for key, value in given.items()}
    with pytest.raises(UserError) as error:
        build(ModelSettings(**given), 1, 8, 10)
    assert str(error.value).startswith(f"{given['name']}: ")
    assert told.format(name, name) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_stranger_runs_nothing(name, monkeypatch, tmp_path):
    monkeypatch.delenv(own.TRUST)
    (tmp_path / "own" / f"{name}.py").write_text("open('made', 'w')\n")
    with pytest.raises(UserError, match="is code that came with this run, and is not run unless you trust it"):
        build(settings(name), 1, 8, 10)
    assert not (tmp_path / "made").exists()


def test_a_run_with_it_is_like_any_other(name, tmp_path, monkeypatch):
    job = TrainJob(
        dataset="d", model=settings(name), loss=f"{name}:loss", code=own.digests(f"{name}:build"),
        seeds=[3], iterations=4, batch_size=16, learning_rate=0.01,
    )  # fmt: skip
    data, folder = tmp_path / "datasets" / "d", tmp_path / "runs" / "r"
    write_dataset(data, few_digits(), {})
    train(job, data, folder / "train", ONE, "own")
    plain = job.model_copy(update={"loss": "cross-entropy"})
    train(plain, data, tmp_path / "plain", ONE, "own")
    losses = [
        xr.open_zarr(path / arrays.GROUP, chunks=None)["loss"].values for path in (folder / "train", tmp_path / "plain")
    ]
    np.testing.assert_allclose(*losses, rtol=1e-6)
    taps = ActivationsSettings(taps=[Tap(name="logits"), Tap(name="predense")], dtype="float32")
    record(job, taps, data, folder / "train", folder / "activations", ONE, "own")
    monkeypatch.delenv(own.TRUST)
    run = phasescope.open_run(folder)
    kept = run.activations("logits").sel(seed=3, step=4)
    with pytest.raises(UserError, match=r"unless you trust it: open_run\(…, trust=True\)"):
        run.model(seed=3, step=4)
    before = torch.get_rng_state()
    network = phasescope.open_run(folder, trust=True).model(seed=3, step=4)
    assert torch.equal(before, torch.get_rng_state())
    assert own.TRUST not in os.environ
    assert type(network).__name__ == "Own"
    images = torch.from_numpy(phasescope.data.dataset.standardised(read_dataset(data)))
    with torch.no_grad():
        logits = network(images)
    np.testing.assert_allclose(logits[: kept.sizes["sample"]][:5], kept[:5], rtol=1e-4, atol=1e-5)


def test_an_edit_of_its_file_or_of_what_that_imports_is_another_run(name, params, tmp_path):
    path = params(BARE.replace("{name: vgg8}", f"{name}:build"))

    def share():
        return shares(resolve(path))["runs/small/train.json"]

    first = share()
    assert list(first["code"]) == [f"own/{name}.py", f"own/{name}_helper.py"]
    (tmp_path / "own" / f"{name}_data.py").write_text("# not of it\n")
    assert share() == first
    (tmp_path / "own" / f"{name}_helper.py").write_text("WIDTH = 4\n")
    assert {key for key in first if share()[key] != first[key]} == {"code"}


def test_edited_code_is_not_taken_for_what_a_run_was_made_with(name, tmp_path):
    job = TrainJob(dataset="d", model=settings(name), code=own.digests(f"{name}:build"))
    assert build_for(job, 1, 8, 10) is not None
    source = tmp_path / "own" / f"{name}_helper.py"
    source.write_text("WIDTH = 4\n")
    with pytest.raises(UserError, match=rf"own/{name}_helper.py: not as when this was made; run `dvc repro`"):
        build_for(job, 1, 8, 10)


def test_all_files_of_a_package_count(name, tmp_path):
    package = tmp_path / "own" / f"{name}_package"
    package.mkdir()
    (package / "__init__.py").write_text("from .helper import build\n")
    (package / "helper.py").write_text(f"from {name} import build\n")
    files = [f"own/{file}" for file in (f"{name}.py", f"{name}_helper.py")]
    files += [f"own/{name}_package/{file}" for file in ("__init__.py", "helper.py")]
    for module in (f"{name}_package", f"{name}_package.helper"):
        assert sorted(own.digests(f"{module}:build")) == sorted(files)


def test_trust_ends_with_its_block(monkeypatch):
    for before in (None, "0", "1"):
        monkeypatch.delenv(own.TRUST, raising=False) if before is None else monkeypatch.setenv(own.TRUST, before)
        with own.trusted(True):
            assert os.environ[own.TRUST] == "1"
        assert os.environ.get(own.TRUST) == before


def test_networks_of_torchvision_load_nothing_and_may_index_by_their_buffers():
    for name, told in (
        ("fasterrcnn_resnet50_fpn", "unknown network of torchvision"),
        ("resnet18", "networks begin untrained"),
    ):
        with pytest.raises(UserError, match=told):
            build(ModelSettings(name=f"torchvision:{name}", arguments={"weights": "DEFAULT"}), 3, 32, 10)
    with pytest.raises(UserError, match="torchvision:resnet18: TypeError: "):
        build(ModelSettings(name="torchvision:resnet18", arguments={"widht": 3}), 3, 32, 10)

    class Shuffled(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("order", torch.arange(4).flip(0))
            self.unused, self.drop, self.dense = nn.Linear(3, 3), nn.Dropout(), nn.Linear(4, 2)

        def forward(self, images):
            return self.dense(self.drop(images.flatten(1)[:, self.order]))

    before = torch.get_rng_state()
    assert shapes(Shuffled(), [Tap(name="logits")], 1, 2) == {"logits": (2,)}
    torch.set_rng_state(before)
    network = Shuffled()
    before = torch.get_rng_state()
    with pytest.raises(UserError, match="tap 'unused': Shuffled has it, and does not run it"):
        shapes(network, [Tap(name="unused")], 1, 2)
    assert torch.equal(before, torch.get_rng_state())
    with pytest.raises(UserError, match="Flatten: has no parameters"):
        shapes(nn.Flatten(), [Tap(name="logits")], 1, 2)


def test_taps_do_not_take_the_names_of_other_arrays(mistakes):
    (told,) = mistakes(f"{BARE}activations: {{taps: [logits, label]}}")
    assert "label is what a store calls something else" in told


def test_a_dataset_of_ones_own(name):
    settings = DatasetSettings(source=f"{name}_data:load", channels=2, resolution=8, arguments={"count": 30})
    dataset = load_dataset(settings, None, download=False)
    assert dataset.images.shape == (30, 2, 8, 8)
    assert dataset.images.dtype == np.uint8
    assert dataset.train.sum() == 22
    assert dataset.train[:22].all()
    assert dataset.classes == ["0", "1", "2"]
    np.testing.assert_allclose(dataset.mean, dataset.images[:22].mean(axis=(0, 2, 3)) / 255)
    for change, told in (
        ({"source": f"{name}_data:short"}, "test_labels are no whole numbers from 0, one for each of the 8 images"),
        ({"source": f"{name}_data:mixed"}, "train_images and test_images are of different kinds"),
        ({"source": f"{name}:nothing"}, "gives int, where a mapping with train_images"),
    ):
        with pytest.raises(UserError, match=told):
            load_dataset(settings.model_copy(update={**change, "arguments": {}}), None, download=False)


def test_a_loss_of_ones_own_is_of_each_sample(name):
    from phasescope.models.losses import loss_of

    outputs, targets = torch.randn(5, 3, generator=torch.Generator().manual_seed(0)), torch.arange(5) % 3
    mine, theirs = loss_of(f"{name}:loss"), loss_of("cross-entropy")
    for reduction in ("mean", "sum", "none"):
        given = outputs, targets
        torch.testing.assert_close(mine(*given, reduction=reduction), theirs(*given, reduction=reduction))
    with pytest.raises(UserError, match=r"gives \(\), where the loss of each sample is expected, \(5,\)"):
        loss_of(f"{name}:mean_loss")(outputs, targets)


def test_mistakes_in_settings_are_told_where_they_are(name, mistakes):
    text = BARE.replace("{name: vgg8}", "{name: vgg8, arguments: {a: 1}}")
    assert "`arguments` are for networks of your own" in mistakes(text)[0]
    text = BARE.replace("{name: vgg8}", f"{{name: {name}:build, width: 2}}")
    assert "`width` is not for networks of your own" in mistakes(text)[0]
    assert mistakes(BARE.replace("{name: vgg8}", "a:b:c")) == [
        "runs.small.model.name: expected a known name, or `module:function` for one of your own; got the text 'a:b:c'"
    ]
    (told,) = mistakes(BARE.replace("{name: vgg8}", f"{name}:nothing"))
    assert told.startswith(f"runs.small.model: {name}:nothing: gives a int")


def test_a_measure_of_ones_own_is_of_each_cell(name):
    rng = np.random.default_rng(0)
    values = rng.normal(size=(2, 3, 20, 6)).astype(np.float32)
    coords = {"seed": [1, 2], "step": [0, 1, 2], "sample": np.arange(20)}
    shape = {"feature_shape": [6]}
    activations = xr.DataArray(values, coords, ("seed", "step", "sample", "feature"), attrs=shape)
    samples = Samples(rng.normal(size=(20, 9)), np.arange(20) % 4, np.arange(20) < 15, 4, (1, 3, 3))
    code = own.digests(f"{name}_measure:spread")
    job = OwnMeasureJob(function=f"{name}_measure:spread", arguments={"scale": 2}, code=code)
    found = measure(activations, samples, job)
    np.testing.assert_allclose(found["value"], 2 * values[:, :, :15].astype(float).std(axis=(2, 3)), rtol=1e-6)
    job = OwnMeasureJob(function=f"{name}_measure:several", values=["rank", "mean"], code=code)
    found = measure(activations, samples, job)
    np.testing.assert_allclose(found["mean"], values.mean(axis=(2, 3), dtype=float))
    assert (found["rank"] == 4).all()
    for function, names, told in (
        ("writing", [], "read-only"),
        ("array", [], r"a number is expected, or names in `values` and a mapping; got an array \(6,\)"),
        ("several", [], "a number is expected, or names in `values` and a mapping; got dict"),
        ("several", ["mean"], "a mapping with the `values` mean is expected; got mean, rank"),
        ("spread", ["mean"], "a mapping with the `values` mean is expected; got float"),
    ):
        job = OwnMeasureJob(function=f"{name}_measure:{function}", values=names, code=code)
        with pytest.raises(UserError, match=told):
            measure(activations, samples, job)


def test_its_settings_are_told_where_they_are(name, mistakes, params):
    entry = "{run: small, function: NAME_measure:spread, arguments: {scale: 3}}".replace("NAME", name)
    (share,) = [
        content
        for file, content in shares(resolve(params(f"{BARE}measures: {{spread: {entry}}}"))).items()
        if file == "measures/spread.json"
    ]
    assert list(share["code"]) == [f"own/{name}_measure.py"]
    for change, told in (
        (("small", "smal"), "measures.spread.run: unknown run 'smal'; did you mean 'small'?"),
        ((f"{name}_measure:spread", "spread"), "measures.spread.function: expected `module:function`, one of your own"),
        (("scale: 3}", "scale: 3}, values: [step]"), "measures.spread.values[0]: 'step' is what every number has"),
        ((":spread", ":sprad"), f"measures.spread.function: {name}_measure:sprad: {name}_measure has no function"),
    ):
        (line,) = mistakes(f"{BARE}measures: {{spread: {entry.replace(*change)}}}")
        assert line.startswith(told)
