"""The poller of the SDK and a simulated service, on an event loop whose clock jumps to the next timer.

`python -m benchmarks._virtual '{"tasks": …}'` prints what `watch` gives, as JSON.
"""

from __future__ import annotations

import asyncio
import json
import random
import selectors
import sys
from collections import Counter
from statistics import quantiles
from typing import TYPE_CHECKING, Any, Final

from benchmarks._mixes import tasks_of
from picpik_async import Dialect, PollPolicy, TaskDetail, TaskStatus
from picpik_async._durations import Durations
from picpik_async._poller import Poller

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["LATENCY", "figures_of"]

LATENCY: Final = 0.05  # seconds that a status request takes; the service looks at the tasks half-way


class _Patient(selectors.DefaultSelector):
    """A selector that never waits for time to pass, and tells how much would have."""

    skipped = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        events: list[tuple[selectors.SelectorKey, int]] = super().select(None if timeout is None else 0)
        if not events and timeout is not None:
            self.skipped += max(0.0, timeout)
        return events


class _JumpingLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock stands still while there is work."""

    def __init__(self) -> None:
        self._patient = _Patient()
        super().__init__(self._patient)

    def time(self) -> float:
        return self._patient.skipped


class _Service:
    """Knows when tasks end, and answers status requests."""

    def __init__(self) -> None:
        self.ends: dict[str, float] = {}
        self.requests: list[float] = []
        self.ids = 0
        self._rows: dict[str, TaskDetail] = {}

    def begin(self, uid: str, end: float) -> None:
        self.ends[uid] = end
        self._rows[uid] = TaskDetail(task_uid=uid, status=TaskStatus.RUNNING, status_word="Running")

    async def fetch(self, uids: Sequence[str]) -> list[TaskDetail]:
        self.requests.append(asyncio.get_running_loop().time())
        self.ids += len(uids)
        await asyncio.sleep(LATENCY / 2)
        now = asyncio.get_running_loop().time()
        rows = [self._finished(uid) if self.ends[uid] <= now else self._rows[uid] for uid in uids]
        await asyncio.sleep(LATENCY / 2)
        return rows

    def _finished(self, uid: str) -> TaskDetail:
        return TaskDetail(task_uid=uid, status=TaskStatus.FINISHED, status_word="Finished")


class _Watch:
    """Waits for tasks that begin at given times and take given times."""

    def __init__(self, policy: PollPolicy, *, learns: bool, seed: int) -> None:
        self.service = _Service()
        self.delays: list[float] = []
        self._durations = Durations()
        self._learns = learns
        self.poller = Poller(self.service.fetch, policy, Dialect(), rng=random.Random(seed), durations=self._durations)

    async def wave(self, name: str, tasks: Sequence[tuple[float, float]]) -> None:
        start = asyncio.get_running_loop().time()
        async with asyncio.TaskGroup() as waiters:
            for number, (begin, length) in enumerate(tasks):
                waiters.create_task(self._wait(f"{name}{number}", start + begin, length))

    async def _wait(self, uid: str, begin: float, length: float) -> None:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(begin - loop.time())
        self.service.begin(uid, begin + length)
        if self._learns:
            self._durations.begin(uid, "kind", loop.time())
        await self.poller.wait(uid, timeout=None)
        self.delays.append(loop.time() - begin - length)


async def _watch(
    tasks: Sequence[tuple[float, float]],
    earlier: Sequence[tuple[float, float]],
    policy: PollPolicy,
    *,
    learns: bool,
    seed: int,
) -> dict[str, float]:
    watch = _Watch(policy, learns=learns, seed=seed)
    polling = asyncio.create_task(watch.poller.run())
    await watch.wave("earlier", earlier)
    watch.service.requests.clear()
    watch.service.ids = 0
    watch.delays.clear()
    await watch.wave("", tasks)
    polling.cancel()
    await asyncio.wait([polling])
    figures = figures_of(watch.service.requests, watch.delays)
    return figures | {"ids": watch.service.ids / len(watch.service.requests)}


def figures_of(requests: Sequence[float], delays: Sequence[float]) -> dict[str, float]:
    """How many requests there were, in all and in the worst second, and the seconds from finish to notice."""
    shares = quantiles(delays, n=20)
    worst = max(Counter(map(int, requests)).values())
    return {"requests": len(requests), "peak": worst, "median": shares[9], "p95": shares[18], "worst": max(delays)}


def main(spec: dict[str, Any]) -> dict[str, Any]:
    """A list of figures, one for each policy of *spec*."""
    figures = []
    for policy in spec["policies"]:
        tasks = tasks_of(spec["mix"], spec["tasks"], spec["load"], seed=1)
        earlier = tasks_of(spec["mix"], spec["earlier"], "50 at once", seed=2)
        with asyncio.Runner(loop_factory=_JumpingLoop) as runner:
            work = _watch(tasks, earlier, PollPolicy(**policy), learns=spec["learns"], seed=1)
            figures.append(runner.run(work))
    return {"figures": figures}


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
