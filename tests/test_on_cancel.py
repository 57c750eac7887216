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


async def test_wrong_word() -> None:
    """There are two ways, and a third is refused before anything is sent."""
    service = Service()
    async with session(service) as picpik:
        with pytest.raises(InvalidRequestError, match="on_cancel is 'kill'"):
            await picpik.run(job(), on_cancel="kill")  # type: ignore[arg-type]

    assert [] == service.requests


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
