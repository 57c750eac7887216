"""The life of jobs as a state machine: whatever happens in whatever order, nothing is paid twice, and nothing paid is lost.

A service in memory charges for each submit that reaches it whole, and then behaves as badly as it is told; the client is
cancelled, killed and started anew on what a crash leaves of its journal. The invariants of `histories` are checked after
each step.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import shutil
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar
from unittest import mock

import anyio
import anyio.lowlevel
import attrs
import pytest
from clocks import SkippingLoop, skip
from fault_server import Exchange, FaultServer, raw_answer
from histories import Charge, History, Outcome, Verdict, acknowledged, journalled, verdict, violations
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from jobs import CREDENTIALS, job, picture

from picpik_async import Dialect, ModifyMaskedPixels, PicpikSession, PollPolicy, RetryPolicy
from picpik_async._recovery import is_doubtful
from picpik_async.errors import (
    ApiError,
    PicpikError,
    SubmitOutcomeUnknownError,
    TaskFailedError,
    TransportError,
)
from picpik_async.testing import Answer, FakeTransport

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator

    from picpik_async import Task
    from picpik_async._body import Body
    from picpik_async._transport import BeforeTail

T = TypeVar("T")

CERTAIN, UNCERTAIN = 9, 7  # RetCodes
NAMES = ["a", "b", "c", "d", "e", "unnamed"]
FAULTS = [
    "early",
    "429",
    "413",
    "lost before it arrived",
    "lost",
    "504",
    "half",
    "almost whole",
    "refused",
    "certainly refused",
    "stall",
    "hang",
]
"""What may happen to a submit: before its tail, instead of it, or after it was charged."""


def picture_of(uid: str) -> bytes:
    """What the service sends for a task."""
    return picture(64 + int(uid.removeprefix("task-")) % 8)


def sha256_of(uid: str) -> str:
    """Of that."""
    return hashlib.sha256(picture_of(uid)).hexdigest()


def send_picture(exchange: Exchange) -> None:
    """A script: serve pictures."""
    exchange.send(raw_answer(picture_of(exchange.target.rpartition("/")[2])))


class Service:
    """Charges for what arrives, and remembers it; it outlives all clients.

    Attributes:
        charges: the ledger.
        names: which job each task was charged for.
        rows: what it tells of its tasks.
        faults: for the next submits, one for each attempt.
        held: how many exchanges wait for `gate`.
    """

    def __init__(self, pictures: str) -> None:
        self.charges: list[Charge] = []
        self.names: dict[str, str] = {}
        self.rows: dict[str, dict[str, Any]] = {}
        self.faults: list[str] = []
        self.held = 0
        self.gate = asyncio.Event()
        self._pictures = pictures

    def charge(self, request: dict[str, Any]) -> dict[str, Any]:
        """Take the money; returns the answer."""
        uid = f"task-{len(self.charges)}"
        self.charges.append(Charge(request["request_uuid"], uid, time.time()))
        self.names[uid] = request["PositivePrompts"][0]
        self.rows[uid] = {"TaskUID": uid, "Action": request["Action"], "Seed": request["Seed"], "Status": "Running"}
        return {"RetCode": 0, "TaskUID": uid}

    async def hold(self) -> None:
        """Wait until the machine goes on."""
        self.held += 1
        await self.gate.wait()

    def release(self) -> None:
        """Let all go on that are held."""
        self.gate.set()
        self.gate = asyncio.Event()

    def read(self, request: dict[str, Any]) -> dict[str, Any]:
        """Answer a query."""
        if request["Action"] == "ListRunningTasks":
            running = [uid for uid, row in self.rows.items() if row["Status"] == "Running"]
            return {"RetCode": 0, "TaskUIDList": running}
        if request["Action"] == "TerminateTask":
            self.rows[request["TaskUID"]]["Status"] = "Terminated"
            return {"RetCode": 0}
        rows = [self.rows[uid] for uid in request["TaskUIDList"] if uid in self.rows]
        return {"RetCode": 0, "TaskDetailList": rows}

    def finish(self, uid: str) -> None:
        """A task ends well."""
        self.rows[uid] |= {"Status": "Finished", "ImgList": [f"{self._pictures}/{uid.removeprefix('task-')}"]}

    def fail(self, uid: str) -> None:
        """A task ends badly."""
        self.rows[uid] |= {"Status": "Error", "ErrorCode": 5}


class Wire(FakeTransport):
    """The connection of one process, which ends with it.

    Attributes:
        alive: whether the process is.
        heads: how many submits got as far as their tail.
    """

    def __init__(self, service: Service) -> None:
        super().__init__(self._answer)
        self.alive = True
        self.heads = 0
        self._service = service
        self._fault: dict[str, str | None] = {}

    async def send(self, body: Body, *, before_tail: BeforeTail | None = None) -> Answer:
        """Send a request, or as much of it as the fault allows."""
        if before_tail is None:
            return await super().send(body)
        fault = self._service.faults.pop(0) if self._service.faults else None

        async def near_the_tail() -> None:
            self.heads += 1
            if fault == "early":
                message = "reset"
                raise TransportError(message, stage="send")
            if fault == "stall":
                await self._service.hold()
            await before_tail()
            self._next = fault

        return await super().send(body, before_tail=near_the_tail)

    async def _answer(self, request: dict[str, Any]) -> Any:
        if not self.alive:
            return TransportError("the process is dead", stage="headers")
        if request["Action"] != "ModifyMaskedPixels":
            return self._service.read(request)
        fault, self._next = self._next, None
        unpaid = {
            "429": Answer(429, b""),
            "413": Answer(413, b""),
            "lost before it arrived": TransportError("reset", stage="headers"),
            "refused": {"RetCode": UNCERTAIN},
            "certainly refused": {"RetCode": CERTAIN},
        }
        if fault in unpaid:
            return unpaid[fault]
        answer = self._service.charge(request)
        if fault == "hang":
            await self._service.hold()
        uid = answer["TaskUID"]
        paid = {
            "lost": TransportError("reset", stage="headers"),
            "504": Answer(504, b""),
            "half": Answer(200, b'{"RetCode": 0, "TaskUID": "task-', broken="reset"),
            "almost whole": Answer(200, b'{"RetCode": 0, "TaskUID": "%s", ' % uid.encode(), broken="reset"),
        }
        return paid.get(fault or "", answer)


@attrs.define(eq=False)
class Caller:
    """Somebody who waits for a submit.

    Attributes:
        second: the same job was being submitted already.
    """

    name: str
    task: asyncio.Task[Task]
    second: bool


class LifeCycle(RuleBasedStateMachine):
    """One account, one journal, and a client that is started again and again."""

    server: ClassVar[FaultServer]
    steps: ClassVar[Counter[str]] = Counter()

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="life-cycle-"))
        self.runner = asyncio.Runner(loop_factory=SkippingLoop)
        self.wall = 0.0
        real = time.time
        self.patch = mock.patch("time.time", side_effect=lambda: real() + self.wall)
        self.patch.start()
        self.callers: list[Caller] = []
        self.outcomes: list[Outcome] = []
        self.resubmits: Counter[str] = Counter()
        self.submitted: set[str] = set()
        self.unpaid: dict[str, str] = {}
        self.numbers = itertools.count()
        self.service = Service(self.server.url)
        self.path = self.new_path()
        self.start()

    def new_path(self) -> Path:
        """A place for a journal."""
        return self.folder / f"jobs-{next(self.numbers)}.sqlite"

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        """Go on living until *work* is done."""

        async def limited() -> T:
            with anyio.fail_after(1000):
                return await work

        return self.runner.run(limited())

    # --- the client ----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """A new process."""
        self.wire = Wire(self.service)
        self.picpik = PicpikSession(
            CREDENTIALS,
            endpoint=self.server.url,
            transport=self.wire,
            journal=self.path,
            retry=RetryPolicy(base_delay=0, throttle_delay=0, submit_pause=30),
            poll=PollPolicy(tick=0.001, timeout=1000, max_requests_per_second=1000),
            dialect=Dialect(rejected_ret_codes={CERTAIN}),
        )

    def request(self, name: str) -> ModifyMaskedPixels:
        """The job of that name."""
        return job().with_prompts(name)

    def call(self, name: str, *, again: bool = False, timeout: float | None = None) -> Caller:
        """Somebody starts to submit."""
        key = None if name == "unnamed" else name
        self.submitted.add(name)
        self.unpaid = {uuid: job for uuid, job in self.unpaid.items() if job != name}

        async def run() -> Task:
            if again:
                return await self.picpik.resubmit(name, self.request(name), accept_double_charge=True)
            if timeout is not None:
                result = await self.picpik.run(self.request(name), key=key, timeout=timeout)
                return self.picpik.task(result.detail.task_uid)
            return await self.picpik.submit(self.request(name), key=key)

        active = self.picpik._records.active
        second = name in active or (name == "unnamed" and any(len(other) == 64 for other in active))
        caller = Caller(name, asyncio.get_running_loop().create_task(run()), second)
        self.callers.append(caller)
        return caller

    async def settle(self, caller: Caller) -> None:
        """Wait until a caller has heard, or is held by the service."""
        held = self.service.held
        while not (caller.task.done() or caller.second or held != self.service.held):
            await anyio.lowlevel.checkpoint()
        self.hear()

    def hear(self) -> None:
        """Note what callers were told."""
        for caller in [caller for caller in self.callers if caller.task.done()]:
            self.callers.remove(caller)
            if caller.task.cancelled():
                continue
            error = caller.task.exception()
            if error is None:
                uid = caller.task.result().uid
                (owner,) = [charge.request_uuid for charge in self.service.charges if charge.task_uid == uid]
                self.outcomes.append(Outcome(owner, Verdict.ACK, uid))
            elif isinstance(error, TaskFailedError):  # of an earlier run
                assert error.task_uid in self.service.rows
            else:
                assert isinstance(error, PicpikError), error
                self.note(caller.name, error)

    def note(self, name: str, error: PicpikError) -> None:
        """Note why a submit failed."""
        said = verdict(error)
        assert error.request_uuid is not None
        self.outcomes.append(Outcome(error.request_uuid, Verdict.NOTHING if said is Verdict.NOT_TAKEN else said))
        if said is Verdict.NOT_TAKEN and not any(name == caller.name for caller in self.callers):
            self.unpaid[error.request_uuid] = name

    # --- what happens --------------------------------------------------------------------------------------------------

    @rule(faults=st.lists(st.sampled_from(FAULTS), max_size=5))
    def break_down(self, faults: list[str]) -> None:
        """The service will fail."""
        self.steps.update(faults)
        self.service.faults[:0] = faults

    @rule()
    def heal(self) -> None:
        """The service works again."""
        self.service.faults.clear()

    @rule(name=st.sampled_from(NAMES), faults=st.lists(st.sampled_from(FAULTS), max_size=3))
    def submit(self, name: str, faults: list[str]) -> None:
        """Somebody submits a job, and its attempts go like that."""
        self.steps["submit"] += 1
        self.break_down(faults)

        async def submit() -> None:
            await self.settle(self.call(name))

        self.do(submit())

    @rule(name=st.sampled_from(NAMES), count=st.integers(2, 3))
    def submit_at_once(self, name: str, count: int) -> None:
        """Several submit the same job."""
        self.steps["submit at once"] += 1

        async def submit() -> None:
            callers = [self.call(name) for _ in range(count)]
            for number, caller in enumerate(callers):
                caller.second = caller.second or number > 0
                await self.settle(caller)

        self.do(submit())

    @rule(name=st.sampled_from(NAMES[:-1]))
    def resubmit(self, name: str) -> None:
        """Somebody accepts to pay again."""
        self.steps["resubmit"] += 1

        async def resubmit() -> None:
            if name in self.submitted and await (await self.picpik._open_journal()).find(name) is not None:
                self.resubmits[name] += 1
                await self.settle(self.call(name, again=True))

        self.do(resubmit())

    @rule(name=st.sampled_from(NAMES), steps=st.integers(0, 300), twice=st.booleans())
    def submit_and_cancel(self, name: str, steps: int, twice: bool) -> None:
        """Somebody is cancelled while submitting."""
        self.steps["cancel"] += 1

        async def submit() -> None:
            caller = await self.begun(name, steps)
            caller.task.cancel()
            if twice:
                await anyio.lowlevel.checkpoint()
                caller.task.cancel()
            await asyncio.wait([caller.task])
            self.hear()

        self.do(submit())

    async def begun(self, name: str, steps: int) -> Caller:
        """Somebody who submits, so many steps after everything but the tail has left."""
        heads, caller = self.wire.heads, self.call(name)
        while not (caller.task.done() or caller.second or heads != self.wire.heads):
            await anyio.lowlevel.checkpoint()
        for _ in range(steps):
            await anyio.lowlevel.checkpoint()
        return caller

    @rule()
    def run_out_of_time(self) -> None:
        """Somebody's timeout is over before the answer arrives."""
        self.steps["timeout"] += 1
        name = f"late-{next(self.numbers)}"

        async def run() -> None:
            self.service.faults.insert(0, "hang")
            caller = self.call(name, timeout=20)
            await self.settle(caller)
            if not caller.task.done():
                skip(20)
                await asyncio.wait([caller.task])
            self.hear()

        self.do(run())

    @rule()
    def release(self) -> None:
        """What was held goes on, and who waits for it hears."""
        self.steps["release"] += 1
        self.do(self.released())

    async def released(self) -> None:
        """Let all go on."""
        self.service.release()
        await self.all_heard()

    async def all_heard(self) -> None:
        """Wait until nobody waits any more, unless held again."""
        held = self.service.held
        while any(not caller.task.done() for caller in self.callers) and held == self.service.held:
            await anyio.lowlevel.checkpoint()
        self.hear()

    @rule(seconds=st.sampled_from([31, 3600, 8 * 3600]))
    def pause(self, seconds: int) -> None:
        """Time passes: the breaker lets a submit through again."""
        self.steps["pause"] += 1

        async def pause() -> None:
            skip(seconds)
            await anyio.lowlevel.checkpoint()

        self.wall += seconds
        self.do(pause())

    @rule(hours=st.sampled_from([-24, -1, 1, 24]))
    def set_clock(self, hours: int) -> None:
        """Somebody sets the clock."""
        self.steps["clock"] += 1
        self.wall += hours * 3600

    @rule()
    def reconcile(self) -> None:
        """Somebody looks for tasks that were lost."""
        self.steps["reconcile"] += 1
        self.do(self.picpik.reconcile(adopt=True))

    @rule(number=st.integers(0, 9), well=st.booleans(), save=st.booleans())
    def end(self, number: int, well: bool, save: bool) -> None:
        """A task ends, somebody who waits for it hears, and may save its pictures."""
        running = [uid for uid, row in self.service.rows.items() if row["Status"] == "Running"]
        if not running:
            return
        self.steps["end"] += 1
        uid = running[number % len(running)]
        (self.service.finish if well else self.service.fail)(uid)
        self.do(self.collect(uid, save=save))

    async def collect(self, uid: str, *, save: bool = True) -> None:
        """Wait for a task, and save its pictures."""
        (owner,) = [charge.request_uuid for charge in self.service.charges if charge.task_uid == uid]
        try:
            result = await self.picpik.task(uid).wait()
        except TaskFailedError as error:
            assert self.service.rows[uid]["Status"] == "Error"
            self.outcomes.append(Outcome(owner, Verdict.ACK, uid, error=error))
        else:
            files = tuple(await result.save(self.folder / "pictures") if save else ())
            self.outcomes.append(Outcome(owner, Verdict.ACK, uid, files=files))

    @rule()
    def close(self) -> None:
        """The client is closed and started again."""
        self.steps["close"] += 1
        self.do(self.closed())
        self.start()

    async def closed(self) -> None:
        """Close the session, and hear what those are told who still wait."""
        closing = asyncio.create_task(self.picpik.aclose())
        if self.picpik._engine is not None and self.picpik._engine._submits:
            await anyio.wait_all_tasks_blocked()
            skip(4)
        await closing
        await self.all_heard()
        assert [] == self.callers

    @rule(name=st.sampled_from(NAMES), steps=st.integers(0, 300))
    def crash(self, name: str, steps: int) -> None:
        """The process is killed while it submits; what the disk has of its journal is what there is."""
        self.steps["crash"] += 1

        async def crash() -> None:
            caller = await self.begun(name, steps)
            self.wire.alive = False
            path = self.new_path()
            for suffix in ("", "-wal"):
                with contextlib.suppress(FileNotFoundError):
                    shutil.copyfile(f"{self.path}{suffix}", f"{path}{suffix}")
            self.path = path
            if caller.task.done():
                self.hear()
            assert self.picpik._engine is not None
            self.picpik._engine.owner.cancel()
            await asyncio.wait([self.picpik._engine.owner])
            await self.picpik.aclose()
            await asyncio.gather(*[caller.task for caller in self.callers], return_exceptions=True)
            self.callers.clear()  # they died with the process, whatever they are told here

        self.do(crash())
        self.start()

    @rule(name=st.sampled_from(NAMES), steps=st.integers(0, 300))
    def interrupt(self, name: str, steps: int) -> None:
        """The session's owner is interrupted, as in a notebook, and the session is used on."""
        self.steps["interrupt"] += 1

        async def interrupt() -> None:
            await self.begun(name, steps)
            assert self.picpik._engine is not None
            self.picpik._engine.owner.cancel()
            await asyncio.wait([caller.task for caller in self.callers])
            self.hear()

        self.do(interrupt())

    # --- what must hold ------------------------------------------------------------------------------------------------

    @invariant()
    def nothing_is_lost(self) -> None:
        """I1 to I7 hold, job by job, and everything that is open is listed."""
        self.do(self.check())

    async def check(self) -> None:
        """Look at everything."""
        journal = await self.picpik._open_journal()
        before = [*self.service.charges]  # what is charged while the journal is read may not be in the answer
        entries = await journal.entries()
        self.hear()
        paid_again = {name for name, count in self.resubmits.items() if count}
        replaced = [charge.request_uuid for charge in before if self.service.names[charge.task_uid] in paid_again]
        told = History(
            charges=self.service.charges,
            outcomes=self.outcomes,
            jobs=len(self.submitted),
            resubmits=self.resubmits.total(),
        )
        assert [] == violations(told)
        assert [] == acknowledged(History(charges=self.service.charges, entries=entries))
        assert [] == journalled(History(charges=before, entries=entries, replaced=replaced))
        for name, count in Counter(self.service.names.values()).items():
            assert count <= 1 + self.resubmits[name], name
        charged = {charge.request_uuid for charge in self.service.charges}
        assert set() == charged & {*self.unpaid}, "called not taken, and charged"
        listed, again = await self.picpik.recover(), await journal.entries()
        if entries == again:  # nothing has happened meanwhile
            dialect = self.picpik._dialect
            assert [entry for entry in entries if entry.state.open or is_doubtful(entry, dialect)] == [*listed]

    def teardown(self) -> None:
        """In the end all is well: a last run pays for what was never paid, and for nothing else, and has all pictures."""
        try:
            self.do(self.last_run())
        finally:
            self.runner.close()
            self.patch.stop()
            shutil.rmtree(self.folder)

    async def last_run(self) -> None:
        """Submit everything again, and wait for it."""
        self.service.faults.clear()
        self.service.release()
        await self.closed()
        self.start()
        for uid, row in self.service.rows.items():
            if row["Status"] == "Running":
                self.service.finish(uid)
        for name in sorted(self.submitted):
            before, caller = len(self.service.charges), self.call(name)
            await asyncio.wait([caller.task])
            error = caller.task.exception()
            if error is None:
                uid = caller.task.result().uid
                if self.service.rows[uid]["Status"] == "Running":
                    self.service.finish(uid)
                await self.collect(uid)
                assert self.outcomes[-1].files or self.outcomes[-1].error
            else:
                assert isinstance(error, SubmitOutcomeUnknownError | ApiError | TaskFailedError), error
                assert before == len(self.service.charges)
        await self.check()
        assert all(is_doubtful(entry, self.picpik._dialect) for entry in await self.picpik.recover())
        sent = History(charges=self.service.charges, outcomes=self.outcomes, sent=sha256_of)
        assert [] == [text for text in violations(sent) if "I6" in text]
        await self.closed()


@pytest.fixture
def machine() -> Iterator[type[LifeCycle]]:
    """The machine, with a server for pictures."""
    with FaultServer(send_picture) as server:
        LifeCycle.server = server
        LifeCycle.steps.clear()
        yield LifeCycle


OPTIONS: dict[str, Any] = {"deadline": None, "suppress_health_check": list(HealthCheck)}


def test_life_cycle(machine: type[LifeCycle]) -> None:
    """No history violates an invariant."""
    run_state_machine_as_test(machine, settings=settings(max_examples=25, stateful_step_count=20, **OPTIONS))


@pytest.mark.long
def test_long_life_cycle(machine: type[LifeCycle], capsys: pytest.CaptureFixture[str]) -> None:
    """The same, 2,000 times."""
    run_state_machine_as_test(machine, settings=settings(max_examples=2000, stateful_step_count=20, **OPTIONS))
    with capsys.disabled():
        print(f"\nlife cycle: {machine.steps}")  # noqa: T201 - the figures are what it is run for
