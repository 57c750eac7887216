"""Tests of `run(on_cancel="terminate")`: cancelling the caller stops the remote task, whenever it strikes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import pytest
from clocks import SkippingLoop, skip
from jobs import CREDENTIALS, UUID, job

from picpik_async import PicpikSession, PollPolicy, RetryPolicy
from picpik_async._entries import JobState
from picpik_async.errors import (
    InvalidRequestError,
    PicpikError,
    RequestTimeoutError,
    SubmitOutcomeUnknownError,
    TaskTimeoutError,
)
from picpik_async.testing import Answer, FakeTransport

if TYPE_CHECKING:
    from pathlib import Path

    from picpik_async import TaskResult
    from picpik_async._body import Body
    from picpik_async._transport import BeforeTail

pytestmark = pytest.mark.anyio

LOST = Answer(200, b'{"RetCode": 0, "Task', broken="reset")


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """On a loop whose clock can be moved."""
    return "asyncio", {"loop_factory": SkippingLoop}


class Service(FakeTransport):
    """Takes submits when `take` is set, sends their answers when `answer` is, and ends tasks only if told.

    Attributes:
        terminated: in order.
        word: the status of all tasks.
    """

    def __init__(self) -> None:
        super().__init__(self.respond)
        self.take = anyio.Event()
        self.answer = anyio.Event()
        self.terminate = anyio.Event()
        self.take.set()
        self.terminate.set()
        self.heads = 0
        self.terminated: list[str] = []
        self.terminating = 0
        self.word = "Running"
        self.reply: Any = None

    async def send(self, body: Body, *, before_tail: BeforeTail | None = None) -> Answer:
        """Hold back the tail."""

        async def held_back() -> None:
            self.heads += 1
            await self.take.wait()
            if before_tail is not None:
                await before_tail()

        return await super().send(body, before_tail=held_back if before_tail else None)

    async def respond(self, request: dict[str, Any]) -> Any:
        """Play the service."""
        match request["Action"]:
            case "ModifyMaskedPixels":
                await self.answer.wait()
                return self.reply or {"RetCode": 0, "TaskUID": f"task-{request['request_uuid']}"}
            case "TerminateTask":
                self.terminating += 1
                await self.terminate.wait()
                self.terminated.append(request["TaskUID"])
                return {"RetCode": 0}
            case _:
                rows = [{"TaskUID": uid, "Status": self.word} for uid in request["TaskUIDList"]]
                return {"RetCode": 0, "TaskDetailList": rows}

    @property
    def actions(self) -> list[str]:
        """Of all requests so far."""
        return [request["Action"] for request in self.requests]


def session(service: Service, **options: Any) -> PicpikSession:
    """A session with it."""
    defaults: dict[str, Any] = {"poll": PollPolicy(tick=0.01), "retry": RetryPolicy(base_delay=0)}
    return PicpikSession(CREDENTIALS, transport=service, **(defaults | options))


def run(picpik: PicpikSession, **options: Any) -> asyncio.Task[TaskResult]:
    """Start to run a job in a task of its own, which terminates if it is cancelled."""
    return asyncio.create_task(picpik.run(job(), request_uuid=UUID, **({"on_cancel": "terminate"} | options)))


async def until(service: Service, action: str) -> None:
    """Wait until the service has got that."""
    while action not in service.actions:
        await anyio.lowlevel.checkpoint()


async def cancelled(running: asyncio.Task[TaskResult]) -> None:
    """Wait for the end, which must be the cancellation, and nothing else."""
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_before_the_commit_point() -> None:
    """What is not paid is aborted, and there is no task to terminate."""
    service = Service()
    service.take = anyio.Event()
    async with session(service) as picpik:
        running = run(picpik)
        while not service.heads:
            await anyio.lowlevel.checkpoint()
        running.cancel()
        await cancelled(running)

    assert [] == service.requests


async def test_while_the_answer_is_awaited() -> None:
    """The uid arrives after the cancellation, and is terminated then."""
    service = Service()
    async with session(service) as picpik:
        running = run(picpik)
        await until(service, "ModifyMaskedPixels")
        running.cancel()
        await anyio.wait_all_tasks_blocked()
        assert not running.done()
        service.answer.set()
        await cancelled(running)

    assert [f"task-{UUID}"] == service.terminated


async def test_while_the_task_is_awaited() -> None:
    """The caller's task is terminated, and no other; when the caller goes on, it is done."""
    service = Service()
    service.answer.set()
    async with session(service) as picpik:
        other = await picpik.submit(job())
        running = run(picpik)
        await until(service, "ListTasksDetails")
        running.cancel()
        await cancelled(running)

        assert [f"task-{UUID}"] == service.terminated
        assert [other.uid, f"task-{UUID}"] == [task.uid for task in picpik.tasks]


