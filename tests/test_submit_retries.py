"""Tests of what is tried again after a submit that the service has certainly not taken, and of what is not."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import pytest
from clocks import SkippingLoop, skip
from jobs import CREDENTIALS, UUID, job
from shaky_disk import ShakyDisk

from picpik_async import Dialect, PicpikSession, RetryPolicy
from picpik_async._entries import JobState, JournalEntry
from picpik_async._journal import Journal
from picpik_async._retry import RetryBudget
from picpik_async.errors import (
    ApiError,
    HttpStatusError,
    JournalError,
    PicpikError,
    SubmitOutcomeUnknownError,
    SubmitPausedError,
    TransportError,
)
from picpik_async.testing import Answer, FakeTransport

if TYPE_CHECKING:
    from pathlib import Path

    from picpik_async._body import Body
    from picpik_async._transport import BeforeTail

pytestmark = pytest.mark.anyio

TAKEN: dict[str, Any] = {"RetCode": 0, "TaskUID": "a-task"}
RESET = TransportError("reset", stage="send")
BUSY = Answer(429, b"")
AT_ONCE = RetryPolicy(base_delay=0, throttle_delay=0)


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """On a loop whose clock can be moved."""
    return "asyncio", {"loop_factory": SkippingLoop}


class Attempts(FakeTransport):
    """A transport for as many attempts as it is given ends: a `TransportError` comes before the tail, all else after."""

    def __init__(self, *ends: Any) -> None:
        super().__init__(lambda _request: self._ends.pop(0))
        self._ends = list(ends)
        self.attempts = 0

    async def send(self, body: Body, *, before_tail: BeforeTail | None = None) -> Answer:
        """Take part of the request, or all of it."""
        self.attempts += 1
        if isinstance(self._ends[0], TransportError):
            raise self._ends.pop(0)
        return await super().send(body, before_tail=before_tail)

    @property
    def left(self) -> int:
        """How many ends there are left."""
        return len(self._ends)


async def failure(transport: FakeTransport, **options: Any) -> PicpikError:
    """Submit, and return the error."""
    async with PicpikSession(CREDENTIALS, transport=transport, **({"retry": AT_ONCE} | options)) as picpik:
        with pytest.raises(PicpikError) as caught:
            await picpik.submit(job(), request_uuid=UUID)
    assert UUID == caught.value.request_uuid
    return caught.value


@pytest.mark.parametrize("first", [RESET, TransportError("refused", stage="connect"), BUSY, Answer(425, b"")])
@pytest.mark.parametrize("second", [RESET, BUSY])
async def test_third_attempt_is_taken(first: Any, second: Any) -> None:
    """What is certainly not taken is sent again, under the same uuid, and paid once."""
    transport = Attempts(first, second, TAKEN)
    async with PicpikSession(CREDENTIALS, transport=transport, retry=AT_ONCE) as picpik:
        task = await picpik.submit(job(), request_uuid=UUID)

        assert "a-task" == task.uid
        assert {} == picpik.unknown_submits
    assert {UUID} == {request["request_uuid"] for request in transport.requests}
    assert 3 == transport.attempts


@pytest.mark.parametrize("end", [RESET, BUSY])
async def test_three_attempts_are_all(end: Any) -> None:
    """There is no fourth attempt."""
    transport = Attempts(end, end, end, TAKEN)
    await failure(transport)

    assert 1 == transport.left


@pytest.mark.parametrize(
    ("end", "kind"),
    [
        pytest.param(RuntimeError("broken"), SubmitOutcomeUnknownError, id="after the tail"),
        pytest.param(Answer(503, b""), SubmitOutcomeUnknownError, id="503"),
        pytest.param({"RetCode": 7}, ApiError, id="RetCode"),
        pytest.param(Answer(400, b""), HttpStatusError, id="400"),
        pytest.param(TransportError("proxy", stage="connect", retries=0), TransportError, id="hopeless"),
        pytest.param(TransportError("lost", stage="headers"), TransportError, id="odd stage"),
        pytest.param(Answer(429, b"", retry_after=61), HttpStatusError, id="long wish"),
    ],
)
async def test_not_tried_again(end: Any, kind: type[PicpikError]) -> None:
    """What may be paid, what will not change, and what is to wait too long is not sent again."""
    transport = Attempts(end, TAKEN)
    error = await failure(transport)

    assert kind is type(error)
    assert 1 == transport.left


async def test_error_that_is_worth_one_retry() -> None:
    """A name that does not exist is looked up a second time, and no third time."""
    lost = TransportError("no such host", stage="connect", retries=1)
    transport = Attempts(lost, lost, TAKEN)
    await failure(transport)

    assert 1 == transport.left


async def test_longest_wish_is_the_policys() -> None:
    """Who would wait no longer than a second is told at once of a server that wants five."""
    transport = Attempts(Answer(429, b"", retry_after=5), TAKEN)
    error = await failure(transport, retry=RetryPolicy(max_retry_after=1))

    assert isinstance(error, HttpStatusError)
    assert 5 == error.retry_after
    assert 1 == transport.left


@pytest.mark.parametrize("code", [9, 10])
async def test_throttled(code: int) -> None:
    """A `RetCode` that only means "slow down" is tried again, others are not."""
    transport = Attempts({"RetCode": code}, TAKEN)
    async with PicpikSession(
        CREDENTIALS, transport=transport, retry=AT_ONCE, dialect=Dialect(throttle_ret_codes={9})
    ) as picpik:
        if code == 9:
            await picpik.submit(job())
        else:
            with pytest.raises(ApiError):
                await picpik.submit(job())

    assert (code == 10) is (transport.left == 1)


async def paused(transport: Attempts) -> None:
    """Wait until the first attempt is over, and the pause has begun."""
    ends = transport.left
    while ends == transport.left:
        await anyio.lowlevel.checkpoint()
    await anyio.wait_all_tasks_blocked()


async def test_retry_after_is_waited_for() -> None:
    """The service says how long to wait."""
    transport = Attempts(Answer(429, b"", retry_after=12), TAKEN)
    async with PicpikSession(CREDENTIALS, transport=transport, retry=AT_ONCE) as picpik:
        submitting = asyncio.create_task(picpik.submit(job()))
        await paused(transport)
        skip(11.5)
        await anyio.wait_all_tasks_blocked()
        assert 1 == transport.attempts
        skip(0.5)
        await submitting

    assert 2 == transport.attempts


async def test_no_attempt_after_the_deadline() -> None:
    """A pause that would last beyond the caller's timeout is not begun: the error is told while there is time."""
    transport = Attempts(Answer(429, b"", retry_after=12), TAKEN)
    async with PicpikSession(CREDENTIALS, transport=transport, retry=AT_ONCE) as picpik:
        with pytest.raises(HttpStatusError):
            await picpik.run(job(), timeout=11)

    assert 1 == transport.left


