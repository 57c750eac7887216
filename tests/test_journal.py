"""Tests of the journal: what is on disk when, and what becomes of it when the disk fails."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shaky_disk import SECONDS, ShakyDisk

from picpik_async import JobState, JournalEntry
from picpik_async._journal import Journal
from picpik_async.errors import JournalError

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.anyio


def job(key: str = "key", **fields: Any) -> JournalEntry:
    """A job as a submit notes it."""
    return JournalEntry(key=key, digest="d" * 64, request_uuid="u", action="ModifyMaskedPixels", **fields)


async def reached(condition: Callable[[], bool]) -> None:
    """Wait for what the writer does."""
    with anyio.fail_after(SECONDS):
        while not condition():  # noqa: ASYNC110 - threads set no event of ours
            await anyio.sleep(0.001)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the journal is."""
    return tmp_path / "journal.db"


def test_states_are_explained() -> None:
    """`help(JobState)` says what each of them means."""
    assert all(f"{state.name}: " in (JobState.__doc__ or "") for state in JobState)


@pytest.fixture
def disk() -> ShakyDisk:
    """What the journal is on."""
    return ShakyDisk()


def test_an_entry_in_its_next_state() -> None:
    """The rest stays, and the time is that of the change."""
    entry = job(changed=0.0, seed=7)
    moved = entry.moved(JobState.ACK, task_uid="t")

    assert (JobState.ACK, "t", 7) == (moved.state, moved.task_uid, moved.seed)
    assert entry.changed < moved.changed
    assert [JobState.INTENT, JobState.COMMIT, JobState.ACK] == [state for state in JobState if state.open]


async def test_what_is_written_is_found_again(path: Path) -> None:
    """Every field comes back as it was, in this run and in the next."""
    full = job(
        "full",
        seed=7,
        auto_seed=True,
        state=JobState.REJECTED,
        task_uid="t",
        acknowledged=1.5,
        files=(Path("a.png"), Path("odd\udcff.png")),
        error="ApiError",
        reason="no",
        ret_code=-3,
        resubmits=2,
    )
    async with Journal(path) as journal:
        journal.record(job("bare"))
        await journal.commit(full)
        assert full == await journal.find("full")

    async with Journal(path) as journal:
        assert path == journal.path
        assert full == await journal.find("full")
        assert full == await journal.find_task("t")
        assert await journal.find("none") is None
        assert await journal.find_task("none") is None
        assert ["bare", "full"] == [entry.key for entry in await journal.entries()]
        assert [full] == await journal.entries(JobState.REJECTED, JobState.ACK)
        assert {JobState.REJECTED: 1, JobState.INTENT: 1} == {k: n for k, n in (await journal.counts()).items() if n}


async def test_first_come_first_listed(path: Path) -> None:
    """Whatever the clock says, and whatever becomes of a job later."""
    async with Journal(path) as journal:
        for key, changed in (("a", 3.0), ("b", 1.0), ("c", 2.0)):
            journal.record(job(key, changed=changed))
        journal.record(job("a", changed=9.0, state=JobState.DONE))

        assert ["a", "b", "c"] == [entry.key for entry in await journal.entries()]


async def test_the_latest_job_of_a_task(path: Path) -> None:
    """If two name one task, which should not be, it is the later one."""
    async with Journal(path) as journal:
        journal.record(job("a", task_uid="t"))
        journal.record(job("b", task_uid="t"))

        found = await journal.find_task("t")

    assert found is not None
    assert "b" == found.key


async def test_a_commit_returns_after_its_sync(path: Path, disk: ShakyDisk) -> None:
    """In every commit the row is put into a transaction, and that is committed, before the caller goes on."""
    async with Journal(path, connect=disk.connect) as journal:

        async def submit(name: str) -> None:
            for number in range(20):
                key = f"{name}{number}"
                journal.record(job(f"recorded {key}"))
                await journal.commit(job(key, state=JobState.COMMIT))
                disk.log.append(f"returned {key}")
                journal.record(job(key, state=JobState.ACK))

        async with anyio.create_task_group() as group:
            for name in "abcdefgh":
                group.start_soon(submit, name)

    for name in "abcdefgh":
        for number in range(20):
            key = f"{name}{number}"
            assert "COMMIT" in disk.log[disk.log.index(key) : disk.log.index(f"returned {key}")]