async def test_second_cancellation() -> None:
    """A caller that is cancelled once more does not wait, and the task is terminated all the same."""
    service = Service()
    async with session(service) as picpik:
        running = run(picpik)
        await until(service, "ModifyMaskedPixels")
        running.cancel()
        await anyio.wait_all_tasks_blocked()
        running.cancel()
        await cancelled(running)
        service.answer.set()
        await until(service, "TerminateTask")

    assert [f"task-{UUID}"] == service.terminated


async def test_cancelled_scope() -> None:
    """A cancel scope, which cancels whoever waits in it again and again, waits for the end of the task, too."""
    service = Service()
    service.answer.set()
    service.terminate = anyio.Event()
    async with session(service) as picpik:

        async def leave() -> None:
            with anyio.CancelScope() as scope:
                scopes.append(scope)
                await picpik.run(job(), request_uuid=UUID, on_cancel="terminate")

        scopes: list[anyio.CancelScope] = []
        leaving = asyncio.create_task(leave())
        await until(service, "ListTasksDetails")
        scopes[0].cancel()
        await until(service, "TerminateTask")
        await anyio.wait_all_tasks_blocked()
        assert not leaving.done()
        service.terminate.set()
        await leaving

        assert [f"task-{UUID}"] == service.terminated


@pytest.mark.parametrize("silent", ["answer", "terminate"])
async def test_bounded(silent: str) -> None:
    """A service that does not answer keeps the caller no longer than 4 seconds."""
    service = Service()
    if silent == "terminate":
        service.answer.set()
        service.terminate = anyio.Event()
    async with session(service) as picpik:
        running = run(picpik)
        await until(service, "ModifyMaskedPixels" if silent == "answer" else "ListTasksDetails")
        running.cancel()
        if silent == "terminate":
            await until(service, "TerminateTask")
        await anyio.wait_all_tasks_blocked()
        skip(3.9)
        await anyio.wait_all_tasks_blocked()
        assert not running.done()
        skip(0.1)
        await cancelled(running)
        service.answer.set()
        service.terminate.set()


async def test_terminate_that_fails(caplog: pytest.LogCaptureFixture) -> None:
    """If the task cannot be terminated, the log says so, and the caller is cancelled as ever."""
    service = Service()
    service.answer.set()
    service.terminate = anyio.Event()
    async with session(service) as picpik:
        running = run(picpik)
        await until(service, "ListTasksDetails")
        running.cancel()
        await until(service, "TerminateTask")
        await anyio.wait_all_tasks_blocked()
        skip(4)
        await cancelled(running)
        await anyio.wait_all_tasks_blocked()

    (record,) = [record for record in caplog.records if "could not be terminated" in record.getMessage()]
    assert f"task task-{UUID} could not be terminated: TimeoutError" == record.getMessage()


async def test_unknown_outcome() -> None:
    """A submit that may be paid, but whose task nobody knows, terminates nothing."""
    service = Service()
    service.reply = LOST
    async with session(service) as picpik:
        running = run(picpik)
        await until(service, "ModifyMaskedPixels")
        running.cancel()
        service.answer.set()
        await cancelled(running)

        assert [UUID] == list(picpik.unknown_submits)
    assert [] == service.terminated


async def test_detached() -> None:
    """Left alone, the task goes on."""
    service = Service()
    service.answer.set()
    async with session(service) as picpik:
        running = run(picpik, on_cancel="detach")
        await until(service, "ListTasksDetails")
        running.cancel()
        await cancelled(running)

        assert [f"task-{UUID}"] == [task.uid for task in picpik.tasks]
    assert [] == service.terminated


async def test_timeout_is_no_cancellation() -> None:
    """A wait that was too short leaves the task alone."""
    service = Service()
    service.answer.set()
    async with session(service) as picpik:
        running = run(picpik, timeout=5)
        await until(service, "ListTasksDetails")
        skip(5)
        with pytest.raises(TaskTimeoutError):
            await running

    assert [] == service.terminated


async def test_closing_waits_for_it() -> None:
    """A session that closes finishes a termination that is under way."""
    service = Service()
    service.answer.set()
    service.terminate = anyio.Event()
    picpik = session(service)
    running = run(picpik)
    await until(service, "ListTasksDetails")
    running.cancel()
    await until(service, "TerminateTask")
    closing = asyncio.create_task(picpik.aclose())
    await anyio.wait_all_tasks_blocked()
    assert not closing.done()
    service.terminate.set()
    await closing
    await cancelled(running)

    assert [f"task-{UUID}"] == service.terminated


