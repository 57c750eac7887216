"""Tests of worker threads under limits and cancellation."""

from __future__ import annotations

import asyncio
import gc
import threading
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from picpik_async._threads import in_thread

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

pytestmark = pytest.mark.anyio
SECONDS = 10


class Work:
    """Blocking work that goes on until it is let go, and counts how much of it runs at once."""

    def __init__(self) -> None:
        self.go_on = threading.Event()
        self.running = 0
        self.most = 0
        self._lock = threading.Lock()

    def __call__(self) -> None:
        """Block."""
        with self._lock:
            self.running += 1
            self.most = max(self.most, self.running)
        self.go_on.wait(SECONDS)
        with self._lock:
            self.running -= 1


async def reached(condition: Callable[[], bool]) -> None:
    """Wait for what threads do."""
    with anyio.fail_after(SECONDS):
        while not condition():  # noqa: ASYNC110 - threads set no event of ours
            await anyio.sleep(0.001)


async def freed(limiter: anyio.CapacityLimiter) -> None:
    """Wait until nobody has a place."""
    await reached(lambda: not limiter.borrowed_tokens)


async def test_result_and_error() -> None:
    """What the work returns or raises is the caller's, and the place is free again."""
    limiter = anyio.CapacityLimiter(1)

    assert 7 == await in_thread(int, "7", limiter=limiter)
    with pytest.raises(ValueError, match="invalid literal"):
        await in_thread(int, "x", limiter=limiter)
    assert 0 == limiter.borrowed_tokens


async def by_cancel(call: Callable[[], Awaitable[None]]) -> None:
    """Start and cancel natively."""
    task = asyncio.ensure_future(call())
    await anyio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def by_timeout(call: Callable[[], Awaitable[None]]) -> None:
    """Start and let asyncio's timeout end it."""
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await call()


@pytest.mark.parametrize("end", [by_cancel, by_timeout])
async def test_the_limit_holds_under_native_cancellation(end: Callable[..., Coroutine[Any, Any, None]]) -> None:
    """A thread whose caller is gone still counts."""
    limiter, work = anyio.CapacityLimiter(2), Work()
    async with anyio.create_task_group() as group:
        for _ in range(10):
            group.start_soon(end, lambda: in_thread(work, limiter=limiter))
    await reached(lambda: work.running == 2)
    assert 2 == limiter.borrowed_tokens

    work.go_on.set()
    await freed(limiter)

    assert 2 == work.most
    assert 7 == await in_thread(int, "7", limiter=limiter)


async def test_cancelled_before_the_thread_starts() -> None:
    """A caller cancelled at the very start leaves no place taken."""
    limiter = anyio.CapacityLimiter(1)
    for steps in range(6):
        task = asyncio.ensure_future(in_thread(int, "7", limiter=limiter))
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        await freed(limiter)


async def test_an_error_nobody_sees_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    """The caller is gone, and asyncio says nothing about the exception."""
    limiter, work = anyio.CapacityLimiter(1), Work()

    def fail() -> None:
        work()
        raise OSError

    task = asyncio.ensure_future(in_thread(fail, limiter=limiter))
    await reached(lambda: work.running == 1)
    task.cancel()
    await asyncio.wait([task])
    del task
    work.go_on.set()
    await freed(limiter)
    gc.collect()

    assert [] == caplog.messages


async def test_anyio_cancellation_leaves_the_thread_behind() -> None:
    """Who is cancelled does not wait for the work, which keeps its place until it ends."""
    limiter, work = anyio.CapacityLimiter(1), Work()
    async with anyio.create_task_group() as group:
        group.start_soon(lambda: in_thread(work, limiter=limiter))
        await reached(lambda: work.running == 1)
        group.cancel_scope.cancel()

    assert (1, 1) == (work.running, limiter.borrowed_tokens)
    work.go_on.set()
    await freed(limiter)


async def test_waiting_for_a_place_ends_at_once() -> None:
    """Who has no thread yet need not wait for one to be cancelled."""
    limiter, work = anyio.CapacityLimiter(1), Work()
    async with anyio.create_task_group() as group:
        group.start_soon(lambda: in_thread(work, limiter=limiter))
        await reached(lambda: work.running == 1)
        with anyio.move_on_after(0.01) as scope:
            await in_thread(work, limiter=limiter)
        work.go_on.set()

    assert scope.cancelled_caught
    assert 1 == work.most


def test_the_end_of_the_loop_frees_the_place() -> None:
    """A loop that ends while a thread is at work leaves the limiter usable in the next loop."""
    limiter, work = anyio.CapacityLimiter(1), Work()

    async def abandon() -> None:
        task = asyncio.ensure_future(in_thread(work, limiter=limiter))
        await reached(lambda: work.running == 1)
        task.cancel()

    asyncio.run(abandon())
    work.go_on.set()

    async def again() -> int:
        return await in_thread(int, "7", limiter=limiter)

    assert 7 == asyncio.run(again())
