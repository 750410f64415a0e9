"""Raw images are watched where they are, and never required."""

import importlib.util
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision import datasets

from closure import ROOT
from phasescope.data import image_folder, layout, sources
from phasescope.errors import UserError
from phasescope.params.datasets import DatasetSettings
from phasescope.store import raw
from phasescope.store.raw import digest
from test_pipeline import Project

FLOWERS = DatasetSettings(source="image-folder", folder="flowers", resolution=8)


@pytest.fixture
def root(tmp_path) -> Path:
    """A data folder with a folder of images, and with what does not count as images."""
    random = np.random.default_rng(0)
    for split, count in (("train", 3), ("test", 2)):
        for kind in ("rose", "tulip é"):
            folder = tmp_path / "data" / "flowers" / split / kind
            folder.mkdir(parents=True)
            for index in range(count):
                pixels = random.integers(0, 256, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{index} .png")
            (folder / ".hidden").touch()
            (folder / "Thumbs.db").touch()
    return tmp_path / "data"


@pytest.fixture
def read(monkeypatch) -> list[str]:
    """The names of the files whose content was read, in a world where every file has been there for long."""
    names: list[str] = []
    sha256 = raw.sha256
    monkeypatch.setattr(raw, "sha256", lambda path: names.append(path.name) or sha256(path))
    monkeypatch.setattr(raw, "_SETTLED_NS", 0)
    return names


def look(folder: Path) -> dict:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return digest(folder, files, folder.parent / "index")


@pytest.fixture
def folder(tmp_path) -> Path:
    folder = tmp_path / "files"
    (folder / "b").mkdir(parents=True)
    for name in ("b/a", "b.", "a", "é", "x y"):
        (folder / name).write_text(f"content of {name}")
    (folder / os.fsdecode(b"\xff")).write_text("a name that is no text")
    return folder


# --- the digest


def test_the_digest_is_that_of_sha256sum(folder):
    command = r"find -type f -printf '%P\0' | LC_ALL=C sort -z | xargs -0 sha256sum --zero | sha256sum | head -c 64"
    told = subprocess.run(command, shell=True, cwd=folder, capture_output=True, text=True, check=True).stdout
    length = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    assert look(folder) == {"files": 6, "bytes": length, "sha256": told}


def test_neither_place_nor_time_nor_order_matter(folder, tmp_path):
    before = look(folder)
    for path in folder.rglob("*"):
        os.utime(path, ns=(0, 0))
    assert look(folder) == before
    elsewhere = shutil.copytree(folder, tmp_path / "elsewhere" / "files", copy_function=shutil.copyfile)
    assert look(elsewhere) == before
    files = sorted((path for path in folder.rglob("*") if path.is_file()), reverse=True)
    assert digest(folder, files, tmp_path / "new") == before


def swap(folder: Path) -> None:
    (folder / "a").rename(folder / "c")
    (folder / "é").rename(folder / "a")
    (folder / "c").rename(folder / "é")


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: (folder / "a").write_text("CONTENT OF a"),
        lambda folder: (folder / "a").write_text(""),
        lambda folder: (folder / "a").unlink(),
        lambda folder: (folder / "new").touch(),
        lambda folder: (folder / "a").rename(folder / "b" / "b"),
        swap,
    ],
    ids=["changed", "emptied", "removed", "added", "moved", "swapped"],
)
def test_every_change_is_seen(folder, read, change):
    before = look(folder)
    assert look(folder) == before
    change(folder)
    assert look(folder) != before


# --- the index


def test_unchanged_files_are_not_read_again(folder, read):
    before = look(folder)
    assert len(read) == 6
    assert look(folder) == before
    assert len(read) == 6
    os.utime(folder / "a")
    assert look(folder) == before
    assert read[6:] == ["a"]
    (folder / "new").write_text("more")
    look(folder)
    assert read[7:] == ["new"]


def test_a_change_is_seen_though_length_and_time_are_as_before(folder, read):
    before, status = look(folder), (folder / "a").stat()
    (folder / "a").write_text("CONTENT OF a")
    os.utime(folder / "a", ns=(status.st_atime_ns, status.st_mtime_ns))
    assert (folder / "a").stat().st_mtime_ns == status.st_mtime_ns
    assert look(folder) != before


