"""A process with a journal, for tests that kill it: `python journal_child.py WHAT PATH`; it prints what has happened."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import sys

from picpik_async import JobState, JournalEntry
from picpik_async._journal import Journal
from picpik_async.errors import JournalError


def say(words: str) -> None:
    """Print a line at once and in one piece."""
    os.write(1, f"{words}\n".encode())


def job(key: str) -> JournalEntry:
    """A job of this run."""
    return JournalEntry(key=key, digest="d" * 64, request_uuid="u", action="ModifyMaskedPixels")


async def commits(path: str) -> None:
    """Submit, eight at once, until killed; print each key whose commit has returned."""

    async def submit(journal: Journal, worker: int) -> None:
        number = 0
        while True:
            entry = job(f"{os.getpid()}-{worker}-{number}")
            journal.record(entry)
            await journal.commit(entry.moved(JobState.COMMIT))
            say(entry.key)
            journal.record(entry.moved(JobState.ACK, task_uid=entry.key))
            number += 1

    async with Journal(path) as journal:
        await asyncio.gather(*(submit(journal, worker) for worker in range(8)))


async def hold(path: str) -> None:
    """Keep the journal until killed."""
    async with Journal(path):
        say("open")
        await asyncio.Event().wait()


async def fork(path: str) -> None:
    """Keep the journal until killed, with a forked child that outlives this process."""
    async with Journal(path):
        child = os.fork()
        if child == 0:
            signal.pause()
        say(f"{child}")
        await asyncio.Event().wait()


async def forget(path: str) -> None:
    """Record, and let the interpreter end without leaving the journal."""
    journal = Journal(path)
    await journal.__aenter__()
    journal.record(job("forgotten"))


async def outgrow(path: str) -> None:
    """Commit until files may not grow any more, then once more when they may."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    async with Journal(path) as journal:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, most))
        for number in range(1000):
            journal.record(job(f"record-{number}"))
            try:
                await journal.commit(job(f"commit-{number}"))
            except JournalError:
                break
            say(f"record-{number}")
            say(f"commit-{number}")
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
        await journal.commit(job("after"))
        say(f"record-{number}")
        say("after")


if __name__ == "__main__":
    asyncio.run(globals()[sys.argv[1]](sys.argv[2]))