async def test_a_commit_is_a_sync(path: Path) -> None:
    """The live connection is in WAL mode and syncs every transaction."""
    async with Journal(path) as journal:
        assert "wal" == await journal._ask(lambda file: file._pragma("journal_mode"))
        assert 2 == await journal._ask(lambda file: file._pragma("synchronous"))
        assert 0 < await journal._ask(lambda file: file._pragma("wal_autocheckpoint"))


async def test_who_waits_at_once_shares_a_sync(path: Path, disk: ShakyDisk) -> None:
    """While one transaction is written, all others gather for the next."""
    async with Journal(path, connect=disk.connect) as journal:
        before = disk.commits
        disk.hang()
        async with anyio.create_task_group() as group:
            group.start_soon(journal.commit, job("first"))
            await reached(disk.committing.is_set)
            for number in range(100):
                group.start_soon(journal.commit, job(f"{number}"))
            await anyio.wait_all_tasks_blocked()
            disk.open.set()

        assert 2 == disk.commits - before


class Gathering(Journal):
    """A journal that gathers for long enough to be seen."""

    gather_seconds = 0.4


async def test_one_at_a_time_waits_for_nobody(path: Path) -> None:
    """Commits that follow each other are not held back for others to come."""
    async with Gathering(path) as journal:
        start = time.monotonic()
        for number in range(5):
            await journal.commit(job(f"{number}"))

        assert 4 * Gathering.gather_seconds > time.monotonic() - start


async def test_while_several_wait_the_next_gather(path: Path, disk: ShakyDisk) -> None:
    """After a sync for several, those who come one by one share the next; a question is not held back."""
    async with Gathering(path, connect=disk.connect) as journal:
        disk.hang()
        async with anyio.create_task_group() as group:
            group.start_soon(journal.commit, job("first"))
            await reached(disk.committing.is_set)
            for key in "ab":
                group.start_soon(journal.commit, job(key))
            await anyio.wait_all_tasks_blocked()
            disk.open.set()
        before = disk.commits
        async with anyio.create_task_group() as group:
            for key in "cd":
                group.start_soon(journal.commit, job(key))
                await anyio.sleep(0.001)
        assert 1 == disk.commits - before

        start = time.monotonic()
        assert await journal.find("a") is not None
        assert Gathering.gather_seconds > time.monotonic() - start


class Patient(Journal):
    """A journal that waits for somebody who waits."""

    share_seconds = 3600


async def test_more_rows_than_a_statement_takes(path: Path, disk: ShakyDisk) -> None:
    """They are written together, or not at all, and one that does not fit is refused alone."""
    async with Patient(path, connect=disk.connect) as journal:
        before = disk.commits
        for number in range(120):
            journal.record(job(f"{number:03}"))
        await journal.flush()
        assert 1 == disk.commits - before

        disk.failing = {"COMMIT"}
        for number in range(120, 240):
            journal.record(job(f"{number:03}"))
        with pytest.raises(JournalError, match="disk is full"):
            await journal.commit(job("dropped"))
        disk.failing = set()
        with pytest.raises(JournalError, match="cannot hold this row"):
            await journal.commit(job(seed=2**70))

        assert [f"{number:03}" for number in range(240)] == [entry.key for entry in await journal.entries()]


async def test_rows_nobody_waits_for(path: Path, disk: ShakyDisk) -> None:
    """They share the next sync."""
    async with Patient(path, connect=disk.connect) as journal:
        before = disk.commits
        for number in range(10):
            journal.record(job(f"{number}"))
        await journal.commit(job("waited for"))
        assert 1 == disk.commits - before


async def test_a_row_alone(path: Path, disk: ShakyDisk) -> None:
    """It has a sync of its own soon after."""
    async with Journal(path, connect=disk.connect) as journal:
        before = disk.commits
        journal.record(job())
        await reached(lambda: disk.commits > before)
        await journal.flush()
        assert 1 == disk.commits - before


