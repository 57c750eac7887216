"""Waits for many tasks in a process of its own, without a network: `python -m benchmarks._sweep number` prints figures."""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import time
from contextlib import aclosing
from typing import Any, Final

import orjson

from benchmarks._gauges import memory
from picpik_async import Credentials, PicpikSession, PollPolicy
from picpik_async.testing import Answer

_ROW: Final = {"Action": "ModifyMaskedPixels", "Status": "Finished", "ImgList": [], "ErrorCode": 0}
_LEAST: Final = 4096 / 1e6  # a page


class _Collector:
    """Times the garbage collector, which looks at every object that is waiting, over and over."""

    def __init__(self) -> None:
        self.seconds = 0.0
        gc.callbacks.append(self._note)

    def _note(self, phase: str, _info: dict[str, int]) -> None:
        self.seconds += time.thread_time() * (-1 if phase == "start" else 1)


class _Finished:
    """Answers at once that all tasks have finished."""

    async def send(self, body: Any, *, before_tail: Any = None) -> Answer:
        """See `Transport.send`."""
        del before_tail  # there is none for a query
        async with aclosing(body.head()) as head:
            query = b"".join([data async for data in head]) + body.tail()
        rows = [_ROW | {"TaskUID": uid} for uid in orjson.loads(query)["TaskUIDList"]]
        return Answer(200, orjson.dumps({"RetCode": 0, "TaskDetailList": rows}))


async def main(number: int) -> None:
    """Wait for *number* tasks at the same time, each asked about once, and print what it took."""
    poll = PollPolicy(max_requests_per_second=1e6)
    async with PicpikSession(
        Credentials("public", "private"), endpoint="http://127.0.0.1", poll=poll, transport=_Finished()
    ) as picpik:
        await picpik.task("warm up").wait()
        gc.collect()
        collector = _Collector()
        idle, cpu = memory("VmHWM"), time.process_time()
        await asyncio.gather(*(picpik.task(f"task-{each}").wait() for each in range(number)))
        cpu, collecting = time.process_time() - cpu, collector.seconds
    waiting = max(_LEAST, memory("VmHWM") - idle)
    print(json.dumps({"cpu": cpu * 1e3, "rest": (cpu - collecting) * 1e3, "memory": waiting}))


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
