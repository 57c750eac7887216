"""One way to fetch pictures, or one stage of it, in a process of its own; prints figures.

`python -m benchmarks._downloader way endpoint source target`: fetches what is in the folder `source` from `endpoint` into
the folder `target`.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import io
import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Final

import aiohttp
from PIL import Image

from benchmarks._gauges import Stalls, memory
from benchmarks._pictures import find_pictures
from picpik_async import Credentials, Limits, PicpikSession
from picpik_async._files import write_atomically
from picpik_async._verification import check_picture

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

__all__: list[str] = []


async def _measured(work: Awaitable[object], pictures: int) -> dict[str, float]:
    gc.collect()  # what the imports left behind is not what is measured; the collector stays on
    idle = memory("VmRSS")
    async with Stalls() as stalls:
        cpu, start = time.process_time(), time.perf_counter()
        await work
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    return {
        "rate": pictures / seconds,
        "cpu": cpu / pictures * 1e3,
        "wall": seconds / pictures * 1e3,
        "memory": memory("VmHWM") - idle,
        "stall": stalls.worst,
        "p999": stalls.p999,
    }


async def _sdk(endpoint: str, sources: list[Path], target: Path) -> dict[str, float]:
    """Finished tasks, saved all at once; the SDK knows how many it can take."""
    async with PicpikSession(Credentials("public", "private"), endpoint=endpoint) as picpik:
        results = await asyncio.gather(*[picpik.task(path.stem).wait() for path in sources])
        return await _measured(asyncio.gather(*[result.save(target) for result in results]), len(results))


async def _usual(endpoint: str, sources: list[Path], target: Path, *, at_once: int) -> dict[str, float]:
    """What one would write: fetch, then write, flush and decode in a thread."""
    async with aiohttp.ClientSession() as client:
        turns = asyncio.Semaphore(at_once)

        async def save(name: str) -> None:
            async with turns:
                async with client.get(f"{endpoint}/{name}") as response:
                    response.raise_for_status()
                    data = await response.read()
                await asyncio.to_thread(_keep, data, target / name)

        return await _measured(asyncio.gather(*[save(path.name) for path in sources]), len(sources))


def _keep(data: bytes, path: Path) -> None:
    path.write_bytes(data)
    with path.open("rb") as file:
        os.fsync(file.fileno())
    _load(data)


def _load(data: bytes) -> None:
    with Image.open(io.BytesIO(data)) as picture:
        picture.load()


async def _fetch(endpoint: str, sources: list[Path], _target: Path) -> dict[str, float]:
    """The first stage alone: what arrives is dropped."""
    async with aiohttp.ClientSession() as client:
        turns = asyncio.Semaphore(Limits().downloads)

        async def fetch(name: str) -> None:
            async with turns, client.get(f"{endpoint}/{name}") as response:
                await response.read()

        return await _measured(asyncio.gather(*[fetch(path.name) for path in sources]), len(sources))


async def _stage(
    _endpoint: str, sources: list[Path], target: Path, *, work: Callable[[bytes, Path], object]
) -> dict[str, float]:
    """Another stage alone, in as many threads as the SDK has."""
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(Limits().threads) as threads:

        def do(source: Path) -> None:
            work(source.read_bytes(), target / source.name)

        runs = [loop.run_in_executor(threads, do, source) for source in sources]
        return await _measured(asyncio.gather(*runs), len(sources))


WAYS: Final[dict[str, Callable[[str, list[Path], Path], Coroutine[None, None, dict[str, float]]]]] = {
    "sdk": _sdk,
    "usual": functools.partial(_usual, at_once=Limits().downloads),
    "usual, unbounded": functools.partial(_usual, at_once=10_000),
    "fetch": _fetch,
    "verify": functools.partial(_stage, work=lambda data, _path: check_picture(data, Limits().max_result_pixels)),
    "load": functools.partial(_stage, work=lambda data, _path: _load(data)),
    "write": functools.partial(_stage, work=lambda data, path: path.write_bytes(data)),
    "write and flush": functools.partial(_stage, work=write_atomically),
}


def main(way: str, endpoint: str, source: str, target: str) -> None:
    """Do it with all pictures, and print what it took."""
    Image.preinit()
    sources = find_pictures(Path(source))
    print(json.dumps(asyncio.run(WAYS[way](endpoint, sources, Path(target)))))


if __name__ == "__main__":
    main(*sys.argv[1:])
