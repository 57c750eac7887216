"""How long each stage of an exchange may take, in virtual time."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import anyio
import pytest
import trio.testing

from picpik_async import Limits
from picpik_async._patience import Patience
from picpik_async.errors import RequestTimeoutError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

pytestmark = pytest.mark.anyio

LIMITS = Limits(connect_timeout=5, stall_timeout=20, min_upload_rate=1000, request_timeout=60)


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, object]]:
    """Trio with a clock that jumps to the next timer."""
    return "trio", {"clock": trio.testing.MockClock(autojump_threshold=0)}


async def end_of(
    course: Callable[[Patience], Awaitable[None]], *, min_rate: float = math.inf
) -> tuple[float, str, str]:
    """When an exchange that takes this *course*, and then stands still, is given up; at which stage, and why."""
    start = anyio.current_time()
    with anyio.CancelScope() as scope:
        patience = Patience(scope, LIMITS, min_rate=min_rate)
        await course(patience)
        await anyio.sleep_forever()
    error = patience.error("localhost")
    assert isinstance(error, RequestTimeoutError)
    assert patience.stage == error.stage
    return round(anyio.current_time() - start, 6), patience.stage, str(error)


async def upload(patience: Patience, *, size: int, pause: float, times: int) -> None:
    """Pieces of *size* bytes that take *pause* each."""
    await anyio.sleep(3)
    patience.start_sending()
    for _ in range(times):
        await anyio.sleep(pause)
        patience.note_sent(size)


async def test_connecting() -> None:
    """No connection."""

    async def nowhere(_patience: Patience) -> None: ...

    assert (5, "connect", "connect: no connection within 5 s with localhost (Limits.connect_timeout)") == await end_of(
        nowhere
    )


@pytest.mark.parametrize("times", [0, 1, 1000])
async def test_fast_upload_that_stalls(times: int) -> None:
    """However much has left: a standstill is one."""

    async def course(patience: Patience) -> None:
        await upload(patience, size=10_000, pause=1, times=times)

    message = "send: no progress for 20 s with localhost (Limits.stall_timeout)"
    assert (3 + times + 20, "send", message) == await end_of(course)


@pytest.mark.parametrize(("size", "end"), [(100, 20), (500, 30), (900, 190)])
async def test_slow_upload(size: int, end: float) -> None:
    """The slower, the sooner it ends; what is too slow by a little is given up late."""

    async def course(patience: Patience) -> None:
        await upload(patience, size=size, pause=1, times=100_000)

    moment, stage, message = await end_of(course)

    assert "send" == stage
    assert 3 + end <= moment <= 3 + end + 10
    assert "send: less than 1000 bytes/s were taken with localhost (Limits.min_upload_rate)" == message


async def test_what_we_wait_for_ourselves_does_not_count() -> None:
    """However long our own disk and threads take, the other end has the time it had, and the rate it must keep."""

    async def course(patience: Patience) -> None:
        patience.start_sending()
        for _ in range(5):
            await anyio.sleep(15)
            patience.note_sent(1000)  # one second
            patience.suspend()
            await anyio.sleep(100)
            patience.resume()

    assert (
        100 + 20 + 1,
        "send",
        "send: less than 1000 bytes/s were taken with localhost (Limits.min_upload_rate)",
    ) == await end_of(course)


async def test_upload_at_the_minimum_rate_goes_on() -> None:
    """An upload may take as long as its size asks for."""

    async def course(patience: Patience) -> None:
        await upload(patience, size=10_000, pause=10, times=1000)
        patience.start_waiting()

    message = "headers: no whole answer within 60 s with localhost (Limits.request_timeout)"
    assert (3 + 10_000 + 60, "headers", message) == await end_of(course)


async def test_speed_is_not_saved_up() -> None:
    """What was taken at once buys no more time than a standstill may take."""

    async def course(patience: Patience) -> None:
        await upload(patience, size=10**9, pause=0, times=1)
        await upload_more(patience)

    async def upload_more(patience: Patience) -> None:
        for _ in range(1000):
            await anyio.sleep(1)
            patience.note_sent(100)

    moment, _, message = await end_of(course)

    assert moment < 3 + 20 / 0.9 + 1
    assert "min_upload_rate" in message


async def test_answer_in_crumbs() -> None:
    """A body that never stands still has an end all the same, and one that does an earlier one."""

    async def crumbs(patience: Patience, *, count: int) -> None:
        patience.start_sending()
        patience.start_waiting()
        await anyio.sleep(30)
        patience.start_reading()
        for size in range(count):
            await anyio.sleep(1)
            patience.note_received(size)

    assert (
        30 + 60,
        "body",
        "body: no whole answer within 60 s with localhost (Limits.request_timeout)",
    ) == await end_of(lambda patience: crumbs(patience, count=10_000))
    assert (
        30 + 10 + 20,
        "body",
        "body: no progress for 20 s with localhost (Limits.stall_timeout)",
    ) == await end_of(lambda patience: crumbs(patience, count=10))


@pytest.mark.parametrize(("pace", "end"), [(50, 60 / (1 - 0.5)), (1, 60 / (1 - 0.01)), (0, 60)])
async def test_slow_body(pace: int, end: float) -> None:
    """A body that comes more slowly than it has to is given up the sooner the slower it is."""

    async def course(patience: Patience) -> None:
        patience.start_waiting()
        patience.start_reading()
        for second in range(1, 1000):
            await anyio.sleep(1)
            patience.note_received(pace * second)

    moment, stage, message = await end_of(course, min_rate=100)

    assert "body" == stage
    assert end - 1 <= moment <= end
    assert "body: less than 100 bytes/s came for longer than 60 s with localhost (Limits.request_timeout)" == message


async def test_body_at_the_minimum_rate_goes_on() -> None:
    """A body may take as long as its size asks for; what came fast buys no time for a standstill."""

    async def course(patience: Patience) -> None:
        patience.start_waiting()
        patience.start_reading()
        for second in range(1, 1001):
            await anyio.sleep(1)
            patience.note_received(100 * second)
        patience.note_received(10**9)

    message = "body: no progress for 20 s with localhost (Limits.stall_timeout)"
    assert (1000 + 20, "body", message) == await end_of(course, min_rate=100)


async def test_every_hop_connects_anew() -> None:
    """A redirect leads to another connection, which has its own time."""

    async def course(patience: Patience) -> None:
        for _ in range(3):
            await anyio.sleep(4)
            patience.start_waiting()
            await anyio.sleep(50)
            patience.start_connecting()

    message = "connect: no connection within 5 s with localhost (Limits.connect_timeout)"
    assert (3 * 54 + 5, "connect", message) == await end_of(course)
