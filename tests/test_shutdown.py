"""Closing is clean and bounded, whatever is under way: no more than 5 seconds, no complaint, nothing left."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from fault_server import Exchange, FaultServer, answering, details, raw_answer, service
from jobs import picture

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CLOSE_SECONDS = 5.0
MARGIN = 1.0  # the machine may be busy
BALANCE = {"RetCode": 0, "TotalCredits": 10, "UsedCredits": 3}


def running(exchange: Exchange) -> None:
    """All tasks run for ever."""
    uids = exchange.document["TaskUIDList"]
    exchange.answer({"RetCode": 0, "TaskDetailList": [{"TaskUID": uid, "Status": "Running"} for uid in uids]})


def drip(exchange: Exchange) -> None:
    """A picture that never ends."""
    exchange.send(raw_answer(b"x", headers={"Content-Length": 1000}))
    exchange.drain()


def show(exchange: Exchange) -> None:
    """A picture."""
    exchange.answer(picture())


def break_off(exchange: Exchange) -> None:
    """Half an answer, with a whole uid."""
    exchange.send(raw_answer(b'{"RetCode": 0, "TaskUID": "nobody-knows", ', headers={"Content-Length": 99}))
    exchange.finish()


def finished(server: FaultServer) -> Callable[[Exchange], None]:
    """All tasks have ended, with a picture."""

    def answer(exchange: Exchange) -> None:
        rows = [
            {"TaskUID": uid, "Status": "Finished", "ImgList": [f"{server.url}/{uid}"]}
            for uid in exchange.document["TaskUIDList"]
        ]
        exchange.answer({"RetCode": 0, "TaskDetailList": rows})

    return answer


@pytest.fixture
def urls() -> Iterator[dict[str, str]]:
    """Services that behave in one way each."""
    queries: dict[str, Any] = {"GetCreditBalance": BALANCE, "ListTasksDetails": running}
    scripts: dict[str, Callable[[Exchange], None]] = {
        "running": service(**queries),
        "hang": Exchange.hang,
        "drain": Exchange.drain,
        "busy": answering(b"", status=429, headers={"Retry-After": 50}),
        "broken": service(submit=break_off, ListTasksDetails={"RetCode": 0}),
        "drip": Exchange.drain,
        "finished": Exchange.drain,
        "deaf": service(TerminateTask=Exchange.drain, **queries),
    }
    with contextlib.ExitStack() as stack:
        servers = {kind: stack.enter_context(FaultServer(script)) for kind, script in scripts.items()}
        servers["drip"]._scripts[:] = [service(ListTasksDetails=details(f"{servers['drip'].url}/1"), download=drip)]
        servers["finished"]._scripts[:] = [
            service(ListTasksDetails=finished(servers["finished"]), download=show, GetCreditBalance=BALANCE)
        ]
        yield {kind: server.url for kind, server in servers.items()}


def test_closing(urls: dict[str, str], tmp_path: Path) -> None:
    """In every state a session closes in time, everybody hears, and no task, thread or open file is left."""
    command = [sys.executable, "-X", "dev", "-W", "error", str(Path(__file__).with_name("closing.py"))]
    environment = os.environ | {"PYTHONASYNCIODEBUG": "1"}
    ended = subprocess.run(  # noqa: S603 - Python
        [*command, json.dumps(urls), str(tmp_path)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert ("", 0) == (ended.stderr, ended.returncode)
    report = json.loads(ended.stdout)
    assert {} == {name: seconds for name, seconds in report["seconds"].items() if seconds > CLOSE_SECONDS + MARGIN}
    assert [] == report["tasks"]
    assert report["before"] == report["after"]
