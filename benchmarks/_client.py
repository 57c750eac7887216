"""One way to upload, in a process of its own: `python -m benchmarks._client work`, which is JSON, prints figures."""

from __future__ import annotations

import asyncio
import gc
import importlib
import itertools
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks._gauges import Stalls, memory
from benchmarks._pictures import find_pictures
from benchmarks._work import Work

if TYPE_CHECKING:
    from collections.abc import Iterator


class _Pictures:
    """Paths, over and over, until the time is up; counts them."""

    def __init__(self, work: Work) -> None:
        self.count = 0
        self._work = work
        self._paths = itertools.cycle(find_pictures(Path(work.folder)))
        self._end = time.perf_counter() + work.seconds

    def __iter__(self) -> Iterator[Path]:
        return self

    def __next__(self) -> Path:
        if self.count >= self._work.at_once and time.perf_counter() >= self._end:
            raise StopIteration
        self.count += 1
        return next(self._paths)


async def _measure(work: Work) -> dict[str, float]:
    """Upload all the time; the first upload, alone, is counted for stalls only, since it imports what is needed."""
    gc.collect()  # what the imports left behind is not what is measured; the collector stays on
    idle = memory("VmRSS")
    way = importlib.import_module(f"benchmarks._{work.way}")
    async with Stalls() as stalls, way.uploading(work) as upload_all:
        await upload_all(iter(find_pictures(Path(work.folder))[:1]))
        pictures = _Pictures(work)
        cpu, start = time.process_time(), time.perf_counter()
        await upload_all(pictures)
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    return {
        "rate": pictures.count / seconds,
        "cpu": cpu / pictures.count * 1e3,
        "peak": memory("VmHWM"),
        "idle": idle,
        "stall": stalls.worst,
        "p999": stalls.p999,
        "count": pictures.count,
    }


def main(text: str) -> None:
    """Do the work, and print what it took."""
    work = Work(**json.loads(text))
    importlib.import_module(f"benchmarks._{work.way}")
    loop_factory = importlib.import_module("uvloop").new_event_loop if work.uvloop else None
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        print(json.dumps(runner.run(_measure(work))))


if __name__ == "__main__":
    main(*sys.argv[1:])
