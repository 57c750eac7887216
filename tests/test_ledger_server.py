"""Tests of the server with a ledger: it charges what is whole and signed, whatever becomes of the answer."""

from __future__ import annotations

import contextlib
import hashlib
import io
import random
from typing import TYPE_CHECKING

import pytest
from jobs import session
from ledger_server import EARLY, LATE, Fault, LedgerProcess, LedgerServer, result_hash
from PIL import Image
from storms import small_job

from picpik_async import Credentials, Limits, PicpikError, PicpikSession
from picpik_async.errors import HttpStatusError

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.anyio


async def test_whole_life(tmp_path: Path) -> None:
    """A job is charged, runs, is finished, and its picture is the one that is known."""
    with LedgerServer(tmp_path / "ledger", task_seconds=0.1) as server:
        async with session(server.url) as picpik:
            before = await picpik.balance()
            task = await picpik.submit(small_job().with_seed(7), request_uuid="a")
            (running,) = await picpik.running_tasks()
            result = await task.wait()
            data = await result.images[0].read()
            after = await picpik.balance()

        (charge,) = server.charges()
    assert ("a", task.uid) == (charge.request_uuid, charge.task_uid)
    assert task.uid == running.uid
    assert 7 == result.seed
    assert result_hash(task.uid) == hashlib.sha256(data).hexdigest()
    assert (1, 1) == Image.open(io.BytesIO(data)).size
    assert 1 == before.remaining_credits - after.remaining_credits


async def test_wrong_signature(tmp_path: Path) -> None:
    """What is not signed with the right key is not charged, and is counted."""
    with LedgerServer(tmp_path / "ledger") as server:
        async with PicpikSession(Credentials("public-key", "another"), endpoint=server.url) as picpik:
            with pytest.raises(HttpStatusError):
                await picpik.submit(small_job())

        assert [] == server.charges()
        assert 1 == server.counts["bad"]


@pytest.mark.parametrize("kind", [*EARLY, *LATE])
async def test_fault(kind: str, tmp_path: Path) -> None:
    """Each fault strikes; a refusal is not charged, and everything else is as soon as the request is whole."""
    with LedgerServer(tmp_path / "ledger", seed=1, faults=1, kinds=(kind,)) as server:
        for number in range(6):
            async with session(server.url, limits=Limits(stall_timeout=0.1, request_timeout=0.1)) as picpik:
                with contextlib.suppress(PicpikError):
                    await picpik.submit(small_job(), request_uuid=str(number))
        server.settle()

        assert 6 <= server.counts[kind]
        assert kind in {"413", "429"} or server.charges()
        assert len(server.charges()) == server.counts["charged"]


def test_offsets() -> None:
    """Faults strike everywhere from the first byte to the last, and often where it matters."""
    rng = random.Random(1)
    offsets = [Fault.drawn(rng, 100_000).offset for _ in range(2000)]

    assert {100_000, 99_999} <= set(offsets)
    assert 400 < offsets.count(100_000) < 700
    assert 300 < sum(offset < 50_000 for offset in offsets)
    assert 0 <= min(offsets)


def test_in_a_process(tmp_path: Path) -> None:
    """In a process of its own it does the same, and tells what it did when it ends."""
    with LedgerProcess(tmp_path / "ledger", seed=3, faults=0.5, kinds=("RST", "413")) as server:
        assert server.url.startswith("http://localhost:")
        server.settle()

    assert {} == server.counts
    assert [] == server.charges()
