"""Pieces of work on the workers of a Dask scheduler, as seen from the stage that waits for them.

The stage alone commits: it takes what a piece has written when the piece has come to its end, so that it does not
matter how often a worker died over it. To give it to another one then is Dask's business.
"""

import os
import pickle
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from shutil import move, rmtree
from typing import Any, TypeVar
from uuid import uuid4

from filelock import FileLock, Timeout

from phasescope import own, piece, scheduler
from phasescope.compute import Compute
from phasescope.errors import UserError, reason
from phasescope.progress import Pieces, Progress, tell
from phasescope.store.cache import CellCache

T = TypeVar("T")

#: Where stages wait for their pieces, beside what DVC manages.
MEETINGS = Path(".phasescope/cluster")
#: Seconds between two looks at whether there are workers.
LOOK = 5.0


def map_on_workers(
    function: Callable[..., T],
    items: list[tuple[Any, ...]],
    compute: Compute,
    progress: Progress | Pieces,
    group: Path | None = None,
) -> list[T]:
    """As `parallel.map_in_processes`, on the workers of the scheduler that is configured.

    Raises:
        UserError: there is no scheduler any more; a worker cannot do a piece, and says why; several workers in a row
            died over the same piece; or as the function.
    """
    address = scheduler.address()
    if address is None:
        raise UserError(f"{scheduler.VARIABLE} was set when this stage began and is not any more: run it again")
    with _meeting() as meeting:
        shared = scheduler.shared() is not None
        call = piece.Call(
            name=meeting.name,
            project=Path.cwd(),
            meeting=None if shared else meeting,
            trust=os.environ.get(own.TRUST) == "1",
            own=_own_files() if shared else {},
            versions=piece.versions(),
            code=piece.code(),
        )
        work = _Work(address, call, compute, progress)
        try:
            for index, item in enumerate(items):
                given = [CellCache(piece.CELLS, each.code) if shared and _is_cache(each) else each for each in item]
                work.submit(index, pickle.dumps((function, given, group)))
            results = {}
            for index, done in work.finished():
                _take(done, group, next(filter(_is_cache, items[index]), None))
                results[index] = done.result
        finally:
            work.end()
    return [results[index] for index in range(len(items))]


@dataclass(frozen=True)
class _Piece:
    """A piece that is done by whoever unpickles it.

    A worker that has no phasescope then says so. Where Dask itself unpickles a function that is not there, the worker
    ends, and so does the next one.
    """

    call: piece.Call
    index: int
    content: bytes

    def __reduce__(self) -> tuple[Callable[..., piece.Done], tuple[Any, ...]]:
        return piece.run, (self.call, self.index, self.content)


