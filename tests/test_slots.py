"""Tests of who is served first."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import pytest

from picpik_async._slots import RESULT_LIFETIME, Slots

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.anyio


async def serve(slots: Slots, expires: float, served: list[float], go_on: anyio.Event | None = None) -> None:
    """Take a place, note it, and keep it for a while."""
    async with slots.held(expires):
        served.append(expires)
        await (go_on.wait() if go_on else anyio.lowlevel.checkpoint())


async def test_earliest_first() -> None:
    """Of those who wait, what expires first is next; equals are served as they came."""
    slots, served, go_on = Slots(1), list[float](), anyio.Event()
    async with anyio.create_task_group() as group:
        group.start_soon(serve, slots, 9.0, served, go_on)
        await anyio.wait_all_tasks_blocked()
        for expires in (5, 3, 8, 1, 3.0):
            group.start_soon(serve, slots, expires, served)
        await anyio.wait_all_tasks_blocked()
        assert [9] == served
        go_on.set()

    assert [9, 1, 3, 3.0, 5, 8] == served


@pytest.mark.parametrize("count", [1, 3])
async def test_bound(count: int) -> None:
    """No more run at once than there are places, and no place stays empty."""
    slots, running, most = Slots(count), 0, 0

    async def work(expires: float) -> None:
        nonlocal running, most
        async with slots.held(expires):
            running += 1
            most = max(most, running)
            await anyio.lowlevel.checkpoint()
            running -= 1

    async with anyio.create_task_group() as group:
        for expires in range(20):
            group.start_soon(work, expires)

    assert count == most


@pytest.mark.parametrize("granted", [False, True])
async def test_cancelled_waiter(granted: bool) -> None:
    """Who stops waiting, be it as his turn comes, leaves the place to the next."""
    slots, served, go_on = Slots(1), list[float](), anyio.Event()
    first = asyncio.ensure_future(serve(slots, 0, served, go_on))
    await anyio.wait_all_tasks_blocked()
    waiting = asyncio.ensure_future(serve(slots, 1, served))
    await anyio.wait_all_tasks_blocked()
    if granted:
        slots._leave()  # the turn is given, and its task has not run yet
        waiting.cancel()
        await asyncio.wait([waiting])
        slots._free -= 1
    else:
        waiting.cancel()
        await asyncio.wait([waiting])
    after = asyncio.ensure_future(serve(slots, 2, served))
    go_on.set()
    await asyncio.wait([first, after])

    assert waiting.cancelled()
    assert [0, 2] == served
    assert 1 == slots._free


async def test_many_cancelled_waiters() -> None:
    """Cancelled at any moment, no waiter takes a place with him."""
    slots = Slots(2)

    async def work(number: int) -> None:
        async with slots.held(number % 7):
            for _ in range(number % 5):
                await anyio.lowlevel.checkpoint()

    for round_ in range(30):
        tasks = [asyncio.ensure_future(work(number)) for number in range(20)]
        for _ in range(round_):
            await asyncio.sleep(0)
        for task in tasks[round_ % 3 :: 2]:
            task.cancel()
        await asyncio.wait(tasks)

    assert 2 == slots._free
    assert [] == [turn for turn in slots._waiting if not turn.over]


async def backlog(slots: Slots, expires: list[float], later: Callable[[], Any]) -> None:
    """Let some wait until the clock says something else."""
    go_on = anyio.Event()
    async with anyio.create_task_group() as group:
        group.start_soon(serve, slots, 0.0, [], go_on)
        await anyio.wait_all_tasks_blocked()
        for one in expires:
            group.start_soon(serve, slots, one, [])
        await anyio.wait_all_tasks_blocked()
        later()
        go_on.set()


async def test_late(caplog: pytest.LogCaptureFixture) -> None:
    """A backlog that eats half of the 24 hours is warned of once, and again if it comes again."""
    now = [1_000_000.0]
    slots = Slots(1, clock=lambda: now[0])
    set_clock = partial(now.__setitem__, 0)
    fresh = now[0] + RESULT_LIFETIME

    await backlog(slots, [fresh] * 3, partial(set_clock, now[0] + 11 * 3600))
    await backlog(slots, [now[0] + 3600], lambda: None)  # came late, did not wait
    assert [] == caplog.messages

    await backlog(slots, [now[0] + RESULT_LIFETIME] * 3, partial(set_clock, now[0] + 13 * 3600))
    assert 1 == len(caplog.messages)
    assert "3 results wait, the first for so long that it expires in less than 12 hours" in caplog.text

    await backlog(slots, [now[0] + RESULT_LIFETIME], partial(set_clock, now[0] + 13 * 3600))
    assert 2 == len(caplog.messages)
