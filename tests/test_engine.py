"""Tests of how reads are asked, retried and judged, through a session."""

from __future__ import annotations

import random
import tracemalloc
import zlib
from typing import TYPE_CHECKING

import anyio
import pytest
from fault_server import FaultServer, after_reading, answering, details, in_turn, service
from jobs import CREDENTIALS, QUICK, session

from picpik_async import Dialect, PicpikSession, RetryPolicy, TaskStatus
from picpik_async.errors import (
    ApiError,
    HttpStatusError,
    InvalidRequestError,
    MalformedAnswerError,
    PicpikError,
    RequestTimeoutError,
    TaskVanishedError,
    TransportError,
)
from picpik_async.testing import Answer, FakeTransport

if TYPE_CHECKING:
    from collections.abc import Callable

    from fault_server import Exchange

pytestmark = pytest.mark.anyio

BALANCE = {"RetCode": 0, "TotalCredits": 10, "UsedCredits": 3}


@pytest.mark.parametrize(
    ("script", "kind", "attempts"),
    [
        pytest.param(answering({"RetCode": 8, "Message": "no"}), ApiError, 1, id="RetCode"),
        pytest.param(answering(b"", status=401), HttpStatusError, 1, id="401"),
        pytest.param(answering(b"", status=302, headers={"Location": "/x"}), HttpStatusError, 1, id="302"),
        pytest.param(answering(b"", status=503), HttpStatusError, 3, id="503"),
        pytest.param(answering(b"<html>"), MalformedAnswerError, 3, id="HTML"),
        pytest.param(answering([]), MalformedAnswerError, 3, id="list"),
        pytest.param(answering({}), MalformedAnswerError, 3, id="empty"),
        pytest.param(answering({"RetCode": 0}), MalformedAnswerError, 3, id="no balance"),
        pytest.param(after_reading(lambda exchange: exchange.reset()), TransportError, 3, id="RST"),
        pytest.param(after_reading(lambda exchange: exchange.reset(), size=5), TransportError, 3, id="early RST"),
    ],
)
async def test_bad_answer(script: Callable[[Exchange], None], kind: type[PicpikError], attempts: int) -> None:
    """A bad answer to a query gives a typed error, after as many attempts as make sense."""
    with FaultServer(script) as server:
        async with session(server.url) as picpik:
            with pytest.raises(kind) as caught:
                await picpik.balance()

        assert kind is type(caught.value)
        assert caught.value.request_uuid
        assert attempts == len(server.requests)


@pytest.mark.parametrize(
    "first",
    [
        pytest.param(answering(b"", status=500), id="500"),
        pytest.param(answering(b"", status=429, headers={"Retry-After": "0"}), id="429"),
        pytest.param(answering(b"", status=503, headers={"Retry-After": "soon"}), id="503 illegible"),
        pytest.param(answering({"RetCode": 77}), id="throttled"),
        pytest.param(answering(b"<html>"), id="HTML"),
        pytest.param(after_reading(lambda exchange: exchange.reset()), id="RST"),
        pytest.param(after_reading(lambda exchange: exchange.hang()), id="hang"),
    ],
)
async def test_retried(first: Callable[[Exchange], None]) -> None:
    """A failure that may pass is tried again."""
    with FaultServer(first, answering(BALANCE)) as server:
        async with session(server.url, dialect=Dialect(throttle_ret_codes=frozenset({77})), limits=QUICK) as picpik:
            balance = await picpik.balance()

        assert 7 == balance.remaining_credits
        assert 2 == len(server.requests)


async def test_who_asks_for_too_much_time_gets_no_other_try() -> None:
    """A pause beyond `RetryPolicy.max_retry_after` is left to the caller, who is told how long it is."""
    with FaultServer(answering(b"", status=429, headers={"Retry-After": "86400"})) as server:
        async with session(server.url) as picpik:
            with pytest.raises(HttpStatusError, match="HTTP 429; the service asks to wait 86400 s") as caught:
                await picpik.balance()

        assert 86400 == caught.value.retry_after
        assert 1 == len(server.requests)


def outage(share: float) -> FakeTransport:
    """A service that fails for a *share* of the requests."""
    rng = random.Random(1)
    return FakeTransport(lambda _request: BALANCE if rng.random() >= share else TransportError(stage="headers"))


