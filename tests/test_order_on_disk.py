"""What is on disk when: the journal's COMMIT is synced before the tail of any submit leaves, and without it no tail leaves."""

from __future__ import annotations

import functools
import sqlite3
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import pytest
from jobs import CREDENTIALS, job
from shaky_disk import ShakyDisk, rows

from picpik_async import PicpikSession, RetryPolicy
from picpik_async._journal import Journal
from picpik_async._journal_file import _STATE
from picpik_async.errors import JournalError
from picpik_async.testing import Answer, FakeTransport

if TYPE_CHECKING:
    from pathlib import Path

    from picpik_async._body import Body

pytestmark = pytest.mark.anyio

SUBMITS = 300


class Log:
    """Notes, in the order in which they happen, rows, syncs and tails: `("commit", key)`, `("sync",)`, `("tail", uuid)`."""

    def __init__(self) -> None:
        self.events: list[tuple[str, ...]] = []

    def connect(self, *args: Any, **options: Any) -> sqlite3.Connection:
        """In the place of `sqlite3.connect`."""
        log = self

        class Connection(sqlite3.Connection):
            def execute(self, sql: str, values: Any = (), /) -> sqlite3.Cursor:
                cursor = super().execute(sql, values)
                if sql.startswith("INSERT"):
                    log.events += [(row[_STATE], row[2]) for row in rows(values)]
                if sql.startswith(("INSERT", "COMMIT")) and not self.in_transaction:
                    assert (2,) == super().execute("PRAGMA synchronous").fetchone()
                    log.events.append(("sync",))
                return cursor

        return sqlite3.connect(*args, **options, factory=Connection)


class Telling(FakeTransport):
    """Notes each tail; turns away some submits, so that they are sent again."""

    def __init__(self, log: Log) -> None:
        super().__init__(self.respond)
        self.log = log
        self.tries: dict[str, int] = {}

    async def send(self, body: Body, *, before_tail: Any = None) -> Answer:
        """Send, and note the moment in which the tail is handed over."""
        tail = body.tail

        def noted() -> bytes:
            data = tail()
            self.log.events.append(("tail",))
            return data

        body.tail = noted  # type: ignore[method-assign]
        return await super().send(body, before_tail=before_tail)

    async def respond(self, request: dict[str, Any]) -> Any:
        """Take every third submit only at the second try."""
        place = max(number for number, event in enumerate(self.log.events) if event == ("tail",))
        self.log.events[place] = ("tail", request["request_uuid"])
        await anyio.lowlevel.checkpoint()
        tries = self.tries[request["request_uuid"]] = self.tries.get(request["request_uuid"], 0) + 1
        turned_away = tries == 1 and len(self.tries) % 3 == 0
        return Answer(429, b"") if turned_away else {"RetCode": 0, "TaskUID": f"task-{len(self.requests)}"}


def disorders(events: list[tuple[str, ...]]) -> list[str]:
    """The tails that left although their COMMIT was not on disk."""
    written: dict[str, str] = {}
    synced: dict[str, str] = {}
    found = []
    for event in events:
        if event == ("sync",):
            synced |= written
        elif event[0] == "tail":
            if synced.get(event[1]) != "commit":
                found.append(f"the tail of {event[1]} left at {synced.get(event[1])}")
        else:
            written[event[1]] = event[0]
    return found


async def test_the_commit_is_on_disk_before_the_tail_leaves(tmp_path: Path) -> None:
    """For every submit, at many at once, also when it is sent a second time."""
    log = Log()
    transport = Telling(log)
    retry = RetryPolicy(submit_attempts=3, base_delay=0, throttle_delay=0)
    left = iter(range(SUBMITS))
    picpik = PicpikSession(CREDENTIALS, transport=transport, retry=retry, journal=tmp_path / "j")
    picpik._new_journal = functools.partial(Journal, tmp_path / "jobs.sqlite", connect=log.connect)

    async def work() -> None:
        for number in left:
            await picpik.submit(job(), key=f"job-{number}")

    async with picpik, anyio.create_task_group() as group:
        for _ in range(32):
            group.start_soon(work)

    assert SUBMITS < sum(event[0] == "tail" for event in log.events)
    assert [] == disorders(log.events)


def test_disorder_would_be_noticed() -> None:
    """The judge is no fool."""
    good = [("intent", "u"), ("commit", "u"), ("sync",), ("tail", "u")]

    assert [] == disorders(good)
    assert ["the tail of u left at None"] == disorders([*good[:2], good[3], good[2]])
    assert ["the tail of u left at intent"] == disorders([good[0], ("sync",), *good[1:2], good[3]])


@pytest.mark.parametrize("step", ["BEGIN", "INSERT", "COMMIT"])
async def test_no_tail_from_a_full_disk(tmp_path: Path, step: str) -> None:
    """Whatever step fails, the submit ends before its tail, nothing is paid, and it goes on when there is room again."""
    disk = ShakyDisk()
    transport = FakeTransport(lambda _request: {"RetCode": 0, "TaskUID": "paid"})
    picpik = PicpikSession(CREDENTIALS, transport=transport, journal=tmp_path / "jobs.sqlite")
    picpik._new_journal = functools.partial(Journal, tmp_path / "jobs.sqlite", connect=disk.connect)
    async with picpik:
        disk.failing = {step}
        for number in range(5):
            with pytest.raises(JournalError, match="full"):
                await picpik.submit(job(), key=f"job-{number}")
        assert [] == transport.requests
        disk.failing = set()

        assert "paid" == (await picpik.submit(job(), key="job-0")).uid
