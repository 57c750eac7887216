"""Tests of `PicpikSession.map`: bounds, order, leaving early, stopping, and going on where an earlier run was."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import logging
import sys
from collections import Counter
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, cast

import anyio
import attrs
import fault_server
import pytest
from fault_server import Exchange, FaultServer, answering, details, service
from jobs import CREDENTIALS, job, picture, session

from picpik_async import Dialect, JobState, Limits, Outcome, PicpikSession, PollPolicy, Progress, RetryPolicy
from picpik_async._brake import Brake
from picpik_async._journal import Journal
from picpik_async._types import CreditBalance
from picpik_async.emulator import Emulator
from picpik_async.errors import (
    ApiError,
    ConfigurationError,
    DownloadError,
    InvalidRequestError,
    PicpikError,
    ResultExpiredError,
    SubmitOutcomeUnknownError,
    SubmitPausedError,
    TaskFailedError,
    TaskTerminatedError,
    TaskVanishedError,
    TransportError,
)
from picpik_async.testing import Answer, FakeTransport

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    from picpik_async._requests import Job

JOB = job()
POLL = PollPolicy(tick=0.01, max_requests_per_second=200, timeout=10)
NO_CREDIT: dict[str, Any] = {"RetCode": 7, "Message": "no"}


class Studio:
    """A service for a `FakeTransport`, which keeps a ledger.

    Attributes:
        credits: how many it takes before it refuses.
        charges: `TaskUID`s by seed, in the order they came.
        polled: `TaskUID`s that were asked about.
        at_once: submits being answered, and the most there ever were.
        hold: submits are answered when it is set.
        finish: tasks end when it is set.
        failing: seeds of tasks that end badly.
        slow: seeds of tasks that end after the others.
        looks: how often the balance was asked for.
    """

    def __init__(self, *, purse: int = 10**9, cost: int = 2) -> None:
        self.credits = purse
        self.cost = cost
        self.charges: dict[int, str] = {}
        self.polled: Counter[str] = Counter()
        self.looks = 0
        self.at_once = self.most = 0
        self.hold = anyio.Event()
        self.hold.set()
        self.finish = anyio.Event()
        self.finish.set()
        self.failing: set[int] = set()
        self.slow: set[int] = set()

    async def __call__(self, request: dict[str, Any]) -> Any:
        """Answer a request."""
        if request["Action"] == "ListTasksDetails":
            return {"RetCode": 0, "TaskDetailList": [self.row(uid) for uid in request["TaskUIDList"]]}
        if request["Action"] == "GetCreditBalance":
            self.looks += 1
            left = self.credits - len(self.charges) * self.cost
            return {"RetCode": 0, "TotalCredits": left, "UsedCredits": 0}
        if (len(self.charges) + 1) * self.cost > self.credits:
            return NO_CREDIT
        seed = request["Seed"]
        assert seed not in self.charges, "paid twice"
        self.charges[seed] = f"task-{seed}"
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        await self.hold.wait()
        self.at_once -= 1
        return {"RetCode": 0, "TaskUID": f"task-{seed}"}

    def row(self, uid: str) -> dict[str, Any]:
        """A task."""
        self.polled[uid] += 1
        seed = int(uid.removeprefix("task-"))
        if seed in self.failing:
            return {"TaskUID": uid, "Status": "Error", "ErrorCode": 1}
        ended = self.finish.is_set() and not (seed in self.slow and self.polled[uid] < 4)
        return {
            "TaskUID": uid,
            "Status": "Finished" if ended else "Running",
            "ImgList": [],
            "ConsumeApiPoint": self.cost,
        }


def opened(studio: Any, **options: Any) -> PicpikSession:
    """A session with a studio."""
    transport = FakeTransport(studio)
    transport.requests = cast("list[dict[str, Any]]", _Nothing())  # 20,000 bodies are not to be kept
    settings: dict[str, Any] = {
        "poll": POLL,
        "retry": RetryPolicy(attempts=1, submit_attempts=1),
        "transport": transport,
    }
    return PicpikSession(CREDENTIALS, **(settings | options))


class _Nothing(list[Any]):
    def append(self, _item: object) -> None:
        """Forget it."""


def jobs(count: int) -> Iterator[Job]:
    """Requests, told apart by their seeds."""
    return (JOB.with_seed(number) for number in range(count))


def keyed(count: int) -> Iterator[tuple[str, Job]]:
    """The same with keys."""
    return ((f"job-{number}", request) for number, request in enumerate(jobs(count)))


def seeds(outcomes: list[Outcome]) -> list[int]:
    """What the outcomes are about."""
    return [cast("Any", outcome.request).seed for outcome in outcomes]


async def taken(outcomes: AsyncIterator[Outcome]) -> list[Outcome]:
    """All that is left."""
    return [outcome async for outcome in outcomes]


def at_work() -> list[str]:
    """The asyncio tasks of all sessions, besides their owners and pollers."""
    names = [task.get_name() for task in asyncio.all_tasks()]
    return [name for name in names if name.startswith("picpik_async.") and "Poller" not in name]


def names(folder: Path) -> list[str]:
    """What is in a folder."""
    return [file.name for file in folder.iterdir()]


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that sets no event."""
    with anyio.fail_after(5):
        while not condition():  # noqa: ASYNC110 - see above
            await anyio.sleep(0.005)


