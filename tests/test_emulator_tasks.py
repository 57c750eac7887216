"""Tests of the task queue, on a clock of plain numbers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from picpik_async.emulator._tasks import Clock, EmulatedTask, LedgerEntry, Schedule

START = 1_000_000.0


def queue(*, queue_time: float = 0, run_time: float = 10, concurrency: int = 1, retention: float = 100) -> Schedule:
    """A schedule with round numbers."""
    return Schedule(queue_time=queue_time, run_time=run_time, concurrency=concurrency, retention=retention)


def added(schedule: Schedule, uid: str, *, at: float = START, failure: str | None = None) -> EmulatedTask:
    """A task in the queue, with pictures as soon as it may be finished."""
    entry = LedgerEntry(request_uuid=None, task_uid=uid, action="A", time=at, cost=1, parameters={}, images=())
    task = EmulatedTask(entry=entry, seed=1, token=f"token {uid}", files=(b"file",), ready=at, failure=failure)
    task.pictures = (b"picture",)
    schedule.add(task)
    return task


def words(tasks: list[EmulatedTask], now: float) -> list[str]:
    """The status words."""
    return [task.status(now) for task in tasks]


def test_the_clock_moves_on_and_can_be_pushed() -> None:
    """Emulated time never runs backwards, and `advance` adds to it."""
    clock = Clock()
    before = clock.now()
    clock.advance(3600)

    assert before + 3600 <= clock.now() < before + 3700


def test_a_task_waits_runs_and_finishes() -> None:
    """First come, first served, each for its run time."""
    schedule = queue()
    tasks = [added(schedule, uid) for uid in "ab"]

    assert tasks[:1] == schedule.settle(START)
    assert ["Running", "Queuing"] == words(tasks, START)
    assert START + 10 == schedule.next_start()
    assert tasks == schedule.open_tasks(START)
    assert tasks[1:] == schedule.settle(START + 15)
    assert ["Finished", "Running"] == words(tasks, START + 15)
    assert ["Finished", "Finished"] == words(tasks, START + 20)
    assert schedule.next_start() is None


def test_pictures_are_waited_for() -> None:
    """Without pictures a task keeps running past its time; with a failure it ends without them."""
    schedule = queue(concurrency=2)
    late, failed = added(schedule, "a"), added(schedule, "b", failure="no")
    late.pictures = None
    schedule.settle(START)

    assert ["Running", "Running"] == words([late, failed], START + 9)
    assert ["Running", "Error"] == words([late, failed], START + 10)


def test_the_queue_time_is_a_minimum() -> None:
    """A task that may not start yet keeps its successors waiting, and says when it starts."""
    schedule = queue(concurrency=2)
    added(schedule, "a", at=START + 5)

    assert [] == schedule.settle(START)
    assert START + 5 == schedule.next_start()


def test_termination_frees_the_slot() -> None:
    """A terminated task ends at once, and the next one starts in its place."""
    schedule = queue()
    running, waiting, third = (added(schedule, uid) for uid in "abc")
    schedule.settle(START)
    schedule.terminate(waiting, START + 1)
    schedule.terminate(running, START + 2)

    assert [third] == schedule.settle(START + 2)
    assert ["Terminated", "Terminated", "Running"] == words([running, waiting, third], START + 2)
    assert START + 2 == third.started
    assert () == running.files


def test_an_ended_task_cannot_be_terminated() -> None:
    """What has finished stays finished."""
    schedule = queue()
    task = added(schedule, "a")
    schedule.settle(START)
    schedule.terminate(task, START + 10)

    assert "Finished" == task.status(START + 10)


def test_a_late_task_can_be_terminated() -> None:
    """A task whose pictures are late has no slot to give back any more."""
    schedule = queue()
    late, other = added(schedule, "a"), added(schedule, "b")
    late.pictures = None
    schedule.settle(START + 11)
    schedule.terminate(late, START + 11)

    assert ["Terminated", "Running"] == words([late, other], START + 11)
    assert [] == schedule.settle(START + 12)


def test_tasks_are_forgotten() -> None:
    """After the retention a task and its results are unknown, terminated ones counted from their end."""
    schedule = queue(concurrency=2)
    finished, terminated = added(schedule, "a"), added(schedule, "b")
    schedule.settle(START)
    schedule.terminate(terminated, START + 1)
    schedule.settle(START + 100)

    assert (finished, terminated) == (schedule.find("a"), schedule.find_result("token b"))

    schedule.settle(START + 101)

    assert (finished, None) == (schedule.find_result("token a"), schedule.find("b"))

    schedule.settle(START + 110)

    assert (None, None) == (schedule.find("a"), schedule.find_result("token a"))


@given(
    arrivals=st.lists(st.integers(0, 30), max_size=20),
    concurrency=st.integers(1, 4),
    looks=st.lists(st.integers(0, 300), max_size=8),
)
def test_when_somebody_looks_changes_nothing(arrivals: list[int], concurrency: int, looks: list[int]) -> None:
    """Start times do not depend on when the schedule was settled, and never more than *concurrency* tasks run."""
    schedules = [queue(concurrency=concurrency), queue(concurrency=concurrency)]
    tasks = [[added(each, str(n), at=START + at) for n, at in enumerate(sorted(arrivals))] for each in schedules]
    for look in sorted(looks):
        schedules[0].settle(START + look)
    for each in schedules:
        each.settle(START + 300)

    begun = [task.started for task in tasks[0]]
    assert begun == [task.started for task in tasks[1]]
    for start in begun:
        assert start is not None
        assert concurrency >= sum(other is not None and other <= start < other + 10 for other in begun)


@pytest.mark.parametrize("number", [10_000])
def test_thousands_of_tasks_cost_next_to_nothing(number: int) -> None:
    """A long queue is caught up with in one go."""
    schedule = queue(concurrency=8, run_time=1)
    tasks = [added(schedule, str(n)) for n in range(number)]

    assert number == len(schedule.settle(START + number))
    assert START + number / 8 == tasks[-1].ends
