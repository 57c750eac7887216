"""Tests of a session's life: opening, closing, being forgotten, and whatever is cancelled in between."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import subprocess
import sys
import textwrap
import threading
import time
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest
import uvloop
from clocks import SkippingLoop, skip
from fault_server import Exchange, FaultServer, accepted, after_reading, answering, details, in_turn, service, until
from jobs import CREDENTIALS, QUICK, UUID, job, picture, session

from picpik_async import Limits, PicpikSession, PollPolicy, RetryPolicy, TaskStatus
from picpik_async.errors import (
    ApiError,
    ConfigurationError,
    InvalidRequestError,
    PicpikError,
    RequestTimeoutError,
    SubmitOutcomeUnknownError,
    TaskFailedError,
    TaskTerminatedError,
    TaskTimeoutError,
    TransportError,
)
from picpik_async.testing import Answer, FakeTransport

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

BALANCE: dict[str, Any] = {"RetCode": 0, "TotalCredits": 10, "UsedCredits": 3}


ONCE = RetryPolicy(attempts=1)


def owners() -> list[asyncio.Task[Any]]:
    """The owner tasks of all sessions on this loop."""
    return [task for task in asyncio.all_tasks() if task.get_name() == "picpik session"]


async def heard(server: FaultServer, *, complete: bool = True) -> None:
    """Wait until *server* has a request, by default a whole one."""
    await anyio.to_thread.run_sync(until, lambda: bool(server.complete if complete else server.requests))


async def settle(server: FaultServer) -> None:
    """Wait until *server* has got all it will get."""
    await anyio.to_thread.run_sync(server.settle)


def footprint() -> tuple[int, int]:
    """Threads and open files of this process."""
    gc.collect()
    return threading.active_count(), len([*Path("/proc/self/fd").iterdir()])


@pytest.fixture
def _tidy(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Nothing is left behind: no thread, no open file, no complaint of asyncio."""
    before = footprint()
    yield
    until(lambda: footprint() == before)
    assert [] == [record.getMessage() for record in caplog.records if record.name == "asyncio"]


def run(main: Callable[[], Awaitable[None]]) -> None:
    """Run *main* on a loop of its own, which it must leave without tasks."""

    async def wrapped() -> None:
        await main()
        gc.collect()
        assert {asyncio.current_task()} == asyncio.all_tasks()

    asyncio.run(wrapped())


# --- opening -----------------------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_opens_once() -> None:
    """However many coroutines use a new session at once, it opens once."""
    transport = FakeTransport(lambda _request: BALANCE)
    picpik = PicpikSession(CREDENTIALS, transport=transport)
    async with anyio.create_task_group() as group:
        for _ in range(20):
            group.start_soon(picpik.balance)
        await anyio.wait_all_tasks_blocked()

        assert 1 == len(owners())

    assert 20 == len(transport.requests)
    await picpik.aclose()
    assert [] == owners()


@pytest.mark.anyio
async def test_keys_and_endpoint_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without arguments the environment says who and where."""
    with FaultServer(answering(BALANCE)) as server:
        monkeypatch.setenv("PICPIK_PUBLIC_KEY", "from-env")
        monkeypatch.setenv("PICPIK_PRIVATE_KEY", "secret")
        monkeypatch.setenv("PICPIK_ENDPOINT", server.url)
        async with PicpikSession() as picpik:
            await picpik.balance()

        assert "from-env" == server.complete[0].document["PublicKey"]


@pytest.mark.anyio
async def test_closed_while_opening() -> None:
    """Who waits for a session to open hears that it was closed."""
    picpik = PicpikSession(CREDENTIALS, transport=FakeTransport(lambda _request: BALANCE))

    async def use() -> None:
        with pytest.raises(ConfigurationError, match="session is closed"):
            await picpik.balance()

    async with anyio.create_task_group() as group:
        group.start_soon(use)
        group.start_soon(picpik.aclose)


@pytest.mark.anyio
async def test_injected_transport_is_not_closed() -> None:
    """A transport of one's own is used by one session after the other."""

    class Closable(FakeTransport):
        closed = False

        async def aclose(self) -> None:
            self.closed = True

        async def __aexit__(self, *_: object) -> None:
            self.closed = True

    transport = Closable(lambda _request: BALANCE)
    for _ in range(2):
        async with PicpikSession(CREDENTIALS, transport=transport) as picpik:
            await picpik.balance()

    assert not transport.closed
    assert 2 == len(transport.requests)