async def test_noted_in_the_journal(tmp_path: Path) -> None:
    """A rerun does not wait for a task that was terminated, nor does it pay for another."""
    service, path = Service(), tmp_path / "jobs.sqlite"
    service.answer.set()
    async with session(service, journal=path) as picpik:
        running = asyncio.create_task(picpik.run(job(), on_cancel="terminate"))
        await until(service, "ListTasksDetails")
        service.word = "Stopped"
        running.cancel()
        await cancelled(running)
        (entry,) = await picpik._records.journal.entries()  # type: ignore[union-attr]

        assert (JobState.FAILED, "TaskTerminatedError") == (entry.state, entry.error)
        with pytest.raises(PicpikError, match="terminated on request"):
            await picpik.submit(job())
    assert 1 == service.actions.count("ModifyMaskedPixels")


@pytest.mark.parametrize("moment", ["at once", "while both wait"])
async def test_another_run_of_the_same_job(tmp_path: Path, moment: str) -> None:
    """One of two equal jobs is cancelled: the task they share goes on, and the other gets its pictures."""
    service = Service()
    async with session(service, journal=tmp_path / "jobs.sqlite") as picpik:
        first, second = (asyncio.create_task(picpik.run(job(), on_cancel="terminate")) for _ in range(2))
        await until(service, "ModifyMaskedPixels")
        if moment == "while both wait":
            service.answer.set()
            await until(service, "ListTasksDetails")
            while 2 > max(task.waiters for task in picpik._engine.poller._schedule._tasks.values()):  # type: ignore[union-attr]
                await anyio.lowlevel.checkpoint()
        else:
            await anyio.wait_all_tasks_blocked()
        first.cancel()
        service.answer.set()
        await cancelled(first)
        service.word = "Finished"

        assert (await second).detail.finished
        assert [] == service.terminated
    assert 1 == service.actions.count("ModifyMaskedPixels")


@pytest.mark.parametrize("other", ["waits", "submitted"])
async def test_task_that_somebody_else_has(tmp_path: Path, other: str) -> None:
    """Whoever waits for the task by its uid, or got it for an equal job, keeps it."""
    service = Service()
    service.answer.set()
    async with session(service, journal=tmp_path / "jobs.sqlite") as picpik:
        running = asyncio.create_task(picpik.run(job(), on_cancel="terminate"))
        await until(service, "ListTasksDetails")
        task = picpik.tasks[0] if other == "waits" else await picpik.submit(job())
        waiting = asyncio.create_task(task.wait() if other == "waits" else asyncio.sleep(0))
        await anyio.wait_all_tasks_blocked()
        running.cancel()
        await cancelled(running)
        service.word = "Finished"
        await waiting

    assert [] == service.terminated


async def test_task_of_an_earlier_run(tmp_path: Path) -> None:
    """What the journal knew before is not this call's to end."""
    service, path = Service(), tmp_path / "jobs.sqlite"
    service.answer.set()
    async with session(service, journal=path) as picpik:
        await picpik.submit(job())
    async with session(service, journal=path) as picpik:
        running = asyncio.create_task(picpik.run(job(), on_cancel="terminate"))
        await until(service, "ListTasksDetails")
        running.cancel()
        await cancelled(running)

    assert [] == service.terminated


async def test_wrong_word() -> None:
    """There are two ways, and a third is refused before anything is sent."""
    service = Service()
    async with session(service) as picpik:
        with pytest.raises(InvalidRequestError, match="on_cancel is 'kill'"):
            await picpik.run(job(), on_cancel="kill")  # type: ignore[arg-type]

    assert [] == service.requests


@pytest.mark.parametrize("way", ["close", "kill"])
async def test_as_the_session_ends(way: str, caplog: pytest.LogCaptureFixture) -> None:
    """Shortly after the session has begun to end, the task is terminated, or the log says that it goes on."""
    ends = []
    for steps in range(10):
        service = Service()
        service.answer.set()
        picpik = session(service)
        running = run(picpik)
        await until(service, "ListTasksDetails")
        await anyio.wait_all_tasks_blocked()
        closing = asyncio.create_task(picpik.aclose())
        if way == "kill" and picpik._engine is not None:
            picpik._engine.owner.cancel()
        for _ in range(steps):
            await anyio.lowlevel.checkpoint()
        is_late = not running.cancel()
        await asyncio.wait([running, closing])
        told = [record for record in caplog.messages if "could not be terminated: the session ended" in record]
        caplog.clear()

        assert is_late or 1 == len(told) + len(service.terminated), steps
        ends.append("late" if is_late else "told" if told else "terminated")
    assert (["terminated"] * 2 if way == "close" else ["told"] * 2) == ends[:2]
    assert {"told", "late"} <= set(ends)


