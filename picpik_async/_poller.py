"""The one poller of a session: however many tasks are awaited, by however many coroutines, there is one schedule.

It never sees HTTP: it takes a `fetch` callable that makes one status request. A poll that fails is never a failed task.
"""

from __future__ import annotations

import logging
import math
import random
import traceback
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Final

import anyio
import anyio.lowlevel

from picpik_async._deadlines import Deadlines, Waiter, check_timeout, clock, deadline_of
from picpik_async._durations import Durations
from picpik_async._endings import closed_error, ending_error, timeout_error
from picpik_async._schedule import Schedule
from picpik_async._tasks import TaskDetail, TaskStatus
from picpik_async._updates import Updates
from picpik_async.errors import ApiError, HttpStatusError, InvalidRequestError, PicpikError, legible

if TYPE_CHECKING:
    from picpik_async._asks import Ask
    from picpik_async._config import Dialect, PollPolicy
    from picpik_async._watched import Watched

__all__ = ["Fetch", "Poller"]

Fetch = Callable[[Sequence[str]], Awaitable[Sequence[TaskDetail]]]

_logger = logging.getLogger("picpik_async")

_REJECTING_STATUSES: Final = frozenset({400, 413, 414, 422})  # the request itself is refused, not the moment or the key
_MAX_RETRY_AFTER: Final = 60.0  # seconds
_SLICE: Final = 250  # tasks handled before others get a turn: whoever they wake takes 20 to 40 µs each, all in one turn
_WIDEST: Final = 2  # intervals between two polls; the end of a task is not learned from if it is known less well
_MAX_WORDS: Final = 100  # unknown status words told about


