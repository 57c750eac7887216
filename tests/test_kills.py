"""A pipeline that is killed again and again, against a server with a ledger of its own: nothing lost, nothing paid twice."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from histories import History, read_ledger, violations
from ledger_server import LedgerProcess, result_hash

from picpik_async._entries import JobState, JournalEntry
from picpik_async._journal import Journal

if TYPE_CHECKING:
    from collections.abc import Iterator

WORKER = Path(__file__).with_name("killed_worker.py")
STRIDE = 40  # jobs that a run has more than the one before; the others overlap
AT_ONCE = 160


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a real disk: what only lives in memory would survive anything."""
    folder = (
        tmp_path if kind_of_disk(tmp_path) != "tmpfs" else Path(__file__).parent / f".{tmp_path.name}-{os.getpid()}"
    )
    folder.mkdir(exist_ok=True)
    if kind_of_disk(folder) == "tmpfs":
        pytest.skip("there is no disk")  # a machine without one cannot show this
    yield folder
    shutil.rmtree(folder)


def kind_of_disk(folder: Path) -> str:
    """The type of the file system that *folder* is on."""
    mounts = [line.split(" ") for line in Path("/proc/self/mounts").read_text().splitlines()]
    _, kind = max((len(mount[1]), mount[2]) for mount in mounts if folder.is_relative_to(mount[1]))
    return kind


def start(url: str, folder: Path, first: int, last: int) -> subprocess.Popen[str]:
    """Start a pipeline, and wait until it is about to submit."""
    command = [sys.executable, str(WORKER), url, str(folder), str(first), str(last)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # noqa: S603
    assert process.stdout is not None
    assert "ready\n" == process.stdout.readline()
    return process


def read_outcomes(process: subprocess.Popen[str]) -> list[dict[str, Any]]:
    """The outcomes it told of until its end; the last line may be cut off."""
    text, _ = process.communicate()
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def kill_again_and_again(url: str, folder: Path, kills: int, rng: random.Random) -> int:
    """Run pipelines one after the other, and kill each at a random moment; returns how many outcomes they told of."""
    told = 0
    for number in range(kills):
        process = start(url, folder, number * STRIDE, number * STRIDE + AT_ONCE)
        time.sleep(rng.random() * 0.4)  # a kill has its own time
        process.send_signal(signal.SIGKILL)
        told += len(read_outcomes(process))
    return told


def finish(url: str, folder: Path, jobs: int) -> dict[str, dict[str, Any]]:
    """Run all jobs to their end, undisturbed; again, while the session pauses since too many outcomes are unknown."""
    outcomes: dict[str, dict[str, Any]] = {}
    for _ in range(50):
        process = start(url, folder, 0, jobs)
        outcomes = {outcome["key"]: outcome for outcome in read_outcomes(process)}
        assert 0 == process.returncode
        if "SubmitPausedError" not in {outcome["error"] for outcome in outcomes.values()}:
            break
    return outcomes


def entries_of(folder: Path) -> list[JournalEntry]:
    """The journal, which must be undamaged."""

    async def read() -> list[JournalEntry]:
        async with Journal(folder / "jobs.sqlite") as journal:
            return await journal.entries()

    with contextlib.closing(sqlite3.connect(folder / "jobs.sqlite")) as connection:
        assert [("ok",)] == connection.execute("PRAGMA integrity_check").fetchall()
    return anyio.run(read)


def campaign(folder: Path, kills: int, seed: int) -> str:
    """Kill, finish, judge; returns what happened in a line."""
    rng = random.Random(seed)
    jobs = (kills - 1) * STRIDE + AT_ONCE
    ledger = folder / "ledger.txt"
    with LedgerProcess(ledger, seed=seed, faults=0.05, kinds=("dropped",), delay=0.03) as server:
        told = kill_again_and_again(server.url, folder, kills, rng)
        before = len(read_ledger(ledger))
        outcomes = finish(server.url, folder, jobs)
    charges, entries = read_ledger(ledger), entries_of(folder)
    states = Counter(entry.state for entry in entries)

    assert [] == violations(History(charges=charges, entries=entries, jobs=jobs))
    assert jobs == len(outcomes)
    assert {None, "SubmitOutcomeUnknownError"} >= {outcome["error"] for outcome in outcomes.values()}
    for outcome in outcomes.values():
        hashes = [hashlib.sha256(Path(file).read_bytes()).hexdigest() for file in outcome["files"]]
        assert outcome["error"] or hashes == [result_hash(outcome["task_uid"])]
    assert states[JobState.DONE] == sum(outcome["error"] is None for outcome in outcomes.values())
    assert [] == [
        file.name for file in (folder / "out").iterdir() if file.suffix != ".png" and not file.name.endswith(".part")
    ]
    return (
        f"{kills} kills (seed {seed}), {jobs} jobs, {told} outcomes before a kill, {before} charges by then, {len(charges)}"
        f" in all, {states[JobState.DONE]} done, {states[JobState.COMMIT]} unknown; 0 untraced, 0 paid twice"
    )


def test_killed_and_resumed(disk: Path) -> None:
    """After a few kills the last run has every job: done, with its verified picture, or unknown; and none paid twice."""
    campaign(disk, kills=3, seed=20_260_101)


@pytest.mark.long
def test_killed_and_resumed_at_length(disk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same a hundred times and more, in four pipelines side by side."""

    def run(number: int) -> str:
        folder = disk / str(number)
        folder.mkdir()
        return campaign(folder, kills=30, seed=20_260_200 + number)

    with ThreadPoolExecutor(4) as threads:
        told = list(threads.map(run, range(4)))
    with capsys.disabled():
        print("", *told, sep="\n")  # noqa: T201 - figures for the README
