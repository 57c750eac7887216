"""A program that closes sessions in every state they can be in, and says how long that took and what was left.

Arguments: an address for each kind of service, as JSON, and a folder. Prints JSON.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import inspect
import json
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import anyio.lowlevel
from jobs import CREDENTIALS, job
from shaky_disk import ShakyDisk

from picpik_async import PicpikSession, PollPolicy, RetryPolicy
from picpik_async._journal import Journal
from picpik_async.errors import PicpikError

URLS: dict[str, str] = json.loads(sys.argv[1])
FOLDER = Path(sys.argv[2])
CLOSING: dict[str, float] = {}
State = Callable[[str], Coroutine[Any, Any, None]]
STATES: list[State] = []


def state(function: State) -> State:
    """Register a state."""
    STATES.append(function)
    return function


def session(kind: str, name: str = "", **options: Any) -> PicpikSession:
    """A session with a service of that kind, and with a journal if it has a name."""
    journal = {"journal": FOLDER / f"{name}.sqlite"} if name else {}
    defaults = {"poll": PollPolicy(tick=0.01), "retry": RetryPolicy(attempts=2, base_delay=0, throttle_delay=0)}
    arguments: dict[str, Any] = defaults | journal | options
    return PicpikSession(CREDENTIALS, endpoint=URLS[kind], **arguments)


async def close(picpik: PicpikSession, name: str) -> None:
    """Close it, and note the time."""
    start = time.monotonic()
    await picpik.aclose()
    CLOSING[name] = time.monotonic() - start


async def run(work: Coroutine[Any, Any, Any]) -> None:
    """Do something that ends with an error of ours, or well."""
    with contextlib.suppress(PicpikError):
        await work


def start(*works: Coroutine[Any, Any, Any]) -> list[asyncio.Task[None]]:
    """Do things in tasks of their own."""
    return [asyncio.create_task(run(work)) for work in works]


async def soon(condition: Callable[[], object]) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - threads and sockets set no event
            await asyncio.sleep(0.005)


async def close_during(
    name: str, picpik: PicpikSession, condition: Callable[[], object], *works: Coroutine[Any, Any, Any]
) -> None:
    """Close while things are under way; everybody hears."""
    tasks = start(*works)
    await soon(condition)
    await close(picpik, name)
    async with asyncio.timeout(1):
        await asyncio.gather(*tasks)


def submits(picpik: PicpikSession) -> Any:
    """The submits under way."""
    return picpik._engine and picpik._engine._submits


def committed(picpik: PicpikSession) -> bool:
    """Whether one of them has passed its commit point."""
    return any(submit.committed for submit in submits(picpik) or ())


@state
async def never_opened(name: str) -> None:
    """Nobody used it."""
    await close(session("hang"), name)


@state
async def idle(name: str) -> None:
    """It has done something, and has a connection and a journal."""
    picpik = session("running", name)
    await picpik.balance()
    await close(picpik, name)
    await close(picpik, name)


@state
async def opening(name: str) -> None:
    """It is on its way, at each step."""
    for steps in range(40):
        picpik = session("running", f"{name}-{steps}" if steps % 2 else "")
        tasks = start(picpik.balance())
        for _ in range(steps):
            await anyio.lowlevel.checkpoint()
        await close(picpik, name)
        await asyncio.gather(*tasks)


@state
async def cannot_open(name: str) -> None:
    """Its journal is in use, and whoever opened it was cancelled."""
    async with session("running", name) as other:
        await other.recover()
        for steps in range(6):
            picpik = session("running", name)
            opener = asyncio.create_task(picpik.balance())
            for _ in range(steps):
                await anyio.lowlevel.checkpoint()
            opener.cancel()
            await asyncio.wait([opener])
            if steps % 2:
                await asyncio.sleep(0.05)
            await close(picpik, name)


@state
async def uploading(name: str) -> None:
    """A picture is on its way."""
    picpik = session("hang", name)
    await close_during(name, picpik, functools.partial(submits, picpik), picpik.submit(job(1500)))


@state
async def committing(name: str) -> None:
    """The disk does not answer."""
    disk, path = ShakyDisk(), FOLDER / f"{name}.sqlite"
    picpik = session("running", name)
    picpik._new_journal = functools.partial(Journal, path, connect=disk.connect)
    await picpik.recover()
    disk.hang()
    await close_during(name, picpik, disk.committing.is_set, picpik.submit(job()))
    disk.open.set()


@state
async def waiting_for_the_answer(name: str) -> None:
    """It may be paid, and the service says nothing."""
    picpik = session("drain", name)
    works = [picpik.submit(job()), picpik.run(job(), timeout=100), picpik.run(job(), on_cancel="terminate")]
    await close_during(name, picpik, functools.partial(committed, picpik), *works)


@state
async def confirming(name: str) -> None:
    """The answer broke off after the uid, which the service does not know."""
    picpik = session("broken", name)
    await close_during(
        name, picpik, lambda: any(submit._salvaged for submit in submits(picpik) or ()), picpik.submit(job())
    )


@state
async def pausing(name: str) -> None:
    """It was turned away for a while."""
    picpik = session("busy", name)
    await close_during(
        name, picpik, lambda: any(submit._spent for submit in submits(picpik) or ()), picpik.submit(job())
    )


@state
async def polling(name: str) -> None:
    """Tasks are waited for."""
    picpik = session("running", name)
    updates = picpik.task("a").updates()
    await anext(updates)
    works = [picpik.task("a").wait(), picpik.run(job()), *(picpik.task(str(number)).wait() for number in range(200))]
    await close_during(name, picpik, lambda: picpik.tasks, *works, anext(updates))  # type: ignore[arg-type]


@state
async def asking(name: str) -> None:
    """A query has no answer."""
    picpik = session("drain", name)
    works = [picpik.balance(), picpik.task("a").terminate(), picpik.reconcile()]
    await close_during(name, picpik, lambda: picpik._engine and picpik._engine._guests, *works)


@state
async def downloading(name: str) -> None:
    """A picture drips."""
    picpik = session("drip", name)
    result = await picpik.task("a").wait()
    work = result.save(FOLDER / name)
    await close_during(name, picpik, result.images[0]._fetching.locked, work)


@state
async def saving(name: str) -> None:
    """Pictures are written, at each step."""
    for steps in range(10):
        picpik = session("finished", f"{name}-{steps}")
        await picpik.submit(job())
        result = await picpik.tasks[0].wait()
        tasks = start(result.save(FOLDER / name))
        await asyncio.sleep(steps / 500)
        await close(picpik, name)
        await asyncio.gather(*tasks)
    assert not [file for file in (FOLDER / name).rglob("*") if file.name.startswith(".")]


async def consume(picpik: PicpikSession, seen: list[Any]) -> None:
    """Take all outcomes of a map."""
    async for outcome in picpik.map((str(number), job()) for number in range(50)):
        seen.append(outcome)  # noqa: PERF401 - one after the other


@state
async def mapping(name: str) -> None:
    """Many jobs are under way."""
    for kind in ("running", "finished"):
        picpik, seen = session(kind, f"{name}-{kind}"), list[Any]()
        await close_during(name, picpik, lambda: picpik.tasks, consume(picpik, seen))  # noqa: B023 - used at once


@state
async def terminating(name: str) -> None:
    """A caller was cancelled, its task is to be terminated, and the service does not answer."""
    picpik = session("deaf", name)
    running = asyncio.create_task(picpik.run(job(), on_cancel="terminate"))
    await soon(lambda: picpik.tasks)
    await asyncio.sleep(0.05)
    running.cancel()
    await soon(lambda: picpik._engine and picpik._engine._last_acts)
    await close(picpik, name)
    await asyncio.wait([running], timeout=1)
    assert running.cancelled()


@state
async def owner_was_killed(name: str) -> None:
    """Its owner was interrupted, and it may have been used since."""
    for used in (False, True):
        picpik = session("running", name)
        tasks = start(picpik.run(job()))
        await soon(lambda: picpik.tasks)  # noqa: B023 - used at once
        assert picpik._engine is not None
        picpik._engine.owner.cancel()
        if used:
            await asyncio.sleep(0)
            await picpik.recover()
        await close(picpik, name)
        await asyncio.gather(*tasks)


@state
async def closed_by_two(name: str) -> None:
    """Two close it at the same time, and a third is cancelled."""
    picpik = session("drain", name)
    tasks = start(picpik.submit(job()))
    await soon(lambda: committed(picpik))
    third = asyncio.create_task(picpik.aclose())
    await asyncio.sleep(0)
    third.cancel()
    await asyncio.gather(close(picpik, name), close(picpik, name), *tasks)


@state
async def forgotten(name: str) -> None:
    """Nobody has it any more."""
    picpik = session("drain", name)
    submitting = asyncio.create_task(picpik.submit(job()))
    await soon(functools.partial(committed, picpik))
    submitting.cancel()
    await asyncio.wait([submitting])
    del submitting
    assert picpik._engine is not None
    owner = picpik._engine.owner
    begin = time.monotonic()
    del picpik
    gc.collect()
    await asyncio.wait([owner], timeout=10)
    CLOSING[name] = time.monotonic() - begin
    assert owner.done()


@state
async def forgotten_map(name: str) -> None:
    """Somebody has left a map in the middle, and its session with it."""

    async def some() -> asyncio.Task[None]:
        picpik = session("finished", name)
        async for _ in picpik.map(job() for _ in range(20)):
            break
        assert picpik._engine is not None
        return picpik._engine.owner

    owner = await some()
    begin = time.monotonic()
    gc.collect()
    await asyncio.wait([owner], timeout=10)
    CLOSING[name] = time.monotonic() - begin
    assert owner.done()


async def main() -> list[str]:
    """All states at once; returns the tasks that are left."""
    asyncio.get_running_loop().slow_callback_duration = 60  # the machine may be busy
    async with asyncio.TaskGroup() as group:
        for function in STATES:
            group.create_task(function(function.__name__))
    gc.collect()
    return [repr(task) for task in asyncio.all_tasks() - {asyncio.current_task()}]


def has_begun(task: asyncio.Task[Any]) -> bool:
    """Whether the task has made its first step."""
    coroutine: Any = task.get_coro()
    return inspect.getcoroutinestate(coroutine) != inspect.CORO_CREATED


async def never_closed() -> None:
    """A program that ends in the middle of everything."""
    asyncio.get_running_loop().slow_callback_duration = 60
    picpik = session("drain", "never_closed")
    start(picpik.submit(job()), picpik.task("a").wait(), picpik.balance(), consume(picpik, []))
    await soon(lambda: committed(picpik))
    # anyio warns of coroutines if asyncio cancels their tasks before the first step; let all be beyond it.
    await asyncio.sleep(0.3)
    await soon(lambda: all(map(has_begun, asyncio.all_tasks())))


def footprint() -> tuple[list[str], list[str]]:
    """Threads and open files."""
    gc.collect()
    files = []
    for number in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            files.append(str(number.readlink()))
    return sorted(thread.name for thread in threading.enumerate()), sorted(files)


if __name__ == "__main__":
    asyncio.run(anyio.lowlevel.checkpoint())  # what is made once, such as the thread of a loop
    before = footprint()
    left = asyncio.run(main())
    begin = time.monotonic()
    asyncio.run(never_closed())
    CLOSING["never_closed"] = time.monotonic() - begin
    until = time.monotonic() + 3
    while footprint() != before and time.monotonic() < until:
        time.sleep(0.02)
    print(json.dumps({"seconds": CLOSING, "tasks": left, "before": before, "after": footprint()}))  # noqa: T201