class Poller:
    """Asks about all watched tasks on one schedule, and wakes whoever waits for them.

    A task is watched only while somebody waits for it; with no waiter there is no traffic and no timer.

    Args:
        fetch: makes one status request for some task uids; rows may be missing, foreign, and in any order.
        policy: how often to ask.
        dialect: how many ids a request may hold, and which `RetCode` means "slow down".
        rng: source of jitter.
        durations: how long earlier tasks took; what ends is added.
    """

    def __init__(
        self,
        fetch: Fetch,
        policy: PollPolicy,
        dialect: Dialect,
        *,
        rng: random.Random | None = None,
        durations: Durations | None = None,
    ) -> None:
        self._fetch = fetch
        self._policy = policy
        self._dialect = dialect
        self._durations = Durations() if durations is None else durations
        jitter = rng or random.Random()  # noqa: S311 - no cryptography
        self._schedule = Schedule(policy, dialect, jitter, durations=self._durations)
        self._deadlines = Deadlines()
        self._terminated: set[str] = set()
        self._words = dialect.queuing_words | dialect.running_words | dialect.finished_words | dialect.error_words
        self._told_words: set[str] = set()
        self._told_of_surprise = False
        self._closed = False
        self._wake_at = math.inf
        self._nudge = anyio.Event()

    @property
    def watched(self) -> int:
        """Number of tasks being asked about."""
        return self._schedule.watched

    def watches(self, task_uid: str) -> bool:
        """Whether anybody waits for that task."""
        return self._schedule.watches(task_uid)

    async def run(self) -> None:
        """Poll until cancelled; then wake every waiter with `ConfigurationError`."""
        self._schedule.start(clock())
        async with anyio.create_task_group() as requests:
            try:
                while True:
                    await self._expire()
                    for ask in self._schedule.take(clock()):
                        requests.start_soon(self._ask, ask)
                        await anyio.lowlevel.checkpoint()  # making fifty requests in one turn takes 20 ms
                    await self._sleep()
            finally:
                self._closed = True
                with anyio.CancelScope(shield=True):
                    await self._wake_all()

    async def wait(
        self,
        task_uid: str,
        *,
        timeout: float | None,  # noqa: ASYNC109 - one heap for all
        since: float | None = None,
    ) -> TaskDetail:
        """Wait until a task has finished.

        Args:
            task_uid: the task.
            timeout: seconds; None is no limit.
            since: when the timeout began to count, on the clock of `anyio.current_time`; unset, now.

        Raises:
            TaskFailedError: the service reports an error.
            TaskTerminatedError: the task was terminated.
            TaskVanishedError: the service does not know the task.
            TaskTimeoutError: *timeout* has passed.
            InvalidRequestError: *timeout* is negative or not a number.
            ConfigurationError: the session was closed.
        """
        waiter = self._enlist(task_uid, deadline_of(timeout, since))
        try:
            while not waiter.task.ended:
                self._check(waiter, timeout)
                await waiter.sleep()
        finally:
            self._dismiss(waiter)
        return self._result(waiter.task)

    def updates(self, task_uid: str, *, timeout: float | None) -> Updates:
        """Iterate over what becomes of a task: the first detail, each changed one, and the one that ends it.

        Args:
            task_uid: the task.
            timeout: seconds, counted from the first step of the iteration; None is no limit.

        Raises:
            InvalidRequestError: *timeout* is negative or not a number.
        """
        check_timeout(timeout)
        return Updates(self, task_uid, timeout=timeout)

    def terminated(self, task_uid: str) -> None:
        """Note that the task was terminated by us: whatever is no good end is one by termination from now on."""
        self._terminated.add(task_uid)
        self._durations.forget(task_uid)
        self._schedule.hasten(task_uid, clock())
        self._reconsider()

    async def next_change(
        self,
        task_uid: str,
        *,
        timeout: float | None,  # noqa: ASYNC109 - for the message
        deadline: float,
        last: TaskDetail | None,
    ) -> tuple[TaskDetail | None, bool]:
        """Wait until a task looks different from *last*, or has ended; serves `Updates`.

        Returns:
            The detail, None if it is not news; and whether the task has ended.
        """
        waiter = self._enlist(task_uid, deadline, follows=True)
        task = waiter.task
        task.followers += 1
        try:
            while not (task.ended or _differ(task.detail, last)):
                self._check(waiter, timeout)
                await waiter.sleep()
        finally:
            task.followers -= 1
            self._dismiss(waiter)
        if task.vanished:
            raise ending_error(task, terminated=task.uid in self._terminated)
        return task.detail if _differ(task.detail, last) else None, task.ended

    def _enlist(self, task_uid: str, deadline: float, *, follows: bool = False) -> Waiter:
        now = clock()
        if self._closed:
            raise closed_error(task_uid=task_uid)
        waiter = Waiter(self._schedule.add(task_uid, now, follows=follows), deadline)
        self._deadlines.add(waiter)
        self._reconsider()
        return waiter

    def _dismiss(self, waiter: Waiter) -> None:
        self._deadlines.discard(waiter)
        self._schedule.drop(waiter.task)
        if not self._schedule.watched:
            self._nudge.set()

    def _check(self, waiter: Waiter, timeout: float | None) -> None:
        if self._closed:
            raise closed_error(task_uid=waiter.task.uid)
        if waiter.expired or waiter.deadline <= clock():
            raise timeout_error(waiter.task, timeout)

    async def _expire(self) -> None:
        count = 0
        while waiter := self._deadlines.pop(clock()):
            waiter.wake()
            count += 1
            if count % _SLICE == 0:
                await anyio.lowlevel.checkpoint()

    async def _wake_all(self) -> None:
        for count, task in enumerate(self._schedule.tasks(), 1):
            task.wake()
            if count % _SLICE == 0:
                await anyio.lowlevel.checkpoint()

    def _next_at(self) -> float:
        return min(self._schedule.next_at(), self._deadlines.next_at())

    async def _sleep(self) -> None:
        self._nudge = anyio.Event()
        self._wake_at = self._next_at()
        with anyio.CancelScope(deadline=self._wake_at):
            await self._nudge.wait()

    def _reconsider(self) -> None:
        if self._next_at() < self._wake_at:
            self._nudge.set()

    async def _ask(self, ask: Ask) -> None:
        try:
            rows = {row.task_uid: row for row in await self._fetch([task.uid for task in ask.tasks])}
        except PicpikError as error:
            self._take_refusal(ask, error)
        except Exception as error:  # noqa: BLE001 - whatever fetch raises, the other tasks are polled on
            self._take_surprise(ask, error)
        else:
            await self._take_answer(ask, rows)
        self._reconsider()

    async def _take_answer(self, ask: Ask, rows: dict[str, TaskDetail]) -> None:
        now = clock()
        for task in self._schedule.answered(ask, now):
            self._miss(task, now)
        for count, task in enumerate(ask.tasks, 1):
            detail = rows.get(task.uid)
            if detail is None:
                task.problem = "its row was missing from the answer"
                self._miss(task, now)
            else:
                self._see(task, detail, now)
            if count % _SLICE == 0:
                await anyio.lowlevel.checkpoint()

    def _take_refusal(self, ask: Ask, error: PicpikError) -> None:
        now = clock()
        _note_problem(ask, f"{type(error).__name__}: {legible(str(error))}")
        if self._rejects_list(error):
            for task in self._schedule.refused(ask, now):
                self._miss(task, now)
            return
        retry_after = error.retry_after if isinstance(error, HttpStatusError) else None
        if retry_after is not None:
            retry_after = max(0.0, min(_MAX_RETRY_AFTER, retry_after))  # in this order NaN is too long as well
        self._schedule.failed(ask, now, retry_after=retry_after)

    def _take_surprise(self, ask: Ask, error: Exception) -> None:
        if not self._told_of_surprise:
            self._told_of_surprise = True
            # No message and no traceback: a foreign exception may quote a signed body.
            file, line, *_ = traceback.extract_tb(error.__traceback__)[-1]
            _logger.error("a status request raised %s at %s:%s; polling goes on", type(error).__name__, file, line)
        _note_problem(ask, type(error).__name__)
        self._schedule.failed(ask, clock())

    def _rejects_list(self, error: PicpikError) -> bool:
        if isinstance(error, ApiError):
            return error.ret_code not in self._dialect.throttle_ret_codes
        if isinstance(error, HttpStatusError):
            return error.status in _REJECTING_STATUSES
        return isinstance(error, InvalidRequestError)  # an id that cannot even be sent

    def _see(self, task: Watched, detail: TaskDetail, now: float) -> None:
        news = task.followers and _differ(detail, task.detail)
        task.detail = detail
        task.missing_since = None
        task.problem = None
        unknown = detail.status is TaskStatus.UNKNOWN
        if detail.failed or detail.finished or (unknown and task.uid in self._terminated):
            self._learn(task, now)
            self._schedule.end(task)
            task.wake()
            return
        task.seen_at = now
        if unknown and detail.status_word not in self._words:
            self._tell_word(detail)
        self._schedule.again(task, now)
        if news:
            task.wake()

    def _miss(self, task: Watched, now: float) -> None:
        if task.missing_since is None:
            task.missing_since = now
        if task.uid in self._terminated or now - task.missing_since >= self._policy.unknown_task_grace:
            task.vanished = True
            self._durations.forget(task.uid)
            self._schedule.end(task)
            task.wake()
        else:
            self._schedule.again(task, now)

    def _learn(self, task: Watched, now: float) -> None:
        if now - task.seen_at <= _WIDEST * self._policy.max_interval:
            self._durations.end(task.uid, after=task.seen_at, now=now)
        else:  # nobody looked for a while, so that it may have ended long ago
            self._durations.forget(task.uid)

    def _tell_word(self, detail: TaskDetail) -> None:
        word = legible(detail.status_word or "")
        if word in self._told_words or len(self._told_words) == _MAX_WORDS:
            return
        self._told_words.add(word)
        _logger.warning(
            "unknown task status '%s'; polling goes on", word, extra={"task_uid": detail.task_uid, "stage": "poll"}
        )

    def _result(self, task: Watched) -> TaskDetail:
        if task.vanished or task.detail is None or not task.detail.finished:
            raise ending_error(task, terminated=task.uid in self._terminated)
        return task.detail


def _differ(detail: TaskDetail | None, last: TaskDetail | None) -> bool:
    return detail is not None and (last is None or _face(detail) != _face(last))


def _face(detail: TaskDetail) -> tuple[object, ...]:
    results = detail.image_urls, detail.texts
    return detail.status, detail.status_word, results, detail.error_code, detail.error_message


def _note_problem(ask: Ask, problem: str) -> None:
    for task in ask.tasks:
        task.problem = problem
