"""The settings of transfers: which are possible, and each mistake in one line."""

import pytest

from conftest import new_project
from phasescope.params.datasets import DatasetSettings
from phasescope.params.settings import shares
from phasescope.params.transfer import TransferSettings
from phasescope.resolve import resolve

PARAMS = """\
datasets:
  digits: {source: digits}
  small-digits: {source: digits, resolution: 8}
  mnist: {source: mnist}
  fashion: {source: fashion-mnist}
  cifar10: {source: cifar10}
  cifar100: {source: cifar100}
  flowers: {source: image-folder, folder: flowers}
  drawings: {source: image-folder, folder: drawings, grey: true}
runs:
  of-mnist: {dataset: mnist, model: {name: resnet10}}
  of-fashion: {dataset: fashion, model: {name: vgg11}}
  of-cifar10: {dataset: cifar10, model: {name: vgg11}}
  of-cifar100: {dataset: cifar100, model: {name: resnet10}}
transfer:
"""


@pytest.fixture
def told(mistakes):
    """The lines that `resolve` says of transfers."""

    def lines(*transfers: str) -> list[str]:
        text = PARAMS + "".join(f"  {transfer}\n" for transfer in transfers)
        return [line.removeprefix("transfer.") for line in mistakes(text)]

    return lines


@pytest.mark.parametrize(
    ("run", "dataset", "labels"),
    [
        ("of-fashion", "mnist", "[class]"),
        ("of-mnist", "fashion", "[class, ink]"),
        ("of-mnist", "digits", "[class, quadrant]"),
        ("of-cifar10", "cifar100", "[class]"),
        ("of-cifar100", "cifar10", "[class, quadrant]"),
        ("of-cifar10", "cifar10", "[colour, colour-raw]"),
        ("of-cifar10", "flowers", "[class, colour]"),
        ("of-mnist", "drawings", "[class, ink]"),
    ],
)
def test_the_transfers_of_the_paper_and_others_resolve(params, run, dataset, labels):
    path = params(PARAMS + f"  to: {{run: {run}, dataset: {dataset}, labels: {labels}}}\n")
    files = shares(resolve(path))
    share = TransferSettings.model_validate(files["transfer/to.json"])
    assert (share.run, share.dataset) == (run, dataset)
    assert share.reading.model_dump() == {
        name: value for name, value in share.model_dump().items() if name not in ("run", "dataset")
    }
    assert files["figures.json"]["transfers"][run] == [dataset]


@pytest.mark.parametrize(
    ("transfer", "line"),
    [
        (
            "to: {run: of-minst, dataset: mnist, labels: [ink]}",
            "to.run: unknown run 'of-minst'; did you mean 'of-mnist'? known: of-mnist, of-fashion, of-cifar10, "
            "of-cifar100",
        ),
        (
            "to: {run: of-mnist, dataset: fashoin, labels: [ink]}",
            "to.dataset: unknown dataset 'fashoin'; did you mean 'fashion'? known: digits, small-digits, mnist, "
            "fashion, cifar10, cifar100, flowers, drawings",
        ),
        (
            "to: {run: of-mnist, dataset: cifar10, labels: [class]}",
            "to.dataset: channels of 'cifar10' must be those of 'mnist', which of-mnist is trained on: 1; got 3",
        ),
        (
            "to: {run: of-mnist, dataset: small-digits, labels: [class]}",
            "to.dataset: resolution of 'small-digits' must be those of 'mnist', which of-mnist is trained on: 32; "
            "got 8",
        ),
        (
            "to: {run: of-mnist, dataset: mnist, labels: [class, colour]}",
            "to.labels[1]: 'colour' is a label of images in colour, and those of 'mnist' are grey images; "
            "choose another",
        ),
        (
            "to: {run: of-cifar10, dataset: flowers, labels: [ink]}",
            "to.labels[0]: 'ink' is a label of grey images, and those of 'flowers' are images in colour; "
            "choose another",
        ),
        (
            "to: {run: of-mnist, dataset: mnist, labels: [inc]}",
            "to.labels[0]: unknown value 'inc'; did you mean 'ink'? known: class, ink, quadrant, colour, colour-raw",
        ),
        (
            "to: {run: of-mnist, dataset: mnist, labels: [ink, ink]}",
            "to.labels: ink is listed twice; got ['ink', 'ink']",
        ),
        ("to: {run: of-mnist, dataset: mnist, labels: []}", "to.labels: expected 1 or more entries, got []"),
        (
            "to: {run: of-mnist, dataset: mnist, labels: ink}",
            "to.labels: expected a list, got the text 'ink'; write [ink]",
        ),
        ("to: {run: of-mnist, dataset: mnist}", "to.labels: is missing"),
        ("to: {dataset: mnist, labels: [ink]}", "to.run: is missing"),
        ("to: {run: 3, dataset: mnist, labels: [ink]}", "to.run: expected text, got 3"),
    ],
)
def test_a_mistake_is_one_line(told, transfer, line):
    assert told(transfer) == [line]


