"""Sharing through a remote as docs/sharing.md tells it: the commands that are run here are read from that page.

Everything is done by two people, Ada who has made a project and Bob who has none of it, over three kinds of remotes.
"""

import hashlib
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import xarray as xr

from closure import ROOT
from projects import Project, contents, wait_for
from remotes import KINDS

ORIGIN = "https://git.example.org/ada/phasescope.git"
SETUP = {"folder": "A folder", "ssh": "SSH", "s3": "S3"}
PUSH, PULL, VERIFY, PART = "Push", "Pull", "Verify", "A part of a project"
TRIED, DISK, DAMAGE = "What others have tried", "Disk", "Damage"

#: The three remotes; what does not depend on the kind is tried on the slower ones only with --slow.
EVERY = pytest.mark.parametrize("kind", list(KINDS))
FOLDER_FIRST = pytest.mark.parametrize(
    "kind", ["folder", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("ssh", "s3"))]
)


def read_page() -> dict[str, list[tuple[str, str]]]:
    """The blocks of the page, (language, text), by heading."""
    parts = re.split(r"^## (.*)\n", (ROOT / "docs" / "sharing.md").read_text(), flags=re.MULTILINE)
    found = {
        heading: re.findall(r"^```(\w+)\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
        for heading, text in zip(parts[1::2], parts[2::2], strict=True)
    }
    return {heading: blocks for heading, blocks in found.items() if blocks}


PAGE = read_page()


def block(heading: str, index: int) -> str:
    language, text = PAGE[heading][index]
    assert language == "bash"
    return text


class Site:
    """A remote, the git repository beside it, and the people who use both."""

    def __init__(self, place: Path, kind: str, remote) -> None:
        self.place = place
        self.remote = remote
        self.once, *each = (text for _, text in PAGE[SETUP[kind]])
        #: What everybody says in each clone or shell, about who they are.
        self.each = "".join(each)
        (place / "home").mkdir(exist_ok=True)
        self.settings = place / "gitconfig"
        self.settings.write_text(f'[url "{place}/origin.git"]\ninsteadOf = {ORIGIN}\n')
        self.substitutes = {"digits-vgg8": "beta", **remote.substitutes}

    def has_home(self, project: Project) -> Project:
        """The project of somebody whose home holds nothing but their keys."""
        credentials = [name for name in project.environment if name.startswith("AWS_")]
        for name in credentials:
            del project.environment[name]
        project.environment |= {
            "HOME": str(self.place / "home"),
            "XDG_CACHE_HOME": os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache")),  # matplotlib's fonts
            "AWS_EC2_METADATA_DISABLED": "true",
            "GIT_CONFIG_GLOBAL": str(self.settings),
        }
        return project

    def ada(self, made: Project) -> Project:
        """A project that has been run, of which git has the code and the settings, and the remote nothing."""
        ada = self.has_home(made.copy(self.place / "ada" / "phasescope"))
        ada.call("git", "add", "--all")
        ada.call("git", "rm", "-r", "--quiet", "--cached", "dvc.lock", "configs")
        ada.call("git", "commit", "--quiet", "--message", "Code and settings")
        subprocess.run(["git", "clone", "--quiet", "--bare", ada.path, self.place / "origin.git"], check=True)
        ada.call("git", "remote", "add", "origin", ORIGIN)
        ada.call("git", "push", "--quiet", "--set-upstream", "origin", "HEAD")
        self.follow(ada, self.once)
        return ada

    def bob(self, name: str = "bob") -> Project:
        """Somebody with a fresh clone."""
        path = self.place / name / "phasescope"
        path.mkdir(parents=True)
        bob = self.has_home(Project(path))
        path.rmdir()
        bob.path = path.parent
        clone, into, *rest = block(PULL, 0).splitlines()
        assert (into, rest) == ("cd phasescope", [])
        self.follow(bob, clone)
        bob.path = path
        return bob

    def follow(self, who: Project, *texts: str, fails: bool = False) -> str:
        """Run blocks of the page in one shell."""
        return who.call("bash", "-e", "-c", self.placed("\n".join(texts)), fails=fails)

    def placed(self, text: str) -> str:
        for shown, meant in self.substitutes.items():
            text = text.replace(shown, meant)
        return text


@pytest.fixture
def site(kind, tmp_path):
    with KINDS[kind](tmp_path) as remote:
        yield Site(tmp_path, kind, remote)


def test_every_block_of_the_page_is_run_here():
    counts = {heading: len(blocks) for heading, blocks in PAGE.items()}
    assert counts == {"A folder": 1, "SSH": 2, "S3": 2, PUSH: 1, PULL: 2, VERIFY: 1, PART: 6, TRIED: 2, DISK: 1, DAMAGE: 2}


@EVERY
def test_what_one_pushes_another_pulls_and_nothing_runs_again(site, made):
    ada = site.ada(made)
    site.follow(ada, site.each, block(PUSH, 0))
    bob = site.bob()
    assert "Data and pipelines are up to date." in site.follow(bob, site.each, block(PULL, 1))
    for folder in ("runs", "results", "datasets", "figures", "metrics", "provenance", "configs"):
        assert contents(bob.path / folder) == contents(made.path / folder)
    tracked = bob.call("git", "ls-files").split()
    assert "configs/phases.json" in tracked
    assert not [name for name in tracked if name.startswith(("runs/", "results/", "figures/", "datasets/"))]
    secrets = ("ada", "id_ed25519", "AKIAEXAMPLE", "secret")
    config = (bob.path / ".dvc" / "config").read_text()
    assert not [word for word in secrets if word in config.replace(str(site.place), "")]


@FOLDER_FIRST
def test_a_part_of_a_project_is_enough_for_a_figure_and_for_reading(site, made):
    site.follow(site.ada(made), site.each, block(PUSH, 0))

    bob = site.bob()
    site.follow(bob, site.each, block(PART, 0))
    assert present(bob) == ["figures", "metrics", "runs"]
    assert contents(bob.path / "runs") == {f"beta/{k}": v for k, v in contents(made.path / "runs" / "beta").items() if k.startswith("train/")}

    cyd = site.bob("cyd")
    site.follow(cyd, site.each, block(PART, 1))
    cyd.change("params.yaml", ("dpi: 40", "dpi: 50"))
    told = site.follow(cyd, site.each, block(PART, 2))
    assert re.findall(r"Running stage '(.*)'", told) == ["resolve", "figures"]
    assert present(cyd) == ["figures", "metrics", "results"]
    pictures = {name for name in contents(made.path / "figures") if name.endswith(".png")}
    assert pictures == {name for name in contents(cyd.path / "figures") if name.endswith(".png")}

    whole = xr.open_zarr(made.path / "runs" / "beta" / "activations" / "arrays.zarr").load()
    layer, seed = (site.bob(name) for name in ("dot", "eve"))
    site.follow(layer, site.each, block(PART, 3))
    store = "runs/beta/activations/arrays.zarr"
    pulled = xr.open_zarr(layer.path / store)
    assert pulled["predense"].load().identical(whole["predense"])
    assert pulled["logits"].isnull().all()
    site.follow(seed, site.each, block(PART, 4))
    language, python = PAGE[PART][5]
    assert language == "python"
    saved = f"{site.placed(python)}\nfirst.drop_vars(['split', 'part'], errors='ignore').to_netcdf('first.nc', engine='scipy')"
    seed.call(sys.executable, "-c", saved)
    shards = [name for name in contents(seed.path / store) if name.startswith("predense/c/")]
    assert {name.split("/")[2] for name in shards} == {"0"}
    assert pulled["predense"].sel(seed=1).notnull().all()


def present(project: Project) -> list[str]:
    """The folders with results of any kind."""
    folders = ("data", "datasets", "runs", "results", "figures", "metrics")
    return sorted(name for name in folders if (project.path / name).exists())
