"""One picture with many prompts, in a process of its own: `python -m benchmarks._varying way endpoint folder number`.

Ways: `variations`; `separate`, requests that know nothing of each other; `sending`, ready bytes on bare sockets, which is what
the kernel takes for its part.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from benchmarks._gauges import memory
from benchmarks._pictures import find_mask, find_pictures
from benchmarks._signature import PRIVATE_KEY, PUBLIC_KEY
from picpik_async import Credentials, ModifyMaskedPixels, PicpikSession

_THREADS: Final = 4
_SLICE: Final = 512 * 1024
_TICK: Final = 1e-6  # seconds; of a few small requests none may be counted at all


async def _submit(way: str, endpoint: str, folder: Path, number: int) -> dict[str, float]:
    base = ModifyMaskedPixels.inpaint(find_pictures(folder)[0], find_mask(folder))
    prompts = [f"a sofa, number {number}" for number in range(number)]
    requests = (
        base.variations(prompts=prompts) if way == "variations" else [base.with_prompts(each) for each in prompts]
    )
    async with PicpikSession(Credentials(PUBLIC_KEY, PRIVATE_KEY), endpoint=endpoint) as picpik:
        await picpik.submit(requests[0])
        start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
        await asyncio.gather(*[picpik.submit(request) for request in requests[1:]])
        return _figures(start, before, number - 1)


def _send(endpoint: str, folder: Path, number: int) -> dict[str, float]:
    size = sum(4 * -(-path.stat().st_size // 3) for path in (find_pictures(folder)[0], find_mask(folder)))
    slices = [os.urandom(min(_SLICE, size - at)) for at in range(0, size, _SLICE)]
    parts = urlsplit(endpoint)

    def send(_number: int) -> None:
        with socket.create_connection((parts.hostname, parts.port)) as connection:
            connection.sendall(b"POST / HTTP/1.1\r\nHost: sink\r\nContent-Length: %d\r\n\r\n" % size)
            for data in slices:
                connection.sendall(data)
            connection.recv(4096)

    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
    with ThreadPoolExecutor(_THREADS) as threads:
        list(threads.map(send, range(number - 1)))
    return _figures(start, before, number - 1)


def _figures(start: float, before: resource.struct_rusage, number: int) -> dict[str, float]:
    seconds, now = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF)
    user, kernel = now.ru_utime - before.ru_utime, now.ru_stime - before.ru_stime
    return {
        "rate": number / seconds,
        "cpu": max(user + kernel, _TICK) / number * 1e3,
        "user": max(user, _TICK) / number * 1e3,
        "kernel": max(kernel, _TICK) / number * 1e3,
        "peak": memory("VmHWM"),
    }


def main(way: str, endpoint: str, folder: str, number: str) -> None:
    """Submit, and print what each but the first took."""
    arguments = endpoint, Path(folder), int(number)
    figures = _send(*arguments) if way == "sending" else asyncio.run(_submit(way, *arguments))
    print(json.dumps(figures))


if __name__ == "__main__":
    main(*sys.argv[1:])
