"""The journal: what became of every job, on disk before anything is paid."""

from __future__ import annotations

import asyncio
import functools
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self, TypeVar

import anyio

from picpik_async._journal_file import JournalFile
from picpik_async._journal_writer import Order, Writer, complain
from picpik_async.errors import JournalError, legible

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    from picpik_async._entries import JobState, JournalEntry

__all__ = ["Journal"]

T = TypeVar("T")
_LOOK_SECONDS: Final = 0.002


class Journal:
    """An SQLite file with a row per job, for one process and one event loop; use with `async with`.

    Args:
        path: the file; a new one is made if there is none, readable by its owner alone.
        connect: opens an SQLite database, with the arguments of `sqlite3.connect`.
        read_only: look only: another process may use the file, which must be there and is not changed.

    Raises:
        JournalError: on entering: the file cannot be used, or is in use.
    """

    share_seconds: ClassVar[float] = 0.05
    """How long what is recorded waits at most for a sync that somebody waits for."""
    # The loop loses time to the GIL with every sync. With 64 pictures of 100 kB at once, 3.6 submits share one instead of
    # 1.15, and 0.88 × as many are sent as without a journal instead of 0.79 ×; 0.02 s gave no more.
    gather_seconds: ClassVar[float] = 0.01
    """How long after a sync the next one waits for others, while several wait at the same time."""
    leave_seconds: ClassVar[float] = 2.0
    """How long leaving takes at most; what the disk has not taken by then is written before the interpreter ends."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        connect: Callable[..., sqlite3.Connection] = sqlite3.connect,
        read_only: bool = False,
    ) -> None:
        self._path = Path(path)
        self._read_only = read_only
        self._connect = connect
        self._writer: Writer | None = None
        self._known: set[int] = set()  # hashes of keys: 100,000 take 7 MB

    @property
    def path(self) -> Path:
        """The file."""
        return self._path

    async def __aenter__(self) -> Self:
        open_file = functools.partial(JournalFile, self._path, self._connect, read_only=self._read_only)
        loop = asyncio.get_running_loop()
        writer = Writer(
            open_file,
            str(self._path),
            loop,
            share_seconds=self.share_seconds,
            gather_seconds=self.gather_seconds,
        )
        try:
            await writer.start()
            self._writer = writer
            self._known.update(await self._ask(JournalFile.hashes))
        except BaseException:
            self._writer = None
            writer.put(Order(last=True))
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        """Write what is left and close the file; takes at most `leave_seconds`, also if the disk does not answer."""
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.put(Order(last=True))
            with anyio.move_on_after(self.leave_seconds, shield=True):
                while writer.alive:  # noqa: ASYNC110 - the end of a thread sets no event
                    await anyio.sleep(_LOOK_SECONDS)

    async def find(self, key: str) -> JournalEntry | None:
        """The job of that key, as last recorded.

        Raises:
            JournalError: the file cannot be read.
        """
        if hash(key) not in self._known:  # as for every new job; a question would wake the thread
            return None
        return await self._ask(lambda file: file.find(key))

    async def find_task(self, task_uid: str) -> JournalEntry | None:
        """The job with that `TaskUID`, as last recorded.

        Raises:
            JournalError: the file cannot be read.
        """
        return await self._ask(lambda file: file.find_task(task_uid))

    async def entries(self, *states: JobState) -> list[JournalEntry]:
        """The jobs in these states, or all, as last recorded; those that came first are first.

        Raises:
            JournalError: the file cannot be read.
        """
        return await self._ask(lambda file: file.entries(states))

    async def counts(self) -> dict[JobState, int]:
        """How many jobs are in each state.

        Raises:
            JournalError: the file cannot be read.
        """
        return await self._ask(lambda file: file.counts())

    def record(self, entry: JournalEntry) -> None:
        """Write a job's whole row soon, after all that was asked for before.

        It is on disk after `share_seconds`, or with the next `commit` or `flush`. What cannot be written is
        logged as an error and tried again with everything that is written later.
        """
        if self._writer is None:
            complain(f"journal {legible(self._path)} is closed", entry)
        else:
            self._known.add(hash(entry.key))
            self._writer.put(Order(entry=entry))

    async def commit(self, entry: JournalEntry) -> None:
        """Write a job's whole row; when this returns, it is on disk, or a later one of that job.

        If the caller is cancelled, it may be written all the same.

        Raises:
            JournalError: it is not on disk, and will not be tried again.
        """
        self._known.add(hash(entry.key))
        await self._order(entry=entry)

    async def flush(self) -> None:
        """Wait until all that was recorded is on disk.

        Raises:
            JournalError: it is not.
        """
        await self._order()

    async def _ask(self, question: Callable[[JournalFile], T]) -> T:
        answer: T = await self._order(question=question)
        return answer

    async def _order(self, **parts: Any) -> Any:
        if self._writer is None:
            msg = f"journal {legible(self._path)} is closed; use it within `async with`"
            raise JournalError(msg, path=str(self._path))
        reply: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._writer.put(Order(reply=reply, **parts))
        return await reply
