"""Killed or failing at any file operation, a stage leaves nothing half-written, and runs again to the same bytes.

faults/shim.c stands between Python and libc and strikes at the k-th operation; faults/driver.py says what is looked at.
By default a random part is tried; with --slow every operation, each killed and failed in three ways.
"""

import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import new_project

FAULTS = Path(__file__).parent / "faults"

PARAMS = """\
datasets:
  digits: {source: digits, resolution: 4}
runs:
  tiny:
    dataset: digits
    model: {name: f0}
train: {seeds: [0, 1], iterations: 1, batch_size: 32}
activations: {taps: [logits], train_samples: 20, test_samples: 10}
transfer: {}
measures: {}
"""


@pytest.fixture
def memory(tmp_path) -> Iterator[Path]:
    """A folder on a file system in memory, where fsync costs nothing, if there is one."""
    shared = Path("/dev/shm")
    if not os.access(shared, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=shared, prefix="phasescope-") as folder:
        yield Path(folder)


@pytest.mark.skipif(sys.platform != "linux", reason="libc calls are caught with Linux's LD_PRELOAD")
@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler (cc)")
@pytest.mark.timeout(3600)
def test_a_fault_at_any_file_operation(tmp_path, memory, request):
    shim = tmp_path / "shim.so"
    build = ["cc", "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o", str(shim), str(FAULTS / "shim.c")]
    subprocess.run([*build, "-ldl"], check=True)
    new_project(memory / "project", PARAMS)
    # On a slow machine the last errors are left to the next run, whose order is another.
    chosen = ["--seconds", "840", "--kills-first"] if request.config.getoption("--slow") else ["--seconds", "12"]
    chosen += ["--seed", str(random.randrange(10**6))]
    command = [sys.executable, str(FAULTS / "driver.py"), str(memory), *chosen]
    assert subprocess.run(command, env={**os.environ, "LD_PRELOAD": str(shim)}).returncode == 0
