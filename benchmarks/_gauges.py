"""What is read off a process: its memory, and how late its event loop is."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["Stalls", "memory"]

_PERIOD: Final = 0.001
_SHARE: Final = 0.999


class Stalls:
    """How late the loop wakes a task that sleeps for a millisecond: `async with Stalls() as stalls: …`.

    Attributes:
        worst: milliseconds.
        p999: milliseconds; of all moments, 99.9 % would have waited no longer.
    """

    async def __aenter__(self) -> Self:
        self._late: list[float] = []
        self._done = False
        self._probe = asyncio.create_task(self._watch())
        await asyncio.sleep(0)  # the probe is asleep when the work begins, so the first step counts too
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self._done = True
        await self._probe
        self.worst: float = max(self._late) * 1e3
        waits = sorted(wait for late in self._late for wait in _waits(late))
        self.p999: float = waits[int(len(waits) * _SHARE)] * 1e3

    async def _watch(self) -> None:
        while not self._done:
            start = time.perf_counter()
            await asyncio.sleep(_PERIOD)
            self._late.append(max(0.0, time.perf_counter() - start - _PERIOD))


def _waits(late: float) -> list[float]:
    """What those would have waited who come every period meanwhile; else the longest stall would count as one moment."""
    return [late - _PERIOD * number for number in range(int(late / _PERIOD) + 1)]


def memory(field: str) -> float:
    """Memory of this process in MB: `VmRSS`, now, or `VmHWM`, the most so far."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise LookupError(field)
