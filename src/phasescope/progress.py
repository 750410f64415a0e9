"""Progress: bars with a time estimate on a terminal, plain lines elsewhere."""

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

#: Seconds between two plain lines.
INTERVAL = 15.0


def wide_console() -> Console:
    """A console for tables: as wide as the terminal, and wide enough for them where there is none."""
    console = Console()
    return console if console.is_terminal else Console(width=120)


def tell_computed(label: str, computed: int, cells: int) -> None:
    """Say how many cells were computed, where some were known before."""
    if computed < cells:
        tell(f"{label}: {computed} of {cells} cells computed, the others were known")


def tell(text: str) -> None:
    """Say something in a line of its own."""
    Console().print(text, highlight=False, soft_wrap=True)


class Progress:
    """Progress of several items with `total` steps each."""

    def __init__(self, labels: list[str], total: int, console: Console | None = None) -> None:
        self.labels = labels
        self.total = total
        self.console = console or Console()
        self.done = [0] * len(labels)
        self._started = self._told = time.monotonic()
        self._bars = Bars(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self._tasks = [self._bars.add_task(label, total=total) for label in labels]

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()
        if kind is None and not self.console.is_terminal:
            self._tell()

    def update(self, index: int, done: int) -> None:
        """Say that item `index` has finished `done` of its steps."""
        self.done[index] = done
        self._bars.update(self._tasks[index], completed=done)
        if not self.console.is_terminal and time.monotonic() - self._told > INTERVAL:
            self._tell()

    def _tell(self) -> None:
        now = time.monotonic()
        self._told = now
        share = sum(self.done) / (self.total * len(self.done))
        left = f", about {(now - self._started) * (1 - share) / share:.0f} s left" if 0 < share < 1 else ""
        steps = ", ".join(f"{label} {done}/{self.total}" for label, done in zip(self.labels, self.done, strict=True))
        self.console.print(f"{steps} ({now - self._started:.0f} s{left})", highlight=False, soft_wrap=True)


class Pieces:
    """The first item of a Progress as a sum of pieces that are updated one by one."""

    def __init__(self, progress: Progress, pieces: int) -> None:
        self._progress = progress
        self._done = [0] * pieces

    def update(self, index: int, done: int) -> None:
        """Say that piece `index` has finished `done` of its steps."""
        self._done[index] = done
        self._progress.update(0, sum(self._done))