async def ended(picpik: PicpikSession) -> None:
    """Wait until nothing is at work in a session, and nobody waits for a task."""
    await until(lambda: not at_work())
    assert picpik._engine is not None
    assert 0 == picpik._engine.poller.watched


# --- one outcome per input -----------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_one_outcome_for_each() -> None:
    """Every input has its outcome, with what was asked and what came of it."""
    studio = Studio()
    studio.failing = {3}
    async with opened(studio) as picpik:
        outcomes = picpik.map(keyed(6))
        found = {outcome.key: outcome for outcome in await taken(outcomes)}

        assert {f"job-{number}" for number in range(6)} == set(found)
        assert ("task-1", 2, None) == (
            found["job-1"].task_uid,
            cast("Any", found["job-1"].result).cost,
            found["job-1"].error,
        )
        assert "task-3" == found["job-3"].task_uid
        assert isinstance(found["job-3"].error, TaskFailedError)
        assert [3] == seeds([found["job-3"]])
        assert Progress(pulled=6, submitted=6, done=5, failed=1, credits=10) == outcomes.progress
        assert [] == await taken(outcomes)
        assert [] == at_work()


@pytest.mark.anyio
@pytest.mark.parametrize("ordered", [True, False])
async def test_order(ordered: bool) -> None:
    """Outcomes come as they end, or in the order of the inputs."""
    studio = Studio()
    studio.slow = {0, 4}
    async with opened(studio) as picpik:
        order = seeds(await taken(picpik.map(jobs(8), ordered=ordered)))

    assert list(range(8)) == sorted(order)
    assert (order == sorted(order)) is ordered


@pytest.mark.anyio
async def test_what_is_no_request() -> None:
    """An input that is wrong is an outcome like others, and holds what was given."""
    given: list[Any] = [
        7,
        ("a", JOB, 1),
        (5, JOB),
        ("key", "no job"),
        ("half", type(JOB)()),
        ("good", JOB.with_seed(1)),
    ]
    async with opened(Studio()) as picpik:
        found = await taken(picpik.map(given, ordered=True))

        assert [InvalidRequestError] * 5 == [type(outcome.error) for outcome in found[:5]]
        assert [7, ("a", JOB, 1), JOB, "no job", type(JOB)(), JOB.with_seed(1)] == [
            outcome.request for outcome in found
        ]
        assert [None, None, None, "key", "half", "good"] == [outcome.key for outcome in found]
        assert found[5].error is None


@pytest.mark.anyio
async def test_surprise() -> None:
    """What nobody expected is the outcome of one input, and no loss of others."""

    @attrs.frozen(kw_only=True)
    class Odd(type(JOB)):  # type: ignore[misc]
        def check(self) -> None:
            raise ZeroDivisionError

    async with opened(Studio()) as picpik:
        found = await taken(picpik.map([Odd(), *jobs(3)], ordered=True))

    assert [ZeroDivisionError, type(None), type(None), type(None)] == [type(outcome.error) for outcome in found]


@pytest.mark.anyio
async def test_errors_hold_no_pictures(tmp_path: Path) -> None:
    """The frames an error came through are let go, those of its causes too."""
    with FaultServer(
        service(download=answering(b"no picture"), ListTasksDetails=details("http://localhost/a.png"))
    ) as server:
        async with session(server.url) as picpik:
            [outcome] = await taken(picpik.map(jobs(1), save_to=tmp_path))

        error = cast("Any", outcome.error)
        assert isinstance(error, DownloadError)
        assert outcome.result is not None
        assert error.__traceback__ is None
        assert error.__cause__ is None or error.__cause__.__traceback__ is None


# --- inputs --------------------------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_pulled_while_there_is_room() -> None:
    """Of 100,000 requests no more are pulled than may be in flight, whatever waits for the consumer."""
    pulled = itertools.count()
    given = (JOB.with_seed(next(pulled)) for _ in range(100_000))
    async with opened(Studio()) as picpik, aclosing(picpik.map(given, in_flight=20)) as outcomes:
        for _ in range(30):
            await anext(outcomes)
        await anyio.sleep(0.1)

        assert 50 == outcomes.progress.pulled == next(pulled)


