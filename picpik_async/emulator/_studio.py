"""Worker threads that draw the pictures of running tasks."""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import TYPE_CHECKING

import anyio.to_thread

from picpik_async.emulator import _effects as effects

if TYPE_CHECKING:
    from collections.abc import Iterable

    from picpik_async.emulator._tasks import EmulatedTask

__all__ = ["Studio"]

_log = logging.getLogger("picpik_async.emulator")


class Studio:
    """A fixed number of painters, however many tasks run.

    Args:
        painters: how many pictures are drawn at the same time.
    """

    def __init__(self, *, painters: int) -> None:
        self._due: asyncio.Queue[EmulatedTask | None] = asyncio.Queue()
        self._limiter = anyio.CapacityLimiter(painters)
        self._painters = [asyncio.create_task(self._work(), name="picpik painter") for _ in range(painters)]

    def take(self, tasks: Iterable[EmulatedTask]) -> None:
        """Draw the pictures of *tasks* soon."""
        for task in tasks:
            self._due.put_nowait(task)

    async def aclose(self) -> None:
        """Finish the pictures at hand and drop the others."""
        while not self._due.empty():
            self._due.get_nowait()
        for _ in self._painters:
            self._due.put_nowait(None)
        await asyncio.gather(*self._painters)

    async def _work(self) -> None:
        while (task := await self._due.get()) is not None:
            if task.failure is None and not task.terminated:
                await self._paint(task)
            task.files = ()

    async def _paint(self, task: EmulatedTask) -> None:
        entry = task.entry
        work = partial(effects.draw, entry.action, entry.parameters, task.files, task.seed)
        try:
            task.pictures = await anyio.to_thread.run_sync(work, limiter=self._limiter)
        except Exception:  # noqa: BLE001 (whatever it is, it is logged)
            # The task fails like one of the service, so that nobody waits for it in vain.
            _log.exception("the picture could not be drawn", extra={"task_uid": entry.task_uid})
            task.failure = "the picture could not be drawn"
