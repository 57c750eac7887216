"""Cancelling never orphans what is paid: callers are cancelled at random moments, in all ways, with a journal."""

from __future__ import annotations

import asyncio
import contextlib
import random
import sqlite3
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any

import attrs
import pytest
from histories import History, Outcome, Verdict, untraced, verdict, violations
from jobs import session
from ledger_server import LedgerProcess, LedgerServer
from storms import LOOPS, small_job

from picpik_async import PicpikError, RetryPolicy
from picpik_async._entries import JobState
from picpik_async._journal import Journal
from picpik_async.errors import TransportError
from picpik_async.testing import Answer, FakeTransport

if TYPE_CHECKING:
    from pathlib import Path

    from picpik_async import JournalEntry, PicpikSession
    from picpik_async._body import Body
    from picpik_async._transport import BeforeTail

SEED = 20_240_611
SERVER_SECONDS = 0.05
LONGEST = 0.1  # seconds until a caller is cancelled; some have their answer by then

Work = Coroutine[None, None, None]


async def by_timeout(work: Work, rng: random.Random) -> None:
    """The caller's own timeout, which may be over before it starts."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(rng.randrange(80) / 1000):
            await work


async def by_cancel(work: Work, rng: random.Random) -> None:
    """Somebody cancels the caller's task."""
    task = asyncio.create_task(work)
    await asyncio.sleep(rng.random() * LONGEST)
    task.cancel()
    await asyncio.wait([task])


async def by_two_cancels(work: Work, rng: random.Random) -> None:
    """Somebody is impatient, and cancels it again."""
    task = asyncio.create_task(work)
    await asyncio.sleep(rng.random() * LONGEST)
    task.cancel()
    await asyncio.sleep(rng.choice([0, rng.random() * 0.01]))
    task.cancel()
    await asyncio.wait([task])


async def by_group(work: Work, rng: random.Random) -> None:
    """Another task of the caller's group fails."""

    async def fail() -> None:
        await asyncio.sleep(rng.random() * LONGEST)
        raise LookupError

    with contextlib.suppress(ExceptionGroup):
        async with asyncio.TaskGroup() as group:
            group.create_task(work)
            group.create_task(fail())


async def by_nobody(work: Work, _rng: random.Random) -> None:
    """The caller waits, and its session may be closed."""
    await work


Way = Callable[[Work, random.Random], Awaitable[None]]
WAYS: tuple[Way, ...] = (by_timeout, by_cancel, by_two_cancels, by_group, by_nobody)


@attrs.define
class Trials:
    """Submits whose callers are cancelled.

    Attributes:
        folder: where the journals are; each has as many submits as `per_journal`, of several sessions.
        seed: of all that is random.
        outcomes: what the callers were told, if they were told anything.
        entries: of all journals.
        traces: tasks and `request_uuid`s that the sessions know of.
        ways: how often callers were cancelled how, and sessions closed.
    """

    folder: Path
    seed: int
    per_journal: int = 50
    outcomes: list[Outcome] = attrs.field(factory=list)
    entries: list[JournalEntry] = attrs.field(factory=list)
    tasks: set[str] = attrs.field(factory=set)
    unknown: set[str] = attrs.field(factory=set)
    ways: Counter[str] = attrs.field(factory=Counter)

    async def run(self, url: str, count: int) -> None:
        """Make *count* submits, in a few sessions at a time."""
        rng = random.Random(self.seed)
        names = [f"{self.seed}-{number}" for number in range(count)]
        parts = iter([names[start : start + self.per_journal] for start in range(0, count, self.per_journal)])

        async def work() -> None:
            for part in parts:
                await self._part(url, part, rng)

        async with asyncio.TaskGroup() as group:
            for _ in range(3):
                group.create_task(work())

    async def _part(self, url: str, names: list[str], rng: random.Random) -> None:
        journal = self.folder / f"{names[0]}.journal"
        while names:
            picpik = session(url, retry=RetryPolicy(base_delay=0, throttle_delay=0), journal=journal)
            closed = asyncio.Event()
            async with picpik, asyncio.TaskGroup() as group:
                for _ in range(12):
                    group.create_task(self._callers(picpik, names, closed, rng))
                await asyncio.sleep(rng.random())
                closed.set()
                self.ways["aclose"] += 1
                await picpik.aclose()
            self.tasks.update(task.uid for task in picpik.tasks)
            self.unknown.update(picpik.unknown_submits)
        async with Journal(journal) as book:
            self.entries += await book.entries()

    async def _callers(
        self, picpik: PicpikSession, names: list[str], closed: asyncio.Event, rng: random.Random
    ) -> None:
        while names and not closed.is_set():
            way = rng.choice(WAYS)
            self.ways[way.__name__] += 1
            await way(self._submit(picpik, names.pop()), rng)

    async def _submit(self, picpik: PicpikSession, name: str) -> None:
        try:
            task = await picpik.submit(small_job(), key=name, request_uuid=name)
            self.outcomes.append(Outcome(name, Verdict.ACK, task.uid))
        except PicpikError as error:
            self.outcomes.append(Outcome(name, verdict(error)))

    def judge(self, server: LedgerServer | LedgerProcess) -> list[str]:
        """Compare with what was charged."""
        charges = server.charges()
        found = violations(History(charges=charges, outcomes=self.outcomes, entries=self.entries))
        return found + untraced(charges, tasks=self.tasks, request_uuids=self.unknown)

    def text(self, server: LedgerServer | LedgerProcess, count: int) -> str:
        """All in one line."""
        told = Counter(outcome.verdict.value for outcome in self.outcomes)
        states = Counter(entry.state.value for entry in self.entries)
        numbers = [
            f"{count} submits",
            f"{len(server.charges())} charged",
            f"told {dict(told)}",
            f"journal {dict(states)}",
        ]
        return f"{', '.join(numbers)}, {dict(self.ways)}, {len(self.judge(server))} violations"