async def test_after_the_end(caplog: pytest.LogCaptureFixture) -> None:
    """When nothing can be started any more, the log says so."""
    service = Service()
    service.answer.set()
    async with session(service) as picpik:
        engine, submit = await picpik._open(), picpik._new_submit(job(), request_uuid=UUID)
        await engine.submit(submit)
    await engine.call_off(submit)

    assert f"task task-{UUID} could not be terminated: the session ended" in caplog.messages
    assert [] == service.terminated


@pytest.mark.parametrize("way", ["cancel", "close", "kill"])
async def test_any_moment(way: str) -> None:
    """At whatever step it strikes, with the session closed or its owner killed in the same breath, nothing else leaves.

    Of what is paid, each task is terminated, unless the session's owner was killed; then it is at least known.
    """
    seen = set()
    for steps in range(-10, 40):
        service = Service()
        service.answer.set()
        picpik = session(service)
        running = run(picpik)
        while steps >= 0 and not service.heads:
            await anyio.lowlevel.checkpoint()
        for _ in range(abs(steps)):
            await anyio.lowlevel.checkpoint()
        running.cancel()
        if way == "kill" and picpik._engine is not None:
            picpik._engine.owner.cancel()
        if way == "cancel":
            await asyncio.wait([running])
        closing = asyncio.create_task(picpik.aclose())
        await asyncio.wait([running])
        await closing
        taken = [f"task-{UUID}"] * service.actions.count("ModifyMaskedPixels")
        known = [task.uid for task in picpik.tasks] + [f"task-{uuid}" for uuid in picpik.unknown_submits]

        assert running.cancelled(), steps
        assert taken == known
        assert way == "kill" or taken == service.terminated
        seen.add(len(taken))
    assert {0, 1} == seen


async def test_another_job_under_way() -> None:
    """Submits of other jobs have no say."""
    service = Service()
    async with session(service) as picpik:
        running = run(picpik)
        await until(service, "ModifyMaskedPixels")
        other = asyncio.create_task(picpik.submit(job().with_seed(2)))
        while 2 > service.actions.count("ModifyMaskedPixels"):
            await anyio.lowlevel.checkpoint()
        service.take = anyio.Event()
        third = asyncio.create_task(picpik.submit(job().with_seed(3)))
        while 3 > service.heads:
            await anyio.lowlevel.checkpoint()
        running.cancel()
        service.answer.set()
        await cancelled(running)
        service.take.set()
        await other
        await third

    assert [f"task-{UUID}"] == service.terminated


async def test_equal_job_not_yet_sent(tmp_path: Path) -> None:
    """Who waits for an equal job that the service cannot have yet is told just that when time is up."""
    service = Service()
    service.take = anyio.Event()
    async with session(service, journal=tmp_path / "jobs.sqlite") as picpik:
        first = asyncio.create_task(picpik.submit(job()))
        while not service.heads:
            await anyio.lowlevel.checkpoint()
        with pytest.raises(RequestTimeoutError, match="another submit of this job is under way, and has not ended"):
            await picpik.run(job(), timeout=0.05)
        service.take.set()
        service.answer.set()
        await first

    assert 1 == service.actions.count("ModifyMaskedPixels")


async def test_salvaged_task_that_nobody_knows() -> None:
    """A uid out of a broken answer is believed only if the service knows the task within a few seconds."""

    def respond(request: dict[str, Any]) -> Any:
        if request["Action"] == "ListTasksDetails":
            return {"RetCode": 0, "TaskDetailList": []}
        return Answer(200, b'{"RetCode": 0, "TaskUID": "strange"', broken="reset")

    transport = FakeTransport(respond)
    async with PicpikSession(CREDENTIALS, transport=transport) as picpik:
        submit = asyncio.create_task(picpik.submit(job()))
        while not submit.done():
            await anyio.wait_all_tasks_blocked()
            skip(1)
        with pytest.raises(SubmitOutcomeUnknownError) as caught:
            await submit

    assert "strange" == caught.value.task_uid
    assert 5 == [request["Action"] for request in transport.requests].count("ListTasksDetails")
