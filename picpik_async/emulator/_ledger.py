"""The ledger on disk: a witness of every charge that outlives whoever was charged."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread
import orjson

from picpik_async.errors import ConfigurationError

if TYPE_CHECKING:
    from picpik_async.emulator._tasks import LedgerEntry

__all__ = ["LedgerFile"]


class LedgerFile:
    """Appends a line of JSON per charge, and has it on the disk before it returns.

    Lines that come while others are written share one fsync. All of it happens in worker threads.

    Args:
        path: the file; made if there is none, otherwise continued.
    """

    _file: int

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)
        self._limiter = anyio.CapacityLimiter(1)
        self._lock = anyio.Lock()
        self._pending: list[bytes] = []
        self._count = 0
        self._written = 0

    async def open(self) -> None:
        """Open the file.

        Raises:
            ConfigurationError: it cannot be written.
        """
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        try:
            self._file = await anyio.to_thread.run_sync(os.open, self._path, flags, 0o600, limiter=self._limiter)
        except OSError as error:
            msg = f"the ledger {str(self._path)!r} cannot be written ({error.strerror}); choose another file"
            raise ConfigurationError(msg) from error

    async def append(self, entry: LedgerEntry) -> None:
        """Write down *entry*.

        Raises:
            OSError: the disk is full, or broken.
        """
        line = {
            "request_uuid": entry.request_uuid,
            "TaskUID": entry.task_uid,
            "time": entry.time,
            "cost": entry.cost,
        }
        self._pending.append(orjson.dumps(line) + b"\n")
        self._count += 1
        number = self._count
        async with self._lock:
            if number <= self._written:
                return
            lines = self._pending[:]
            await anyio.to_thread.run_sync(self._write, b"".join(lines), limiter=self._limiter)
            del self._pending[: len(lines)]
            self._written += len(lines)

    def _write(self, data: bytes) -> None:
        end = os.fstat(self._file).st_size
        try:
            while data:
                data = data[os.write(self._file, data) :]
            os.fsync(self._file)
        except OSError:
            os.ftruncate(self._file, end)  # half a line would spoil the next; the lines are written with those to come
            raise

    async def aclose(self) -> None:
        """Close the file."""
        await anyio.to_thread.run_sync(os.close, self._file, limiter=self._limiter)