async def cancelled(task: asyncio.Task[Any]) -> None:
    """Cancel *task*, and wait for its end."""
    task.cancel()
    await asyncio.wait([task])


class Detour(FakeTransport):
    """Sends in a task that nobody cancels, so that only the commit point can stop it."""

    sending: asyncio.Task[Answer]

    async def send(self, body: Body, *, before_tail: BeforeTail | None = None) -> Answer:
        """See `Transport.send`."""
        if before_tail is None:
            return await super().send(body)
        self.sending = asyncio.create_task(super().send(body, before_tail=before_tail))
        return await asyncio.shield(self.sending)


@pytest.mark.anyio
@pytest.mark.parametrize("closed", [False, True], ids=["cancelled", "closed"])
async def test_aborted_while_the_journal_is_written(closed: bool, tmp_path: Path) -> None:
    """A submit that is aborted while its commit is on the way to the disk does not send its tail afterwards."""
    path = tmp_path / "journal"
    transport = Detour(lambda _request: {"RetCode": 0, "TaskUID": "a"})
    async with session("http://localhost", journal=path, transport=transport) as picpik:
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")  # nobody else writes now
            submit = asyncio.create_task(picpik.submit(small_job()))
            while not hasattr(transport, "sending"):  # noqa: ASYNC110 - it is set, and that is all
                await asyncio.sleep(0.001)
            await asyncio.sleep(0.02)
            end = asyncio.create_task(picpik.aclose() if closed else cancelled(submit))
            await asyncio.sleep(0.02)
            other.execute("ROLLBACK")
        with pytest.raises(TransportError if closed else asyncio.CancelledError):
            await submit
        with pytest.raises(TransportError, match="nothing was paid"):
            await transport.sending
        await asyncio.wait([end])

    assert [] == transport.requests
    async with Journal(path) as book:
        assert [JobState.INTENT] == [entry.state for entry in await book.entries()]


@pytest.mark.parametrize("loop", LOOPS)
def test_cancelled(loop: str, tmp_path: Path) -> None:
    """Whatever was charged is in the journal, and known to its session, however its caller was cancelled."""
    trials = Trials(tmp_path, SEED)
    with LedgerServer(tmp_path / "ledger", delay=SERVER_SECONDS) as server:
        with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
            runner.run(trials.run(server.url, 300))
        server.settle()

        assert [] == trials.judge(server), trials.text(server, 300)
        assert 300 == sum(count for way, count in trials.ways.items() if way != "aclose")
        assert 0 == server.counts["bad"]


@pytest.mark.long
def test_cancelled_long(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same, 5,000 times, half of them on each event loop."""
    for number, (name, factory) in enumerate(LOOPS.items()):
        trials = Trials(tmp_path, SEED + number, per_journal=100)
        with LedgerProcess(tmp_path / f"ledger-{name}", delay=SERVER_SECONDS) as server:
            with asyncio.Runner(loop_factory=factory) as runner:
                runner.run(trials.run(server.url, 2500))
            server.settle()
        with capsys.disabled():
            print(f"\ncancellation, {name}: {trials.text(server, 2500)}")  # noqa: T201 - the figures

        assert [] == trials.judge(server)
        assert 2500 == sum(count for way, count in trials.ways.items() if way != "aclose")
