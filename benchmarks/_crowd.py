"""Many tasks awaited in a process of its own: `python -m benchmarks._crowd way endpoint number ending collector` prints figures.

Ways: `sdk`; `bare`, asyncio tasks that wait for an Event; `each`, asyncio tasks that poll by themselves. Endings: `finish`,
`cancel`, `timeout`, `close`. Collector: `on`, or `off` for garbage not to be collected while it is measured.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import time
import urllib.request
import uuid
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

import aiohttp

from benchmarks._gauges import Stalls, memory
from benchmarks._signature import PRIVATE_KEY, PUBLIC_KEY, signature
from picpik_async import Credentials, PicpikError, PicpikSession, PollPolicy

__all__ = ["CHUNK"]

CHUNK: Final = 500  # tasks that the caller makes in one turn of the loop
_LONGEST_PERIOD: Final = 12.0  # seconds between two polls of 100,000 tasks
_CONNECTIONS: Final = 100

Wait = Callable[[str], Awaitable[object]]


class Crowd:
    """Callers who wait, each for a task and in an asyncio task of its own.

    Attributes:
        figures: what was measured.
        callers: their asyncio tasks.
        number: how many they are.
        endpoint: the service.
    """

    def __init__(self, endpoint: str, number: int) -> None:
        self.figures: dict[str, float] = {}
        self.callers: list[asyncio.Task[None]] = []
        self.number = number
        self.endpoint = endpoint
        self._gone = asyncio.Event()
        self._left = number
        self._collecting = self._longest = 0.0
        gc.callbacks.append(self._watch_collector)

    async def gather(self, wait: Wait) -> None:
        """Let all begin to wait."""
        uids = [str(uuid.uuid4()) for _ in range(self.number)]
        gc.collect()
        self._idle = memory("VmRSS")
        async with Stalls() as stalls:
            for start in range(0, self.number, CHUNK):
                self.callers += [asyncio.create_task(self._call(wait, uid)) for uid in uids[start : start + CHUNK]]
                await asyncio.sleep(0)
            await asyncio.sleep(0)
        self.figures["register"] = stalls.worst

    async def weigh(self) -> None:
        """Measure the bytes that each takes."""
        gc.collect()
        self.figures["bytes"] = (memory("VmRSS") - self._idle) * 1e6 / self.number

    async def sweep(self) -> None:
        """Measure the processor time until all were asked about once more."""
        await self.until_asked(await self.asked() + 1)  # the time between the sweeps does not count
        asked, cpu = await self.asked(), time.process_time()
        await self.until_asked(2 * self.number, pause=0.2)
        share = (2 * self.number - asked) / 100_000
        self.figures["sweep"] = (time.process_time() - cpu) / share if share > 0 else 0.0

    async def disperse(self, end: Callable[[], Awaitable[object]]) -> None:
        """Let *end* make all waits end, and measure how the loop stalls meanwhile."""
        self._longest = 0.0
        async with Stalls() as stalls:
            await end()
            await self._gone.wait()
        self.figures |= {"end": stalls.worst, "end_p999": stalls.p999, "collector": self._longest * 1e3}

    async def cancel(self) -> None:
        """Cancel all callers."""
        for start in range(0, self.number, CHUNK):
            for caller in self.callers[start : start + CHUNK]:
                caller.cancel()
            await asyncio.sleep(0)

    async def finish(self) -> None:
        """Let all tasks have finished."""
        await self.asked("Finished")

    async def asked(self, word: str = "") -> int:
        """How many ids the service was asked about so far; a *word* is the status it tells from now on."""
        request = urllib.request.Request(f"{self.endpoint}/tell/{word}", data=b"")  # noqa: S310 - our own server
        with await asyncio.to_thread(urllib.request.urlopen, request) as answer:
            return int(json.load(answer)["ids"])

    async def until_asked(self, count: int, *, pause: float = 0.05) -> None:
        """Wait until the service was asked about so many ids, and look every *pause* seconds."""
        while await self.asked() < count:  # noqa: ASYNC110 - another process counts
            await asyncio.sleep(pause)

    async def _call(self, wait: Wait, uid: str) -> None:
        try:
            with suppress(PicpikError):
                await wait(uid)
        finally:
            self._left -= 1
            if not self._left:
                self._gone.set()

    def _watch_collector(self, phase: str, _info: object) -> None:
        if phase == "start":
            self._collecting = time.perf_counter()
        else:
            self._longest = max(self._longest, time.perf_counter() - self._collecting)


async def _bare(crowd: Crowd, _ending: str) -> None:
    event = asyncio.Event()
    await crowd.gather(lambda _uid: event.wait())
    await crowd.weigh()
    await crowd.disperse(crowd.cancel)


async def _sdk(crowd: Crowd, ending: str) -> None:
    if ending == "finish":
        period = max(0.2, _LONGEST_PERIOD * crowd.number / 100_000)
        poll = PollPolicy(tick=0.02, age_share=1e9, max_interval=period, jitter=0, max_requests_per_second=1000)
    else:
        poll = PollPolicy(tick=60, max_requests_per_second=1 / 60, timeout=10 if ending == "timeout" else None)
    picpik = PicpikSession(Credentials(PUBLIC_KEY, PRIVATE_KEY), endpoint=crowd.endpoint, poll=poll)
    async with picpik:
        await crowd.gather(lambda uid: picpik.task(uid).wait())
        if ending == "finish":
            await crowd.until_asked(crowd.number)
            await crowd.weigh()
            await crowd.sweep()
        ends: dict[str, Callable[[], Awaitable[object]]] = {
            "finish": crowd.finish,
            "cancel": crowd.cancel,
            "close": picpik.aclose,
            "timeout": crowd.asked,
        }
        await crowd.disperse(ends[ending])


async def _each(crowd: Crowd, _ending: str) -> None:
    period = max(0.2, _LONGEST_PERIOD * crowd.number / 10_000)
    connections = aiohttp.TCPConnector(limit=_CONNECTIONS)
    async with aiohttp.ClientSession(connector=connections) as client:

        async def wait(uid: str) -> None:
            while True:
                parameters = {
                    "Action": "ListTasksDetails",
                    "PublicKey": PUBLIC_KEY,
                    "TaskUIDList": [uid],
                    "request_uuid": str(uuid.uuid4()),
                }
                signed = parameters | {"Signature": signature(parameters)}
                async with client.post(crowd.endpoint, json=signed) as answer:
                    (row,) = (await answer.json())["TaskDetailList"]
                if row["Status"] == "Finished":
                    return
                await asyncio.sleep(period)

        await crowd.gather(wait)
        await crowd.until_asked(crowd.number)
        await crowd.weigh()
        await crowd.sweep()
        await crowd.disperse(crowd.finish)


async def main(way: str, endpoint: str, number: int, ending: str, collector: str) -> None:
    """Measure one way, and print its figures."""
    crowd = Crowd(endpoint, number)
    if collector == "off":
        gc.disable()
    await {"bare": _bare, "sdk": _sdk, "each": _each}[way](crowd, ending)
    print(json.dumps(crowd.figures))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), *sys.argv[4:]))
