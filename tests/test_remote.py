"""A run is read straight from the remote of a DVC repository: what is asked for moves, and nothing is left behind."""

import hashlib
import json
import shutil
import subprocess
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

import damage
import phasescope
from damage import refusal
from phasescope.errors import UserError
from phasescope.store import arrays, manifest
from phasescope.store.manifest import StoreError

KEPT = Path(__file__).parent / "stores" / "format-1"


class Remote(SimpleHTTPRequestHandler):
    """Serves files over HTTP, with ranges, and notes how many bytes of each it sends."""

    sent: list[tuple[str, int]]

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        try:
            data = Path(self.translate_path(self.path)).read_bytes()
        except OSError:
            return self.send_error(404)
        first, last = 0, len(data) - 1
        asked = self.headers.get("Range")
        if asked:
            start, _, end = asked.removeprefix("bytes=").partition("-")
            first, last = int(start), min(last, int(end or last))
        self.send_response(206 if asked else 200)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(last + 1 - first))
        if asked:
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
        self.end_headers()
        self.wfile.write(data[first : last + 1])
        self.sent.append((self.path, last + 1 - first))
        return None


@pytest.fixture(scope="module", autouse=True)
def _dvc_by_itself(tmp_path_factory):
    site = tmp_path_factory.mktemp("site")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("GLOBAL_CONFIG", "SYSTEM_CONFIG", "SITE_CACHE"):
            patch.setenv(f"DVC_{name}_DIR", str(site / name))
        for who in ("AUTHOR", "COMMITTER"):
            patch.setenv(f"GIT_{who}_NAME", "tester")
            patch.setenv(f"GIT_{who}_EMAIL", "tester@localhost")
        yield


