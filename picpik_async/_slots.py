"""Places for downloads, given to whichever result expires first."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

__all__ = ["RESULT_LIFETIME", "Slots"]

_logger = logging.getLogger("picpik_async")

RESULT_LIFETIME: Final = 24 * 3600.0
"""Seconds for which the service keeps a result."""


class _Turn:
    def __init__(self, expires: float, number: int, began: float) -> None:
        self.expires = expires
        self.began = began
        self.given = asyncio.Event()  # made in 0.2 µs; anyio's takes 4, which add up where hundreds come at once
        self.over = False
        self._rank = expires, number

    def __lt__(self, other: _Turn) -> bool:
        return self._rank < other._rank


class Slots:
    """A bound on what runs at once; who waits is served by what would expire first.

    Args:
        count: the bound.
        clock: Unix time in seconds.
    """

    def __init__(self, count: int, *, clock: Callable[[], float] = time.time) -> None:
        self._free = count
        self._clock = clock
        self._waiting: list[_Turn] = []
        self._numbers = itertools.count()
        self._warned = False

    @asynccontextmanager
    async def held(self, expires: float) -> AsyncIterator[None]:
        """Wait for a place and keep it; *expires* is Unix time in seconds."""
        await self._take(expires)
        try:
            yield
        finally:
            self._leave()

    async def _take(self, expires: float) -> None:
        if self._free:
            self._free -= 1
            return
        turn = _Turn(expires, next(self._numbers), self._clock())
        heapq.heappush(self._waiting, turn)
        try:
            await turn.given.wait()
        except BaseException:
            turn.over = True
            if turn.given.is_set():  # in the very moment of the cancellation
                self._leave()
            raise

    def _leave(self) -> None:
        while self._waiting:
            turn = heapq.heappop(self._waiting)
            if not turn.over:
                self._warn_if_late(turn)
                turn.given.set()
                return
        self._free += 1
        self._warned = False

    def _warn_if_late(self, turn: _Turn) -> None:
        half = turn.expires - RESULT_LIFETIME / 2
        if not self._warned and turn.began <= half < self._clock():
            self._warned = True
            waiting = 1 + sum(not other.over for other in self._waiting)
            msg = "downloads: %d results wait, the first for so long that it expires in less than 12 hours; raise Limits.downloads"
            _logger.warning(msg, waiting)
