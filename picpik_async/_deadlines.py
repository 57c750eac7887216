"""Who waits for a task, and until when: one future each, and all deadlines in one heap instead of timers and cancel scopes."""

from __future__ import annotations

import asyncio
import heapq
import math
import operator
from numbers import Real
from typing import TYPE_CHECKING, Final

from picpik_async.errors import InvalidRequestError

if TYPE_CHECKING:
    from picpik_async._watched import Watched

__all__ = ["Deadlines", "Waiter", "check_timeout", "clock", "deadline_of"]

_SLACK: Final = 64  # left waiters always allowed in the heap
_LONGEST: Final = 10**9  # seconds, 30 years; an integer far beyond has no place on a clock
_SLACK_ASLEEP: Final = 8  # and in a task


class Waiter:
    """One coroutine that waits for a task.

    Attributes:
        task: what it waits for.
        deadline: until when; infinity is for ever.
        expired: the deadline has passed.
        gone: it waits no more.
    """

    __slots__ = ("_bell", "deadline", "expired", "gone", "task")

    def __init__(self, task: Watched, deadline: float) -> None:
        self.task = task
        self.deadline = deadline
        self.expired = False
        self.gone = False
        self._bell: asyncio.Future[None]

    def sleep(self) -> asyncio.Future[None]:
        """What to await until the task or the deadline is worth another look."""
        # Each Event of anyio or asyncio adds a coroutine and a deque: 600 bytes more for each waiter.
        asleep = self.task.asleep
        if len(asleep) > 2 * self.task.waiters + _SLACK_ASLEEP:
            asleep[:] = [waiter for waiter in asleep if not waiter.gone]
        asleep.append(self)
        self._bell = asyncio.get_running_loop().create_future()
        return self._bell

    def wake(self) -> None:
        """End the sleep."""
        if not self._bell.done():  # nor cancelled
            self._bell.set_result(None)

    def __lt__(self, other: Waiter) -> bool:
        return self.deadline < other.deadline


class Deadlines:
    """The deadlines of all waiters; those of waiters that left are dropped in passing."""

    def __init__(self) -> None:
        self._heap: list[Waiter] = []
        self._live = 0

    def __len__(self) -> int:
        return len(self._heap)

    def add(self, waiter: Waiter) -> None:
        """Watch the deadline of *waiter*, if it has one."""
        if waiter.deadline < math.inf:
            self._live += 1
            heapq.heappush(self._heap, waiter)

    def discard(self, waiter: Waiter) -> None:
        """Forget the deadline of *waiter*."""
        waiter.gone = True
        if waiter.deadline < math.inf and not waiter.expired:
            self._live -= 1
            if len(self._heap) > 2 * self._live + _SLACK:
                left = [other for other in self._heap if not other.gone]
                # Sorted is a heap, too, and compares numbers: `heapify` calls `__lt__` so often that the loop stalls.
                self._heap = sorted(left, key=operator.attrgetter("deadline"))

    def next_at(self) -> float:
        """The earliest deadline; infinity if there is none."""
        while self._heap and self._heap[0].gone:
            heapq.heappop(self._heap)
        return self._heap[0].deadline if self._heap else math.inf

    def pop(self, now: float) -> Waiter | None:
        """A waiter whose deadline has passed, now marked as expired; None if there is no other."""
        if self.next_at() > now:
            return None
        self._live -= 1
        waiter = heapq.heappop(self._heap)
        waiter.expired = True
        return waiter


def clock() -> float:
    """The time of the running loop; `anyio.current_time` takes three times as long to find it."""
    return asyncio.get_running_loop().time()


def check_timeout(timeout: float | None) -> None:
    """Accept a number of seconds, or None.

    Raises:
        InvalidRequestError: it is negative, NaN, or no number.
    """
    if timeout is not None and not _is_time(timeout):
        msg = f"timeout is {timeout!r}; use a number of seconds, at least 0, or None for no limit"
        raise InvalidRequestError(msg, field="timeout", value=timeout, allowed="at least 0, or None")


def _is_time(value: float) -> bool:
    # The usual types first: to ask the abstract one takes 1 µs.
    is_number = isinstance(value, (float, int)) or isinstance(value, Real)  # noqa: SIM101 - mypy compares no Real
    return is_number and (0 <= value <= _LONGEST or value == math.inf)


def deadline_of(timeout: float | None, since: float | None = None) -> float:
    """When *timeout* is over, which began *since*, or now; None never is.

    Raises:
        InvalidRequestError: it is negative, NaN, or no number.
    """
    check_timeout(timeout)
    if timeout is None:
        return math.inf
    return (clock() if since is None else since) + timeout