@pytest.mark.anyio
async def test_waiting_holds_no_place_among_submits() -> None:
    """Two submits at once fill the room in flight, since those that wait for their task make way."""
    studio = Studio()
    studio.finish = anyio.Event()
    async with opened(studio) as picpik:
        outcomes = picpik.map(jobs(100), concurrency=2, in_flight=30)
        async with anyio.create_task_group() as group:
            group.start_soon(outcomes.__anext__)
            await until(lambda: len(studio.charges) == 30)
            await anyio.sleep(0.05)
            assert 30 == outcomes.progress.pulled
            studio.finish.set()
        await outcomes.aclose()

    assert 2 >= studio.most


@pytest.mark.anyio
async def test_submits_at_once() -> None:
    """No more are submitted at once than asked for."""
    studio = Studio()
    studio.hold = anyio.Event()
    async with opened(studio) as picpik:
        outcomes = picpik.map(jobs(20), concurrency=3)
        async with anyio.create_task_group() as group:
            group.start_soon(taken, outcomes)
            await anyio.sleep(0.1)
            assert (3, 3) == (studio.at_once, outcomes.progress.pulled)
            studio.hold.set()

    assert 3 == studio.most


@pytest.mark.anyio
async def test_saves_at_once(tmp_path: Path) -> None:
    """No more results are saved at once than `Limits.downloads` says, and no other bound shrinks by it."""
    now: list[int] = []
    most = [0]

    def download(exchange: Exchange) -> None:
        now.append(1)
        most[0] = max(most[0], len(now))
        fault_server.until(lambda: most[0] > 1)
        exchange.answer(picture())
        now.pop()

    def rows(exchange: Exchange) -> None:
        details(f"{server.url}/a.png")(exchange)

    with FaultServer(service(download=download, ListTasksDetails=rows)) as server:
        async with session(server.url, limits=Limits(downloads=2)) as picpik:
            found = await taken(picpik.map(jobs(12), save_to=tmp_path))

    assert 2 == most[0]
    assert 12 == len({file for outcome in found for file in outcome.files}) == len(names(tmp_path))
    assert picture() == found[0].files[0].read_bytes()


@pytest.mark.anyio
async def test_async_inputs() -> None:
    """An async generator is pulled the same way, and closed in the end."""
    closed = False

    async def given() -> AsyncIterator[Job]:
        nonlocal closed
        try:
            for request in jobs(5):
                await asyncio.sleep(0)
                yield request
        finally:
            await asyncio.sleep(0)
            closed = True

    async with opened(Studio()) as picpik:
        assert [0, 1, 2, 3, 4] == sorted(seeds(await taken(picpik.map(given()))))
        assert closed

        closed = False
        async with aclosing(picpik.map(given(), in_flight=1)) as outcomes:
            await anext(outcomes)
        assert closed


@pytest.mark.anyio
async def test_left_while_an_input_is_awaited() -> None:
    """An async generator that is waiting is cancelled where it waits, and closed."""
    closed = False

    async def given() -> AsyncIterator[Job]:
        nonlocal closed
        try:
            yield JOB
            await anyio.sleep_forever()
        finally:
            closed = True

    async with opened(Studio()) as picpik:
        async with aclosing(picpik.map(given())) as outcomes:
            await anext(outcomes)

        assert closed
        assert [] == at_work()


@pytest.mark.anyio
async def test_async_iterator_of_ones_own(caplog: pytest.LogCaptureFixture) -> None:
    """Anything with `__anext__` will do; closing it is a courtesy that may fail."""

    class Bare:
        def __init__(self) -> None:
            self.left = jobs(3)

        def __aiter__(self) -> Bare:
            return self

        async def __anext__(self) -> Job:
            for request in self.left:
                return request
            raise StopAsyncIteration

    class Stubborn(Bare):
        async def aclose(self) -> None:
            raise ZeroDivisionError

    studio = Studio()
    async with opened(studio) as picpik:
        assert 3 == len(await taken(picpik.map(Bare())))
        assert [] == caplog.records
        studio.charges.clear()
        assert 3 == len(await taken(picpik.map(Stubborn())))
        assert ["closing the iterable of requests raised ZeroDivisionError"] == caplog.messages


@pytest.mark.anyio
@pytest.mark.parametrize("kind", [ValueError, asyncio.CancelledError])
async def test_inputs_that_raise(kind: type[BaseException]) -> None:
    """What came before is finished first, then the iteration raises what the iterable raised, once."""

    async def given() -> AsyncIterator[Job]:
        for request in jobs(3):
            yield request
        raise kind

    async with opened(Studio()) as picpik:
        outcomes = picpik.map(given())
        found = [await anext(outcomes) for _ in range(3)]
        with pytest.raises(kind):
            await anext(outcomes)

        assert [0, 1, 2] == sorted(seeds(found))
        assert [] == await taken(outcomes)


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"requests": JOB}, "requests"),
        ({"concurrency": 0}, "concurrency"),
        ({"in_flight": True}, "in_flight"),
        ({"in_flight": "5"}, "in_flight"),
        ({"timeout": -1}, "timeout"),
        ({"save_to": 5}, "save_to"),
        ({"on_progress": 5}, "on_progress"),
        ({"on_progress": anyio.sleep}, "on_progress"),
        ({"on_progress": Studio()}, "on_progress"),
        ({"ordered": 1}, "ordered"),
    ],
)
async def test_arguments(options: dict[str, Any], field: str) -> None:
    """A wrong argument is told at once, by name."""
    with pytest.raises(InvalidRequestError) as caught:
        opened(Studio()).map(**({"requests": jobs(1)} | options))

    assert field == caught.value.field