def call(folder: Path, *command: str) -> str:
    """What a command prints; `dvc` is that of this Python."""
    command = (sys.executable, "-m", *command) if command[0] == "dvc" else command
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def widen(store: Path) -> None:
    """Add a tap whose cells have 1 MB each, which do not compress."""
    group = arrays.reopen(store / arrays.GROUP)
    dims, shape = ("seed", "step", "sample", "wide_feature"), (2, 3, 12, 22_000)
    array = arrays.create(group, "wide", dims, shape, np.float32, cell=2)
    rng = np.random.default_rng(0)
    for cell in np.ndindex(2, 3):
        arrays.write_cell(array, cell, rng.random(shape[2:], dtype=np.float32))
    arrays.finish(store / arrays.GROUP)
    path = store / manifest.MANIFEST
    content = json.loads(path.read_text())
    content["settings"]["taps"].append({"name": "wide", "pool": None})
    content["extra"]["cells"]["layers"].append("wide")
    content["files"] = {
        file.relative_to(store).as_posix(): {
            "bytes": file.stat().st_size,
            "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        }
        for file in sorted(store.rglob("*"))
        if file.is_file() and file != path
    }
    damage.write_manifest(path, content)


@pytest.fixture(scope="module")
def origin(tmp_path_factory) -> Path:
    """A project that was pushed to the folder `remote` beside it."""
    path = tmp_path_factory.mktemp("origin") / "project"
    shutil.copytree(KEPT, path)
    widen(path / "runs" / "tiny" / "activations")
    call(path, "git", "init", "--quiet", "--initial-branch=main")
    call(path, "dvc", "init", "--quiet")
    call(path, "dvc", "remote", "add", "--quiet", "--default", "store", str(path.parent / "remote"))
    stores = ("runs/tiny/train", "runs/tiny/activations", "results/tiny/decode", "datasets/dots")
    call(path, "dvc", "add", "--quiet", *stores)
    call(path, "git", "add", "--all")
    call(path, "git", "commit", "--quiet", "--message", "a run")
    call(path, "dvc", "push", "--quiet")
    return path


@pytest.fixture
def clone(origin, tmp_path) -> Path:
    call(tmp_path, "git", "clone", "--quiet", str(origin), "clone")
    return tmp_path / "clone"


@pytest.fixture
def sent(origin, clone):
    """What the remote of the clone sent, now over HTTP."""
    handler = type("Handler", (Remote,), {"sent": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(origin.parent / "remote")))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{server.server_port}"
    call(clone, "dvc", "remote", "add", "--quiet", "--local", "http", url)
    yield handler.sent
    server.shutdown()
    thread.join()
    server.server_close()


def files(folder: Path) -> set[str]:
    """What is in a repository, but for what git keeps and DVC's notes of what it has looked at."""
    return {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and ".git" not in path.parts and "tmp" not in path.parts
    }


def bytes_read() -> int:
    """Bytes that this process has read from files so far."""
    return int(Path("/proc/self/io").read_text().split()[1])


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc what was read")
def test_a_cell_moves_little_more_than_itself_and_leaves_nothing(origin, clone):
    before = files(clone)
    run = phasescope.open_run("runs/tiny", repo=clone)
    run.activations("logits").sel(seed=5, step=2).load()  # modules are loaded, too
    start = bytes_read()
    cell = phasescope.open_run("runs/tiny", repo=clone).activations("wide").sel(seed=5, step=2)
    opening, start = bytes_read() - start, bytes_read()
    values = cell.values
    moved = bytes_read() - start
    assert values.nbytes > 1_000_000
    assert moved < 1.1 * values.nbytes
    assert opening < 400_000  # the manifest, the metadata, the list of objects; and what git and DVC keep of it
    here = phasescope.open_run(origin / "runs" / "tiny")
    np.testing.assert_array_equal(values, here.activations("wide").sel(seed=5, step=2).values)
    assert files(clone) == before
    assert not (clone / ".dvc" / "cache").exists()


def test_everything_of_a_run_is_read_so(origin, clone, sent, monkeypatch):
    monkeypatch.chdir("/")
    run = phasescope.open_run("runs/tiny", repo=str(clone), rev="HEAD", remote="http")
    here = phasescope.open_run(origin / "runs" / "tiny")
    assert (run.seeds, run.steps, run.taps) == (here.seeds, here.steps, here.taps)
    assert run.measure("decode").load().identical(here.measure("decode").load())
    mine, theirs = run.model(5, 2).state_dict(), here.model(5, 2).state_dict()
    assert all((mine[name] == theirs[name]).all() for name in theirs)
    assert run.activations("wide").mean().item() == here.activations("wide").mean().item()
    assert run.shard_digest("wide", 0, 0) == here.shard_digest("wide", 0, 0)
    assert sent


def test_what_is_in_the_workspace_is_read_there(origin, monkeypatch):
    monkeypatch.chdir(origin)
    run = phasescope.open_run("runs/tiny", repo=".")
    monkeypatch.chdir("/")
    assert run.activations("logits").sel(seed=5, step=2).shape == (12, 2)
    assert "cannot be" not in repr(run)


def test_a_git_url_will_do(origin):
    run = phasescope.open_run("runs/tiny", repo=f"file://{origin}", rev="main")
    assert run.activations("logits").sel(seed=5, step=2).values.shape == (12, 2)


def test_mistakes_are_told_in_one_line(origin, clone, tmp_path):
    def opened(path="runs/tiny", **where):
        return refusal(lambda: phasescope.open_run(path, **where).activations("wide").values, UserError)

    assert "nope cannot be opened (unknown Git revision 'nope')" in opened(repo=clone, rev="nope")
    assert "cannot be opened" in opened(repo=tmp_path / "nowhere")
    assert "cannot be opened" in opened(repo=f"file://{tmp_path}/nowhere")
    assert ":runs/other: no such run" in opened("runs/other", repo=clone)
    assert "told by its path there" in opened("/runs/tiny", repo=clone)
    assert "told by its path there" in opened("../runs/tiny", repo=clone)
    assert "give repo as well" in opened(rev="main")
    assert "remote" in opened(repo=clone, remote="nope")
    call(clone, "dvc", "remote", "add", "--quiet", "--local", "gone", "http://127.0.0.1:9")
    assert "runs/tiny" in opened(repo=clone, remote="gone")
    call(clone, "dvc", "remote", "add", "--quiet", "--local", "empty", str(tmp_path / "empty"))
    assert "and that it was pushed" in opened(repo=clone, remote="empty")


def test_an_object_that_was_not_pushed_or_is_damaged_is_named(origin, clone, tmp_path):
    shutil.copytree(origin.parent / "remote", tmp_path / "remote")
    call(clone, "dvc", "remote", "add", "--quiet", "--local", "partial", str(tmp_path / "remote"))
    shard = origin / "runs" / "tiny" / "activations" / arrays.GROUP / "wide" / "c.1.2.0.0"
    digest = hashlib.md5(shard.read_bytes()).hexdigest()
    stored = tmp_path / "remote" / "files" / "md5" / digest[:2] / digest[2:]
    cell = phasescope.open_run("runs/tiny", repo=clone, remote="partial").activations("wide").sel(seed=5, step=2)
    stored.chmod(0o644)
    data = stored.read_bytes()
    stored.write_bytes(data[:5000] + bytes([data[5000] ^ 1]) + data[5001:])
    told = "runs/tiny/activations/arrays.zarr/wide/c.1.2.0.0 (wide of seed 5, step 2)"
    with pytest.raises(StoreError) as caught:
        cell.load()
    assert f"{told} is not as it was written: `dvc push` it where it was made" in str(caught.value)
    stored.unlink()
    with pytest.raises(StoreError) as caught:
        cell.load()
    assert f"{told} is missing: `dvc push` it where it was made" in str(caught.value)


def test_a_repository_that_cannot_be_written_to_is_read_by_its_git_url(clone):
    if subprocess.run(["mount", "--bind", str(clone), str(clone)], capture_output=True).returncode != 0:
        pytest.skip("mounting is not allowed here")
    try:
        call(Path("/"), "mount", "-o", "remount,ro,bind", str(clone))
        told = refusal(lambda: phasescope.open_run("runs/tiny", repo=clone), UserError)
        assert told.endswith(f"; DVC takes notes in the repository: give its git URL, repo='file://{clone}'")
        run = phasescope.open_run("runs/tiny", repo=f"file://{clone}")
        assert run.activations("logits").sel(seed=5, step=2).values.shape == (12, 2)
    finally:
        call(Path("/"), "umount", str(clone))
