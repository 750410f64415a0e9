"""A Dask scheduler and workers to test against: processes of their own on loopback, gone again at the end."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from closure import ROOT
from projects import wait_for


class Cluster:
    """A scheduler, and workers that come and go."""

    def __init__(self, folder: Path, port: int = 0) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._file = folder / "scheduler.json"
        self._file.unlink(missing_ok=True)
        options = ("--host", "127.0.0.1", "--port", str(port), "--scheduler-file", str(self._file))
        self.scheduler = self._start("scheduler", *options)
        self.workers: list[subprocess.Popen[bytes]] = []
        wait_for(lambda: self._file.is_file() and self._file.read_text().endswith("}"))
        self.address: str = json.loads(self._file.read_text())["address"]

    def worker(self, *options: str, **environment: str) -> subprocess.Popen[bytes]:
        """Start a worker."""
        place = ("--local-directory", str(self.folder / "tmp"))
        if "--nthreads" not in options:
            options = ("--nthreads", "1", *options)
        self.workers.append(self._start("worker", self.address, *place, *options, **environment))
        return self.workers[-1]

    def log(self) -> str:
        """What the workers have said so far."""
        return (self.folder / "worker.log").read_text()

    def end(self) -> None:
        """End all processes, at once: a nanny that was asked to end may wait for its worker for a minute."""
        for process in (*self.workers, self.scheduler):
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def _start(self, what: str, *options: str, **environment: str) -> subprocess.Popen[bytes]:
        # Functions of the tests must be importable there.
        path = os.pathsep.join([str(ROOT / "src"), str(ROOT / "tests"), str(ROOT / "tools")])
        with (self.folder / f"{what}.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "distributed.cli.dask_" + what, *options, "--no-dashboard"],
                stdout=log,
                stderr=log,
                cwd=self.folder,
                start_new_session=True,
                env={**os.environ, "PYTHONPATH": path, **environment},
            )


@contextmanager
def cluster(folder: Path, workers: int) -> Iterator[Cluster]:
    """A scheduler with so many workers."""
    started = Cluster(folder)
    try:
        for _ in range(workers):
            started.worker()
        yield started
    finally:
        started.end()