# --- leaving -------------------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def unfinished() -> AsyncIterator[tuple[PicpikSession, Studio]]:
    """A session whose tasks end only until the eleventh comes, and in which nothing is at work in the end."""
    studio = Studio()

    async def play(request: dict[str, Any]) -> Any:
        if request.get("Seed") == 11:
            studio.finish = anyio.Event()
        return await studio(request)

    async with opened(play) as picpik:
        yield picpik, studio
        await ended(picpik)


@pytest.mark.anyio
async def test_leaving_the_loop() -> None:
    """Whoever leaves lets go of what is paid, which the session still knows; nothing more is pulled, no task is left."""
    pulled = itertools.count()
    async with unfinished() as (picpik, studio):
        async with aclosing(picpik.map((JOB.with_seed(next(pulled)) for _ in range(500)), in_flight=20)) as outcomes:
            async for _ in outcomes:
                break
        so_far = next(pulled)
        await ended(picpik)
        await anyio.sleep(0.05)

        assert so_far + 1 == next(pulled) <= 22
        assert set(studio.charges.values()) == {task.uid for task in picpik.tasks}
        assert [] == await taken(outcomes)


@pytest.mark.anyio
async def test_forgotten() -> None:
    """An iterator that nobody has any more ends its work by itself."""
    pulled = itertools.count()
    async with unfinished() as (picpik, studio):
        async for _ in picpik.map((JOB.with_seed(next(pulled)) for _ in range(500)), in_flight=20):
            break
        gc.collect()
        await ended(picpik)

        assert 22 >= next(pulled)
        assert set(studio.charges.values()) == {task.uid for task in picpik.tasks}


def test_forgotten_with_its_loop() -> None:
    """An iterator that outlives its loop is no trouble."""
    kept: list[Any] = []

    async def main() -> None:
        async with opened(Studio()) as picpik:
            kept.append(picpik.map(jobs(50), in_flight=5))
            await anext(kept[0])

    asyncio.run(main())
    kept.clear()
    gc.collect()


@pytest.mark.anyio
async def test_cancelled_consumer() -> None:
    """Cancelling whoever waits for an outcome ends the map, although somebody still has it."""
    studio = Studio()
    studio.finish = anyio.Event()
    async with opened(studio) as picpik:
        outcomes = picpik.map(jobs(500), in_flight=20)
        with anyio.move_on_after(0.1):
            await anext(outcomes)
        await ended(picpik)

        assert [] == await taken(outcomes)
        assert set(studio.charges.values()) == {task.uid for task in picpik.tasks}


@pytest.mark.anyio
async def test_unpaid_submits_are_aborted() -> None:
    """A submit that is not paid when the loop is left is aborted; a paid one still gets its answer."""
    calls = itertools.count(1)
    studio = Studio()
    studio.hold = anyio.Event()

    class Stuck(FakeTransport):
        async def send(self, body: Any, *, before_tail: Any = None) -> Answer:
            if next(calls) == 3:
                await anyio.sleep_forever()
            return await super().send(body, before_tail=before_tail)

    async with opened(studio, transport=Stuck(studio)) as picpik:
        outcomes = picpik.map(jobs(10), concurrency=3)
        async with anyio.create_task_group() as group:
            group.start_soon(taken, outcomes)
            await until(lambda: len(studio.charges) == 2)
            await outcomes.aclose()
        studio.hold.set()
        await ended(picpik)

        assert sorted(studio.charges.values()) == sorted(task.uid for task in picpik.tasks)
        assert 2 == len(studio.charges)


@pytest.mark.anyio
async def test_closing_the_session() -> None:
    """Closing the session ends the iteration with an error that says so, at once."""
    studio = Studio()
    studio.finish = anyio.Event()
    picpik = opened(studio)
    outcomes = picpik.map(jobs(500), in_flight=20)
    async with anyio.create_task_group() as group:

        async def consume() -> None:
            with pytest.raises(ConfigurationError, match="session is closed"):
                await taken(outcomes)
            assert [] == await taken(outcomes)

        group.start_soon(consume)
        await anyio.sleep(0.1)
        await picpik.aclose()

    assert [] == at_work()
    with pytest.raises(ConfigurationError, match="session is closed"):
        await taken(picpik.map(jobs(1)))


