"""The poller, in virtual time unless a test says otherwise."""

from __future__ import annotations

import contextlib
import logging
import math
import random
import statistics
from collections import Counter
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import pytest
from trio.testing import MockClock

from picpik_async._config import Dialect, PollPolicy
from picpik_async._poller import Poller
from picpik_async._tasks import TaskDetail, TaskStatus
from picpik_async.errors import (
    ApiError,
    ConfigurationError,
    HttpStatusError,
    InvalidRequestError,
    PicpikError,
    TaskError,
    TaskFailedError,
    TaskTerminatedError,
    TaskTimeoutError,
    TaskVanishedError,
    TransportError,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

pytestmark = pytest.mark.anyio

on_asyncio = pytest.mark.parametrize("anyio_backend", ["asyncio"])


@pytest.fixture
def anyio_backend() -> Any:
    """Trio with a clock that jumps to the next timer."""
    return "trio", {"clock": MockClock(autojump_threshold=0)}


def row(uid: str, word: str = "Running", **data: Any) -> TaskDetail:
    """A `TaskDetail` as the wire layer makes it."""
    statuses = {"Queuing": "QUEUING", "Running": "RUNNING", "Finished": "FINISHED", "Error": "ERROR"}
    return TaskDetail(task_uid=uid, status=TaskStatus[statuses.get(word, "UNKNOWN")], status_word=word, **data)


class Service:
    """Answers status requests, and remembers them.

    Attributes:
        finish_at: when each task ends; a task without runs for ever.
        polls: time and uids of each request.
        poisoned: ids that make any list with them be refused.
        trouble: makes the exception for a request to fail with, if it is to fail.
        answer: makes the row of a task; None leaves it out.
    """

    def __init__(self, *, latency: float = 0.0) -> None:
        self.latency = latency
        self.finish_at: dict[str, float] = {}
        self.polls: list[tuple[float, tuple[str, ...]]] = []
        self.poisoned: set[str] = set()
        self.trouble: Callable[[Sequence[str]], Exception | None] = lambda _: None
        self.answer: Callable[[str], TaskDetail | None] = self.state

    def state(self, uid: str) -> TaskDetail:
        """Whether the task has finished by now."""
        done = self.finish_at.get(uid, math.inf) <= anyio.current_time()
        return row(uid, "Finished" if done else "Running")

    async def fetch(self, uids: Sequence[str]) -> list[TaskDetail]:
        """One status request."""
        self.polls.append((anyio.current_time(), tuple(uids)))
        await anyio.sleep(self.latency)
        if self.poisoned.intersection(uids):
            msg = "one of the ids is bad"
            raise ApiError(msg, ret_code=160)
        trouble = self.trouble(uids)
        if trouble is not None:
            raise trouble
        return [answer for uid in reversed(uids) if (answer := self.answer(uid)) is not None]

    def poller(self, *, dialect: Dialect | None = None, seed: int = 1, **policy: Any) -> Poller:
        """A poller that asks this service."""
        return Poller(self.fetch, PollPolicy(**policy), dialect or Dialect(), rng=random.Random(seed))


@contextlib.asynccontextmanager
async def running(poller: Poller) -> AsyncIterator[None]:
    """Run the poller, and check that nobody is left behind."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(poller.run)
        yield
        await anyio.lowlevel.checkpoint()
        assert 0 == poller.watched
        tasks.cancel_scope.cancel()


async def test_waits_until_finished() -> None:
    """A waiter gets the finished detail at the first tick after the end."""
    service = Service()
    poller = service.poller()
    service.finish_at["a"] = anyio.current_time() + 3
    async with running(poller):
        detail = await poller.wait("a", timeout=None)

        assert detail.finished
        assert 0 <= anyio.current_time() - service.finish_at["a"] <= 0.5


async def test_a_thousand_tasks_one_poisoned(capsys: pytest.CaptureFixture[str]) -> None:
    """1,000 tasks, 2,000 waiters, one bad id: few requests, prompt waking, only the bad one does not finish."""
    service = Service(latency=0.05)
    service.poisoned = {"t137"}
    poller = service.poller()
    rng = random.Random(5)
    start = anyio.current_time()
    woken: dict[str, list[float]] = {f"t{n}": [] for n in range(1000)}
    service.finish_at = {uid: start + rng.uniform(0, 10) for uid in woken}
    vanished: list[float] = []
    open_tasks: list[tuple[float, int]] = []

    async def wait(uid: str) -> None:
        try:
            await poller.wait(uid, timeout=60)
        except TaskVanishedError:
            vanished.append(anyio.current_time())
        else:
            woken[uid].append(anyio.current_time() - service.finish_at[uid])

    fetch = service.fetch

    async def counting(uids: Sequence[str]) -> list[TaskDetail]:
        open_tasks.append((anyio.current_time(), poller.watched))
        return await fetch(uids)

    poller._fetch = counting
    async with running(poller), anyio.create_task_group() as waiters:
        for uid in woken:
            waiters.start_soon(wait, uid)
            waiters.start_soon(wait, uid)

    delays = [delay for delays in woken.values() for delay in delays]
    print("median", statistics.median(delays), "max", max(delays), "polls", len(service.polls), vanished)
    for at, watched in open_tasks:
        window = [time for time, _ in open_tasks if at <= time < at + 0.5 - 1e-9]
        assert len(window) <= math.ceil(watched / 100)
    assert 2 * 999 == len(delays)
    assert 2 == len(vanished)
    assert statistics.median(delays) <= 0.5
