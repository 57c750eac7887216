"""Tests of work that outlives its caller."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from picpik_async._errands import Errand
from picpik_async.errors import ConfigurationError, PicpikError

pytestmark = pytest.mark.anyio


class Gate:
    """Work that ends when it is told how."""

    def __init__(self) -> None:
        self.end: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.told: list[tuple[Any, Any]] = []
        self.errand = Errand(self._work, unattended=lambda result, error: self.told.append((result, error)))
        self.work = asyncio.create_task(self.errand.run())
        self.caller = asyncio.create_task(self.errand.outcome())

    async def _work(self) -> str:
        return await self.end


async def turn(times: int = 3) -> None:
    """Let everything run that can."""
    for _ in range(times):
        await asyncio.sleep(0)


async def test_result_and_error() -> None:
    """The caller gets what the work gives, or raises."""
    gate, failing = Gate(), Gate()
    gate.end.set_result("done")
    failing.end.set_exception(PicpikError("no"))

    assert "done" == await gate.caller
    with pytest.raises(PicpikError, match="no"):
        await failing.caller
    assert [] == gate.told + failing.told


@pytest.mark.parametrize("outcome", ["done", PicpikError("no")])
async def test_caller_that_is_gone(outcome: str | PicpikError) -> None:
    """Cancelling the caller leaves the work alone, and its outcome is told."""
    gate = Gate()
    await turn()
    gate.caller.cancel()
    await turn()
    gate.end.set_result(outcome) if isinstance(outcome, str) else gate.end.set_exception(outcome)
    await gate.work

    assert gate.caller.cancelled()
    assert [(outcome, None) if isinstance(outcome, str) else (None, outcome)] == gate.told


@pytest.mark.parametrize("outcome", ["done", PicpikError("no")])
async def test_caller_cancelled_in_the_same_tick(outcome: str | PicpikError) -> None:
    """An outcome that arrives together with the cancellation is told, too: nothing falls between the two."""
    gate = Gate()
    gate.errand._outcome.add_done_callback(lambda _outcome: gate.caller.cancel())  # before the caller can wake
    await turn()
    gate.end.set_result(outcome) if isinstance(outcome, str) else gate.end.set_exception(outcome)
    await turn()

    assert gate.caller.cancelled()
    assert [(outcome, None) if isinstance(outcome, str) else (None, outcome)] == gate.told


async def test_cancelled_from_within() -> None:
    """A stray cancellation ends this work and no other, and the caller hears of it."""
    gate = Gate()
    await turn()
    gate.end.cancel()

    with pytest.raises(ConfigurationError, match="the session is closed"):
        await gate.caller
    assert not gate.work.cancelled()


async def test_interrupted() -> None:
    """An interrupt goes on its way, and the caller hears that the work was cut off."""

    class Interrupt(BaseException):
        """As `KeyboardInterrupt`, but not for the test runner."""

    async def work() -> str:
        raise Interrupt

    errand = Errand(work)
    with pytest.raises(Interrupt):
        await errand.run()

    with pytest.raises(ConfigurationError, match="the session is closed"):
        await errand.outcome()