def test_a_file_changed_just_before_is_read_again(folder, read, monkeypatch):
    """What the system says of a file stays the same when it is changed twice within a tick of the clock."""
    monkeypatch.setattr(raw, "_SETTLED_NS", 3_600_000_000_000)
    before = look(folder)
    assert look(folder) == before
    assert len(read) == 12
    monkeypatch.setattr(raw, "_SETTLED_NS", 0)
    look(folder)
    look(folder)
    assert len(read) == 18


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:70],
        lambda data: data[:-1],
        lambda data: data[65:],
        lambda data: data[:90] + bytes([data[90] ^ 1]) + data[91:],
        lambda data: b"\xff" + data,
        lambda data: b"{}\n{}",
    ],
)
def test_a_damaged_index_is_made_anew(folder, read, damage):
    before, index = look(folder), folder.parent / "index"
    whole = index.read_bytes()
    index.write_bytes(damage(whole))
    assert look(folder) == before
    assert len(read) == 12
    assert index.read_bytes() == whole


def test_an_index_of_other_files_does_no_harm(folder, read, tmp_path):
    elsewhere = shutil.copytree(folder, tmp_path / "elsewhere" / "files")
    (elsewhere / "a").write_text("CONTENT OF a")
    look(folder)
    shutil.copy(folder.parent / "index", elsewhere.parent / "index")
    found = look(elsewhere)
    (elsewhere.parent / "index").unlink()
    assert found == look(elsewhere)


# --- the files of a dataset


def test_the_raw_files_of_a_folder_are_those_that_are_read(root, monkeypatch):
    opened, read = [], image_folder._read
    monkeypatch.setattr(image_folder, "_read", lambda path, *how: opened.append(path) or read(path, *how))
    sources.load(FLOWERS, root, download=False)
    assert len(opened) == 10
    assert sources.raw_files(FLOWERS, root) == opened
    assert sources.raw_folder(FLOWERS, root) == root / "flowers"


@pytest.mark.parametrize(("source", "kind"), [("mnist", datasets.MNIST), ("fashion-mnist", datasets.FashionMNIST)])
def test_the_layout_of_mnist_is_that_of_torchvision(source, kind):
    names = [name.removesuffix(".gz") for name, _ in kind.resources]
    folder = Path("data", kind.__name__, "raw")
    assert layout.vision_files(source, Path("data")) == [folder / name for name in names]


@pytest.mark.parametrize(("source", "kind"), [("cifar10", datasets.CIFAR10), ("cifar100", datasets.CIFAR100)])
def test_the_layout_of_cifar_is_that_of_torchvision(source, kind):
    names = [*(name for name, _ in kind.train_list + kind.test_list), kind.meta["filename"]]
    assert layout.vision_files(source, Path("data")) == [Path("data", kind.base_folder, name) for name in names]


def test_looking_takes_no_import_that_takes_seconds():
    code = (
        "import sys; from pathlib import Path; from phasescope.data.sources import raw_files, raw_folder;"
        "from phasescope.params.datasets import DatasetSettings;"
        "raw_folder(DatasetSettings(source='mnist'), Path());"
        "raw_folder(DatasetSettings(source='image-folder', folder='x'), Path());"
        "sys.exit(bool({'torch', 'torchvision', 'sklearn'} & set(sys.modules)))"
    )
    assert subprocess.run(["python", "-c", code]).returncode == 0


# --- the stage


