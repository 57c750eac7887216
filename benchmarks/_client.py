"""One way to upload, in a process of its own: `python -m benchmarks._client way endpoint folder rounds` prints figures."""

from __future__ import annotations

import asyncio
import gc
import importlib
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import attrs

from benchmarks._pictures import find_mask, find_pictures

if TYPE_CHECKING:
    from collections.abc import Coroutine

__all__ = ["Figures"]

_PROBE_SECONDS: Final = 0.001


@attrs.frozen(kw_only=True)
class Figures:
    """What one run measured.

    Attributes:
        rate: requests per second.
        stall: milliseconds a sleeping task was woken too late, at worst.
        peak: MB of memory in use at once, at most.
        idle: MB of memory after the imports.
        cpu: milliseconds of processor time per request, all threads together.
    """

    rate: float
    stall: float
    peak: float
    idle: float
    cpu: float


async def _measure(work: Coroutine[Any, Any, None], requests: int) -> Figures:
    gc.collect()  # what the imports left behind is not what is measured; the collector stays on
    idle = _memory("VmRSS")
    done = asyncio.Event()
    probe = asyncio.create_task(_worst_stall(done))
    await asyncio.sleep(0)  # the probe is asleep when the work begins, so the first step counts too
    cpu, start = time.process_time(), time.perf_counter()
    await work
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    done.set()
    return Figures(
        rate=requests / seconds,
        stall=await probe * 1e3,
        peak=_memory("VmHWM"),
        idle=idle,
        cpu=cpu / requests * 1e3,
    )


async def _worst_stall(done: asyncio.Event) -> float:
    worst = 0.0
    while not done.is_set():
        start = time.perf_counter()
        await asyncio.sleep(_PROBE_SECONDS)
        worst = max(worst, time.perf_counter() - start - _PROBE_SECONDS)
    return worst


def _memory(field: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise LookupError(field)


def main(way: str, endpoint: str, folder: str, rounds: str) -> None:
    """Upload all pictures at once, *rounds* times, and print what it took."""
    upload_all = importlib.import_module(f"benchmarks._{way}").upload_all
    pictures = find_pictures(Path(folder))
    work = upload_all(endpoint, pictures, find_mask(Path(folder)), int(rounds))
    figures = asyncio.run(_measure(work, len(pictures) * int(rounds)))
    print(json.dumps(attrs.asdict(figures)))


if __name__ == "__main__":
    main(*sys.argv[1:])
