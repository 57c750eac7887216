"""An outage cannot drain the account: the server takes everything and answers 504."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import anyio
import pytest
from jobs import session
from ledger_server import LedgerServer
from storms import small_job

from picpik_async import PicpikError, RetryPolicy
from picpik_async.errors import SubmitOutcomeUnknownError, SubmitPausedError

if TYPE_CHECKING:
    from pathlib import Path

    from picpik_async import PicpikSession

pytestmark = pytest.mark.anyio

AT_ONCE = 8


async def submit_all(picpik: PicpikSession, jobs: int) -> Counter[type[PicpikError] | None]:
    """Submit that many jobs, a few at once; how many ended how."""
    left = iter(range(jobs))
    ends: Counter[type[PicpikError] | None] = Counter()

    async def work() -> None:
        for _ in left:
            try:
                await picpik.submit(small_job())
                ends[None] += 1
            except PicpikError as error:
                ends[type(error)] += 1

    async with anyio.create_task_group() as group:
        for _ in range(AT_ONCE):
            group.start_soon(work)
    return ends


async def test_outage(tmp_path: Path) -> None:
    """Of 1,000 jobs, 8 at once, no more than 11 are charged; the others are paused, and reads go on."""
    with LedgerServer(tmp_path / "ledger", delay=0.02, faults=1, kinds=("late 504",)) as server:
        async with session(server.url, retry=RetryPolicy()) as picpik:
            ends = await submit_all(picpik, 1000)
            balance = await picpik.balance()
        charges = server.charges()

    assert 3 <= len(charges) <= AT_ONCE + 3
    assert len(charges) == balance.used_credits
    assert {SubmitOutcomeUnknownError: len(charges), SubmitPausedError: 1000 - len(charges)} == ends


async def test_after_the_pause(tmp_path: Path) -> None:
    """When the pause is over one submit is tried, and no other passes while it is."""
    with LedgerServer(tmp_path / "ledger", delay=0.02, faults=1, kinds=("late 504",)) as server:
        async with session(server.url, retry=RetryPolicy(submit_pause=0.5)) as picpik:
            await submit_all(picpik, 20)
            before = len(server.charges())
            await anyio.sleep(0.5)
            ends = await submit_all(picpik, AT_ONCE)

        assert before + 1 == len(server.charges())
    assert {SubmitOutcomeUnknownError: 1, SubmitPausedError: AT_ONCE - 1} == ends