@pytest.fixture
def watch(root, monkeypatch):
    """The function of the stage that looks at one dataset, in a project of its own."""
    monkeypatch.chdir(root.parent)
    monkeypatch.delenv("PHASESCOPE_DATA", raising=False)
    spec = importlib.util.spec_from_file_location("watch", ROOT / "stages" / "watch.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


RECORD = Path("watch/image-folder/flowers.json")


def test_what_is_seen_is_written_once(watch):
    watch.look("flowers", FLOWERS)
    written = RECORD.read_bytes()
    assert b'"files": 10' in written
    before = RECORD.stat()
    watch.look("flowers", FLOWERS)
    assert RECORD.stat().st_mtime_ns == before.st_mtime_ns


@pytest.mark.parametrize("missing", ["flowers", "flowers/test/rose", "flowers/test/rose/*"])
def test_where_raw_images_are_missing_what_was_written_stays(watch, root, missing, capsys):
    watch.look("flowers", FLOWERS)
    written = RECORD.read_bytes()
    for path in list(root.glob(missing)):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    capsys.readouterr()
    watch.look("flowers", FLOWERS)
    assert RECORD.read_bytes() == written
    told = capsys.readouterr()
    if missing == "flowers":
        assert told.out == "flowers: no raw images here, so the prepared ones stay as they are\n"
    else:
        assert told.err.startswith("flowers: raw images not usable, so the prepared ones stay as they are: image ")


def test_what_was_never_seen_is_left_to_prepare(watch, root):
    shutil.rmtree(root)
    watch.look("flowers", FLOWERS)
    assert RECORD.read_text() == "{}\n"
    watch.look("flowers", FLOWERS)
    assert RECORD.read_text() == "{}\n"


def test_prepared_images_are_not_given_up_for_a_record_that_is_lost(watch, root):
    Path("datasets/flowers").mkdir(parents=True)
    watch.look("flowers", FLOWERS)
    written = RECORD.read_bytes()
    RECORD.unlink()
    root.rename("hidden")
    with pytest.raises(UserError, match=r"^watch/image-folder/flowers.json is not there, .*: bring it back") as caught:
        watch.look("flowers", FLOWERS)
    assert "\n" not in str(caught.value)
    assert not RECORD.exists()
    Path("hidden").rename(root)
    watch.look("flowers", FLOWERS)
    assert RECORD.read_bytes() == written


def test_a_download_is_watched_from_the_start(watch, root, monkeypatch):
    """Left to `prepare`, it would be new to the next look, and prepared twice."""
    mnist = DatasetSettings(source="mnist")

    def download(settings, root):
        for path in layout.vision_files("mnist", root):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(path.name)

    monkeypatch.setattr(watch, "fetch", download)
    watch.look("mnist", mnist)
    assert Path("watch/mnist/mnist.json").read_text() == "{}\n"
    monkeypatch.setenv("PHASESCOPE_DOWNLOAD", "1")
    watch.look("mnist", mnist)
    written = Path("watch/mnist/mnist.json").read_text()
    assert '"files": 4' in written
    # What was seen once is not fetched where it is not wanted.
    shutil.rmtree(root)
    watch.look("mnist", mnist)
    assert not root.exists()
    assert Path("watch/mnist/mnist.json").read_text() == written


# --- under DVC

PARAMS = """\
datasets:
  flowers: {source: image-folder, folder: flowers, resolution: 8}
runs:
  small: {dataset: flowers, model: {name: f0}}
transfer: {}
measures: {}
"""
WATCH = "stages/dvc.yaml:watch"


def test_under_dvc_raw_images_are_watched_and_never_required(tmp_path, root):
    project = new_project(tmp_path / "project")
    data = root.rename(project.path / "data")
    assert project.repro("prepare") == ["resolve", WATCH, "prepare@flowers"]
    assert project.repro("prepare") == [WATCH]

    # Elsewhere, with all that was prepared, and no raw images.
    project.call("git", "add", "--all")
    project.call("git", "commit", "--quiet", "--message", "flowers")
    clone = Project(tmp_path / "clone")
    subprocess.run(["git", "clone", "--quiet", str(project.path), str(clone.path)], check=True)
    clone.call("dvc", "remote", "add", "--default", "--local", "store", str(project.path / ".dvc" / "cache"))
    clone.call("dvc", "pull", "resolve", "prepare@flowers")
    assert clone.repro("prepare") == [WATCH]
    assert clone.call("git", "status", "--porcelain") == ""
    shutil.rmtree(clone.path / "watch" / "image-folder")
    assert "bring it back" in clone.call("dvc", "repro", "prepare", fails=True)
    assert (clone.path / "datasets" / "flowers" / "manifest.json").exists()
    clone.call("git", "restore", "watch")

    # A copy of the raw images has other times; it is the same dataset.
    shutil.copytree(data, clone.path / "data", copy_function=shutil.copyfile)
    assert clone.repro("prepare") == [WATCH]

    # Changed, then removed.
    flower = data / "flowers" / "train" / "rose" / "1 .png"
    manifest = project.path / "datasets" / "flowers" / "manifest.json"
    before = manifest.read_bytes()
    shutil.copyfile(flower.with_name("0 .png"), flower)
    assert project.repro("prepare") == [WATCH, "prepare@flowers"]
    changed = manifest.read_bytes()
    flower.unlink()
    assert project.repro("prepare") == [WATCH, "prepare@flowers"]
    assert len({before, changed, manifest.read_bytes()}) == 3


def new_project(path: Path) -> Project:
    project = Project(path)
    path.mkdir()
    for name in ("stages", "src"):
        shutil.copytree(ROOT / name, path / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for name in ("dvc.yaml", ".gitignore", ".dvcignore"):
        shutil.copy(ROOT / name, path)
    for name in ("own", "checkpoints"):
        (path / name).mkdir()
        (path / name / ".gitkeep").touch()
    (path / "params.yaml").write_text(PARAMS)
    project.call("git", "init", "--quiet")
    project.call("dvc", "init", "--quiet")
    return project