async def test_empty_budget() -> None:
    """When the session has no retries left, a submit fails at once."""
    transport = Attempts(*[RESET] * 100)
    retry = RetryPolicy(base_delay=0, throttle_delay=0, submit_attempts=100)
    await failure(transport, retry=retry)

    assert 36 == transport.attempts


async def test_retries_are_paid_back() -> None:
    """A retry that leads to a task costs nothing in the end."""
    ends = [RESET, BUSY, TAKEN] * 40
    transport = Attempts(*ends, *[RESET] * 100)
    retry = RetryPolicy(base_delay=0, throttle_delay=0, submit_attempts=100)
    async with PicpikSession(CREDENTIALS, transport=transport, retry=retry) as picpik:
        for _ in range(40):
            await picpik.submit(job())
        with pytest.raises(TransportError):
            await picpik.submit(job())

    assert len(ends) + 36 == transport.attempts


@pytest.mark.parametrize("end", [RESET, Answer(429, b"", retry_after=30)])
async def test_cancelled_during_the_pause(end: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Whoever is cancelled between two attempts has not paid, and never does."""
    transport = Attempts(end, TAKEN)
    async with PicpikSession(CREDENTIALS, transport=transport, retry=RetryPolicy(base_delay=60)) as picpik:
        submitting = asyncio.create_task(picpik.submit(job()))
        await paused(transport)
        submitting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await submitting
        skip(100)
        await anyio.wait_all_tasks_blocked()

        assert ({}, ()) == (picpik.unknown_submits, picpik.tasks)
    assert 1 == transport.left
    assert [] == caplog.records


async def test_closed_during_the_pause() -> None:
    """A session that closes does not wait for a pause, and its submit was not paid."""
    transport = Attempts(Answer(429, b"", retry_after=30), TAKEN)
    picpik = PicpikSession(CREDENTIALS, transport=transport, retry=AT_ONCE)
    submitting = asyncio.create_task(picpik.submit(job()))
    await paused(transport)
    await picpik.aclose()

    with pytest.raises(TransportError, match="nothing was paid"):
        await submitting
    assert 1 == transport.left


@pytest.mark.parametrize("closing", [False, True])
async def test_turned_away_when_nobody_waits(closing: bool) -> None:
    """A refusal that comes after the caller has gone is not tried again: nobody asked for what would be paid."""
    gate = anyio.Event()
    attempts: list[str] = []

    async def busy(request: dict[str, Any]) -> Answer:
        attempts.append(request["request_uuid"])
        await gate.wait()
        return BUSY

    picpik = PicpikSession(CREDENTIALS, transport=FakeTransport(busy), retry=AT_ONCE)
    submitting = asyncio.create_task(picpik.submit(job(), request_uuid=UUID))
    while not attempts:
        await anyio.lowlevel.checkpoint()
    leaving = asyncio.create_task(picpik.aclose() if closing else asyncio.sleep(0))
    if not closing:
        submitting.cancel()
    await anyio.wait_all_tasks_blocked()
    gate.set()
    await asyncio.wait([submitting])
    await leaving
    await picpik.aclose()

    assert [UUID] == attempts
    assert {} == picpik.unknown_submits
    assert submitting.cancelled() or isinstance(submitting.exception(), HttpStatusError)


async def test_breaker_opens_between_attempts() -> None:
    """Attempts stop when the outcomes of others have become unknown meanwhile."""
    transport = Attempts(Answer(429, b"", retry_after=9), *[RuntimeError("lost")] * 3, TAKEN)
    async with PicpikSession(CREDENTIALS, transport=transport, retry=AT_ONCE) as picpik:
        submitting = asyncio.create_task(picpik.submit(job(), request_uuid=UUID))
        await paused(transport)
        for _ in range(3):
            with pytest.raises(SubmitOutcomeUnknownError):
                await picpik.submit(job())
        skip(9)
        with pytest.raises(SubmitPausedError):
            await submitting

        assert UUID not in picpik.unknown_submits
    assert 1 == transport.left


async def test_busy_answers_do_not_hide_an_outage() -> None:
    """Between unknown outcomes some are turned away: three unknown ones pause the submits all the same."""
    ends = (RuntimeError("lost"), BUSY, RuntimeError("lost"), Answer(200, b'{"RetCode": 7}'), RuntimeError("lost"))
    transport = Attempts(*ends)
    options: Any = {"retry": RetryPolicy(submit_attempts=1), "dialect": Dialect(throttle_ret_codes=frozenset({7}))}
    async with PicpikSession(CREDENTIALS, transport=transport, **options) as picpik:
        for _ in ends:
            with pytest.raises((SubmitOutcomeUnknownError, HttpStatusError, ApiError)):
                await picpik.submit(job())
        with pytest.raises(SubmitPausedError, match="3 in a row, 3 of the last 3"):
            await picpik.submit(job())

    assert 0 == transport.left


async def test_busy_answer_to_the_probe() -> None:
    """A busy service does not end the pause: the next submit is tried alone, and its unknown outcome pauses again."""
    transport = Attempts(*[RuntimeError("lost")] * 3, BUSY, RuntimeError("lost"))
    retry = RetryPolicy(submit_attempts=1, submit_pause=30)
    async with PicpikSession(CREDENTIALS, transport=transport, retry=retry) as picpik:
        for _ in range(3):
            with pytest.raises(SubmitOutcomeUnknownError):
                await picpik.submit(job())
        skip(30)
        with pytest.raises(HttpStatusError):
            await picpik.submit(job())
        with pytest.raises(SubmitOutcomeUnknownError):
            await picpik.submit(job())
        with pytest.raises(SubmitPausedError):
            await picpik.submit(job())

    assert 0 == transport.left


async def test_interrupted_owner_does_not_forget() -> None:
    """What was unknown, and what retries have cost, is kept when the session opens anew after an interrupt."""
    transport = Attempts(RESET, *[RuntimeError("lost")] * 3)
    async with PicpikSession(CREDENTIALS, transport=transport, retry=AT_ONCE) as picpik:
        for _ in range(3):
            with pytest.raises(SubmitOutcomeUnknownError):
                await picpik.submit(job())
        first = await picpik._open()
        first.owner.cancel()
        await asyncio.wait([first.owner])
        with pytest.raises(SubmitPausedError):
            await picpik.submit(job())
        second = await picpik._open()

        assert first is not second
        assert RetryBudget.CAPACITY - RetryBudget.TRANSIENT_COST == second.budget.tokens


async def test_transport_that_repeats_by_itself() -> None:
    """A transport of one's own that tries again after the tail does not get it twice."""
    sent: list[bytes] = []

    class Stubborn(FakeTransport):
        async def send(self, body: Body, *, before_tail: BeforeTail | None = None) -> Answer:
            assert before_tail is not None
            await before_tail()
            sent.append(body.tail())
            await before_tail()
            sent.append(body.tail())
            return Answer(200, b"")

    async with PicpikSession(CREDENTIALS, transport=Stubborn(lambda _request: {})) as picpik:
        with pytest.raises(SubmitOutcomeUnknownError, match="asked for the tail a second time"):
            await picpik.submit(job(), request_uuid=UUID)

    assert 1 == len(sent)


# --- with a journal ----------------------------------------------------------------------------------------------------


async def states(path: Path) -> list[JobState]:
    """How far the jobs on disk have come."""
    async with Journal(path) as journal:
        return [entry.state for entry in await journal.entries()]


async def test_journal_of_a_submit_that_was_turned_away_first(tmp_path: Path) -> None:
    """What the service turned away is not committed any more while it waits, and is one job in the end."""
    path = tmp_path / "jobs.sqlite"
    transport = Attempts(Answer(429, b"", retry_after=9), TAKEN)
    async with PicpikSession(CREDENTIALS, transport=transport, retry=AT_ONCE, journal=path) as picpik:
        submitting = asyncio.create_task(picpik.submit(job()))
        await paused(transport)
        (waiting,) = await picpik.recover()
        skip(9)
        await submitting
        (paid,) = await picpik.recover()

    assert (JobState.INTENT, JobState.ACK) == (waiting.state, paid.state)
    assert waiting.request_uuid == paid.request_uuid == transport.requests[1]["request_uuid"]


async def test_aborted_in_the_moment_of_the_commit(tmp_path: Path) -> None:
    """A submit that is aborted when its commit is on disk, but before it goes on, is not completed."""
    written = asyncio.get_running_loop().create_future()
    waiting = anyio.Event()

    class Slow(Journal):
        async def commit(self, entry: JournalEntry) -> None:
            await super().commit(entry)
            waiting.set()
            await written

    path, transport = tmp_path / "jobs.sqlite", Attempts(TAKEN)
    picpik = PicpikSession(CREDENTIALS, transport=transport, journal=path)
    picpik._new_journal = lambda: Slow(path)
    submitting = asyncio.create_task(picpik.submit(job()))
    await waiting.wait()
    (submit,) = (await picpik._open())._submits
    written.set_result(None)
    submit.abort()
    with pytest.raises(TransportError, match="nothing was paid"):
        await submitting
    await picpik.aclose()

    assert [] == transport.requests
    assert [JobState.INTENT] == await states(path)


@pytest.mark.parametrize("step", ["COMMIT", "INSERT"])
async def test_journal_that_cannot_be_written(tmp_path: Path, step: str) -> None:
    """If the commit is not on disk, the tail is not sent, and nothing is tried again."""
    path, transport, disk = tmp_path / "jobs.sqlite", Attempts(TAKEN), ShakyDisk()
    picpik = PicpikSession(CREDENTIALS, transport=transport, retry=AT_ONCE, journal=path)
    picpik._new_journal = lambda: Journal(path, connect=disk.connect)
    async with picpik:
        disk.failing = {step}
        with pytest.raises(JournalError):
            await picpik.submit(job())
        disk.failing = set()

    assert [] == transport.requests
    assert 1 == transport.attempts
    assert {JobState.INTENT} >= set(await states(path))
