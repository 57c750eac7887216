"""The heap of deadlines."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from picpik_async._deadlines import Deadlines, Waiter
from picpik_async._watched import Watched

TASK = Watched("a", 0.0)


@given(st.lists(st.tuples(st.floats(min_value=0, allow_nan=False), st.booleans())), st.floats(0, 1e6))
def test_pops_exactly_what_is_due(waits: list[tuple[float, bool]], now: float) -> None:
    """Every waiter that has not left is popped once its deadline has passed, in order, and no other."""
    deadlines = Deadlines()
    waiters = [Waiter(TASK, deadline) for deadline, _ in waits]
    for waiter in waiters:
        deadlines.add(waiter)
    for waiter, (_, leaves) in zip(waiters, waits, strict=True):
        if leaves:
            deadlines.discard(waiter)
    popped = []
    while expired := deadlines.pop(now):
        popped.append(expired.deadline)

    due = [waiter for waiter in waiters if not waiter.gone and waiter.deadline <= now]
    assert sorted(waiter.deadline for waiter in due) == popped
    assert all(waiter.expired == (waiter in due) for waiter in waiters)
    assert deadlines.next_at() > now


def test_far_deadlines_do_not_pile_up() -> None:
    """Waiters with far deadlines that come and go leave a short heap, whoever stays in front."""
    deadlines = Deadlines()
    stays = Waiter(TASK, 1.0)
    deadlines.add(stays)
    for number in range(10_000):
        waiter = Waiter(TASK, 1e9 + number)
        deadlines.add(waiter)
        deadlines.discard(waiter)

    assert len(deadlines) < 100
    assert 1.0 == deadlines.next_at()


def test_an_expired_waiter_may_leave() -> None:
    """A waiter that leaves after its deadline changes nothing for the others."""
    deadlines = Deadlines()
    early, late, never = Waiter(TASK, 1.0), Waiter(TASK, 2.0), Waiter(TASK, math.inf)
    for waiter in (late, early, never):
        deadlines.add(waiter)

    assert early is deadlines.pop(1.0)
    deadlines.discard(early)
    deadlines.discard(never)
    assert deadlines.pop(1.5) is None
    assert 2.0 == deadlines.next_at()
    deadlines.discard(late)
    assert math.inf == deadlines.next_at()


@pytest.mark.anyio
async def test_waiters_that_come_and_go_leave_nothing_asleep() -> None:
    """While one waits on, any number of others may leave: few of them are kept, and waking does not mind them."""
    task = Watched("a", 0.0)
    task.waiters = 1
    stays = Waiter(task, math.inf)
    bell = stays.sleep()
    for _ in range(1000):
        leaves = Waiter(task, math.inf)
        leaves.sleep().cancel()
        leaves.gone = True

    assert len(task.asleep) < 20
    task.wake()
    await bell