@pytest.mark.anyio
async def test_closed_before_the_first_step() -> None:
    """A map that is closed before it began does nothing."""
    studio = Studio()
    async with opened(studio) as picpik:
        outcomes = picpik.map(jobs(5))
        assert Progress() == outcomes.progress
        assert outcomes.stopped is None
        await outcomes.aclose()

        assert [] == await taken(outcomes)
        assert {} == studio.charges


@pytest.mark.anyio
async def test_two_consumers() -> None:
    """Outcomes can be shared out among consumers, who may begin at the same moment."""
    found: list[Outcome] = []
    picpik = opened(Studio())
    outcomes = picpik.map(jobs(20))

    async def consume() -> None:
        found.extend(await taken(outcomes))

    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(consume)
    await picpik.aclose()

    assert list(range(20)) == sorted(seeds(found))


@pytest.mark.anyio
async def test_another_loop() -> None:
    """Outcomes are taken on the loop where the map began."""
    async with opened(Studio()) as picpik:
        outcomes = picpik.map(jobs(5))
        await anext(outcomes)

        def elsewhere() -> None:
            with pytest.raises(ConfigurationError, match="another event loop"):
                asyncio.run(cast("Any", outcomes.__anext__()))
            with pytest.raises(ConfigurationError, match="another event loop"):
                asyncio.run(outcomes.aclose())

        await asyncio.to_thread(elsewhere)
        assert 4 == len(await taken(outcomes))


# --- stopping ------------------------------------------------------------------------------------------------------------


@pytest.mark.anyio
@pytest.mark.parametrize("codes", [{7}, set()])
async def test_credits_run_out(codes: set[int]) -> None:
    """When credits have run out nothing more is submitted, what is paid is finished, and every input has its outcome."""
    studio = Studio(purse=21)
    sent: list[str] = []

    async def play(request: dict[str, Any]) -> Any:
        sent.append(request["Action"])
        answer = await studio(request)
        while answer is NO_CREDIT and not outcomes.progress.credits:  # noqa: ASYNC110 - what a task costs is known then
            await anyio.sleep(0.01)
        return answer

    async with opened(play, dialect=Dialect(no_credit_ret_codes=frozenset(codes))) as picpik:
        outcomes = picpik.map(jobs(200), concurrency=4)
        found = await taken(outcomes)

    kinds = Counter(type(outcome.error) for outcome in found)
    assert 10 == kinds[type(None)] == len(studio.charges)
    assert 1 <= kinds[ApiError] <= 4
    assert 190 == kinds[ApiError] + kinds[SubmitPausedError]
    assert sent.count("ModifyMaskedPixels") <= 14
    assert (0 if codes else 1) == studio.looks
    [reason] = {str(outcome.error) for outcome in found if isinstance(outcome.error, SubmitPausedError)}
    assert "credits of the account have run out" in reason
    assert kinds[SubmitPausedError] == outcomes.progress.paused
    assert outcomes.stopped is not None
    assert outcomes.stopped in reason


@pytest.mark.anyio
async def test_the_balance_is_asked_for_seldom() -> None:
    """Refusals for other reasons cost one look at the balance every few seconds, one at a time; a failed one is no news."""
    now, looks = [0.0], [0]
    left: list[Any] = [TransportError(), 5, 5]

    async def balance() -> CreditBalance:
        looks[0] += 1
        answer = left.pop(0)
        await anyio.sleep(0.001)
        if isinstance(answer, PicpikError):
            raise answer
        return CreditBalance(total_credits=answer, used_credits=0)

    brake = Brake(Dialect(), balance, clock=lambda: now[0])
    brake.taken()
    for time, expected in ((0, 1), (2, 1), (3, 2), (5, 2)):
        now[0] = time
        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(brake.refused, ApiError(ret_code=1))
        assert (expected, False) == (looks[0], brake.stopped)
    for cost in (9, 6, 7, 0):
        brake.paid(cost)
    now[0] = 9
    await brake.refused(ApiError(ret_code=1))
    brake.paused()

    with pytest.raises(SubmitPausedError, match=r"\(5 are left\), of which RetCode 1 may tell"):
        brake.check()


@pytest.mark.anyio
async def test_what_a_task_costs_is_known_later() -> None:
    """A submit is refused before any task has told what it costs; when one does, and that was more than is left, it ends."""

    async def balance() -> CreditBalance:
        return CreditBalance(total_credits=5, used_credits=0)

    brake = Brake(Dialect(), balance, clock=lambda: 0)
    brake.paid(9)
    assert not brake.stopped
    brake = Brake(Dialect(), balance, clock=lambda: 0)
    brake.taken()
    await brake.refused(ApiError(ret_code=1))
    assert not brake.stopped
    brake.paid(6)

    assert brake.stopped