class _Work:
    """The pieces of a call that are at a scheduler."""

    def __init__(self, address: str, call: piece.Call, compute: Compute, progress: Progress | Pieces) -> None:
        self._address, self._call, self._progress = address, call, progress
        self._client = scheduler.connect(address)
        there = scheduler.capacity(address)
        # Where workers come later, those with a GPU are asked for; where some are there and none says so, all will do.
        needs_gpu = compute.device != "cpu" and (there.with_gpu or not there.workers)
        self._resources = {scheduler.GPU: 1} if needs_gpu else None
        self._futures: dict[Any, tuple[int, bytes]] = {}
        self._client.subscribe_topic(call.name, lambda event: progress.update(*event[1]))

    def submit(self, index: int, content: bytes) -> None:
        """Give a piece to the scheduler."""
        key = f"{self._call.name}-{index}-{uuid4().hex}"
        # The pieces that are asked for first are computed first; all are equal otherwise.
        future = self._client.submit(
            pickle.loads,
            pickle.dumps(_Piece(self._call, index, content)),
            key=key,
            pure=False,
            resources=self._resources,
            priority=-index,
        )
        self._futures[future] = index, content

    def finished(self) -> Iterator[tuple[int, piece.Done]]:
        """The pieces as they come to their ends."""
        from distributed import wait

        alone = False
        while self._futures:
            with suppress(TimeoutError, CancelledError):  # which a piece's own result tells
                wait(list(self._futures), timeout=LOOK, return_when="FIRST_COMPLETED")
            ended = [future for future in self._futures if future.done()]
            for future in ended:
                index, content = self._futures.pop(future)
                try:
                    done: piece.Done = self._result(future)
                except piece.OutdatedError as outdated:
                    self._restart(str(outdated))
                    self.submit(index, content)
                    continue
                self._progress.update(index, done.progress)
                yield index, done
            if not ended and alone != self._alone():
                alone = not alone
                if alone:
                    kind = "worker with a GPU" if self._resources else "worker"
                    tell(f"there is no {kind} at {self._address}: waiting for one, until Ctrl-C")

    def end(self) -> None:
        """Let go of what is still at work."""
        with suppress(Exception):  # where the scheduler is gone there is nothing to let go of
            self._client.unsubscribe_topic(self._call.name)
            self._client.cancel(list(self._futures), force=True)

    def _result(self, future: Any) -> piece.Done:
        from distributed.scheduler import KilledWorker

        try:
            done: piece.Done = future.result()
        except KilledWorker as killed:
            raise UserError(
                f"{killed.allowed_failures + 1} workers in a row died over the same piece of work, perhaps for lack of "
                "memory: give them more (--memory-limit), or fewer at a time; finished parts are kept"
            ) from None
        except ImportError as error:
            raise UserError(
                f"a worker at {self._address} lacks a package ({reason(error)}): give it the same environment as the "
                "stage"
            ) from None
        except CancelledError:
            raise UserError(
                f"the Dask scheduler at {self._address} went away: start it and run `dvc repro` again; finished parts "
                "are kept"
            ) from None
        return done

    def _alone(self) -> bool:
        """Whether there is nobody who could do a piece."""
        there = scheduler.capacity(self._address)
        return not (there.with_gpu if self._resources else there.workers)

    def _restart(self, worker: str) -> None:
        """Start a worker anew that has loaded code which has been edited since."""
        try:
            with suppress(KeyError):  # another piece had it started anew
                self._client.restart_workers([worker])
        except (ValueError, TimeoutError, OSError):
            raise UserError(f"worker {worker} has loaded an earlier version of phasescope: start it anew") from None


@contextmanager
def _meeting() -> Iterator[Path]:
    """A folder where pieces see that they are waited for; those of stages that were killed are removed."""
    MEETINGS.mkdir(parents=True, exist_ok=True)
    for left in [path for path in MEETINGS.iterdir() if path.is_dir()]:
        lock = FileLock(left.with_suffix(".lock"))
        with suppress(Timeout, OSError), lock.acquire(timeout=0):
            _remove(left)
    meeting = MEETINGS.absolute() / f"phasescope-{uuid4().hex}"
    lock = FileLock(meeting.with_suffix(".lock"))
    with lock:
        meeting.mkdir()
        try:
            yield meeting
        finally:
            _remove(meeting)


def _remove(meeting: Path) -> None:
    """Remove a folder where nobody waits; if a worker writes there at this moment, the next stage has the rest."""
    rmtree(meeting, ignore_errors=True)
    meeting.with_suffix(".lock").unlink(missing_ok=True)


def _own_files() -> dict[str, bytes]:
    files = [path for path in own.FOLDER.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    return {path.as_posix(): path.read_bytes() for path in files}


def _take(done: piece.Done, group: Path | None, cache: CellCache | None) -> None:
    """Bring what a piece wrote to where it belongs."""
    if group is not None and done.written is not None:
        for name in done.files:
            try:
                move(done.written / name, group / name)
            except FileNotFoundError:
                raise UserError(
                    f"{done.written / name}: a worker wrote it, and it is not seen here: share that folder without "
                    "delay, and run `dvc repro` again; finished parts are kept"
                ) from None
    if cache is not None:
        cache.take(done.cells)


def _is_cache(argument: object) -> bool:
    return isinstance(argument, CellCache)
