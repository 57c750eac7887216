"""The poller, in virtual time unless a test says otherwise."""

from __future__ import annotations

import contextlib
import itertools
import logging
import math
import random
import statistics
from collections import Counter
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import pytest
from clocks import JumpingLoop

from picpik_async._config import Dialect, PollPolicy
from picpik_async._durations import Durations
from picpik_async._poller import Poller
from picpik_async._tasks import TaskDetail, TaskStatus
from picpik_async.errors import (
    ApiError,
    ConfigurationError,
    HttpStatusError,
    InvalidRequestError,
    MalformedAnswerError,
    PicpikError,
    RequestTimeoutError,
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
    """A loop with a clock that jumps to the next timer."""
    return "asyncio", {"loop_factory": JumpingLoop}


def row(uid: str, word: str = "Running", **data: Any) -> TaskDetail:
    """A `TaskDetail` as the wire layer makes it."""
    statuses = {"Queuing": "QUEUING", "Running": "RUNNING", "Finished": "FINISHED", "Error": "ERROR"}
    return TaskDetail(task_uid=uid, status=TaskStatus[statuses.get(word, "UNKNOWN")], status_word=word, **data)


class Service:
    """Answers status requests, and remembers them.

    Attributes:
        finish_at: when each task ends; a task without runs for ever.
        polls: time and uids of each request.
        watched: how many tasks the poller watched at each request, if `watching` was called.
        poisoned: ids that make any list with them be refused.
        trouble: makes the exception for a request to fail with, if it is to fail.
        answer: makes the row of a task; None leaves it out.
    """

    def __init__(self, *, latency: float = 0.0) -> None:
        self.latency = latency
        self.finish_at: dict[str, float] = {}
        self.polls: list[tuple[float, tuple[str, ...]]] = []
        self.watched: list[int] = []
        self.note: Callable[[], None] = lambda: None
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
        self.note()
        await anyio.sleep(self.latency)
        if self.poisoned.intersection(uids):
            msg = "one of the ids is bad"
            raise ApiError(msg, ret_code=160)
        trouble = self.trouble(uids)
        if trouble is not None:
            raise trouble
        return [answer for uid in reversed(uids) if (answer := self.answer(uid)) is not None]

    def watching(self, poller: Poller) -> Poller:
        """*poller*, with its number of watched tasks noted at each request."""
        self.note = lambda: self.watched.append(poller.watched)
        return poller

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


async def outcome(poller: Poller, uid: str, *, timeout: float | None = 60) -> TaskDetail | PicpikError:  # noqa: ASYNC109
    """What waiting for a task comes to."""
    try:
        return await poller.wait(uid, timeout=timeout)
    except PicpikError as error:
        return error


async def outcomes(poller: Poller, uids: Sequence[str], *, timeout: float | None = 60) -> dict[str, Any]:  # noqa: ASYNC109
    """What waiting for several tasks at once comes to."""
    ended: dict[str, Any] = {}

    async def note(uid: str) -> None:
        ended[uid] = await outcome(poller, uid, timeout=timeout)

    async with anyio.create_task_group() as waiters:
        for uid in uids:
            waiters.start_soon(note, uid)
    return ended


async def test_a_thousand_tasks_one_poisoned(capfd: pytest.CaptureFixture[str]) -> None:
    """1,000 tasks, 2,000 waiters, one bad id: few requests, prompt waking, and only the bad one does not finish."""
    service = Service(latency=0.05)
    service.poisoned = {"t137"}
    poller = service.poller()
    rng = random.Random(5)
    uids = [f"t{n}" for n in range(1000)]
    service.finish_at = {uid: anyio.current_time() + rng.uniform(0, 10) for uid in uids}
    delays: list[float] = []
    vanished: list[str | None] = []

    async def wait(uid: str) -> None:
        try:
            await poller.wait(uid, timeout=600)
        except TaskVanishedError as error:
            vanished.append(error.task_uid)
        else:
            delays.append(anyio.current_time() - service.finish_at[uid])

    async with running(service.watching(poller)), anyio.create_task_group() as waiters:
        for uid in uids:
            waiters.start_soon(wait, uid)
            waiters.start_soon(wait, uid)

    times = [time for time, _ in service.polls]
    for start, open_tasks in zip(times, service.watched, strict=True):
        assert sum(start <= time < start + 0.5 - 1e-6 for time in times) <= math.ceil(open_tasks / 100)
    assert 2 * 999 == len(delays)
    assert ["t137", "t137"] == vanished
    assert statistics.median(delays) <= 0.5
    assert max(delays) <= 5
    assert ("", "") == capfd.readouterr()


async def test_no_waiter_no_traffic() -> None:
    """Without a waiter nothing is asked and no timer runs."""
    service = Service()
    poller = service.poller()
    async with running(poller):
        await anyio.sleep(100)
        assert math.inf == poller._wake_at
        await outcome(poller, "a", timeout=2)
        polls = len(service.polls)
        await anyio.sleep(100)

        assert math.inf == poller._wake_at
        assert 0 < polls == len(service.polls)


async def test_waits_from_before_the_start() -> None:
    """A task awaited before the poller runs is asked about at the first tick."""
    service = Service()
    service.finish_at["a"] = 0
    poller = service.poller()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(outcome, poller, "a")
        await anyio.sleep(5)
        assert 1 == poller.watched
        start = anyio.current_time()
        async with running(poller):
            await anyio.sleep(0.5)

    assert [("a",)] == [uids for _, uids in service.polls]
    assert service.polls[0][0] - start <= 0.5


async def test_several_waiters_share_polls() -> None:
    """Many waiters of one task cause the traffic of one."""
    traffic = []
    for waiters in (1, 25):
        service = Service()
        service.finish_at["a"] = anyio.current_time() + 20
        poller = service.poller()
        async with running(poller), anyio.create_task_group() as tasks:
            for _ in range(waiters):
                tasks.start_soon(outcome, poller, "a")
        traffic.append(len(service.polls))

    assert traffic[0] == traffic[1]


async def test_older_tasks_are_asked_less_often() -> None:
    """The time between polls grows with age, up to the longest interval and its jitter."""
    service = Service()
    poller = service.poller()
    async with running(poller):
        await outcome(poller, "a", timeout=400)

    times = [time for time, _ in service.polls]
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert 0.5 == pytest.approx(gaps[0])
    assert 5.0 <= max(gaps) <= 6.0
    assert len(times) < 120


@pytest.mark.parametrize("latency", [0.0, 1e9])
async def test_deadline_is_exact(latency: float) -> None:
    """A deadline of 3 s fires at 3 s sharp, also while a request hangs."""
    service = Service(latency=latency)
    poller = service.poller()
    async with running(poller):
        await anyio.sleep(0.123)
        start = anyio.current_time()
        with pytest.raises(TaskTimeoutError) as caught:
            await poller.wait("a", timeout=3)

        assert start + 3 == anyio.current_time()
    assert "a" == caught.value.task_uid
    assert (caught.value.detail is None) == (latency > 0)
    assert service.polls


async def test_each_waiter_has_its_own_deadline() -> None:
    """Waiters of one task give up at their own times, and the others go on."""
    service = Service()
    poller = service.poller()
    start = anyio.current_time()
    service.finish_at["a"] = start + 10
    gave_up: list[float] = []

    async def wait(seconds: float) -> None:
        with pytest.raises(TaskTimeoutError):
            await poller.wait("a", timeout=seconds)
        gave_up.append(anyio.current_time() - start)

    async with running(poller), anyio.create_task_group() as waiters:
        for seconds in (4.25, 0.75, 2.125):
            waiters.start_soon(wait, seconds)
        assert (await poller.wait("a", timeout=math.inf)).finished

    assert [0.75, 2.125, 4.25] == pytest.approx(gave_up)


async def test_a_task_in_flight_is_not_asked_about_again() -> None:
    """While a request hangs its tasks are in no other, also if their waiters change; its answer serves the new ones."""
    service = Service(latency=20)
    poller = service.poller()
    service.finish_at["a"] = 0
    start = anyio.current_time()
    async with running(poller):
        await outcome(poller, "a", timeout=1)
        assert 0 == poller.watched
        assert (await poller.wait("a", timeout=None)).finished

        assert anyio.current_time() - start <= 20.5
    assert 1 == len(service.polls)


@pytest.mark.parametrize("finish_at", [0.0, math.inf])
async def test_an_answer_nobody_waits_for(finish_at: float) -> None:
    """A task whose last waiter left during the request is forgotten when the answer comes."""
    service = Service(latency=2)
    service.finish_at["a"] = finish_at
    poller = service.poller()
    async with running(poller):
        await outcome(poller, "a", timeout=1)
        await anyio.sleep(5)

        assert [] == poller._schedule.tasks()
    assert 1 == len(service.polls)


async def test_timeout_zero() -> None:
    """A timeout of 0 is over at once, without a request."""
    service = Service()
    poller = service.poller()
    start = anyio.current_time()
    async with running(poller):
        with pytest.raises(TaskTimeoutError, match="0 seconds"):
            await poller.wait("a", timeout=0)

    assert start == anyio.current_time()
    assert [] == service.polls


@pytest.mark.parametrize("seconds", [-1, -0.001, math.nan, -math.inf])
async def test_wrong_timeouts(seconds: float) -> None:
    """Negative timeouts and NaN are refused before anything is asked."""
    poller = Service().poller()
    with pytest.raises(InvalidRequestError, match="timeout") as caught:
        await poller.wait("a", timeout=seconds)
    with pytest.raises(InvalidRequestError):
        poller.updates("a", timeout=seconds)

    assert "timeout" == caught.value.field
    assert 0 == poller.watched


@pytest.mark.parametrize(
    "trouble",
    [
        TransportError("no route"),
        HttpStatusError("busy", status=503),
        HttpStatusError("slow down", status=429, retry_after=4),
        ApiError("refused", ret_code=160),
        ApiError("slow down", ret_code=7),
        RuntimeError("a bug"),
    ],
    ids=repr,
)
async def test_failing_polls_fail_no_task(trouble: Exception) -> None:
    """Ten seconds of failing polls, of any kind, fail no task."""
    service = Service()
    poller = service.poller(dialect=Dialect(throttle_ret_codes=frozenset({7})))
    start = anyio.current_time()
    service.trouble = lambda _: trouble if anyio.current_time() < start + 10 else None
    uids = [f"t{n}" for n in range(250)]
    service.finish_at = dict.fromkeys(uids, start + 5)
    async with running(poller):
        ended = await outcomes(poller, uids)

    assert all(isinstance(detail, TaskDetail) and detail.finished for detail in ended.values())
    assert anyio.current_time() - start <= 10 + 20 + 1


async def test_pauses_grow_while_polls_fail() -> None:
    """With the service down, a task is asked about ever more rarely, at the longest pause in the end."""
    service = Service()
    service.trouble = lambda _: TransportError("down")
    poller = service.poller()
    async with running(poller):
        error = await outcome(poller, "a", timeout=300)

    gaps = [later[0] - earlier[0] for earlier, later in itertools.pairwise(service.polls)]
    assert gaps[0] <= 1
    assert 10 <= min(gaps[-5:])
    assert max(gaps) <= 20.5
    assert "(the last poll failed: TransportError: down)" in str(error)


@pytest.mark.parametrize(("retry_after", "pause"), [(0, 0.5), (7.0, 7.0), (1e9, 60.0), (math.nan, 60.0), (-5, 0.5)])
async def test_retry_after(retry_after: float, pause: float) -> None:
    """The service's own wish for a pause is heard, up to a minute."""
    service = Service()
    service.trouble = lambda _: HttpStatusError("busy", status=503, retry_after=retry_after)
    poller = service.poller()
    async with running(poller):
        await outcome(poller, "a", timeout=130)

    assert pause == pytest.approx(service.polls[1][0] - service.polls[0][0])


async def test_success_ends_the_pauses() -> None:
    """After a good answer the next failure pauses as shortly as the first one."""
    service = Service()
    failing = iter([True] * 5 + [False] + [True] * 100)
    service.trouble = lambda _: TransportError("flaky") if next(failing) else None
    poller = service.poller(age_share=0)
    async with running(poller):
        await outcome(poller, "a", timeout=60)

    gaps = [later[0] - earlier[0] for earlier, later in itertools.pairwise(service.polls)]
    assert gaps[4] >= 4
    assert gaps[6] <= 1


async def test_surprises_are_told_once(caplog: pytest.LogCaptureFixture) -> None:
    """A foreign exception is logged once, without its text, which may quote a signed body; polling goes on."""
    service = Service()
    start = anyio.current_time()
    service.finish_at["a"] = start + 5
    service.trouble = lambda _: ValueError("canary") if anyio.current_time() < start + 5 else None
    poller = service.poller()
    with caplog.at_level(logging.DEBUG):
        async with running(poller):
            assert (await poller.wait("a", timeout=None)).finished

    (record,) = caplog.records
    assert "picpik_async" == record.name
    assert "ValueError" in record.getMessage()
    assert "canary" not in caplog.text


async def test_an_answer_of_the_wrong_type_is_a_surprise() -> None:
    """A fetch that breaks its contract is a failed poll, not the end of the poller."""

    async def fetch(_: Sequence[str]) -> Any:
        await anyio.lowlevel.checkpoint()

    poller = Poller(fetch, PollPolicy(), Dialect())
    async with running(poller):
        error = await outcome(poller, "a", timeout=5)

    assert isinstance(error, TaskTimeoutError)
    assert "TypeError" in str(error)


@pytest.mark.parametrize("alone", [True, False])
async def test_a_missing_task_vanishes_after_the_grace(alone: bool) -> None:
    """An id missing from answers is tolerated for the grace period, asked about as usual, and then given up."""
    service = Service()
    service.answer = lambda uid: None if uid == "a" else row(uid)
    poller = service.poller(unknown_task_grace=30)
    start = anyio.current_time()
    async with running(poller), anyio.create_task_group() as waiters:
        if not alone:
            waiters.start_soon(outcome, poller, "b")
        with pytest.raises(TaskVanishedError, match="does not know task a") as caught:
            await poller.wait("a", timeout=None)
        took = anyio.current_time() - start

    assert 30 <= took <= 33
    assert "a" == caught.value.task_uid
    assert caught.value.detail is None


async def test_no_grace() -> None:
    """With a grace of 0 the first answer without the task ends it."""
    service = Service()
    service.answer = lambda _: None
    poller = service.poller(unknown_task_grace=0)
    async with running(poller):
        assert isinstance(await outcome(poller, "a"), TaskVanishedError)

    assert 1 == len(service.polls)


async def test_reappearing_resets_the_grace() -> None:
    """A task that is missing only now and then never vanishes."""
    service = Service()
    start = anyio.current_time()
    service.finish_at["a"] = start + 200
    service.answer = lambda uid: None if (anyio.current_time() - start) % 40 < 25 else service.state(uid)
    poller = service.poller()
    async with running(poller):
        detail = await outcome(poller, "a", timeout=None)

    assert isinstance(detail, TaskDetail)


async def test_timeout_tells_what_was_wrong() -> None:
    """The message names task, seconds, last status word, and what the last poll lacked; foreign text is escaped."""
    service = Service()
    start = anyio.current_time()
    service.answer = lambda uid: row(uid, "Queu\x1b\ning") if anyio.current_time() < start + 3 else None
    poller = service.poller()
    async with running(poller):
        error = await outcome(poller, "a\n", timeout=6)

    assert isinstance(error, TaskTimeoutError)
    assert isinstance(error, TimeoutError)
    assert error.detail is not None
    assert "task a\\n has not ended within 6 seconds" in str(error)
    assert "'Queu\\x1b\\ning' (the last poll failed: its row was missing from the answer)" in str(error)


async def test_unknown_words_are_harmless(caplog: pytest.LogCaptureFixture) -> None:
    """An unknown status word is told once, escaped and cut, and polling goes on at the usual pace."""
    service = Service()
    start = anyio.current_time()
    words = {"a": "Dreaming\n" + "x" * 1000, "b": "Dreaming\n" + "x" * 1000, "c": "Résumé"}
    service.answer = lambda uid: row(uid, words[uid] if anyio.current_time() < start + 9 else "Finished")
    poller = service.poller()
    async with running(poller):
        ended = await outcomes(poller, list(words))

    assert all(detail.finished for detail in ended.values())
    assert ["WARNING", "WARNING"] == [record.levelname for record in caplog.records]
    assert all(len(record.getMessage()) < 600 and "\n" not in record.getMessage() for record in caplog.records)
    assert len(service.polls) <= 19


async def test_a_known_word_in_a_row_that_does_not_fit(caplog: pytest.LogCaptureFixture) -> None:
    """A row that is not believed for another reason says nothing about its status word."""
    service = Service()
    doubtful = TaskDetail(task_uid="a", status=TaskStatus.UNKNOWN, status_word="Finished")
    service.answer = lambda uid: doubtful if len(service.polls) < 3 else row(uid, "Finished")
    poller = service.poller()
    async with running(poller):
        await poller.wait("a", timeout=60)

    assert [] == caplog.records


async def test_endless_new_words(caplog: pytest.LogCaptureFixture) -> None:
    """A service that makes up a new word each time is told about a hundred times, not for ever."""
    service = Service()
    service.answer = lambda uid: row(uid, f"word {len(service.polls)}")
    poller = service.poller(age_share=0)
    async with running(poller):
        await outcome(poller, "a", timeout=100)

    assert 100 == len(caplog.records)
    assert len(service.polls) > 150


@pytest.mark.parametrize("data", [{"word": "Error"}, {"error_code": 3}, {"word": "Finished", "error_code": 3}])
async def test_a_failed_task(data: dict[str, Any]) -> None:
    """An error status or code ends the wait of all with the service's own words, escaped and cut."""
    service = Service()
    service.answer = lambda uid: row(uid, **data, error_message="out of\x00 memory" + "!" * 1000)
    poller = service.poller()
    errors = []
    async with running(poller), anyio.create_task_group() as waiters:

        async def wait() -> None:
            errors.append(await outcome(poller, "a"))

        waiters.start_soon(wait)
        waiters.start_soon(wait)

    assert [TaskFailedError] * 2 == [type(error) for error in errors]
    assert errors[0] is not errors[1]
    for error in errors:
        assert isinstance(error, TaskError)
        assert error.detail is not None
        assert "a" == error.task_uid
        assert "out of\\x00 memory!!!" in str(error)
        assert len(str(error)) < 700


@pytest.mark.parametrize("answer", [row("a", "Stopped"), row("a", "Error"), None], ids=["unknown", "error", "missing"])
async def test_terminated(answer: TaskDetail | None) -> None:
    """After our own termination an unknown word, an error or a missing row ends the task for all, at the next tick."""
    service = Service()
    service.answer = lambda _: row("a")
    poller = service.poller()
    ended: list[tuple[type, float]] = []

    async def wait() -> None:
        error = await outcome(poller, "a", timeout=None)
        assert isinstance(error, TaskTerminatedError)
        ended.append((type(error), anyio.current_time()))

    async with running(poller), anyio.create_task_group() as waiters:
        waiters.start_soon(wait)
        waiters.start_soon(wait)
        await anyio.sleep(100)
        service.answer = lambda _: answer
        poller.terminated("a")
        stopped = anyio.current_time()
        await anyio.sleep(0.6)

    assert 2 == len(ended)
    assert all(at - stopped <= 0.5 for _, at in ended)


async def test_terminated_while_a_request_is_in_flight() -> None:
    """A task terminated during a request is asked about again at the tick after its answer."""
    service = Service(latency=2)
    service.answer = lambda _: row("a")
    poller = service.poller()
    async with running(poller), anyio.create_task_group() as waiters:
        waiters.start_soon(outcome, poller, "a")
        await anyio.sleep(50)
        sent = len(service.polls)
        while sent == len(service.polls):  # noqa: ASYNC110 - virtual time
            await anyio.sleep(0.1)
        poller.terminated("a")
        sent = len(service.polls)
        await anyio.sleep(2.6)
        assert sent + 1 == len(service.polls)
        service.answer = lambda _: None


async def test_terminated_too_late() -> None:
    """A task that finished nevertheless stays finished; known words keep it going."""
    service = Service()
    poller = service.poller()
    poller.terminated("a")
    service.finish_at["a"] = anyio.current_time() + 5
    async with running(poller):
        assert (await poller.wait("a", timeout=None)).finished


@pytest.mark.parametrize("count", [2, 80, 1000])
async def test_all_refused(count: int) -> None:
    """If both halves are refused the list is not at fault: all tasks are kept, and polling gets quiet."""
    service = Service()
    start = anyio.current_time()
    service.trouble = lambda _: ApiError("refused", ret_code=1) if anyio.current_time() < start + 300 else None
    uids = [f"t{n}" for n in range(count)]
    service.finish_at = dict.fromkeys(uids, start)
    poller = service.poller()
    async with running(poller):
        ended = await outcomes(poller, uids, timeout=None)

    assert all(isinstance(detail, TaskDetail) for detail in ended.values())
    late = [at for at, _ in service.polls if start + 100 <= at < start + 300]
    assert 10 <= len(late) <= 20
    assert anyio.current_time() - start <= 300 + 20 + 10


async def polls_in(*, share: float, seed: int, count: int) -> int:
    """How many polls *count* tasks need where a *share* of them fails; all tasks must end as they do at the service.

    One id is poisoned, some words are unknown, and some rows are missing.
    """
    rng = random.Random(seed)
    service = Service(latency=0.05)
    service.poisoned = {"t7"}
    uids = [f"t{n}" for n in range(count)]
    service.finish_at = {uid: anyio.current_time() + rng.uniform(0, 200) for uid in uids}
    faults = [
        TransportError("reset", stage="headers"),
        RequestTimeoutError("slow", stage="body"),
        HttpStatusError("down", status=502),
        HttpStatusError("busy", status=429, retry_after=1),
        MalformedAnswerError("HTML"),
    ]

    def answer(uid: str) -> TaskDetail | None:
        chance = rng.random()
        detail = service.state(uid)
        return None if chance < 0.02 else row(uid, "Dreaming") if chance < 0.04 and not detail.finished else detail

    service.trouble = lambda _: rng.choice(faults) if rng.random() < share else None
    service.answer = answer
    poller = service.poller(seed=seed)
    async with running(poller):
        ended = await outcomes(poller, uids, timeout=3600)

    assert ["t7"] == [uid for uid, detail in ended.items() if isinstance(detail, TaskVanishedError)]
    assert count - 1 == sum(isinstance(detail, TaskDetail) and detail.finished for detail in ended.values())
    return len(service.polls)


@pytest.mark.parametrize("count", [20, 400])
async def test_failing_polls_add_little_to_the_load(count: int) -> None:
    """With every tenth poll failing, no task is failed wrongly, and there are at most a tenth more polls."""
    calm = [await polls_in(share=0, seed=seed, count=count) for seed in range(3)]
    rough = [await polls_in(share=0.1, seed=seed, count=count) for seed in range(3)]

    assert sum(rough) <= 1.1 * sum(calm)


async def test_an_outage_slows_polling_down() -> None:
    """While every poll fails, the pauses grow to their maximum, and nobody is failed before his time is up."""
    service = Service()
    service.trouble = lambda _: HttpStatusError("down", status=502)
    poller = service.poller(max_backoff=20)
    uids = [f"t{n}" for n in range(1000)]
    async with running(poller):
        ended = await outcomes(poller, uids, timeout=3600)

    assert {TaskTimeoutError} == set(map(type, ended.values()))
    assert len(service.polls) <= 10 * 3600 / 10


@pytest.mark.parametrize("count", [2, 3, 30, 100])
@pytest.mark.parametrize("poisoned", [1, 2])
async def test_poisoned_ids(count: int, poisoned: int) -> None:
    """Ids that spoil every list are found by bisecting, end as vanished, and hold nobody up for long."""
    service = Service()
    uids = [f"t{n}" for n in range(count)]
    service.poisoned = set(uids[:poisoned])
    start = anyio.current_time()
    service.finish_at = dict.fromkeys(uids, start + 60)
    poller = service.poller()
    woken: dict[str, float] = {}

    async def wait(uid: str) -> None:
        result = await outcome(poller, uid, timeout=None if count > poisoned else 100)
        woken[uid] = anyio.current_time() - start
        assert isinstance(result, TaskVanishedError) == (uid in service.poisoned and count > poisoned)

    async with running(service.watching(poller)), anyio.create_task_group() as waiters:
        for uid in uids:
            waiters.start_soon(wait, uid)

    times = [time for time, _ in service.polls]
    assert all(later - earlier > 0.5 - 1e-6 for earlier, later in itertools.pairwise(times))
    assert all(at <= 66 for uid, at in woken.items() if uid not in service.poisoned)


async def test_a_poisoned_id_alone_is_asked_ever_more_rarely() -> None:
    """An isolated bad id is asked about alone, at growing intervals; the others keep their pace."""
    service = Service()
    service.poisoned = {"bad"}
    poller = service.poller(age_share=0, unknown_task_grace=1000)
    async with running(poller):
        await outcomes(poller, ["a", "b", "bad"], timeout=200)

    alone = [at for at, uids in service.polls if uids == ("bad",)]
    gaps = [later - earlier for earlier, later in itertools.pairwise(alone)]
    assert 10 <= min(gaps[-3:])
    assert len(service.polls) - len(alone) > 350


async def test_a_poisoned_id_that_heals() -> None:
    """An id that is answered again joins the others again."""
    service = Service()
    service.poisoned = {"bad"}
    start = anyio.current_time()
    service.finish_at = dict.fromkeys(["a", "b", "bad"], start + 60)
    poller = service.poller(age_share=0)
    async with running(poller), anyio.create_task_group() as waiters:

        async def wait(uid: str) -> None:
            assert (await poller.wait(uid, timeout=None)).finished

        for uid in service.finish_at:
            waiters.start_soon(wait, uid)
        await anyio.sleep(15)
        service.poisoned = set()

    assert 3 == len(service.polls[-1][1])


async def test_refused_alone_is_a_miss() -> None:
    """The only watched id, refused, cannot be told from a bad one: it vanishes after the grace."""
    service = Service()
    service.poisoned = {"a"}
    poller = service.poller()
    start = anyio.current_time()
    async with running(poller):
        assert isinstance(await outcome(poller, "a", timeout=None), TaskVanishedError)

    assert 30 <= anyio.current_time() - start <= 31


@pytest.mark.parametrize("status", [400, 413, 414, 422])
async def test_refusals_by_http_status(status: int) -> None:
    """Statuses that refuse the request itself count as refusals; lists too long for the service become shorter."""
    service = Service()
    service.trouble = lambda uids: HttpStatusError("no", status=status) if len(uids) > 10 else None
    uids = [f"t{n}" for n in range(400)]
    service.finish_at = dict.fromkeys(uids, 0.0)
    poller = service.poller()
    async with running(poller):
        ended = await outcomes(poller, uids)

    assert all(isinstance(detail, TaskDetail) for detail in ended.values())


async def test_a_half_whose_request_fails_is_asked_again() -> None:
    """A half without an answer is undecided: it is asked about again, and the bisection goes on."""
    service = Service()
    service.poisoned = {"t3"}
    uids = [f"t{n}" for n in range(8)]
    start = anyio.current_time()
    lost = [True]

    def lose_the_second(_: Sequence[str]) -> Exception | None:
        return TransportError("lost") if len(service.polls) > 1 and lost and lost.pop() else None

    service.trouble = lose_the_second
    service.finish_at = dict.fromkeys(uids, start)
    poller = service.poller()
    async with running(poller):
        ended = await outcomes(poller, uids, timeout=None)

    assert {"t3"} == {uid for uid, result in ended.items() if isinstance(result, TaskVanishedError)}


async def test_foreign_and_duplicate_rows() -> None:
    """Rows of tasks nobody asked about are ignored; of two rows of one task the last counts."""

    async def fetch(_: Sequence[str]) -> list[TaskDetail]:
        await anyio.lowlevel.checkpoint()
        return [row("foreign", "Error"), row("a", "Error"), row("other"), row("a", "Finished")]

    poller = Poller(fetch, PollPolicy(), Dialect())
    async with running(poller):
        assert (await poller.wait("a", timeout=None)).finished


async def test_cap_on_requests() -> None:
    """No tick has more requests than the cap allows, and what waits longest is served first."""
    service = Service()
    poller = service.poller(max_requests_per_second=4, age_share=0)
    uids = [f"t{n}" for n in range(1000)]
    async with running(poller):
        await outcomes(poller, uids, timeout=20)

    per_tick = Counter(round(at, 6) for at, _ in service.polls)
    assert {2} == set(per_tick.values())
    asked = Counter(uid for _, polled in service.polls for uid in polled)
    assert len(uids) == len(asked)
    assert max(asked.values()) - min(asked.values()) <= 1


async def test_cap_below_one_per_tick() -> None:
    """With a cap below one request per tick, ticks are skipped."""
    service = Service()
    poller = service.poller(max_requests_per_second=0.3, age_share=0)
    async with running(poller):
        await outcomes(poller, ["a", "b"], timeout=60)

    gaps = [later[0] - earlier[0] for earlier, later in itertools.pairwise(service.polls)]
    assert 3.5 == pytest.approx(min(gaps))


async def test_updates() -> None:
    """The first detail, each changed one and the last one are told, unchanged ones are not."""
    service = Service()
    start = anyio.current_time()

    def answer(uid: str) -> TaskDetail:
        age = anyio.current_time() - start
        word = "Queuing" if age < 5 else "Running" if age < 10 else "Dreaming" if age < 15 else "Finished"
        return row(uid, word, cost=int(age))

    service.answer = answer
    poller = service.poller()
    async with running(poller):
        words = [detail.status_word async for detail in poller.updates("a", timeout=60)]

    assert ["Queuing", "Running", "Dreaming", "Finished"] == words


async def test_updates_tell_failure() -> None:
    """A failed task is told, not raised; the iteration ends there."""
    service = Service()
    service.answer = lambda uid: row(uid, "Error", error_code=5)
    poller = service.poller()
    async with running(poller):
        updates = poller.updates("a", timeout=None)
        assert 5 == (await anext(updates)).error_code
        with pytest.raises(StopAsyncIteration):
            await anext(updates)


async def test_updates_beside_a_waiter() -> None:
    """A detail already seen for another waiter is told at once."""
    service = Service()
    poller = service.poller()
    async with running(poller), anyio.create_task_group() as waiters:
        waiters.start_soon(outcome, poller, "a")
        await anyio.sleep(20)
        before = anyio.current_time()
        updates = poller.updates("a", timeout=None)
        assert "Running" == (await anext(updates)).status_word
        assert before == anyio.current_time()
        await updates.aclose()
        with pytest.raises(StopAsyncIteration):
            await anext(updates)


async def test_updates_raise() -> None:
    """Running out of time and vanishing are raised, once."""
    service = Service()
    service.answer = lambda uid: None if uid == "gone" else row(uid)
    poller = service.poller()
    start = anyio.current_time()
    async with running(poller):
        late = poller.updates("a", timeout=4)
        await anext(late)
        with pytest.raises(TaskTimeoutError, match="4 seconds"):
            await anext(late)
        assert start + 4 == anyio.current_time()
        with pytest.raises(StopAsyncIteration):
            await anext(late)
        with pytest.raises(TaskVanishedError):
            await anext(poller.updates("gone", timeout=None))
        poller.terminated("gone")
        with pytest.raises(TaskTerminatedError):
            await anext(poller.updates("gone", timeout=None))


async def test_updates_of_a_terminated_task() -> None:
    """An unknown word that has been told ends the iteration once we terminated the task."""
    service = Service()
    service.answer = lambda uid: row(uid, "Stopped")
    poller = service.poller()
    async with running(poller):
        updates = poller.updates("a", timeout=60)
        assert "Stopped" == (await anext(updates)).status_word
        poller.terminated("a")
        with pytest.raises(StopAsyncIteration):
            await anext(updates)


async def test_the_end_wakes_every_waiter() -> None:
    """When the poller stops, every waiter hears that the task goes on remotely; later ones as well."""
    service = Service(latency=1)
    poller = service.poller()
    heard: list[str] = []

    async def wait(uid: str) -> None:
        error = await outcome(poller, uid, timeout=None)
        assert isinstance(error, ConfigurationError)
        assert uid == error.task_uid
        heard.append(str(error))

    async def follow(uid: str) -> None:
        with pytest.raises(ConfigurationError, match="the session is closed"):
            async for _ in poller.updates(uid, timeout=None):
                pass
        heard.append(uid)

    async with anyio.create_task_group() as waiters:
        for number in range(300):
            waiters.start_soon(wait, f"t{number}")
        waiters.start_soon(follow, "t7")
        async with anyio.create_task_group() as owner:
            owner.start_soon(poller.run)
            await anyio.sleep(3.7)
            owner.cancel_scope.cancel()
    await wait("late")

    assert 302 == len(heard)
    assert 0 == poller.watched
    assert "session.task('late')" in heard[-1]


@pytest.mark.parametrize("after", [0, 0.01, 0.3, 0.6, 1.1, 2.2, 3.3])
@pytest.mark.parametrize("follow", [True, False])
async def test_cancelled_anywhere(after: float, follow: bool) -> None:
    """A wait can be cancelled at any moment, and nothing of it stays."""
    service = Service(latency=0.25)
    poller = service.poller()

    async def use() -> None:
        if follow:
            async for _ in poller.updates("a", timeout=50):
                pass
        await poller.wait("a", timeout=50)

    async with running(poller):
        with anyio.move_on_after(after) as scope:
            await use()
        assert scope.cancelled_caught
        assert 0 == poller.watched
        await anyio.sleep(10)

        assert [] == poller._schedule.tasks()
        assert math.inf == poller._next_at()


async def test_cancelled_during_a_bisection() -> None:
    """Tasks whose waiters leave during a bisection are asked about no more, and the bisection ends quietly."""
    service = Service()
    service.poisoned = {"t3"}
    poller = service.poller()
    uids = [f"t{n}" for n in range(16)]
    for after in (0.6, 1.1, 1.6, 2.1, 2.6, 3.1):
        async with running(poller), anyio.create_task_group() as waiters:
            for uid in uids:
                waiters.start_soon(outcome, poller, uid)
            await anyio.sleep(after)
            waiters.cancel_scope.cancel()
        poller = service.poller(seed=int(after * 10))

    assert len(service.polls) <= 24


async def test_many_ending_at_once() -> None:
    """Thousands that end in one answer, or run out of time together, are woken in slices, each of them."""
    service = Service()
    poller = service.poller(dialect=Dialect(max_task_uids=5000))
    uids = [f"t{n}" for n in range(2500)]
    async with running(poller):
        late = await outcomes(poller, uids, timeout=1)
        service.finish_at = dict.fromkeys(uids, 0.0)
        ended = await outcomes(poller, uids)

    assert all(isinstance(error, TaskTimeoutError) for error in late.values())
    assert all(isinstance(detail, TaskDetail) for detail in ended.values())


@on_asyncio
async def test_on_asyncio() -> None:
    """On asyncio, in real time: waiting, sharing, deadlines, updates, cancelling and closing."""
    service = Service(latency=0.005)
    poller = service.poller(tick=0.01, max_requests_per_second=1000)
    start = anyio.current_time()
    uids = [f"t{n}" for n in range(50)]
    service.finish_at = {uid: start + 0.002 * n for n, uid in enumerate(uids)}
    async with running(poller):
        ended = await outcomes(poller, uids * 2)
        assert all(detail.finished for detail in ended.values())
        before = anyio.current_time()
        assert isinstance(await outcome(poller, "a", timeout=0.1), TaskTimeoutError)
        assert 0.1 <= anyio.current_time() - before <= 0.4
        service.finish_at["b"] = anyio.current_time() + 0.2
        words = [detail.status_word async for detail in poller.updates("b", timeout=5)]
        assert ["Running", "Finished"] == words
        with anyio.move_on_after(0.05):
            await poller.wait("a", timeout=None)
    assert isinstance(await outcome(poller, "a"), ConfigurationError)


@on_asyncio
async def test_deadline_in_real_time() -> None:
    """Once for real: a deadline of 3 s fires between 3.0 and 3.3 s while a request hangs."""
    service = Service(latency=60)
    poller = service.poller()
    start = anyio.current_time()
    async with running(poller):
        assert isinstance(await outcome(poller, "a", timeout=3), TaskTimeoutError)

    assert 3.0 <= anyio.current_time() - start <= 3.3


# --- learned durations -------------------------------------------------------------------------------------------------


class History:
    """Tasks one after another, of one kind, waited for as soon as they begin.

    Attributes:
        polls: how many requests each task took.
        delays: seconds from the end of each task to its notice.
    """

    def __init__(self, **policy: Any) -> None:
        self.durations = Durations()
        self.service = Service()
        self.poller = Poller(
            self.service.fetch, PollPolicy(**policy), Dialect(), rng=random.Random(1), durations=self.durations
        )
        self.polls: list[int] = []
        self.delays: list[float] = []
        self._names = map(str, itertools.count())

    def begin(self, seconds: float) -> str:
        """A task that takes so long."""
        uid, now = next(self._names), anyio.current_time()
        self.durations.begin(uid, "kind", now)
        self.service.finish_at[uid] = now + seconds
        return uid

    async def add(self, *seconds: float) -> None:
        """One task after another."""
        for each in seconds:
            before, uid = len(self.service.polls), self.begin(each)
            await self.poller.wait(uid, timeout=None)
            self.polls.append(len(self.service.polls) - before)
            self.delays.append(anyio.current_time() - self.service.finish_at[uid])


async def test_learned_durations_save_polls() -> None:
    """Once it is known that tasks take 40 s, they are asked about 15 times at most rather than 40, and noticed as soon."""
    history = History()
    async with running(history.poller):
        await history.add(*[40.0] * 60)

    assert min(history.polls[:8]) >= 40
    assert max(history.polls[8:]) <= 15
    assert max(history.delays) <= 2.5


async def test_a_wrong_expectation_costs_one_interval() -> None:
    """A task that is much quicker than all others is noticed within the longest interval, and the next ones at once."""
    history = History()
    async with running(history.poller):
        await history.add(*[40.0] * 60, 11.0, 11.0, 11.0)

    assert history.delays[60] <= 5.5
    assert max(history.delays[61:]) <= 1.0


async def test_drift_is_followed() -> None:
    """When tasks take longer than they did, the polls they need are soon as few again."""
    history = History()
    async with running(history.poller):
        await history.add(*[15.0] * 64, *[40.0] * 70)

    assert max(history.polls[128:]) <= 15


async def test_followers_are_told_at_once() -> None:
    """Who follows a task gets its changes as soon as ever, whatever is known of its duration."""
    history = History()
    async with running(history.poller):
        await history.add(*[40.0] * 8)
        before = len(history.service.polls)
        details = [detail async for detail in history.poller.updates(history.begin(40.0), timeout=None)]

    assert ["Running", "Finished"] == [detail.status_word for detail in details]
    assert len(history.service.polls) - before >= 40


async def test_followers_are_told_at_once_beside_a_waiter() -> None:
    """A task that was put off for a waiter is asked about as usual from when somebody follows it."""
    history = History()
    async with running(history.poller), anyio.create_task_group() as waiters:
        await history.add(*[40.0] * 8)
        uid, start = history.begin(40.0), anyio.current_time()
        waiters.start_soon(outcome, history.poller, uid)
        await anyio.sleep(0.1)
        updates = history.poller.updates(uid, timeout=None)
        await anext(updates)

        assert anyio.current_time() - start <= 1.0
        waiters.cancel_scope.cancel()


async def test_updates_tell_texts() -> None:
    """Texts that end a task under an unknown word, which stays the same, are news."""
    service = Service()
    words = iter([(), (), ("a sofa",)])
    service.answer = lambda uid: row(uid, "Describing", texts=next(words))
    poller = service.poller()
    async with running(poller):
        assert [(), ("a sofa",)] == [detail.texts async for detail in poller.updates("a", timeout=60)]


async def test_what_is_not_learned() -> None:
    """Nothing is learned from tasks that were terminated, have vanished, or may have ended long before they were seen."""
    history = History(unknown_task_grace=0.0)
    service, poller = history.service, history.poller
    service.answer = lambda uid: None if uid == gone else service.state(uid)
    async with running(poller):
        gone = history.begin(60.0)
        terminated = history.begin(60.0)
        late = history.begin(60.0)
        poller.terminated(terminated)
        await outcome(poller, gone)
        await outcome(poller, terminated, timeout=100)
        await anyio.sleep(60)
        await poller.wait(late, timeout=None)

        assert history.durations.eta(history.begin(1.0), anyio.current_time()) is None


def mix(kind: str, count: int) -> list[float]:
    """Durations in seconds."""
    rng = random.Random(7)
    drift = itertools.count()
    draw: dict[str, Callable[[], float]] = {
        "narrow": lambda: rng.gauss(40, 2),
        "wide": lambda: min(200.0, rng.lognormvariate(math.log(25), 0.8)),
        "bimodal": lambda: rng.gauss(6, 0.5) if rng.random() < 0.5 else rng.gauss(60, 4),
        "drifting": lambda: (50 - 35 * next(drift) / count) * rng.uniform(0.95, 1.05),
        "jumping": lambda: (45 if next(drift) // 100 % 2 else 15) * rng.uniform(0.95, 1.05),
    }
    return [draw[kind]() for _ in range(count)]


async def cost(lengths: Sequence[float], *, learns: bool, **policy: Any) -> tuple[int, list[float]]:
    """Requests for tasks that begin one after another, and the sorted delays from finish to notice."""
    service, durations, delays = Service(latency=0.05), Durations(), list[float]()
    options, dialect = PollPolicy(max_requests_per_second=200, **policy), Dialect(max_task_uids=10)
    poller = Poller(service.fetch, options, dialect, rng=random.Random(1), durations=durations)

    async def follow(uid: str, begin: float, seconds: float) -> None:
        await anyio.sleep_until(begin)
        service.finish_at[uid] = begin + seconds
        if learns:
            durations.begin(uid, "kind", begin)
        await poller.wait(uid, timeout=None)
        delays.append(anyio.current_time() - service.finish_at[uid])

    start = anyio.current_time()
    async with running(poller), anyio.create_task_group() as waiters:
        for number, seconds in enumerate(lengths):
            waiters.start_soon(follow, f"{number}", start + 0.4 * number, seconds)
    return len(service.polls), sorted(delays)


@pytest.mark.parametrize("kind", ["narrow", "wide", "bimodal", "drifting", "jumping"])
async def test_learned_durations_never_cost_more(kind: str) -> None:
    """In any mix, fewer requests than the plain policy take, are enough for as early a median and 95th percentile.

    How 400 tasks fall on the grid of ticks is chance, which is good for a few percent.
    """
    lengths = mix(kind, 400)

    requests, plain = await cost(lengths, learns=False)
    learned_requests, learned = await cost(lengths, learns=True, age_share=0.04)

    assert learned_requests < requests
    assert learned[200] <= 1.1 * plain[200]
    assert learned[380] <= 1.1 * plain[380]