@pytest.mark.anyio
async def test_only_refusals() -> None:
    """A wrong key stops the map after a few refusals, rather than lock ten thousand jobs out; "slow down" does not count."""
    sent = itertools.count()

    def play(request: dict[str, Any]) -> dict[str, Any]:
        if request["Action"] == "GetCreditBalance":
            return {"RetCode": 0, "TotalCredits": 9, "UsedCredits": 0}
        return {"RetCode": 6 if next(sent) < 4 else 103, "Message": "wrong\x1b key"}

    async with opened(play, dialect=Dialect(throttle_ret_codes={6})) as picpik:
        found = await taken(picpik.map(jobs(1000), concurrency=2))

    assert 9 <= next(sent) <= 10
    [reason] = {str(outcome.error) for outcome in found if isinstance(outcome.error, SubmitPausedError)}
    assert (
        "refused the first 5 requests, the last with RetCode 103: wrong\\x1b key, and has certainly taken none"
        in reason
    )


@pytest.mark.anyio
async def test_refusals_after_a_success() -> None:
    """Once a request was taken, refusals are about the requests, and the others go on."""
    sent = itertools.count()

    def play(request: dict[str, Any]) -> dict[str, Any]:
        if request["Action"] == "GetCreditBalance":
            return {"RetCode": 0, "TotalCredits": 9, "UsedCredits": 0}
        if request["Action"] == "ListTasksDetails":
            return {"RetCode": 0, "TaskDetailList": [{"TaskUID": "t", "Status": "Finished", "ImgList": []}]}
        return {"RetCode": 0, "TaskUID": "t"} if next(sent) == 4 else {"RetCode": 103}

    async with opened(play) as picpik:
        found = await taken(picpik.map(jobs(20), concurrency=1))

    assert {ApiError: 19, type(None): 1} == dict(Counter(type(outcome.error) for outcome in found))


@pytest.mark.anyio
async def test_outage() -> None:
    """A service that takes everything and answers 504 is paid for a few jobs, not for all."""
    charged = []

    def play(request: dict[str, Any]) -> Answer:
        charged.append(request["request_uuid"])
        return Answer(504, b"")

    async with opened(play) as picpik:
        outcomes = picpik.map(jobs(1000), concurrency=8)
        found = await taken(outcomes)

    kinds = Counter(type(outcome.error) for outcome in found)
    assert len(charged) <= 11
    assert {SubmitOutcomeUnknownError: len(charged), SubmitPausedError: 1000 - len(charged)} == dict(kinds)
    assert (len(charged), 1000 - len(charged)) == (outcomes.progress.unknown, outcomes.progress.paused)
    assert "unknown outcome" in str(found[-1].error)


@pytest.mark.anyio
@pytest.mark.parametrize("place", ["file", "file/below", "/proc/none", "a\0b"])
async def test_folders_that_cannot_be_written(tmp_path: Path, place: str) -> None:
    """They are found before anything is sent; the iteration says so."""
    studio = Studio()
    (tmp_path / "file").touch()
    async with opened(studio) as picpik:
        outcomes = picpik.map(jobs(5), save_to=tmp_path / place)
        with pytest.raises(InvalidRequestError, match=r"save_to: nothing can be written to .*give another folder"):
            await anext(outcomes)
        await outcomes.aclose()

    assert ({}, 0) == (studio.charges, outcomes.progress.pulled)


@pytest.mark.anyio
async def test_equal_keys() -> None:
    """Without a journal a key stands for one input, lest a picture take the place of another."""
    studio = Studio()
    async with opened(studio) as picpik:
        found = await taken(
            picpik.map([("a", JOB.with_seed(1)), ("a", JOB.with_seed(2)), JOB.with_seed(3)], ordered=True)
        )

    assert [type(None), InvalidRequestError, type(None)] == [type(outcome.error) for outcome in found]
    assert "key is 'a', but must be a key of its own" in str(found[1].error)
    assert {1, 3} == set(studio.charges)


# --- with a journal ------------------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_reruns_cost_nothing(tmp_path: Path) -> None:
    """A rerun hands out what is done, without a submit or a poll, and so does the next one."""
    found: list[Outcome] = []
    async with Emulator(run_time=0) as emulator:
        for run in range(3):
            async with emulator.session(journal=tmp_path / "jobs.sqlite", poll=POLL) as picpik:
                outcomes = picpik.map(keyed(5), save_to=tmp_path / "out")
                found = await taken(outcomes)

            assert 5 == len(emulator.ledger)
            assert [None] * 5 == [outcome.error for outcome in found]
            assert 5 == len({file for outcome in found for file in outcome.files}) == len(names(tmp_path / "out"))
            assert all(file.is_absolute() for outcome in found for file in outcome.files)
            assert (0, 5) == (outcomes.progress.resumed, outcomes.progress.submitted) or run > 0
            assert [run > 0] * 5 == [outcome.result is None for outcome in found]
        found[0].files[0].unlink()
        async with emulator.session(journal=tmp_path / "jobs.sqlite", poll=POLL) as picpik:
            again = await taken(picpik.map(keyed(5), save_to=tmp_path / "out"))

        assert 1 == sum(outcome.result is not None for outcome in again)
        assert found[0].files[0].is_file()
        assert 5 == len(emulator.ledger)


