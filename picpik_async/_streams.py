"""Streams on their way in: read once, chunk by chunk, for all who open them meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import threading
from typing import TYPE_CHECKING, Any, Final

import anyio
import anyio.to_thread

from picpik_async._blobs import Spool, too_large
from picpik_async.errors import ConfigurationError, ImageError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Hashable

    from picpik_async._blobs import Blob
    from picpik_async._config import Limits

__all__ = ["StreamLoader"]

_CHUNK: Final = 1024 * 1024  # bytes asked of a stream at a time


class StreamLoader:
    """Something that can be read once, from where it stands.

    All who open it at the same time share one reading, which goes on as long as one of them waits for it. When the last
    one is cancelled the stream is broken, since the chunk under way may be lost.
    """

    def __init__(self, value: Any, label: str) -> None:
        self.label = label
        self.key: Hashable = ("stream", id(self))
        self._value = value
        self._reading: _Reading | None = None
        self._mutex = threading.Lock()

    @property
    def fresh(self) -> bool:
        """Whether nothing was read yet."""
        return self._reading is None

    async def load(self, limiter: anyio.CapacityLimiter, limits: Limits, field: str) -> Blob:  # noqa: ARG002
        """The whole stream."""
        with self._mutex:
            if self._reading is None:
                self._reading = _Reading(functools.partial(_read_all, self._value, limiter, limits))
        return await self._reading.blob()

    def load_here(self) -> Blob | None:
        """What was read, if it was."""
        return None if self._reading is None else self._reading.made


class _Reading:
    """One pass over a stream, in a task of its own, which no single opener can cancel."""

    def __init__(self, read_all: Callable[[], Awaitable[Blob]]) -> None:
        self.made: Blob | None = None
        self._problem: Exception | None = None
        self._openers = 0
        self._scope = anyio.CancelScope()
        self._loop = asyncio.get_running_loop()
        self._task = self._loop.create_task(self._run(read_all))

    async def blob(self) -> Blob:
        """What was read; waits for the end if need be."""
        if not self._task.done():
            await self._end()
            if self._problem is not None:
                raise self._problem
        if self.made is None:
            msg = "reading it failed or was cancelled halfway; pass a fresh one"
            raise ImageError(msg)
        return self.made

    async def _end(self) -> None:
        if asyncio.get_running_loop() is not self._loop:
            msg = "a stream is being read in another event loop; pass each event loop a stream of its own, or the bytes"
            raise ConfigurationError(msg)
        self._openers += 1
        try:
            await asyncio.wait([self._task])
        except asyncio.CancelledError:
            if self._openers == 1:
                self._scope.cancel()
                with anyio.CancelScope(shield=True):
                    await asyncio.wait([self._task])
            raise
        finally:
            self._openers -= 1

    async def _run(self, read_all: Callable[[], Awaitable[Blob]]) -> None:
        with self._scope:
            try:
                self.made = await read_all()
            except asyncio.CancelledError:
                if _is_cancelled():
                    raise
                self._problem = ImageError("reading it was cancelled by the stream itself; pass a fresh one")
            except Exception as exc:  # noqa: BLE001 - a foreign object may raise anything; all openers get it
                self._problem = exc


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def _read_all(value: Any, limiter: anyio.CapacityLimiter, limits: Limits) -> Blob:
    spool = Spool()
    async with contextlib.aclosing(_chunks(value)) as chunks:
        async for chunk in chunks:
            if spool.size + len(chunk) > limits.max_image_bytes:
                raise too_large(limits.max_image_bytes)
            await anyio.to_thread.run_sync(spool.write, chunk, limiter=limiter)
    if not spool.size:
        msg = "is empty (0 bytes from where it stands); if it was read or written before, call its seek(0) first"
        raise ImageError(msg)
    return spool


def _chunks(value: Any) -> AsyncGenerator[bytes, None]:
    read = getattr(value, "read", None)
    return _chunks_of_iterable(value) if read is None else _chunks_of_file(read)


async def _chunks_of_iterable(value: Any) -> AsyncGenerator[bytes, None]:
    iterator = aiter(value)
    try:
        async for chunk in iterator:
            if data := _as_bytes(chunk):  # an empty chunk ends nothing here
                yield data
    finally:
        if hasattr(iterator, "aclose"):
            await iterator.aclose()


async def _chunks_of_file(read: Callable[[int], Any]) -> AsyncGenerator[bytes, None]:
    # A thread outside of the session's: a pipe that never answers must not keep other pictures from being encoded.
    limiter = anyio.CapacityLimiter(1)
    while data := _as_bytes(await _read(read, limiter)):
        yield data


async def _read(read: Callable[[int], Any], limiter: anyio.CapacityLimiter) -> Any:
    if inspect.iscoroutinefunction(read):
        return await read(_CHUNK)
    # Abandoned on cancellation: a pipe may never answer, and the stream is broken then anyway.
    chunk = await anyio.to_thread.run_sync(read, _CHUNK, abandon_on_cancel=True, limiter=limiter)
    return await chunk if inspect.isawaitable(chunk) else chunk


def _as_bytes(chunk: Any) -> bytes:
    if not isinstance(chunk, (bytes, bytearray, memoryview)):
        msg = f"gives {type(chunk).__name__} instead of bytes; open it in binary mode, such as open(path, 'rb')"
        raise ImageError(msg)
    return bytes(chunk)
