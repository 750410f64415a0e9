"""Independent pieces of work side by side, in processes or threads, with progress, and none left behind.

A result depends on the threads of numerical libraries but not on how many pieces are at work at the same time, and two
such threads collapse where two pieces do not when something else wants a core (docs/log.md).
"""

import ctypes
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, CancelledError, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from phasescope.compute import Compute
from phasescope.errors import UserError
from phasescope.progress import Pieces, Progress

T = TypeVar("T")

_counters: Any = None


def end_with_parent() -> None:
    """Ask the kernel to end this process when its parent ends (Linux; elsewhere nothing).

    `kill -9` of dvc leaves a stage running, which would go on writing beside the next attempt. Its parent must be dvc
    itself and no shell between the two: commands in dvc.yaml start with `exec`.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)


def map_in_processes(
    function: Callable[..., T],
    items: list[tuple[Any, ...]],
    compute: Compute,
    progress: Progress | Pieces,
    group: Path | None = None,
) -> list[T]:
    """Call `function(advance, *item)` for each item, in as many processes as `compute` has workers; gives all results.

    `advance(done)` tells the progress of its item in the units of the progress bar. With one worker everything runs in
    this process; with a cluster, on its workers. The function must be importable by name. An exception in one piece
    ends the others. `group` is the argument, if any, with the path of arrays in which the pieces write shards.
    """
    if compute.cluster:
        from phasescope.cluster import map_on_workers  # which others do without

        return map_on_workers(function, items, compute, progress, group)
    if compute.workers == 1 or len(items) == 1:
        return _one_by_one(function, items, progress)
    context = multiprocessing.get_context("forkserver" if sys.platform == "linux" else "spawn")
    if sys.platform == "linux":
        # The imports (torch: seconds) are then made once, not once in each process.
        context.set_forkserver_preload([function.__module__])
    counters: Any = context.Array("q", len(items))
    executor = ProcessPoolExecutor(
        min(compute.workers, len(items)), mp_context=context, initializer=_start_worker, initargs=(counters,)
    )
    try:
        with _interrupts_held_back():
            futures = [executor.submit(_call, function, index, item) for index, item in enumerate(items)]
        pending = set(futures)
        while pending:
            finished, pending = wait(pending, timeout=0.2, return_when=FIRST_EXCEPTION)
            for index, done in enumerate(counters):
                progress.update(index, done)
            for future in finished:
                future.result()
        return [future.result() for future in futures]
    except BrokenProcessPool:
        raise UserError(
            "a worker process was ended from outside, perhaps for lack of memory: "
            "set PHASESCOPE_WORKERS=1 and run again; finished parts are kept"
        ) from None
    except BaseException:
        for child in multiprocessing.active_children():
            child.terminate()
        raise
    finally:
        executor.shutdown(cancel_futures=True)


def map_in_threads(
    function: Callable[..., T], items: list[tuple[Any, ...]], compute: Compute, progress: Progress | Pieces
) -> list[T]:
    """The same in threads of this process, for work that libraries do outside the interpreter's lock.

    Nothing is then imported, read or made twice. A thread whose work is not wanted any more ends at its next `advance`.
    """
    if compute.workers == 1 or len(items) == 1:
        return _one_by_one(function, items, progress)
    over = threading.Event()

    def call(index: int, item: tuple[Any, ...]) -> T:
        def advance(done: int) -> None:
            if over.is_set():
                raise CancelledError
            progress.update(index, done)

        return function(advance, *item)

    with ThreadPoolExecutor(min(compute.workers, len(items))) as executor:
        try:
            futures = [executor.submit(call, index, item) for index, item in enumerate(items)]
            for future in wait(futures, return_when=FIRST_EXCEPTION).done:
                future.result()
            return [future.result() for future in futures]
        finally:
            over.set()
            executor.shutdown(wait=False, cancel_futures=True)


def _one_by_one(function: Callable[..., T], items: list[tuple[Any, ...]], progress: Progress | Pieces) -> list[T]:
    return [function(lambda done, index=index: progress.update(index, done), *item) for index, item in enumerate(items)]


@contextmanager
def _interrupts_held_back() -> Iterator[None]:
    """Let Ctrl-C wait until the workers are there: one that is half started would end in a traceback.

    What is started meanwhile never sees it, though it reaches every process of the terminal: the parent alone answers
    it, and ends the workers.
    """
    came: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: came.append(number))
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGINT, before)
    if came:
        raise KeyboardInterrupt


def _start_worker(counters: Any) -> None:
    global _counters
    _counters = counters
    # Its parent in the kernel's eyes is the fork server, so the worker watches the process that asked for it itself.
    threading.Thread(target=_end_with_main_process, daemon=True).start()


def _end_with_main_process() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _call(function: Callable[..., T], index: int, item: tuple[Any, ...]) -> T:
    def advance(done: int) -> None:
        _counters[index] = done

    return function(advance, *item)