async def test_reads_see_what_is_not_yet_synced(path: Path) -> None:
    """Whatever was recorded before is in the answer."""
    async with Patient(path) as journal:
        journal.record(job(state=JobState.ACK, task_uid="t"))

        assert await journal.find("key") == await journal.find_task("t") is not None
        journal.record(job("other"))
        assert 1 == len(await journal.entries(JobState.ACK))
        journal.record(job(state=JobState.ACK))
        assert 2 == sum((await journal.counts()).values())


@pytest.mark.parametrize("step", ["BEGIN", "INSERT", "COMMIT"])
async def test_a_full_disk(path: Path, disk: ShakyDisk, step: str, caplog: pytest.LogCaptureFixture) -> None:
    """Those who wait hear of it and their rows are dropped; what nobody waits for is told, kept and written later."""
    async with Journal(path, connect=disk.connect) as journal:
        await journal.commit(job("before"))
        disk.failing = {step}
        journal.record(job("kept", task_uid="t-kept"))
        with pytest.raises(JournalError, match="disk is full") as caught:
            await journal.commit(job("dropped"))
        with pytest.raises(JournalError):
            await journal.commit(job("dropped too"))
        disk.failing = set()
        found = await journal.find("kept")
        await journal.commit(job("after"))

    assert found is not None
    assert str(path) == caught.value.path
    assert 1 == len(caplog.messages)
    assert "'kept'" in caplog.text
    assert "t-kept" in caplog.text
    assert {"t-kept"} == {vars(record)["task_uid"] for record in caplog.records}
    async with Journal(path) as journal:
        assert ["before", "kept", "after"] == [entry.key for entry in await journal.entries()]


async def test_flush_on_a_full_disk(path: Path, disk: ShakyDisk) -> None:
    """It says so, and works when there is room again."""
    async with Journal(path, connect=disk.connect) as journal:
        disk.failing = {"COMMIT"}
        journal.record(job())
        for _ in range(2):
            with pytest.raises(JournalError, match="disk is full"):
                await journal.flush()
        disk.failing = set()
        await journal.flush()
        assert 1 == len(await journal.entries())


async def test_a_later_row_of_a_job_that_was_kept(path: Path, disk: ShakyDisk) -> None:
    """The last word counts."""
    async with Journal(path, connect=disk.connect) as journal:
        disk.failing = {"COMMIT"}
        journal.record(job())
        with pytest.raises(JournalError):
            await journal.commit(job(state=JobState.COMMIT))
        journal.record(job(state=JobState.ACK))
        disk.failing = set()

    async with Journal(path) as journal:
        assert [JobState.ACK] == [entry.state for entry in await journal.entries()]


async def test_a_disk_that_stays_full(path: Path, disk: ShakyDisk, caplog: pytest.LogCaptureFixture) -> None:
    """What is lost in the end is in the log; leaving does not raise, and the file is free."""
    async with Journal(path, connect=disk.connect) as journal:
        disk.failing = {"COMMIT"}
        journal.record(job("lost", task_uid="t-lost"))

    assert logging.ERROR == caplog.records[-1].levelno
    assert "is closed; not on disk: job 'lost' is intent, TaskUID t-lost" in caplog.messages[-1]
    async with Journal(path) as journal:
        assert [] == await journal.entries()