@pytest.mark.anyio
async def test_equal_keys_are_one_job(tmp_path: Path) -> None:
    """With a journal the second input is the same job: one charge, whose credits count once."""
    studio = Studio()
    async with opened(studio, journal=tmp_path / "jobs.sqlite") as picpik:
        outcomes = picpik.map([("a", JOB.with_seed(1))] * 3)
        found = await taken(outcomes)

    assert ["task-1"] * 3 == [outcome.task_uid for outcome in found]
    assert Progress(pulled=3, submitted=1, resumed=2, done=3, credits=2) == outcomes.progress


@pytest.mark.anyio
@pytest.mark.parametrize("late", [True, False])
async def test_files_that_were_moved(tmp_path: Path, late: bool) -> None:
    """What is done, gone here and forgotten there is told as such, after a day without waiting for the task to show up."""
    path, studio = tmp_path / "jobs.sqlite", Studio()
    gone = {"state": JobState.DONE, "files": (tmp_path / "out" / "a.png",)}
    async with opened(studio, journal=path) as first:
        await taken(first.map(keyed(2)))
        await write(path, first, lambda _: gone | ({"acknowledged": 0.0} if late else {}), 2)

    def play(request: dict[str, Any]) -> dict[str, Any]:
        rows = [studio.row("task-1")] if "task-1" in request["TaskUIDList"] else []
        return {"RetCode": 0, "TaskDetailList": rows}

    poll = attrs.evolve(POLL, unknown_task_grace=100 if late else 0.05)
    async with opened(play, journal=path, poll=poll) as picpik:
        found = await taken(picpik.map(keyed(2), ordered=True, save_to=tmp_path / "out"))

    assert [ResultExpiredError, type(None)] == [type(outcome.error) for outcome in found]
    assert ("task-0", ()) == (found[0].task_uid, found[0].files)
    where = f"{tmp_path}/out"
    assert f"done earlier; its files are gone from {where}, and the service no longer has the pictures" == str(
        found[0].error
    )


@pytest.mark.anyio
async def test_a_task_that_vanished() -> None:
    """A job that is not done has the poller's own error."""
    studio = Studio()

    async def play(request: dict[str, Any]) -> Any:
        return {"RetCode": 0, "TaskDetailList": []} if "TaskUIDList" in request else await studio(request)

    async with opened(play, poll=attrs.evolve(POLL, unknown_task_grace=0.05)) as picpik:
        [outcome] = await taken(picpik.map(jobs(1)))

    assert isinstance(outcome.error, TaskVanishedError)
    assert "task-0" == outcome.task_uid


async def write(path: Path, picpik: PicpikSession, changes: Callable[[int], dict[str, Any]], count: int) -> None:
    """Set the states of jobs in a journal."""
    await picpik.aclose()
    async with Journal(path) as journal:
        for number in range(count):
            entry = await journal.find(f"job-{number}")
            assert entry is not None
            journal.record(attrs.evolve(entry, **changes(number)))
        await journal.flush()


STATES: list[dict[str, Any]] = [
    {"state": JobState.INTENT, "task_uid": None},
    {"state": JobState.COMMIT, "task_uid": None, "reason": "HTTP 504"},
    {"state": JobState.ACK},
    {"state": JobState.DONE},
    {"state": JobState.FAILED, "error": "TaskFailedError", "reason": "why"},
    {"state": JobState.FAILED, "error": "TaskTerminatedError", "reason": "why"},
    {"state": JobState.REJECTED, "task_uid": None, "ret_code": None},
    {"state": JobState.REJECTED, "task_uid": None, "ret_code": 5},
]


