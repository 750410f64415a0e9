"""Sharing through a remote as docs/sharing.md tells it: the commands that are run here are read from that page.

Everything is done by two people, Ada who has made a project and Bob who has none of it, over three kinds of remotes.
"""

import hashlib
import os
import re
import signal
import subprocess
from pathlib import Path

import pytest
import xarray as xr

import phasescope
from closure import ROOT
from projects import Project, contents, wait_for
from remotes import KINDS

ORIGIN = "https://git.example.org/ada/phasescope.git"
SETUP = {"folder": "A folder", "ssh": "SSH", "s3": "S3"}
PUSH, PULL, VERIFY, PART = "Push", "Pull", "Verify", "A part of a project"
READ = "Read without pulling"
TRIED, DISK, DAMAGE = "What others have tried", "Disk", "Damage"

EVERY = pytest.mark.parametrize("kind", list(KINDS))
#: What hardly depends on the kind is tried on the slower ones only with --slow.
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
        project.environment = {
            **{name: value for name, value in project.environment.items() if not name.startswith("AWS_")},
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
        self.follow(ada, self.once)
        ada.call("git", "push", "--quiet", "--set-upstream", "origin", "HEAD")
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
    assert counts == {
        "A folder": 1,
        "SSH": 2,
        "S3": 2,
        PUSH: 1,
        PULL: 2,
        VERIFY: 1,
        PART: 6,
        READ: 1,
        TRIED: 2,
        DISK: 1,
        DAMAGE: 2,
    }


@FOLDER_FIRST
def test_what_one_pushes_another_pulls_and_nothing_runs_again(site, made):
    ada = site.ada(made)
    site.follow(ada, site.each, block(PUSH, 0))
    bob = site.bob()
    language, python = PAGE[READ][0]
    assert language == "python"
    program = f"python - <<'END'\n{python}print(cell.sum().item(), cell.shape)\nEND\n"
    run = phasescope.open_run(made.path / "runs" / "beta")
    cell = run.activations("predense").sel(seed=0, step=4)
    assert site.follow(bob, site.each, program) == f"{cell.sum().item()} {cell.shape}\n"
    assert not present(bob)
    assert not (bob.path / ".dvc" / "cache").exists()
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
def test_a_part_of_a_project_is_enough_for_reading(site, made, monkeypatch):
    site.follow(site.ada(made), site.each, block(PUSH, 0))

    bob = site.bob()
    site.follow(bob, site.each, block(PART, 0))
    assert present(bob) == ["figures", "metrics", "results", "runs"]
    for folder, output in (("runs", "beta/train"), ("results", "beta/training")):
        assert contents(bob.path / folder) == {
            f"{output}/{name}": content for name, content in contents(made.path / folder / output).items()
        }

    whole = xr.open_zarr(made.path / "runs" / "beta" / "activations" / "arrays.zarr").load()
    cyd = site.bob("cyd")
    site.follow(cyd, site.each, block(PART, 3))
    pulled = xr.open_zarr(cyd.path / "runs" / "beta" / "activations" / "arrays.zarr")
    assert pulled["predense"].identical(whole["predense"])
    assert pulled["logits"].isnull().all()

    dot = site.bob("dot")
    site.follow(dot, site.each, block(PART, 4))
    language, python = PAGE[PART][5]
    assert language == "python"
    monkeypatch.chdir(dot.path)
    names: dict = {}
    exec(site.placed(python), names)
    assert names["first"].identical(whole["predense"].sel(seed=0))
    assert names["activations"]["predense"].sel(seed=1).isnull().all()


@EVERY
@pytest.mark.slow
def test_a_figure_is_drawn_anew_without_a_gpu_images_or_activations(site, made):
    site.follow(site.ada(made), site.each, block(PUSH, 0))
    bob = site.bob()
    site.follow(bob, site.each, block(PART, 1))
    bob.change("params.yaml", ("dpi: 40", "dpi: 50"))
    told = site.follow(bob, site.each, block(PART, 2))
    assert re.findall(r"Running stage '(.*)'", told) == ["resolve", "figures", "report"]
    assert present(bob) == ["figures", "metrics", "results"]
    before, after = contents(made.path / "figures"), contents(bob.path / "figures")
    assert before.keys() == after.keys()
    assert before["png/figure-1.png"] != after["png/figure-1.png"]


def present(project: Project) -> list[str]:
    """The folders with results of any kind."""
    folders = ("data", "datasets", "runs", "results", "figures", "metrics")
    return sorted(name for name in folders if (project.path / name).exists())


@EVERY
@pytest.mark.slow
def test_what_one_has_tried_another_gets_without_running_it(site, made):
    site.follow(site.ada(made), site.each, block(TRIED, 0))
    bob = site.bob()  # whose commit knows of no results
    told = site.follow(bob, site.each, block(TRIED, 1))
    assert re.findall(r"Running stage '(.*)'", told) == ["resolve"]
    assert "'train@beta' is cached" in told
    assert contents(bob.path / "runs") == contents(made.path / "runs")
    # Copies instead of links, for who edits in place.
    site.follow(bob, block(DISK, 0))
    assert {path.stat().st_nlink for path in (bob.path / "runs").rglob("*") if path.is_file()} == {1}


@pytest.mark.parametrize("kind", ["ssh"])
@pytest.mark.slow
def test_a_push_that_was_killed_goes_on_with_what_is_missing(site, made):
    ada = site.ada(made)
    site.follow(ada, site.each)
    running = subprocess.Popen(
        ["dvc", "push"], cwd=ada.path, env=ada.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    wait_for(lambda: running.poll() is not None or site.remote.count() > 5)
    running.send_signal(signal.SIGKILL)
    running.wait()
    told = site.follow(ada, block(PUSH, 0))
    (sent,) = re.findall(r"^(\d+) files pushed$", told, flags=re.MULTILINE)
    total = site.remote.count()
    assert 0 < int(sent) < total
    bob = site.bob()
    site.follow(bob, site.each, block(PULL, 1))
    assert contents(bob.path / "runs") == contents(made.path / "runs")


SHARD = "activations/arrays.zarr/predense/c.0.3.0.0"
WEIGHTS = "train/arrays.zarr/weights/c.1.2.0"
BELIEVING = "dvc remote modify --local store verify false"


def flipped(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


@FOLDER_FIRST
def test_damage_in_the_remote_is_told(site, made):
    site.follow(
        site.ada(made),
        site.each,
        "dvc push activations@beta train@beta",
        "git add dvc.lock configs",
        "git commit -qm x",
        "git push -q",
    )
    run = made.path / "runs" / "beta"
    shard, weights = (run / SHARD).read_bytes(), (run / WEIGHTS).read_bytes()
    site.remote.put(md5(shard), flipped(shard))
    site.remote.put(md5(weights), cut(weights))
    pull = "dvc pull activations@beta train@beta"

    bob = site.bob()
    told = site.follow(bob, site.each, pull, fails=True)
    assert {"runs/beta/activations", "runs/beta/train"} <= set(told.split())
    assert not (bob.path / "runs" / "beta" / SHARD).exists()

    # A clone that believes its remote has the damage, and DVC does not see it.
    told = site.follow(bob, site.each, BELIEVING, pull, pull)
    assert "Everything is up to date." in told
    assert (bob.path / "runs" / "beta" / SHARD).read_bytes() == flipped(shard)
    assert (bob.path / "runs" / "beta" / WEIGHTS).read_bytes() == cut(weights)
    told = site.follow(bob, block(VERIFY, 0), fails=True)
    assert f"runs/beta/{SHARD}" in told
    assert f"runs/beta/{WEIGHTS}" in told

    site.remote.remove(md5(shard))
    cyd = site.bob("cyd")
    assert "failed to transfer" in site.follow(cyd, site.each, pull, fails=True)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["folder"])
def test_a_damaged_remote_is_mended_and_so_is_a_clone_of_it(site, made):
    ada = site.ada(made)
    site.follow(ada, block(PUSH, 0))
    shard = (made.path / "runs" / "beta" / SHARD).read_bytes()
    site.remote.put(md5(shard), flipped(shard))
    bob = site.bob()
    site.follow(bob, BELIEVING, "dvc pull")
    assert (bob.path / "runs" / "beta" / SHARD).read_bytes() != shard
    site.follow(ada, block(DAMAGE, 0))
    site.follow(bob, block(DAMAGE, 1))
    assert contents(bob.path / "runs") == contents(made.path / "runs")


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()
