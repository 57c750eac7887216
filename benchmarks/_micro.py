"""The parts on their own, for pytest-benchmark: `pytest -n 0 benchmarks/_micro.py`."""

from __future__ import annotations

import asyncio
import json
import random
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import pytest
from clocks import JumpingLoop

from benchmarks import _pictures
from picpik_async import (
    Credentials,
    Dialect,
    ListTasksDetails,
    ModifyMaskedPixels,
    PicpikSession,
    PollPolicy,
    TaskDetail,
    TaskStatus,
)
from picpik_async._config import Secret
from picpik_async._poller import Poller
from picpik_async._signature import sign
from picpik_async._wire import decode, parameters, structure_answer
from picpik_async.testing import Answer

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from pytest_benchmark.fixture import BenchmarkFixture

_UUID = "5ae03609-0000-4000-8000-000000000001"
_TASKS = 10_000
_UIDS = tuple(f"{number:032x}" for number in range(100))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One picture of 20 MB, and its mask."""
    _pictures.make(tmp_path, count=1, size=20_000_000)
    return tmp_path


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    """An event loop."""
    with asyncio.Runner() as runner:
        yield runner


class _Nowhere:
    """Makes bodies, and sends them nowhere."""

    async def send(self, body: Any, *, before_tail: Any = None) -> Answer:
        """See `Transport.send`."""
        async with aclosing(body.head()) as head:
            async for _ in head:
                pass
        await before_tail()
        body.tail()
        return Answer(200, b'{"RetCode":0,"Action":"ModifyMaskedPixels","TaskUID":"task"}')


def test_encode(benchmark: BenchmarkFixture, runner: asyncio.Runner, folder: Path) -> None:
    """A picture of 20 MB is opened, read, encoded and hashed, and sent nowhere."""
    picpik = PicpikSession(Credentials("public", "private"), endpoint="http://127.0.0.1", transport=_Nowhere())

    async def submit() -> None:
        request = ModifyMaskedPixels.inpaint(_pictures.find_pictures(folder)[0], _pictures.find_mask(folder))
        await picpik.submit(request.with_prompts("a sofa"))

    benchmark(lambda: runner.run(submit()))

    runner.run(picpik.aclose())


def test_sign(benchmark: BenchmarkFixture) -> None:
    """The signature of a status request for 100 tasks."""
    query = {"Action": "ListTasksDetails", "PublicKey": "public", "TaskUIDList": _UIDS, "request_uuid": _UUID}

    signature = benchmark(sign, query, Secret("private"))

    assert int(signature, 16)


def test_wire_parameters(benchmark: BenchmarkFixture, folder: Path) -> None:
    """A request becomes parameters by the API's names."""
    request = ModifyMaskedPixels.inpaint(_pictures.find_pictures(folder)[0], _pictures.find_mask(folder))
    request = request.with_prompts("a sofa", negative="text").with_size(1024, 1024).with_seed(7)

    body = benchmark(parameters, request, dialect=Dialect(), public_key="public", request_uuid=_UUID)

    assert "ImageAndMaskList" in body


def test_wire_rows(benchmark: BenchmarkFixture) -> None:
    """The answer about 100 tasks is decoded."""
    row = {
        "Action": "ModifyMaskedPixels",
        "Status": "Running",
        "ImgList": [],
        "Seed": 7,
        "ConsumeApiPoint": 4,
        "ErrorCode": 0,
    }
    answer = json.dumps({"RetCode": 0, "TaskDetailList": [row | {"TaskUID": uid} for uid in _UIDS]}).encode()
    query, dialect = ListTasksDetails(task_uid_list=_UIDS), Dialect()

    details = benchmark(lambda: structure_answer(query, decode(answer, action=query.action), dialect))

    assert len(_UIDS) == len(details)


def test_poller(benchmark: BenchmarkFixture) -> None:
    """10,000 tasks in virtual time: registered, asked about in one sweep, finished, and their waiters woken."""

    def sweep() -> int:
        with asyncio.Runner(loop_factory=JumpingLoop) as runner:
            return len(runner.run(_sweep(_TASKS)))

    assert benchmark(sweep) == _TASKS


async def _sweep(count: int) -> list[TaskDetail]:
    async def fetch(uids: Sequence[str]) -> list[TaskDetail]:
        return [TaskDetail(task_uid=uid, status=TaskStatus.FINISHED, status_word="Finished") for uid in uids]

    poller = Poller(fetch, PollPolicy(), Dialect(), rng=random.Random(7))
    running = asyncio.create_task(poller.run())
    details = await asyncio.gather(*(poller.wait(f"task-{number}", timeout=None) for number in range(count)))
    running.cancel()
    return details
