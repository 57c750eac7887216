"""How far each job is: a live table on a terminal, one line for each change elsewhere."""

from __future__ import annotations

import math
import sys
import time
from typing import TYPE_CHECKING, Final, Protocol, Self

from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console
    from rich.progress import TaskID

__all__ = ["ProgressReport", "progress_on"]

PAUSE: Final = 5.0  # seconds from one line about many jobs to the next


class ProgressReport(Protocol):
    """Tells people how far their jobs are, between `__enter__` and `__exit__`."""

    def __enter__(self) -> Self:
        """Start."""
        ...

    def __exit__(self, *_exception: object) -> None:
        """Stop; what was told stays on the screen."""
        ...

    def tell(self, job: str, state: str, *, last: bool = False) -> None:
        """Tell that *job*, named for people, is in *state* now; *last* stops its clock."""
        ...

    def tally(self, job: str, state: str) -> None:
        """The same of something that changes often, so that not every change needs to be told."""
        ...


def progress_on(console: Console) -> ProgressReport:
    """The kind of progress that suits standard error, where *console* writes."""
    if sys.stderr.isatty() and not console.is_dumb_terminal:
        return LiveProgress(console)
    return LineProgress(console)


class LiveProgress:
    """One line a job, rewritten in place: a spinner, the job, its state, the time it took."""

    def __init__(self, console: Console) -> None:
        self._table = Progress(
            SpinnerColumn("line", finished_text=" "),
            TextColumn("{task.description}", markup=False),
            TextColumn("{task.fields[state]}", style="cyan", markup=False),
            TimeElapsedColumn(),
            console=console,
        )
        self._rows: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        self._table.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._table.stop()

    def tell(self, job: str, state: str, *, last: bool = False) -> None:
        """See `ProgressReport.tell`."""
        if job not in self._rows:
            self._rows[job] = self._table.add_task(job, total=1, state=state)
        self._table.update(self._rows[job], state=state, completed=int(last))

    def tally(self, job: str, state: str) -> None:
        """See `ProgressReport.tally`."""
        self.tell(job, state)


class LineProgress:
    """A line for each change, or every few seconds, with the seconds since the start."""

    def __init__(self, console: Console, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._clock = clock
        self._start = clock()
        self._tallied = -math.inf

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        pass

    def tell(self, job: str, state: str, *, last: bool = False) -> None:  # noqa: ARG002 - lines have no clock to stop
        """See `ProgressReport.tell`."""
        self._console.print(f"[{self._clock() - self._start:6.1f} s] {job}: {state}", soft_wrap=True)

    def tally(self, job: str, state: str) -> None:
        """See `ProgressReport.tally`."""
        if self._clock() >= self._tallied + PAUSE:
            self._tallied = self._clock()
            self.tell(job, state)