# --- the wrong place ---------------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_used_after_close() -> None:
    """A closed session does nothing but say so, and how to go on."""
    with FaultServer(answering(BALANCE)) as server:
        picpik = session(server.url)
        async with picpik:
            task = picpik.task("a-task")
        await picpik.aclose()
        updates = task.updates()
        uses: list[Callable[[], Any]] = [
            picpik.balance,
            picpik.models,
            picpik.running_tasks,
            lambda: picpik.submit(job()),
            lambda: picpik.run(job()),
            task.wait,
            task.detail,
            task.terminate,
            lambda: anext(updates),
            picpik.__aenter__,
        ]
        for use in uses:
            with pytest.raises(ConfigurationError, match=r"session is closed; make a new PicpikSession"):
                await use()

        assert 0 == server.connections


@pytest.mark.usefixtures("_tidy")
def test_used_from_another_loop() -> None:
    """A session belongs to the loop of its first use."""
    with FaultServer(answering(BALANCE)) as server:
        picpik = session(server.url)

        async def use() -> None:
            await picpik.balance()

        asyncio.run(use())
        for wrong in (use, picpik.aclose):
            with pytest.raises(ConfigurationError, match="another event loop; make one per event loop"):
                asyncio.run(wrong())

        assert 1 == len(server.requests)


def test_without_a_loop() -> None:
    """What takes no `await` says so, too, if no loop is running."""
    with pytest.raises(ConfigurationError, match="no event loop is running in this thread"):
        session("http://localhost").task("a").eta()


