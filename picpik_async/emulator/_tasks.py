"""The task queue: who waits, runs, has ended or is forgotten, worked out from the clock whenever somebody asks."""

from __future__ import annotations

import heapq
import time
from collections import deque
from typing import TYPE_CHECKING, Any

import attrs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Clock", "EmulatedTask", "ImageRecord", "LedgerEntry", "Schedule"]


@attrs.frozen
class ImageRecord:
    """An image as it arrived.

    Attributes:
        index: position in `ImageAndMaskList`, from 0.
        sha256: hex digest of the decoded file.
        size: bytes of the decoded file.
    """

    index: int
    sha256: str
    size: int


@attrs.frozen(kw_only=True)
class LedgerEntry:
    """An accepted, charged request.

    Attributes:
        request_uuid: the client's `request_uuid`, if it sent one.
        task_uid: the `TaskUID` of the answer.
        action: the Action.
        time: Unix seconds on the emulated clock.
        cost: credits charged.
        parameters: the request without images and `Signature`.
        images: what arrived, in order.
    """

    request_uuid: str | None
    task_uid: str
    action: str
    time: float
    cost: int
    parameters: Mapping[str, Any]
    images: tuple[ImageRecord, ...]


class Clock:
    """Unix seconds that can be moved on at will and never run backwards."""

    def __init__(self) -> None:
        self._offset = time.time() - time.monotonic()

    def now(self) -> float:
        """The emulated time."""
        return time.monotonic() + self._offset

    def advance(self, seconds: float) -> None:
        """Let *seconds* pass at once."""
        self._offset += seconds


@attrs.define(kw_only=True, eq=False)
class EmulatedTask:
    """A charged request on its way to pictures.

    Attributes:
        entry: its line in the ledger.
        seed: the seed used, drawn if the request left it open.
        token: the unguessable part of its result addresses.
        files: the images sent, encoded; dropped once they are no longer needed.
        ready: when it may start.
        started: when it started, None while it waits.
        ends: when it ends, or ended; None while it waits.
        terminated: whether `TerminateTask` ended it.
        failure: the error it ends in, if any.
        pictures: the results as PNG files, None until they exist.
    """

    entry: LedgerEntry
    seed: int
    token: str
    files: Sequence[bytes]
    ready: float
    started: float | None = None
    ends: float | None = None
    terminated: bool = False
    failure: str | None = None
    pictures: tuple[bytes, ...] | None = None

    def status(self, now: float) -> str:
        """The status word at *now*; the words are those of the legacy page, the only list there is."""
        if self.terminated:
            return "Terminated"
        if self.ends is None:
            return "Queuing"
        if now >= self.ends and self.failure is not None:
            return "Error"
        if now >= self.ends and self.pictures is not None:
            return "Finished"
        return "Running"


class Schedule:
    """First come, first served, on a fixed number of slots.

    Nothing happens on its own: `settle` catches up with the clock, so a waiting task costs no timer and no asyncio task.

    Args:
        queue_time: seconds a task waits at least.
        run_time: seconds a task runs at least.
        concurrency: slots.
        retention: seconds a task is remembered after its end.
    """

    def __init__(self, *, queue_time: float, run_time: float, concurrency: int, retention: float) -> None:
        self.queue_time = queue_time
        self.run_time = run_time
        self.retention = retention
        self._free_at = [0.0] * concurrency
        self._waiting: deque[EmulatedTask] = deque()
        self._known: dict[str, EmulatedTask] = {}
        self._tokens: dict[str, EmulatedTask] = {}
        self._expiries: list[tuple[float, str]] = []

    def add(self, task: EmulatedTask) -> None:
        """Queue *task*."""
        self._waiting.append(task)
        self._known[task.entry.task_uid] = task
        self._tokens[task.token] = task

    def settle(self, now: float) -> list[EmulatedTask]:
        """Catch up with the clock: forget expired tasks, start those whose turn has come, and return these."""
        begun = []
        while self._waiting and (start := max(self._waiting[0].ready, self._free_at[0])) <= now:
            task = self._waiting.popleft()
            if task.terminated:
                continue
            task.started, task.ends = start, start + self.run_time
            heapq.heapreplace(self._free_at, task.ends)
            heapq.heappush(self._expiries, (task.ends + self.retention, task.entry.task_uid))
            begun.append(task)
        while self._expiries and self._expiries[0][0] <= now:
            self._forget(heapq.heappop(self._expiries)[1])
        return begun

    def next_start(self) -> float | None:
        """When the next waiting task starts, if there is one."""
        return max(self._waiting[0].ready, self._free_at[0]) if self._waiting else None

    def find(self, task_uid: str) -> EmulatedTask | None:
        """The task with this `TaskUID`, unless unknown or expired."""
        return self._known.get(task_uid)

    def find_result(self, token: str) -> EmulatedTask | None:
        """The task whose result addresses hold *token*, unless unknown or expired."""
        return self._tokens.get(token)

    def open_tasks(self, now: float) -> list[EmulatedTask]:
        """The tasks that wait or run."""
        return [task for task in self._known.values() if task.status(now) in {"Queuing", "Running"}]

    def terminate(self, task: EmulatedTask, now: float) -> None:
        """End *task* at once and free its slot; a task that has ended already stays as it is."""
        if task.status(now) not in {"Queuing", "Running"}:
            return
        if task.ends is not None and task.ends in self._free_at:
            self._free_at.remove(task.ends)
            self._free_at.append(now)
            heapq.heapify(self._free_at)
        task.terminated, task.ends, task.files = True, now, ()
        heapq.heappush(self._expiries, (now + self.retention, task.entry.task_uid))

    def _forget(self, task_uid: str) -> None:
        if task := self._known.pop(task_uid, None):
            del self._tokens[task.token]
