"""What the documentation lists is what there is."""

import re

import pytest

from closure import ROOT
from phasescope.params.activations import ActivationsSettings
from phasescope.params.base import Section
from phasescope.params.complexity import ComplexitySettings
from phasescope.params.datasets import DatasetSettings
from phasescope.params.decode import DecodeSettings
from phasescope.params.distributions import DistributionsSettings
from phasescope.params.figures import FiguresSettings
from phasescope.params.information import InformationSettings
from phasescope.params.kernel import KernelSettings
from phasescope.params.measures import MeasureSettings
from phasescope.params.phases import PhasesSettings
from phasescope.params.probe import ProbeSettings
from phasescope.params.theory import FeatureStrengthSettings, LinearNetworkSettings
from phasescope.params.train import TrainSettings
from phasescope.params.transfer import TransferSettings

README = (ROOT / "README.md").read_text()
SETTINGS = (ROOT / "docs" / "settings.md").read_text()


def test_the_readme_has_a_line_for_every_module():
    tree = README.split("## File tree")[1]
    listed = re.findall(r"^ +(\S+\.py) ", tree, flags=re.MULTILINE)
    assert listed == [path.name for path in modules(ROOT / "src" / "phasescope")]


def modules(folder):
    paths = [path for path in folder.iterdir() if not path.name.startswith("__")]
    for path in sorted(paths, key=lambda path: (path.is_dir(), path.name)):
        if path.is_dir():
            yield from modules(path)
        elif path.suffix == ".py":
            yield path


def test_every_picture_and_page_that_is_linked_is_there():
    for document in (
        "README.md",
        "examples/own-network/README.md",
        "CONTRIBUTING.md",
        *(f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md")),
    ):
        for target in re.findall(r"\]\((?!https?://)([^)#]+)\)", (ROOT / document).read_text()):
            assert ((ROOT / document).parent / target).exists(), (document, target)


@pytest.mark.parametrize(
    ("heading", "section"),
    [
        ("datasets", DatasetSettings),
        ("train", TrainSettings),
        ("activations", ActivationsSettings),
        ("decode", DecodeSettings),
        ("probe", ProbeSettings),
        ("transfer", TransferSettings),
        ("measures", MeasureSettings),
        ("distributions", DistributionsSettings),
        ("information", InformationSettings),
        ("complexity", ComplexitySettings),
        ("kernel", KernelSettings),
        ("phases", PhasesSettings),
        ("theory.feature_strength", FeatureStrengthSettings),
        ("theory.linear_network", LinearNetworkSettings),
        ("figures", FiguresSettings),
    ],
)
def test_every_setting_is_described_with_its_default(heading: str, section: type[Section]):
    (part,) = re.findall(rf"^## `{heading}`.*?(?=^## |\Z)", SETTINGS, flags=re.MULTILINE | re.DOTALL)
    for name, field in section.model_fields.items():
        (row,) = [line for line in part.splitlines() if line.startswith("|") and f"`{name}`" in line.split("|")[1]]
        if isinstance(field.default, int | float | str) and heading != "probe":
            assert str(field.default).lower() in row.split("|")[3], (name, field.default)