async def test_a_really_full_file(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """SQLite's own error, with its own rollback, is handled as the simulated one."""
    connections: list[sqlite3.Connection] = []

    def connect(path: str, **options: Any) -> sqlite3.Connection:
        connections.append(sqlite3.connect(path, **options, check_same_thread=False))
        return connections[0]

    def limit(extra: int) -> None:
        (pages,) = connections[0].execute("PRAGMA page_count").fetchone()
        connections[0].execute(f"PRAGMA max_page_count = {pages + extra}")

    async with Journal(path, connect=connect) as journal:
        limit(2)
        done, failed = [], 0
        for number in range(100):
            journal.record(job(f"record {number}", reason="r" * 400))
            try:
                await journal.commit(job(f"commit {number}", reason="r" * 400))
                done.append(f"commit {number}")
            except JournalError:
                failed += 1
        limit(1000)
        await journal.commit(job("after"))

    assert 0 < len(done) < 100 == len(done) + failed
    assert "database or disk is full" in caplog.text
    async with Journal(path) as journal:
        keys = {entry.key for entry in await journal.entries()}
        assert {*done, "after", *(f"record {number}" for number in range(100))} == keys
        assert "ok" == await journal._ask(lambda file: file._pragma("integrity_check"))


@pytest.mark.parametrize("entry", [job("half a pair \ud800"), job(seed=2**70), job(reason=b"")])
async def test_a_row_that_does_not_fit(path: Path, entry: JournalEntry, caplog: pytest.LogCaptureFixture) -> None:
    """It is refused alone; the others of its transaction are written."""
    async with Journal(path) as journal:
        journal.record(job("one"))
        journal.record(entry)
        with pytest.raises(JournalError, match="cannot hold this row"):
            await journal.commit(entry)
        await journal.commit(job("two"))
        assert ["one", "two"] == [entry.key for entry in await journal.entries()]

    assert 1 == len(caplog.messages)


async def test_a_kept_row_that_does_not_fit(path: Path, disk: ShakyDisk, caplog: pytest.LogCaptureFixture) -> None:
    """It does not stand in the way of all others for ever."""
    async with Journal(path, connect=disk.connect) as journal:
        disk.failing = {"BEGIN"}
        journal.record(job(seed=2**70))
        with pytest.raises(JournalError):
            await journal.flush()
        disk.failing = set()
        await journal.commit(job("two"))
        assert ["two"] == [entry.key for entry in await journal.entries()]

    assert 2 == len(caplog.messages)


async def test_a_row_that_does_not_fit_of_a_job_that_was_kept(path: Path, disk: ShakyDisk) -> None:
    """The kept row stays, also if the transaction fails again."""
    async with Journal(path, connect=disk.connect) as journal:
        disk.failing = {"COMMIT"}
        journal.record(job(state=JobState.ACK))
        for _ in range(2):
            with pytest.raises(JournalError):
                await journal.commit(job(seed=2**70))
        disk.failing = set()
        assert [JobState.ACK] == [entry.state for entry in await journal.entries()]


async def test_a_failed_read(path: Path, disk: ShakyDisk) -> None:
    """It is told to who asked; what is to be written is not touched."""
    async with Journal(path, connect=disk.connect) as journal:
        journal.record(job())
        with pytest.raises(JournalError, match="cannot be read"):
            await journal.find_task("\ud800")
        disk.failing = {"SELECT"}
        with pytest.raises(JournalError, match="cannot be read"):
            await journal.entries()
        disk.failing = set()
        assert 1 == len(await journal.entries())


async def test_reads_of_kept_rows_fail_rather_than_miss_them(path: Path, disk: ShakyDisk) -> None:
    """What is known but cannot be put into a transaction is not passed over in silence."""
    async with Journal(path, connect=disk.connect) as journal:
        disk.failing = {"BEGIN"}
        journal.record(job())
        with pytest.raises(JournalError, match="cannot be read"):
            await journal.find("key")
        disk.failing = set()
        assert await journal.find("key") is not None


async def test_a_deleted_file(path: Path) -> None:
    """Nothing is written where nobody would find it."""
    async with Journal(path) as journal:
        await journal.commit(job())
        await anyio.Path(path).rename(path.with_name("moved"))
        with pytest.raises(JournalError, match="No such file"):
            await journal.commit(job())
        await anyio.Path(path).write_bytes(b"")
        with pytest.raises(JournalError, match="another file is in its place"):
            await journal.commit(job())


async def test_a_cancelled_commit(path: Path, disk: ShakyDisk) -> None:
    """Its row is written, or not, and nobody else is hurt; an error is nobody's."""
    async with Journal(path, connect=disk.connect) as journal:
        for failing in (set[str](), {"COMMIT"}):
            disk.hang()
            disk.failing = failing
            task = asyncio.ensure_future(journal.commit(job("cancelled")))
            await reached(disk.committing.is_set)
            task.cancel()
            await asyncio.wait([task])
            disk.open.set()
        disk.failing = set()
        await journal.commit(job("other"))
        assert ["cancelled", "other"] == [entry.key for entry in await journal.entries()]


async def test_closed(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Before it is entered and after it was left, it refuses; what nobody waits for is told."""
    journal = Journal(path)
    with pytest.raises(JournalError, match="is closed"):
        await journal.flush()
    async with journal:
        await journal.flush()
    with pytest.raises(JournalError, match="is closed"):
        await journal.commit(job())
    await journal.__aexit__()

    journal.record(job(task_uid="t-late"))

    assert "t-late" in caplog.text


async def test_again(path: Path) -> None:
    """A journal can be entered again."""
    journal = Journal(str(path))
    for number in range(3):
        async with journal:
            await journal.commit(job(f"{number}"))
            assert number + 1 == len(await journal.entries())


class Hasty(Journal):
    """A journal that does not wait for its disk."""

    leave_seconds = 0.02


async def test_a_disk_that_does_not_answer(path: Path, disk: ShakyDisk) -> None:
    """Leaving is bounded, and what was recorded is written if the disk comes back."""
    async with Hasty(path, connect=disk.connect) as journal:
        journal.record(job())
        disk.hang()
        writer = journal._writer
    assert writer is not None
    assert writer.alive

    disk.open.set()
    await reached(lambda: not writer.alive)

    async with Journal(path) as journal:
        assert 1 == len(await journal.entries())


async def test_cancelled_while_opening(path: Path) -> None:
    """The file is free soon after."""
    task = asyncio.ensure_future(Journal(path).__aenter__())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    with anyio.fail_after(SECONDS):
        while True:
            try:
                async with Journal(path) as journal:
                    assert [] == await journal.entries()
                    break
            except JournalError:
                await anyio.sleep(0.001)


def test_the_loop_ends_first(path: Path, disk: ShakyDisk) -> None:
    """Nobody is left to hear; the thread writes what it has and ends in peace."""
    journal = Journal(path, connect=disk.connect)

    async def abandon() -> None:
        await journal.__aenter__()
        disk.hang()
        task = asyncio.ensure_future(journal.commit(job()))
        await reached(disk.committing.is_set)
        task.cancel()

    asyncio.run(abandon())
    disk.open.set()
    assert journal._writer is not None
    journal._writer._finish()

    async def look() -> int:
        async with Journal(path) as journal:
            return len(await journal.entries())

    assert not journal._writer.alive
    assert 1 == asyncio.run(look())


STEPS = st.sampled_from(["record", "commit", "find", "list", "flush"])
FAULTS = st.sets(st.sampled_from(["BEGIN", "INSERT", "COMMIT"]), max_size=1)


@settings(max_examples=50)
@given(steps=st.lists(st.tuples(STEPS, st.sampled_from("abc"), st.sampled_from(JobState), FAULTS), max_size=20))
def test_what_the_journal_knows(steps: list[tuple[str, str, JobState, set[str]]], tmp_path_factory: Any) -> None:
    """Whatever fails in between: what it tells is what was recorded last, or an error; and that is on disk in the end."""
    path = tmp_path_factory.mktemp("model") / "journal.db"
    disk = ShakyDisk()
    known: dict[str, JournalEntry] = {}

    async def live() -> None:
        async with Journal(path, connect=disk.connect) as journal:
            for step, key, state, failing in steps:
                disk.failing = failing
                await follow(journal, step, job(key, state=state))
            disk.failing = set()
        async with Journal(path) as journal:
            assert sorted(known.values(), key=str) == sorted(await journal.entries(), key=str)

    async def follow(journal: Journal, step: str, entry: JournalEntry) -> None:
        if step == "record":
            journal.record(entry)
            known[entry.key] = entry
            return
        try:
            if step == "commit":
                await journal.commit(entry)
                known[entry.key] = entry
            elif step == "find":
                assert known.get(entry.key) == await journal.find(entry.key)
            elif step == "list":
                assert known == {found.key: found for found in await journal.entries()}
            else:
                await journal.flush()
        except JournalError:
            assert disk.failing

    anyio.run(live)
