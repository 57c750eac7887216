"""A session in the wrong place says so before any byte: another event loop, another thread, a forked child, closed."""

from __future__ import annotations

import asyncio
import inspect
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from fault_server import Exchange, FaultServer, service
from jobs import CREDENTIALS, job
from uses import refusals, uses

from picpik_async import PicpikSession
from picpik_async._journal import Journal
from picpik_async.testing import FakeTransport

if TYPE_CHECKING:
    from collections.abc import Callable

BALANCE: dict[str, Any] = {"RetCode": 0, "TotalCredits": 10, "UsedCredits": 3}


def transport() -> FakeTransport:
    """A service that knows its balance."""
    return FakeTransport(lambda _request: BALANCE)


def test_all_uses_are_listed() -> None:
    """What is tested here is all there is: whoever adds a method adds it to the list."""
    methods = {
        name
        for name, method in inspect.getmembers(PicpikSession, inspect.isfunction)
        if not name.startswith("_") and name not in {"aclose", "task"}
    }
    names = {name.partition(",")[0] for name in uses(PicpikSession(CREDENTIALS)) if " with " not in name}

    assert methods == {name for name in names if not name.startswith(("__", "Task."))} & methods
    assert methods <= names


@pytest.mark.anyio
async def test_closed(tmp_path: Path) -> None:
    """A closed session does nothing but say so; closing it again is no mistake."""
    wire = transport()
    picpik = PicpikSession(CREDENTIALS, transport=wire, journal=tmp_path / "jobs.sqlite")
    await picpik.balance()
    await picpik.aclose()
    found = await refusals(picpik)
    await picpik.aclose()

    assert {*uses(picpik)} == {*found}
    assert all(words.startswith("the session is closed") for words in found.values()), found
    assert 1 == len(wire.requests)


@pytest.mark.anyio
async def test_closed_before_it_was_opened(tmp_path: Path) -> None:
    """It makes no journal either."""
    wire, path = transport(), tmp_path / "jobs.sqlite"
    picpik = PicpikSession(CREDENTIALS, transport=wire, journal=path)
    await picpik.aclose()

    assert {*uses(picpik)} == {*await refusals(picpik)}
    assert [] == wire.requests
    assert not path.exists()


def in_turn(one: Callable[[], Any], other: Callable[[], Any]) -> Any:
    """Two calls of `asyncio.run`, as a notebook or a script does."""
    asyncio.run(one())
    return asyncio.run(other())


def in_a_thread(one: Callable[[], Any], other: Callable[[], Any]) -> Any:
    """While one loop runs, another thread runs another."""

    async def both() -> Any:
        await one()
        with ThreadPoolExecutor(1) as pool:
            return await asyncio.get_running_loop().run_in_executor(pool, lambda: asyncio.run(other()))

    return asyncio.run(both())


@pytest.mark.parametrize("way", [in_turn, in_a_thread])
def test_another_loop(way: Callable[..., Any], tmp_path: Path) -> None:
    """A session belongs to the loop of its first use."""
    wire = transport()
    picpik = PicpikSession(CREDENTIALS, transport=wire, journal=tmp_path / "jobs.sqlite")
    found = way(picpik.balance, lambda: refusals(picpik, closing=True))

    assert {*uses(picpik), "aclose"} == {*found}
    assert all("belongs to another event loop" in words for words in found.values()), found
    assert 1 == len(wire.requests)


def test_closing_from_another_loop() -> None:
    """A session that is being closed is not closed from elsewhere; one that is closed may be, for nothing happens."""
    gate = asyncio.Event()

    async def late(_request: dict[str, Any]) -> dict[str, Any]:
        await gate.wait()
        return {"RetCode": 0, "TaskUID": "a-task"}

    wire = FakeTransport(late)
    picpik = PicpikSession(CREDENTIALS, transport=wire)

    async def main() -> dict[str, str]:
        submitting = asyncio.create_task(picpik.submit(job()))
        while not wire.requests:  # noqa: ASYNC110 - it sets no event
            await asyncio.sleep(0)
        closing = asyncio.create_task(picpik.aclose())
        await asyncio.sleep(0)
        with ThreadPoolExecutor(1) as pool:
            elsewhere = refusals(picpik, closing=True)
            found = await asyncio.get_running_loop().run_in_executor(pool, lambda: asyncio.run(elsewhere))
        gate.set()
        await asyncio.gather(submitting, closing)
        return found

    found = asyncio.run(main())
    asyncio.run(picpik.aclose())

    assert {*uses(picpik), "aclose"} == {*found}


def row(exchange: Exchange) -> None:
    """All tasks run."""
    uids = exchange.document["TaskUIDList"]
    exchange.answer({"RetCode": 0, "TaskDetailList": [{"TaskUID": uid, "Status": "Running"} for uid in uids]})


def test_forked_children(tmp_path: Path) -> None:
    """Children are refused everything, however they leave, and the parent goes on with its connections and its journal."""
    command = [sys.executable, "-X", "dev", str(Path(__file__).with_name("uses.py"))]
    with FaultServer(service(GetCreditBalance=BALANCE, ListTasksDetails=row)) as server:
        ended = subprocess.run(  # noqa: S603 - Python
            [*command, server.url, str(tmp_path)], capture_output=True, text=True, timeout=60, check=False
        )
        actions = server.actions
        connections = server.connections

    assert ("", 0) == (ended.stdout, ended.returncode), ended.stderr
    assert 4 == actions.count("ModifyMaskedPixels")
    assert 4 == actions.count("GetCreditBalance")
    assert connections <= 4 + 2  # one for each submit, and those for reads are kept

    async def entries() -> list[str]:
        async with Journal(tmp_path / "jobs.sqlite") as journal:
            return [entry.key for entry in await journal.entries()]

    assert ["first", "second", "third", "fourth"] == asyncio.run(entries())