@contextlib.contextmanager
def program(text: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A running Python program that complains about everything."""
    command = [sys.executable, "-X", "dev", "-W", "error", "-c", textwrap.dedent(text), *arguments]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as running:  # noqa: S603 - Python
        yield running


def test_used_in_a_forked_child() -> None:
    """A forked child gets an error instead of its parent's connection, and the parent goes on."""
    text = """
        import asyncio, os, sys, warnings
        from picpik_async import Credentials, PicpikSession
        from picpik_async.errors import ConfigurationError

        async def main():
            async with PicpikSession(Credentials("a", "b"), endpoint=sys.argv[1]) as picpik:
                await picpik.balance()
                with warnings.catch_warnings(action="ignore"):
                    child = os.fork()
                if child == 0:
                    try:
                        await picpik.balance()
                    except ConfigurationError as error:
                        print(error, flush=True)
                    os._exit(0)
                os.waitpid(child, 0)
                await picpik.balance()

        asyncio.run(main())
    """
    with FaultServer(answering(BALANCE)) as server:
        with program(text, server.url) as running:
            output, errors = running.communicate(timeout=60)

        assert ("", 0) == (errors, running.returncode)
        assert "made before a fork; make one per process, after the fork" in output
        assert 2 == len(server.requests)
        assert 1 == server.connections


@pytest.mark.anyio
async def test_used_in_another_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process id is enough to refuse."""
    picpik = PicpikSession(CREDENTIALS)
    monkeypatch.setattr(os, "getpid", lambda: -1)

    for use in (picpik.balance, picpik.aclose):
        with pytest.raises(ConfigurationError, match="made before a fork"):
            await use()


# --- closing -----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("_tidy")
def test_close_never_opened() -> None:
    """A session nobody used is closed at once."""

    async def main() -> None:
        await PicpikSession(CREDENTIALS).aclose()

    run(main)


@pytest.mark.usefixtures("_tidy")
def test_close_idle() -> None:
    """An idle session is closed at once, with its kept connections."""
    with FaultServer(answering(BALANCE)) as server:

        async def main() -> None:
            picpik = session(server.url)
            await picpik.balance()
            await picpik.aclose()
            await picpik.aclose()

        run(main)


@pytest.mark.usefixtures("_tidy")
def test_close_during_an_upload() -> None:
    """Closing aborts a submit whose tail is not sent."""
    with FaultServer(lambda exchange: exchange.hang()) as server:

        async def main() -> None:
            picpik = session(server.url)

            async def submit() -> None:
                with pytest.raises(TransportError, match=r"aborted.*nothing was paid") as caught:
                    await picpik.submit(job(2000), request_uuid=UUID)
                assert UUID == caught.value.request_uuid

            async with anyio.create_task_group() as group:
                group.start_soon(submit)
                await heard(server, complete=False)
                start = time.monotonic()
                await picpik.aclose()
            assert time.monotonic() - start < 1

        run(main)

        assert [] == server.complete


@pytest.mark.usefixtures("_tidy")
def test_close_waits_for_what_may_be_paid() -> None:
    """Closing waits for the answer to a submit whose tail is sent."""
    held = threading.Event()

    def late(exchange: Exchange) -> None:
        held.wait(20)
        exchange.answer(accepted(exchange))

    with FaultServer(service(submit=late)) as server:

        async def main() -> None:
            picpik = session(server.url)
            async with anyio.create_task_group() as group:
                group.start_soon(picpik.submit, job())
                await heard(server)
                group.start_soon(picpik.aclose)
                await anyio.wait_all_tasks_blocked()
                held.set()
            assert 1 == len(picpik.tasks)

        run(main)


@pytest.mark.usefixtures("_tidy")
def test_close_waits_no_longer_than_5_seconds() -> None:
    """A submit without an answer does not keep a session from closing; its outcome is unknown."""
    with FaultServer(after_reading(lambda exchange: exchange.hang())) as server:

        async def main() -> None:
            picpik = session(server.url, limits=Limits(request_timeout=60))
            async with anyio.create_task_group() as group:

                async def submit() -> None:
                    with pytest.raises(SubmitOutcomeUnknownError, match="the session ended") as caught:
                        await picpik.submit(job(), request_uuid=UUID)
                    assert UUID == caught.value.request_uuid

                group.start_soon(submit)
                await heard(server)
                closing = asyncio.create_task(picpik.aclose())
                await anyio.wait_all_tasks_blocked()
                assert not closing.done()
                skip(4.75)
                await closing

        with asyncio.Runner(loop_factory=SkippingLoop) as runner:
            runner.run(main())


@pytest.mark.usefixtures("_tidy")
def test_close_during_waits() -> None:
    """Everybody who waits hears that the session was closed, and how to go on."""
    with FaultServer(service(ListTasksDetails=details(status="Running"), ListModels=Exchange.drain)) as server:

        async def main() -> None:
            picpik = session(server.url)
            updates = picpik.task("a-task").updates()
            assert TaskStatus.RUNNING is (await anext(updates)).status
            waits: list[Callable[[], Any]] = [
                lambda: picpik.task("a-task").wait(),
                lambda: picpik.run(job()),
                lambda: anext(updates),
                picpik.models,
            ]

            async def wait(use: Callable[[], Any]) -> None:
                with pytest.raises(ConfigurationError, match="session is closed"):
                    await use()

            async with anyio.create_task_group() as group:
                for use in waits:
                    group.start_soon(wait, use)
                await anyio.to_thread.run_sync(until, lambda: {"ListModels", "ModifyMaskedPixels"} <= {*server.actions})
                await anyio.sleep(0.1)
                start = time.monotonic()
                await picpik.aclose()
            assert time.monotonic() - start < 1

        run(main)


@pytest.mark.usefixtures("_tidy")
def test_close_during_a_download() -> None:
    """A download that is under way ends with its session."""

    def slowly(exchange: Exchange) -> None:
        exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nx")
        exchange.drain()

    with FaultServer() as server:
        server._scripts.append(service(ListTasksDetails=details(f"{server.url}/1"), download=slowly))

        async def main() -> None:
            picpik = session(server.url)
            result = await picpik.task("a-task").wait()

            async def read() -> None:
                with pytest.raises(ConfigurationError, match="session is closed"):
                    await result.images[0].read()

            async with anyio.create_task_group() as group:
                group.start_soon(read)
                await anyio.to_thread.run_sync(until, lambda: len(server.requests) == 2)
                await anyio.wait_all_tasks_blocked()
                await picpik.aclose()

        run(main)


# --- being forgotten ---------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("_tidy")
def test_forgotten_session_ends() -> None:
    """A session nobody refers to any more ends its owner."""
    with FaultServer(answering(BALANCE)) as server:

        async def main() -> None:
            picpik = session(server.url)
            await picpik.balance()
            (owner,) = owners()
            gone = weakref.ref(picpik)
            del picpik
            gc.collect()
            assert gone() is None
            await asyncio.wait([owner], timeout=5)
            assert [] == owners()

        run(main)


@pytest.mark.usefixtures("_tidy")
def test_forgotten_after_its_loop() -> None:
    """A session that outlives its loop is forgotten in silence."""
    with FaultServer(answering(BALANCE)) as server:

        async def main() -> PicpikSession:
            picpik = session(server.url)
            await picpik.balance()
            return picpik

        picpik = asyncio.run(main())
        gone = weakref.ref(picpik)
        del picpik
        gc.collect()

        assert gone() is None


def test_program_that_never_closes() -> None:
    """A program may end with an open session, whatever it is doing, and nothing is printed."""
    text = """
        import asyncio, io, os, sys
        from PIL import Image
        from picpik_async import Credentials, ModifyMaskedPixels, PicpikSession

        def png(mode):
            file = io.BytesIO()
            Image.new(mode, (64, 64), 255).save(file, "PNG")
            return file.getvalue()

        async def main():
            asyncio.get_running_loop().slow_callback_duration = 60  # the machine may be busy
            picpik = PicpikSession(Credentials("a", "b"), endpoint=sys.argv[1])
            await picpik.balance()
            uses = [picpik.task("a").wait(), picpik.models(), picpik.submit(ModifyMaskedPixels.inpaint(png("L"), png("L")))]
            tasks = [asyncio.create_task(use) for use in uses]
            await asyncio.to_thread(sys.stdin.readline)

        asyncio.run(main())
    """
    endless = service(
        GetCreditBalance=BALANCE,
        ListTasksDetails=details(status="Running"),
        ListModels=Exchange.drain,
        submit=Exchange.drain,
    )
    expected = {"GetCreditBalance", "ListTasksDetails", "ListModels", "ModifyMaskedPixels"}
    with FaultServer(endless) as server, program(text, server.url) as running:
        until(lambda: expected == {*server.actions})
        output, errors = running.communicate("end\n", timeout=60)

        assert ("", "", 0) == (output, errors, running.returncode)


@pytest.mark.anyio
async def test_owner_that_was_killed() -> None:
    """A session whose owner was interrupted, as a notebook does, opens anew on next use."""
    with FaultServer(service(GetCreditBalance=BALANCE, submit=Exchange.drain)) as server:
        async with session(server.url) as picpik:
            await picpik.balance()

            async def submit() -> None:
                with pytest.raises(SubmitOutcomeUnknownError, match="the session ended"):
                    await picpik.submit(job())

            async with anyio.create_task_group() as group:
                group.start_soon(submit)
                await anyio.to_thread.run_sync(until, lambda: len(server.complete) == 2)
                (owner,) = owners()
                owner.cancel()
                await asyncio.wait([owner])
                await picpik.balance()

            assert [owner] != owners()
            assert 1 == len(owners())


@pytest.mark.anyio
async def test_owner_that_was_killed_before_the_commit_point() -> None:
    """A submit that was not sent when its owner was interrupted says that the session ended."""
    with FaultServer(lambda exchange: exchange.hang()) as server:
        picpik = session(server.url)

        async def submit() -> None:
            with pytest.raises(ConfigurationError, match="session is closed"):
                await picpik.submit(job(2000))

        async with anyio.create_task_group() as group:
            group.start_soon(submit)
            await heard(server, complete=False)
            owners()[0].cancel()
        await picpik.aclose()

        assert [] == server.complete


# --- cancelling --------------------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_cancelled_before_the_commit_point() -> None:
    """Cancelling the caller aborts what is not paid for."""
    with FaultServer(after_reading(lambda exchange: exchange.hang(), size=1000)) as server:
        async with session(server.url) as picpik:
            async with anyio.create_task_group() as group:
                group.start_soon(picpik.submit, job(2000))
                await heard(server, complete=False)
                group.cancel_scope.cancel()
            await anyio.wait_all_tasks_blocked()

            assert picpik._engine is not None
            assert set() == picpik._engine._submits

    assert [] == server.complete
    assert () == picpik.tasks


@pytest.mark.anyio
async def test_cancelled_after_the_commit_point() -> None:
    """Cancelling the caller only detaches it from what may be paid for; its task turns up in the session."""
    held = threading.Event()

    def late(exchange: Exchange) -> None:
        held.wait(20)
        exchange.answer(accepted(exchange))

    with FaultServer(service(submit=late, ListTasksDetails=details(Seed=7))) as server:
        async with session(server.url) as picpik:
            async with anyio.create_task_group() as group:
                group.start_soon(lambda: picpik.submit(job(), request_uuid=UUID))
                await heard(server)
                await anyio.wait_all_tasks_blocked()
                group.cancel_scope.cancel()
            held.set()
            await anyio.to_thread.run_sync(until, lambda: bool(picpik.tasks))
            (task,) = picpik.tasks

            assert f"task-{UUID}" == task.uid
            assert 7 == (await task).seed


@pytest.mark.anyio
async def test_cancelled_and_unknown(caplog: pytest.LogCaptureFixture) -> None:
    """An unknown outcome nobody waits for any more is logged."""
    held = threading.Event()

    def late(exchange: Exchange) -> None:
        held.wait(20)
        exchange.reset()

    with FaultServer(service(submit=late)) as server:
        async with session(server.url) as picpik:
            async with anyio.create_task_group() as group:
                group.start_soon(lambda: picpik.submit(job(), request_uuid=UUID))
                await heard(server)
                await anyio.wait_all_tasks_blocked()
                group.cancel_scope.cancel()
            held.set()

    (record,) = [record for record in caplog.records if record.name == "picpik_async"]
    assert "WARNING" == record.levelname
    assert UUID in record.getMessage()
    assert UUID == record.__dict__["request_uuid"]


@pytest.mark.anyio
async def test_cancelled_in_the_queue() -> None:
    """A submit that waits for its turn is dropped with its caller."""
    with FaultServer(after_reading(lambda exchange: exchange.hang())) as server:
        async with session(server.url, limits=Limits(uploads=1, stall_timeout=0.3, request_timeout=0.3)) as picpik:

            async def submit() -> None:
                with pytest.raises(SubmitOutcomeUnknownError):
                    await picpik.submit(job())

            async with anyio.create_task_group() as group:
                group.start_soon(submit)
                await heard(server)
                with anyio.move_on_after(0.05):
                    await picpik.submit(job())

        assert 1 == len(server.requests)


@pytest.mark.anyio
async def test_uploads_are_bounded() -> None:
    """No more submits are under way at once than the limit says."""
    underway, most = 0, 0

    async def respond(_request: dict[str, Any]) -> dict[str, Any]:
        nonlocal underway, most
        underway += 1
        most = max(most, underway)
        await anyio.sleep(0.01)
        underway -= 1
        return {"RetCode": 0, "TaskUID": "a"}

    limits = Limits(uploads=3)
    transport = FakeTransport(respond)
    async with (
        PicpikSession(CREDENTIALS, transport=transport, limits=limits) as picpik,
        anyio.create_task_group() as group,
    ):
        for _ in range(12):
            group.start_soon(picpik.submit, job())

    assert 3 == most


# --- run ---------------------------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_run() -> None:
    """One `await` leads from a request to verified pictures."""
    with FaultServer() as server:
        rows = in_turn(
            answering({"RetCode": 0, "TaskDetailList": None}),
            details(status="Queuing"),
            details(f"{server.url}/1.png", Seed=7, ConsumeApiPoint=3),
        )
        download = answering(picture(), headers={"Content-Type": "image/png"})
        server._scripts.append(service(ListTasksDetails=rows, download=download))
        async with session(server.url) as picpik:
            result = await picpik.run(job())

            assert picture() == await result.images[0].read()

    assert (7, 3, ()) == (result.seed, result.cost, result.texts)


@pytest.mark.anyio
async def test_run_of_a_task_that_fails() -> None:
    """A task that ends badly is told with its id."""
    rows = details(status="Error", ErrorCode=5, ErrorMassage="no")
    with FaultServer(service(ListTasksDetails=rows)) as server:
        async with session(server.url) as picpik:
            with pytest.raises(TaskFailedError, match="error code 5") as caught:
                await picpik.run(job(), request_uuid=UUID, timeout=None)

    assert f"task-{UUID}" == caught.value.task_uid


@pytest.mark.anyio
async def test_run_times_out_before_the_commit_point() -> None:
    """A timeout that strikes during the upload aborts it: nothing was paid."""
    with FaultServer(after_reading(lambda exchange: exchange.hang(), size=1000)) as server:
        async with session(server.url) as picpik:
            with pytest.raises(RequestTimeoutError, match=r"not submitted within the timeout of 0.3 s") as caught:
                await picpik.run(job(2000), timeout=0.3, request_uuid=UUID)

        assert [] == server.complete
    assert UUID == caught.value.request_uuid


@pytest.mark.anyio
async def test_run_times_out_after_the_commit_point() -> None:
    """A timeout that strikes while the answer to the submit is awaited leaves it unknown, and known later."""
    held = threading.Event()

    def late(exchange: Exchange) -> None:
        held.wait(20)
        exchange.answer(accepted(exchange))

    with FaultServer(service(submit=late)) as server:
        async with session(server.url) as picpik:
            with pytest.raises(SubmitOutcomeUnknownError, match=r"still awaited, see session\.tasks") as caught:
                await picpik.run(job(), timeout=0.3, request_uuid=UUID)
            held.set()

    assert UUID == caught.value.request_uuid
    assert [f"task-{UUID}"] == [task.uid for task in picpik.tasks]


@pytest.mark.anyio
async def test_run_times_out_during_the_wait() -> None:
    """A timeout that strikes during the wait names the task, which goes on."""
    with FaultServer(service(ListTasksDetails=details(status="Running"))) as server:
        async with session(server.url) as picpik:
            with pytest.raises(TaskTimeoutError) as caught:
                await picpik.run(job(), timeout=0.3, request_uuid=UUID)

    assert f"task-{UUID}" == caught.value.task_uid


@pytest.mark.anyio
async def test_deadline_with_a_hanging_poll() -> None:
    """A deadline of 3 s fires at 3 s, whatever request is in flight."""
    with FaultServer(service(ListTasksDetails=Exchange.drain)) as server:
        async with session(server.url) as picpik:
            start = time.monotonic()
            with pytest.raises(TaskTimeoutError):
                await picpik.task("a-task").wait(timeout=3)
            elapsed = time.monotonic() - start

    assert 3.0 <= elapsed < 3.3


# --- tasks -------------------------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_task_without_id() -> None:
    """A task needs an id."""
    picpik = PicpikSession(CREDENTIALS)

    with pytest.raises(InvalidRequestError, match="task_uid is ''"):
        picpik.task("")


@pytest.mark.anyio
async def test_terminate() -> None:
    """A task that was terminated ends for all who wait."""
    gone = details(status="Cancelled")
    rows = in_turn(details(status="Running"), gone)
    with FaultServer(service(ListTasksDetails=rows, TerminateTask={"RetCode": 0})) as server:
        async with session(server.url) as picpik:
            task = picpik.task("a-task")
            async with anyio.create_task_group() as group:

                async def wait() -> None:
                    with pytest.raises(TaskTerminatedError):
                        await task

                group.start_soon(wait)
                await task.terminate()

        assert "TerminateTask" in server.actions


@pytest.mark.anyio
async def test_terminate_is_finished_without_its_caller() -> None:
    """Cancelling the caller of `terminate` does not stop it, and its failure disturbs nobody."""
    sent: list[str] = []

    async def respond(request: dict[str, Any]) -> Answer:
        await anyio.sleep(0.01)
        sent.append(request["Action"])
        return Answer(401, b"")

    async with PicpikSession(CREDENTIALS, transport=FakeTransport(respond)) as picpik:
        with anyio.move_on_after(0.001):
            await picpik.task("a-task").terminate()
        await anyio.sleep(0.05)

    assert ["TerminateTask"] == sent


@pytest.mark.anyio
async def test_updates() -> None:
    """Updates tell each change, and can be left early."""
    rows = in_turn(details(status="Queuing"), details(status="Running"), details(status="Finished"))
    with FaultServer(service(ListTasksDetails=rows)) as server:
        async with session(server.url) as picpik:
            words = [detail.status_word async for detail in picpik.task("a-task").updates()]
            left = picpik.task("another-task").updates(timeout=5)
            await left.aclose()  # type: ignore[attr-defined]
            async for detail in left:
                assert "another-task" == detail.task_uid
                break
            await left.aclose()  # type: ignore[attr-defined]
            with pytest.raises(StopAsyncIteration):
                await anext(left)

    assert ["Queuing", "Running", "Finished"] == words


# --- every error tells which task it is about ------------------------------------------------------------------------


@pytest.mark.anyio
async def test_errors_name_their_task() -> None:
    """Whatever goes wrong after a submit, the error has the task's uid."""
    picpik = PicpikSession(CREDENTIALS, transport=FakeTransport(lambda _request: TransportError("lost")), retry=ONCE)
    task = picpik.task("a-task")
    for use in (task.detail, task.terminate):
        with pytest.raises(TransportError) as lost:
            await use()
        assert "a-task" == lost.value.task_uid
    await picpik.aclose()
    for use_closed in (task.detail, task.terminate, task.wait, lambda: anext(task.updates())):
        with pytest.raises(ConfigurationError) as closed:
            await use_closed()
        assert "a-task" == closed.value.task_uid


@pytest.mark.anyio
async def test_task_that_cannot_exist() -> None:
    """A uid the service cannot have given is refused at once, so that it cannot spoil the polls of others."""
    picpik = PicpikSession(CREDENTIALS, transport=FakeTransport(lambda _request: {}))

    with pytest.raises(InvalidRequestError, match=r"task_uid is .* but must be printable text"):
        picpik.task("bad\udcff")


@pytest.mark.anyio
async def test_terminated_by_a_try_whose_answer_was_lost() -> None:
    """A second try that is refused, because the first one worked, ends the task for its waiters."""
    answers: list[Any] = [TransportError("lost"), {"RetCode": 7, "Message": "already terminated"}]

    def respond(request: dict[str, Any]) -> Any:
        if request["Action"] == "TerminateTask":
            return answers.pop(0)
        return {"RetCode": 0, "TaskDetailList": [{"TaskUID": "a", "Status": "Stopped"}]}

    retry = RetryPolicy(attempts=3, base_delay=0, throttle_delay=0)
    async with PicpikSession(
        CREDENTIALS, transport=FakeTransport(respond), retry=retry, poll=PollPolicy(tick=0.02)
    ) as picpik:
        await picpik.task("a").terminate()
        with pytest.raises(TaskTerminatedError):
            await picpik.task("a").wait(timeout=10)
        answers.append({"RetCode": 7, "Message": "no such task"})
        with pytest.raises(ApiError):
            await picpik.task("b").terminate()


@pytest.mark.anyio
@pytest.mark.parametrize("first", [TransportError("refused", stage="connect"), Answer(503, b""), Answer(429, b"")])
async def test_terminate_that_never_arrived(first: Any) -> None:
    """A refusal stands if no earlier try can have reached the service."""
    answers: list[Any] = [first, {"RetCode": 171, "Message": "bad signature"}]
    retry = RetryPolicy(attempts=3, base_delay=0, throttle_delay=0)
    async with PicpikSession(
        CREDENTIALS, transport=FakeTransport(lambda _request: answers.pop(0)), retry=retry
    ) as picpik:
        with pytest.raises(ApiError):
            await picpik.task("a").terminate()


@pytest.mark.anyio
async def test_owner_cancelled_before_its_first_step() -> None:
    """A session whose owner never ran lets nobody wait for ever, and opens anew."""
    picpik = PicpikSession(CREDENTIALS, transport=FakeTransport(lambda _request: BALANCE))
    asking = asyncio.create_task(picpik.balance())
    while picpik._engine is None:
        await anyio.lowlevel.checkpoint()
    picpik._engine.owner.cancel()

    with anyio.fail_after(10):
        with pytest.raises(ConfigurationError):
            await asking
        assert 7 == (await picpik.balance()).remaining_credits
        await picpik.aclose()


@pytest.mark.anyio
async def test_timeout_of_a_run_tells_the_whole_time() -> None:
    """The message has the seconds that were asked for, not what the submit left of them."""
    answers: dict[str, dict[str, Any]] = {
        "ModifyMaskedPixels": {"RetCode": 0, "TaskUID": "a"},
        "ListTasksDetails": {"RetCode": 0},
    }
    transport = FakeTransport(lambda request: answers[request["Action"]])
    async with PicpikSession(CREDENTIALS, transport=transport) as picpik:
        with pytest.raises(TaskTimeoutError, match=r"has not ended within 0\.3 seconds"):
            await picpik.run(job(), timeout=0.3)


@pytest.mark.anyio
async def test_poll_that_is_never_answered() -> None:
    """A status request that hangs is given up and asked again, long before a submit would be."""
    hangs = [True]

    async def respond(_request: dict[str, Any]) -> dict[str, Any]:
        if hangs.pop() if hangs else False:
            await anyio.sleep_forever()
        return {"RetCode": 0, "TaskDetailList": [{"TaskUID": "a", "Status": "Finished"}]}

    poll = PollPolicy(tick=0.02, request_timeout=0.1)
    async with PicpikSession(CREDENTIALS, transport=FakeTransport(respond), poll=poll) as picpik:
        result = await picpik.task("a").wait(timeout=10)

    assert "a" == result.detail.task_uid


@pytest.mark.anyio
async def test_session_that_cannot_open() -> None:
    """What keeps a session from opening is told, with its cause."""
    picpik = PicpikSession(CREDENTIALS, endpoint="http://localhost:1", limits=Limits())
    picpik._ssl = "no context"  # type: ignore[assignment]

    with pytest.raises(ConfigurationError, match="could not be opened, or broke down: TypeError") as caught:
        await picpik.balance()
    assert isinstance(caught.value.__cause__, TypeError)


@pytest.mark.anyio
async def test_log(caplog: pytest.LogCaptureFixture) -> None:
    """What goes on is logged quietly, with fields to search for and without secrets."""
    answers: list[dict[str, Any]] = [
        {"RetCode": 0, "TaskUID": "a"},
        {"RetCode": 9},
        {"RetCode": 0, "TotalCredits": 1, "UsedCredits": 0},
    ]
    with caplog.at_level("DEBUG", logger="picpik_async"):
        async with PicpikSession(CREDENTIALS, transport=FakeTransport(lambda _request: answers.pop(0))) as picpik:
            await picpik.submit(job(), request_uuid=UUID)
            with pytest.raises(ApiError):
                await picpik.submit(job(), request_uuid=UUID)
            await picpik.balance()

    submitted, refused, answered = [vars(record) for record in caplog.records if record.name == "picpik_async"]
    assert ("ModifyMaskedPixels", UUID, "a") == (submitted["action"], submitted["request_uuid"], submitted["task_uid"])
    assert "ModifyMaskedPixels: ApiError" == refused["message"]
    assert "GetCreditBalance" == answered["action"]
    for record in (submitted, refused, answered):
        assert record["milliseconds"] >= 0
    assert "canary" not in caplog.text


@pytest.mark.parametrize(
    "option", ["credentials", "endpoint", "dialect", "poll", "retry", "limits", "proxy", "transport"]
)
def test_options_of_the_wrong_kind(option: str) -> None:
    """An option of the wrong kind is refused by name when the session is made, not when something is paid."""
    with pytest.raises(ConfigurationError, match=f"{option} is a int, but must be"):
        PicpikSession(**{"credentials": CREDENTIALS} | {option: 5})  # type: ignore[arg-type]


def test_ssl_of_the_wrong_kind() -> None:
    """TLS settings are a context, and nothing that switches verification off."""
    with pytest.raises(ConfigurationError, match="ssl is a bool, but must be SSLContext"):
        PicpikSession(CREDENTIALS, ssl=False)  # type: ignore[arg-type]


@pytest.mark.anyio
@pytest.mark.parametrize("seconds", [-1, float("nan"), "5"])
async def test_wrong_timeout(seconds: Any) -> None:
    """A timeout that cannot be kept is refused before anything is sent."""
    transport = FakeTransport(lambda _request: {})
    async with PicpikSession(CREDENTIALS, transport=transport) as picpik:
        with pytest.raises(InvalidRequestError, match="timeout is"):
            await picpik.run(job(), timeout=seconds)

    assert [] == transport.requests


# --- another loop ------------------------------------------------------------------------------------------------------


@pytest.fixture
def loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    """Where to get the other event loop."""
    return uvloop.new_event_loop


@pytest.mark.parametrize("size", [64, 1200])
def test_uvloop(size: int, loop_factory: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """The other event loop makes no difference."""
    early = after_reading(lambda exchange: exchange.reset(), size=10)
    late = after_reading(lambda exchange: exchange.reset())
    with FaultServer(in_turn(early, late, service(ListTasksDetails=details(Seed=7)))) as server:

        async def main() -> None:
            async with session(server.url) as picpik:
                with pytest.raises(PicpikError):
                    await picpik.submit(job(size))
                with pytest.raises(SubmitOutcomeUnknownError):
                    await picpik.submit(job(size))
                assert 7 == (await picpik.run(job(size))).seed

        with asyncio.Runner(loop_factory=loop_factory) as runner:
            runner.run(main())


def test_uvloop_write_stall(loop_factory: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """A stalled upload ends in time on uvloop, too."""
    with FaultServer(lambda exchange: exchange.hang()) as server:

        async def main() -> None:
            async with session(server.url, limits=QUICK, poll=PollPolicy()) as picpik:
                start = time.monotonic()
                with pytest.raises(RequestTimeoutError):
                    await picpik.submit(job(2000))
            assert time.monotonic() - start < 2

        with asyncio.Runner(loop_factory=loop_factory) as runner:
            runner.run(main())