def test_one_run_and_dataset_stand_together_once(told):
    one = "{run: of-mnist, dataset: mnist, labels: [ink]}"
    assert told(f"a: {one}", "b: {run: of-mnist, dataset: fashion, labels: [ink]}", f"c: {one}") == [
        "c: transfer.a has the same run and dataset; list the labels of both there"
    ]


def test_what_is_no_transfer_is_told(told):
    keys = (
        "batch_size, classifiers, dataset, epochs, exact_limit, labels, learning_rate, momentum, penalty, rank, run, "
        "selection, solver, test_samples, train_samples"
    )
    assert told("to: 3") == [f"to: expected a group of settings ({keys}), got 3"]
    assert told("to: {run: of-mnist, dataset: mnist, labels: [ink], lables: 2}") == [
        f"to.lables: unknown key 'lables'; did you mean 'labels'? known: {keys}"
    ]


def test_channels_are_those_of_the_images():
    of = {name: DatasetSettings(source=name).image[0] for name in ("digits", "mnist", "fashion-mnist", "cifar100")}
    assert of == {"digits": 1, "mnist": 1, "fashion-mnist": 1, "cifar100": 3}
    assert DatasetSettings(source="image-folder", folder="x").image == (3, 32)
    assert DatasetSettings(source="image-folder", folder="x", grey=True).image == (1, 32)


def test_a_transfer_without_its_run_or_its_images_is_one_line_and_results_of_one_that_is_gone_are_removed(
    tmp_path, monkeypatch
):
    """The latter by the stage `resolve`, for `phases` and `figures` depend on all that is in results/."""
    project = new_project(tmp_path / "project", PARAMS + "  to: {run: of-mnist, dataset: fashion, labels: [class]}\n")
    results = project.path / "results" / "of-mnist"
    for name in ("decode", "transfer-fashion", "transfer-mnist"):
        (results / name).mkdir(parents=True)
        (results / name / "manifest.json").write_text("{}")
    (results / "transfer-mine").mkdir()  # not one that phasescope made
    assert project.run_stage("resolve").returncode == 0
    assert sorted(path.name for path in results.iterdir()) == ["decode", "transfer-fashion", "transfer-mine"]
    monkeypatch.setenv("PHASESCOPE_DATA", str(tmp_path / "nothing"))
    for name, source, file in (
        ("fashion", "fashion-mnist", "FashionMNIST/raw"),
        ("cifar100", "cifar100", "cifar-100-python"),
    ):
        told = project.run_stage("prepare", name)
        assert told.returncode == 1
        (line,) = told.stderr.splitlines()
        assert line.startswith(f"{source}: no file {tmp_path / 'nothing' / file}")
        assert "set PHASESCOPE_DATA to the folder that holds" in line
    told = project.run_stage("transfer", "to")
    assert told.returncode == 1
    assert told.stderr == (
        "runs/of-mnist/activations is not there: make it with `dvc repro`, or fetch it with `dvc pull`\n"
    )