async def ask_often(transport: FakeTransport, count: int) -> int:
    """Ask *count* times, 100 at once; how often that failed."""
    failures = 0

    async def ask() -> None:
        nonlocal failures
        for _ in range(count // 100):
            try:
                await picpik.balance()
            except TransportError:
                failures += 1

    retry = RetryPolicy(base_delay=0)
    async with (
        PicpikSession(CREDENTIALS, transport=transport, retry=retry) as picpik,
        anyio.create_task_group() as group,
    ):
        for _ in range(100):
            group.start_soon(ask)
    return failures


async def test_retries_add_little_to_the_load() -> None:
    """Where one request in twenty fails, there are about that many retries, and all calls succeed."""
    transport = outage(0.05)

    assert 0 == await ask_often(transport, 2000)
    assert 2000 < len(transport.requests) <= 1.1 * 2000


async def test_an_outage_is_not_made_worse() -> None:
    """Where everything fails, the whole session retries 35 times, however much it asks."""
    transport = outage(1)

    assert 10_000 == await ask_often(transport, 10_000)
    assert 10_000 + 500 // 14 == len(transport.requests)


@pytest.mark.parametrize(("seconds", "attempts"), [(0.1, 1), (60, 2)])
async def test_no_try_begins_after_the_deadline(seconds: float, attempts: int) -> None:
    """Who has no time for the pause, by the cancel scope they ask in, gets the error at once."""
    transport = FakeTransport(lambda _request: Answer(429, b"", retry_after=0.2))
    retry = RetryPolicy(attempts=2, throttle_delay=0)
    async with PicpikSession(CREDENTIALS, transport=transport, retry=retry) as picpik:
        start = anyio.current_time()
        with pytest.raises(HttpStatusError), anyio.fail_after(seconds):
            await picpik.balance()

        assert (attempts > 1) == (anyio.current_time() - start > 0.1)
        assert attempts == len(transport.requests)


async def test_hanging_query() -> None:
    """A query without an answer ends with the last attempt's timeout."""
    with FaultServer(lambda exchange: exchange.hang()) as server:
        async with session(server.url, limits=QUICK, retry=RetryPolicy(attempts=1)) as picpik:
            with pytest.raises(RequestTimeoutError):
                await picpik.balance()


async def test_bomb() -> None:
    """2 GiB in 2 MiB end as a malformed answer, and cost little memory."""
    pack = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = pack.compress(bytes(16 * 1024**2)) + pack.flush(zlib.Z_FULL_FLUSH)
    bomb = b"\x1f\x8b\x08\0\0\0\0\0\0\xff" + block * 128
    with FaultServer(answering(bomb, headers={"Content-Encoding": "gzip"})) as server:
        async with session(server.url, retry=RetryPolicy(attempts=1)) as picpik:
            tracemalloc.start()
            try:
                with pytest.raises(MalformedAnswerError):
                    await picpik.balance()
                _, peak = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()

    assert peak < 64 * 1024**2


@pytest.mark.parametrize(
    "bad",
    [
        pytest.param(answering({"RetCode": 8}), id="RetCode"),
        pytest.param(answering(b"<html>"), id="HTML"),
        pytest.param(answering([]), id="list"),
        pytest.param(answering(b"", status=500), id="500"),
        pytest.param(answering(b"", status=429, headers={"Retry-After": "0.01"}), id="429"),
        pytest.param(after_reading(lambda exchange: exchange.reset()), id="RST"),
        pytest.param(after_reading(lambda exchange: exchange.hang()), id="hang"),
        pytest.param(answering({"RetCode": 0, "TaskDetailList": None}), id="null list"),
        pytest.param(answering({"RetCode": 0, "TaskDetailList": [7, {}, {"TaskUID": "other"}]}), id="other rows"),
        pytest.param(details(status="Dreaming", Colour="blue"), id="unknown word and field"),
        pytest.param(details(status="Finished", ErrorCode="7"), id="bad row"),
    ],
)
async def test_bad_poll_is_no_failed_task(bad: Callable[[Exchange], None]) -> None:
    """Whatever a poll answers, the task is asked about again."""
    with FaultServer(service(ListTasksDetails=in_turn(bad, bad, details(status="Finished", Seed=7)))) as server:
        async with session(server.url, limits=QUICK) as picpik:
            result = await picpik.task("a-task").wait()

        assert 7 == result.seed
        assert 3 <= len(server.actions) + sum(not request.complete for request in server.requests)


async def test_queries() -> None:
    """The query Actions give their types."""
    answers = {
        "ListModels": {"RetCode": 0, "MainModels": {"a": {"ModelCode": "PICPIK General"}}},
        "ListRunningTasks": {"RetCode": 0, "TaskUIDList": ["one", "two"]},
        "ListTasksDetails": {"RetCode": 0, "TaskDetailList": [{"TaskUID": "two", "Status": "Running"}]},
    }
    transport = FakeTransport(lambda request: answers[request["Action"]])
    async with PicpikSession(CREDENTIALS, transport=transport) as picpik:
        models = await picpik.models()
        one, two = await picpik.running_tasks()
        detail = await two.detail()
        with pytest.raises(TaskVanishedError, match="does not know task one") as caught:
            await one.detail()

    assert "PICPIK General" == models.main_models["a"].model_code
    assert ("one", "two") == (one.uid, two.uid)
    assert TaskStatus.RUNNING is detail.status
    assert "one" == caught.value.task_uid


async def test_only_queries_are_called() -> None:
    """A job, or anything else, is no query; nothing is sent."""
    transport = FakeTransport(lambda _request: {})
    async with PicpikSession(CREDENTIALS, transport=transport) as picpik:
        with pytest.raises(InvalidRequestError, match=r"not dict; use submit\(\) or run\(\) for jobs"):
            await picpik.call({})  # type: ignore[arg-type]

    assert [] == transport.requests
