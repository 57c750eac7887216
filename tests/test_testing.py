"""Tests of what users test with."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap
import threading
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import pytest
from jobs import CREDENTIALS, UUID, job, picture

from picpik_async import PicpikSession, RetryPolicy
from picpik_async.errors import HttpStatusError, SubmitOutcomeUnknownError, TransportError
from picpik_async.testing import Answer, FakeTransport, picpik_emulator

if TYPE_CHECKING:
    from pathlib import Path

    from picpik_async.emulator import Emulator

__all__ = ["picpik_emulator"]  # pytest finds the fixture here

ACCEPTED: dict[str, Any] = {"RetCode": 0, "TaskUID": "a-task"}


@pytest.mark.anyio
async def test_fake_gets_the_request() -> None:
    """The function sees what would have been sent, signature and pictures included, and its answer comes back."""
    transport = FakeTransport(lambda _request: ACCEPTED)
    async with PicpikSession(CREDENTIALS, transport=transport) as picpik:
        task = await picpik.submit(job(200), request_uuid=UUID)

    (request,) = transport.requests
    assert "a-task" == task.uid
    assert ("ModifyMaskedPixels", UUID) == (request["Action"], request["request_uuid"])
    assert 40 == len(request["Signature"])
    assert request["ImageAndMaskList"][0].startswith("data:image/png;base64,iVBOR")


@pytest.mark.anyio
async def test_fake_may_be_async() -> None:
    """The function may be a coroutine function."""

    async def respond(request: dict[str, Any]) -> dict[str, Any]:
        await anyio.lowlevel.checkpoint()
        return {"RetCode": 0, "TaskUIDList": [request["Action"]]}

    async with PicpikSession(CREDENTIALS, transport=FakeTransport(respond)) as picpik:
        (task,) = await picpik.running_tasks()

    assert "ListRunningTasks" == task.uid


@pytest.mark.anyio
async def test_fake_answers_with_a_status() -> None:
    """The function may give a whole answer."""
    transport = FakeTransport(lambda _request: Answer(429, b"", retry_after=3))
    async with PicpikSession(CREDENTIALS, transport=transport, retry=RetryPolicy(submit_attempts=1)) as picpik:
        with pytest.raises(HttpStatusError) as caught:
            await picpik.submit(job())

    assert 3 == caught.value.retry_after


@pytest.mark.anyio
async def test_fake_loses_an_answer() -> None:
    """An exception the function gives or raises is one after the commit point, as with a real connection."""

    def respond(_request: dict[str, Any]) -> dict[str, Any]:
        raise TransportError(stage="headers")

    for answer in (respond, lambda _request: TransportError(stage="headers")):
        async with PicpikSession(CREDENTIALS, transport=FakeTransport(answer)) as picpik:
            with pytest.raises(SubmitOutcomeUnknownError) as caught:
                await picpik.submit(job())

        assert "headers" == caught.value.stage


def test_emulator_for_sync_tests(picpik_emulator: Emulator, tmp_path: Path) -> None:
    """The emulator runs beside a test that runs loops of its own, one after the other."""

    async def redraw() -> int:
        async with PicpikSession(picpik_emulator.credentials, endpoint=picpik_emulator.url) as picpik:
            result = await picpik.run(job())
            return len(await result.save(tmp_path))

    assert 1 == asyncio.run(redraw())
    assert 1 == asyncio.run(redraw())
    assert 2 == len(picpik_emulator.ledger)
    assert picture() != next(tmp_path.iterdir()).read_bytes()


@pytest.mark.anyio
async def test_emulator_for_async_tests(picpik_emulator: Emulator) -> None:
    """The emulator runs beside the loop of an async test."""
    assert threading.active_count() > 1

    async with PicpikSession(picpik_emulator.credentials, endpoint=picpik_emulator.url) as picpik:
        balance = await picpik.balance()

    assert balance.remaining_credits > 0


def test_enabled_as_plugin(tmp_path: Path) -> None:
    """One line in `conftest.py` enables the fixture."""
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["picpik_async.testing"]\n')
    program = """
        def test_url(picpik_emulator):
            assert picpik_emulator.url.startswith("http://127.0.0.1:")
            assert not picpik_emulator.ledger
    """
    (tmp_path / "test_it.py").write_text(textwrap.dedent(program))

    command = [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)  # noqa: S603 - pytest itself

    assert 0 == ended.returncode, ended.stdout + ended.stderr
    assert "1 passed" in ended.stdout


def test_fakes_without_pytest() -> None:
    """FakeTransport needs no pytest; only the fixture does."""
    code = "import sys; sys.modules['pytest'] = None; import picpik_async.testing as t; print(hasattr(t, 'picpik_emulator'))"
    result = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)  # noqa: S603

    assert "False\n" == result.stdout
