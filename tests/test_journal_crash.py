"""Tests of the journal with processes that are killed, forked, forgotten, or out of room."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import pytest

from picpik_async._journal import Journal
from picpik_async.errors import JournalError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from picpik_async import JournalEntry

CHILD = Path(__file__).with_name("journal_child.py")
SECONDS = 30


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the journal is."""
    return tmp_path / "journal.db"


class Child:
    """A process that does something with a journal; killed in the end."""

    def __init__(self, what: str, path: Path) -> None:
        command = [sys.executable, str(CHILD), what, str(path)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)  # noqa: S603
        assert self.process.stdout is not None
        self.lines = self.process.stdout

    def kill(self) -> list[str]:
        """SIGKILL; returns whole lines it had printed and nobody has read."""
        self.process.kill()
        rest, _ = self.process.communicate(timeout=SECONDS)
        return [line[:-1] for line in rest.splitlines(keepends=True) if line.endswith("\n")]


@pytest.fixture
def children() -> Iterator[list[Child]]:
    """Whatever becomes of a test, no process stays."""
    started: list[Child] = []
    yield started
    for child in started:
        child.kill()


def entries_of(path: Path) -> dict[str, JournalEntry]:
    """What the journal holds, by key."""

    async def read() -> list[JournalEntry]:
        async with Journal(path) as journal:
            return await journal.entries()

    return {entry.key: entry for entry in anyio.run(read)}


def intact(path: Path) -> bool:
    """Whether SQLite finds nothing wrong."""
    connection = sqlite3.connect(path)
    try:
        return [("ok",)] == connection.execute("PRAGMA integrity_check").fetchall()
    finally:
        connection.close()


@pytest.mark.parametrize("kills", [3, pytest.param(30, marks=pytest.mark.long)])
def test_no_commit_is_lost_in_a_crash(path: Path, kills: int, children: list[Child]) -> None:
    """Every key whose commit had returned is there after a SIGKILL at any time, in one file through all runs."""
    luck = random.Random(kills)
    returned: set[str] = set()
    for _ in range(kills):
        child = Child("commits", path)
        children.append(child)
        returned.add(child.lines.readline().strip())
        time.sleep(luck.uniform(0, 0.2))
        returned.update(child.kill())

        assert intact(path)
        assert set() == returned - entries_of(path).keys()

    assert kills * 10 < len(returned)


def test_one_process_at_a_time(path: Path, children: list[Child]) -> None:
    """The second is refused, and told who has it; a SIGKILL of the first lets it in."""
    child = Child("hold", path)
    children.append(child)
    assert "open\n" == child.lines.readline()

    with pytest.raises(JournalError, match=f"in use by process {child.process.pid};"):
        entries_of(path)
    child.kill()

    assert {} == entries_of(path)


def test_a_forked_child_does_not_keep_the_journal(path: Path, children: list[Child]) -> None:
    """Though it lives longer than the process that opened it."""
    child = Child("fork", path)
    children.append(child)
    forked = int(child.lines.readline())
    try:
        with pytest.raises(JournalError, match="in use"):
            entries_of(path)
        os.kill(child.process.pid, signal.SIGKILL)
        child.process.wait(SECONDS)

        assert {} == entries_of(path)
    finally:
        os.kill(forked, signal.SIGKILL)


def test_a_forgotten_journal(path: Path, children: list[Child]) -> None:
    """The interpreter does not wait for it, and what was recorded is written."""
    child = Child("forget", path)
    children.append(child)

    assert ("", "") == child.process.communicate(timeout=SECONDS)
    assert 0 == child.process.returncode
    assert ["forgotten"] == list(entries_of(path))


def test_files_that_cannot_grow(path: Path, children: list[Child]) -> None:
    """The system's own error at a real write: told, nothing lost, and over when there is room again."""
    child = Child("outgrow", path)
    children.append(child)
    printed, log = child.process.communicate(timeout=SECONDS)
    assert (0, "") == (child.process.returncode, log)

    keys = printed.split()
    assert "after" == keys[-1]
    assert 10 < len(keys) < 2000
    assert keys == list(entries_of(path))
    assert intact(path)
