"""Everything a session can be asked to do; also a program that does it in forked children.

Arguments of the program: an address and a folder.
"""

from __future__ import annotations

import asyncio
import os
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs import CREDENTIALS, job

from picpik_async import PicpikSession
from picpik_async._requests import ListModels
from picpik_async.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable


def uses(picpik: PicpikSession) -> dict[str, Callable[[], Any]]:
    """By name, all that a session does with the service or the journal."""
    task = picpik.task("a-task")
    return {
        "__aenter__": picpik.__aenter__,
        "submit": lambda: picpik.submit(job()),
        "submit with a key": lambda: picpik.submit(job(), key="a-key"),
        "run": lambda: picpik.run(job()),
        "run, on_cancel": lambda: picpik.run(job(), on_cancel="terminate", timeout=None),
        "map": lambda: anext(picpik.map([job(), job()])),
        "recover": picpik.recover,
        "reconcile": lambda: picpik.reconcile(adopt=True),
        "adopt": lambda: picpik.adopt("a-key", "a-task"),
        "resubmit": lambda: picpik.resubmit("a-key", job(), accept_double_charge=True),
        "call": lambda: picpik.call(ListModels()),
        "models": picpik.models,
        "control_nets": getattr(picpik, "control_nets", picpik.models),
        "running_tasks": picpik.running_tasks,
        "balance": picpik.balance,
        "Task.wait": task.wait,
        "Task.detail": task.detail,
        "Task.terminate": task.terminate,
        "Task.updates": lambda: anext(task.updates()),
    }


async def refusals(picpik: PicpikSession, *, closing: bool = False) -> dict[str, str]:
    """Why each of them is refused; those that are not are missing."""
    found = {}
    for name, use in (uses(picpik) | ({"aclose": picpik.aclose} if closing else {})).items():
        try:
            await use()
        except ConfigurationError as error:
            found[name] = str(error)
    return found


def in_child(picpik: PicpikSession, *, leave: Callable[[int], object]) -> None:
    """Fork, ask the child for everything, and let it *leave*; prints what is not as it must be."""
    with warnings.catch_warnings(action="ignore"):
        child = os.fork()
    if child == 0:
        found = asyncio.run(refusals(picpik, closing=True))
        missing = {*uses(picpik), "aclose"} - {name for name, words in found.items() if "made before a fork" in words}
        leave(len(missing))
    _, status = os.waitpid(child, 0)
    if status:
        print("a child was not refused", os.waitstatus_to_exitcode(status), "times")  # noqa: T201


async def go_on(picpik: PicpikSession, key: str) -> None:
    """The parent uses everything that is its own."""
    await picpik.balance()
    await picpik.submit(job(), key=key)
    for entry in await picpik.recover():
        await picpik.task(str(entry.task_uid)).detail()


async def fork_within(picpik: PicpikSession) -> None:
    """Fork in the middle of the loop, with things under way."""
    waiting = asyncio.create_task(picpik.task("a-task").wait())
    await asyncio.sleep(0.05)
    in_child(picpik, leave=os._exit)
    await go_on(picpik, "fourth")
    waiting.cancel()
    await picpik.aclose()


if __name__ == "__main__":
    session = PicpikSession(CREDENTIALS, endpoint=sys.argv[1], journal=Path(sys.argv[2]) / "jobs.sqlite")
    runner = asyncio.Runner()  # not in a `with`: a child that left it would take the parent's sockets from its selector
    runner.run(go_on(session, "first"))
    in_child(session, leave=os._exit)
    runner.run(go_on(session, "second"))
    in_child(session, leave=sys.exit)
    runner.run(go_on(session, "third"))
    runner.run(fork_within(session))
    runner.close()