@pytest.mark.anyio
@pytest.mark.parametrize("stopped", [False, True])
async def test_resumes_from_every_state(tmp_path: Path, stopped: bool) -> None:
    """What is paid is awaited, what may be paid is told, the rest is sent, unless the map has stopped."""
    path = tmp_path / "jobs.sqlite"
    studio = Studio()
    async with opened(studio, journal=path) as first:
        await taken(first.map(keyed(8)))
        await write(path, first, lambda number: STATES[number], 8)
    studio.charges.clear()
    studio.polled.clear()
    studio.credits = 0 if stopped else 100
    given = ([("stop", JOB.with_seed(99))] if stopped else []) + list(keyed(8))
    async with opened(studio, journal=path, dialect=Dialect(no_credit_ret_codes={7})) as picpik:
        outcomes = picpik.map(given, concurrency=1, ordered=True)
        found = await taken(outcomes)
        known = {task.uid for task in picpik.tasks}

    unsent: Any = SubmitPausedError if stopped else type(None)
    errors = [unsent, SubmitOutcomeUnknownError, None, None, TaskFailedError, TaskTerminatedError, unsent, ApiError]
    assert [error or type(None) for error in errors] == [type(outcome.error) for outcome in found[-8:]]
    assert [f"job-{number}" for number in range(8)] == [outcome.key for outcome in found[-8:]]
    assert ["task-2", "task-3", "task-4", "task-5"] == [outcome.task_uid for outcome in found[-6:-2]]
    assert (
        ({2, 3} if stopped else {0, 2, 3, 6})
        == {int(uid.removeprefix("task-")) for uid in studio.polled}
        == {int(uid.removeprefix("task-")) for uid in known}
    )
    assert 2 == outcomes.progress.resumed
    assert ([] if stopped else [0, 6]) == sorted(studio.charges)


@pytest.mark.anyio
async def test_stopped_by_digest(tmp_path: Path) -> None:
    """A paid job without a key is found by its contents, and its outcome has the key the journal gave it."""
    studio = Studio()
    async with opened(studio, journal=tmp_path / "jobs.sqlite") as picpik:
        await taken(picpik.map(jobs(2)))
        studio.credits = 0
        outcomes = picpik.map([JOB.with_seed(5), *jobs(2), type(JOB)()], concurrency=1, ordered=True)
        found = await taken(outcomes)

    assert ["ApiError", "NoneType", "NoneType", "InvalidRequestError"] == [type(one.error).__name__ for one in found]
    assert [64, 64, 64] == [len(outcome.key or "") for outcome in found[:3]]
    assert 2 == outcomes.progress.resumed


# --- progress and memory -------------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_on_progress() -> None:
    """Every change is told, as a value."""
    seen: list[Progress] = []
    async with opened(Studio()) as picpik:
        outcomes = picpik.map(jobs(3), on_progress=seen.append)
        await taken(outcomes)

    assert outcomes.progress == seen[-1] == Progress(pulled=3, submitted=3, done=3, credits=6)
    assert len(seen) == len(set(seen)) == 12
    assert seen[0].newest is None
    assert picpik.tasks[-1].uid == seen[-1].newest


@pytest.mark.anyio
async def test_on_progress_that_raises(caplog: pytest.LogCaptureFixture) -> None:
    """A callback that raises is told about once, and does no harm."""
    calls = []

    def tell(progress: Progress) -> None:
        calls.append(progress)
        raise ZeroDivisionError

    async with opened(Studio()) as picpik:
        assert 3 == len(await taken(picpik.map(jobs(3), on_progress=tell)))

    assert 1 == len(calls)
    assert ["on_progress raised, and is not called again"] == [
        record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR
    ]


@pytest.mark.anyio
async def test_memory_is_flat() -> None:
    """Outcomes that were taken leave nothing behind, however many there are."""
    async with opened(Studio()) as picpik:
        outcomes = picpik.map(itertools.repeat(cast("Job", None), 20_000), in_flight=100)
        for _ in range(4_000):
            await anext(outcomes)
        gc.collect()
        before = sys.getallocatedblocks()
        async for _ in outcomes:
            pass
        gc.collect()
        grown = sys.getallocatedblocks() - before

    assert 20_000 == outcomes.progress.failed
    assert grown < 1000


@pytest.mark.anyio
async def test_files_are_named_after_the_keys(tmp_path: Path) -> None:
    """Who gives keys finds the pictures by them; other files are called after their tasks."""
    async with Emulator(run_time=0.02) as emulator, emulator.session() as picpik:
        requests: list[Any] = [("room-7", job().with_seed(1)), job().with_seed(2)]
        outcomes = [outcome async for outcome in picpik.map(requests, save_to=tmp_path, ordered=True)]

    assert [["room-7-0.png"], [f"{outcomes[1].task_uid}-0.png"]] == [
        [file.name for file in one.files] for one in outcomes
    ]


@pytest.mark.anyio
async def test_pictures_take_nobodys_place(tmp_path: Path) -> None:
    """A second run without a journal makes other pictures under the same keys, and those of the first stay."""
    async with Emulator(run_time=0.02) as emulator, emulator.session() as picpik:
        first, second = [
            await taken(picpik.map([("room", job().with_seed(seed))], save_to=tmp_path)) for seed in (1, 2)
        ]

    assert [f"room-{second[0].task_uid}-0.png"] == [file.name for file in second[0].files]
    assert first[0].files[0].read_bytes() != second[0].files[0].read_bytes()
