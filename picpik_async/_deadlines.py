"""The deadlines of all who wait for a task, in one heap: no timer and no cancel scope of their own."""

from __future__ import annotations

import heapq
import math
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from picpik_async._watched import Watched

__all__ = ["Deadlines", "Waiter"]

_SLACK: Final = 64  # left waiters always allowed in the heap


class Waiter:
    """One coroutine that waits for a task.

    Attributes:
        task: what it waits for.
        deadline: until when; infinity is for ever.
        expired: the deadline has passed.
        gone: it waits no more.
    """

    __slots__ = ("deadline", "expired", "gone", "task")

    def __init__(self, task: Watched, deadline: float) -> None:
        self.task = task
        self.deadline = deadline
        self.expired = False
        self.gone = False

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
                self._heap = [other for other in self._heap if not other.gone]
                heapq.heapify(self._heap)

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
