"""The schedule, without a loop: time is a number."""

from __future__ import annotations

import itertools
import math
import random
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from picpik_async._config import Dialect, PollPolicy
from picpik_async._durations import Durations
from picpik_async._schedule import Schedule, backoff, poll_delay, whole_ticks

if TYPE_CHECKING:
    from picpik_async._asks import Ask

chances = st.floats(0, 1, exclude_max=True)
policies = st.builds(
    PollPolicy,
    tick=st.floats(0.001, 60),
    age_share=st.floats(0, 2),
    max_interval=st.floats(0.01, 600),
    jitter=st.floats(0, 3),
    max_backoff=st.floats(0.01, 600),
)


@given(st.floats(0, 1e9), st.floats(0, 1e9), policies, chances)
def test_poll_delay(age: float, more: float, policy: PollPolicy, chance: float) -> None:
    """The delay grows with age, up to the longest interval, lengthened by no more than the jitter."""
    delay = poll_delay(age, policy, chance)

    assert 0 <= delay <= policy.max_interval * (1 + policy.jitter)
    assert poll_delay(age, policy, 0) <= delay <= poll_delay(age + more, policy, chance)


@given(st.integers(1, 10_000), policies, chances)
def test_backoff(failures: int, policy: PollPolicy, chance: float) -> None:
    """The pause lies in the upper half of an ever larger, but bounded, range."""
    pause = backoff(failures, policy, chance)

    assert 0 < pause <= policy.max_backoff
    assert backoff(failures, policy, 0) <= pause <= 2 * backoff(failures, policy, 0)
    assert pause <= backoff(failures + 1, policy, chance)


@given(st.floats(-10, 1e6), st.floats(0.001, 60))
def test_whole_ticks(delay: float, tick: float) -> None:
    """Delays are rounded up to ticks, at least one."""
    ticks = whole_ticks(delay, tick)

    assert ticks >= 1
    assert ticks == 1 or (ticks - 1) * tick < delay <= ticks * tick * (1 + 1e-6)


def schedule(*, size: int = 100, seed: int = 1, durations: Durations | None = None, **policy: Any) -> Schedule:
    """A schedule that starts at 0."""
    made = Schedule(PollPolicy(**policy), Dialect(max_task_uids=size), random.Random(seed), durations=durations)
    made.start(0.0)
    return made


def sizes(asks: list[Ask]) -> list[int]:
    """How many tasks each request asks about."""
    return [len(ask.tasks) for ask in asks]


def answer(made: Schedule, ask: Ask, now: float) -> None:
    """Let all its tasks be running."""
    for task in made.answered(ask, now) + ask.tasks:
        made.again(task, now)


def test_nothing_to_do() -> None:
    """An empty schedule never has anything to ask."""
    made = schedule()

    assert math.inf == made.next_at()
    assert [] == made.take(1e9)


def test_before_the_start() -> None:
    """What is added before the start is due at the first tick."""
    made = Schedule(PollPolicy(), Dialect(), random.Random(1))
    made.add("a", 5.0)
    assert math.inf == made.next_at()
    made.start(100.0)

    assert 100 <= made.next_at() < 100.5
    assert [] == made.take(made.next_at() - 0.01)
    assert [1] == sizes(made.take(made.next_at()))


def test_due_tasks_share_requests() -> None:
    """Tasks due at one tick share as few requests as possible."""
    made = schedule()
    for number in range(250):
        made.add(f"t{number}", 0.0)

    assert [100, 100, 50] == sizes(made.take(made.next_at()))


def test_ticks_keep_their_distance() -> None:
    """After a stall the grid moves, so that the next requests are a whole tick away."""
    made = schedule(age_share=0)
    made.add("a", 0.0)
    stalled = made.next_at() + 1.3
    (ask,) = made.take(stalled)
    answer(made, ask, stalled)

    assert stalled + 0.5 == pytest.approx(made.next_at())


def test_hasten() -> None:
    """A hastened task is due at the next tick, once; an unknown one is no matter."""
    made = schedule()
    made.add("a", 0.0)
    now = 1000.0
    (ask,) = made.take(now)
    task = ask.tasks[0]
    task.since = 0.0
    made.answered(ask, now)
    made.again(task, now)
    assert made.next_at() >= now + 5
    made.hasten("a", now)
    made.hasten("a", now)
    made.hasten("unknown", now)

    assert now + 0.5 == made.next_at()
    assert [1] == sizes(made.take(now + 0.5))
    assert math.inf == made.next_at()


def test_come_and_go() -> None:
    """Tasks that come and go leave no trace, and the heap stays short behind one that stays."""
    made = schedule()
    made.add("stays", 0.0)
    for number in range(10_000):
        made.drop(made.add(f"t{number}", 0.0))

    assert 1 == made.watched == len(made.tasks())
    assert len(made._heap) < 100
    assert [1] == sizes(made.take(made.next_at()))


def refuse_first(made: Schedule, count: int) -> float:
    """Watch *count* tasks and have their list refused; the time after."""
    for number in range(count):
        made.add(f"t{number}", 0.0)
    now = made.next_at()
    (ask,) = made.take(now)
    assert [] == made.refused(ask, now)
    return now


def test_halves_nobody_waits_for() -> None:
    """A half whose waiters have all left is not asked about, and its sibling goes back to the others."""
    made = schedule()
    refuse_first(made, 4)
    now = made.next_at()
    (first,) = made.take(now)
    made.refused(first, now)
    for task in made.tasks():
        if task not in first.tasks:
            made.drop(task)
    now = made.next_at()
    assert [] == made.take(now)

    assert 2 == made.watched == len(made.tasks())
    assert [2] == sizes(made.take(made.next_at()))


def test_halves_some_wait_for() -> None:
    """Of a half only those tasks are asked about that somebody still waits for."""
    made = schedule()
    refuse_first(made, 8)
    for task in made.tasks()[:6]:
        made.drop(task)
    asked = []
    while made.next_at() < 100:
        now = made.next_at()
        for ask in made.take(now):
            asked += [task.uid for task in ask.tasks]
            made.answered(ask, now)
            for task in ask.tasks:
                made.end(task)

    assert ["t6", "t7"] == sorted(asked)
    assert [] == made.tasks()


def test_nobody_is_answered() -> None:
    """A list and both halves refused: a pause, a far shorter list; once that is answered, full lists again."""
    made = schedule(age_share=0)
    for number in range(1000):
        made.add(f"t{number}", 0.0)
    tried = []
    now = made.next_at()
    for _ in range(6):
        now = made.next_at()
        asks = made.take(now)
        tried.append(Counter(sizes(asks)))
        for ask in asks:
            made.refused(ask, now)
    assert [{100: 10}, {50: 10}, {12: 1}, {3: 1}, {1: 1}, {1: 1}] == tried

    grown = []
    for _ in range(60):
        now = made.next_at()
        asks = made.take(now)
        grown.append(max(sizes(asks)))
        for ask in asks:
            answer(made, ask, now)
    assert grown == sorted(grown)
    assert grown[-1] >= 20


def test_lists_grow_fast_to_what_was_once_answered() -> None:
    """A service that had answered long lists gets them again soon after it was out of order."""
    made = schedule(age_share=0)
    for number in range(300):
        made.add(f"t{number}", 0.0)
    now = made.next_at()
    for ask in made.take(now):
        answer(made, ask, now)
    for _ in range(6):
        now = made.next_at()
        for ask in made.take(now):
            made.refused(ask, now)
    longest = []
    while 100 not in longest:
        now = made.next_at()
        asks = made.take(now)
        longest.append(max(sizes(asks)))
        for ask in asks:
            answer(made, ask, now)

    assert len(longest) <= 8  # doubling


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 60),
    st.integers(1, 12),
    st.sets(st.integers(0, 59), max_size=4),
    st.integers(0, 2**32),
    st.sampled_from([0.0, 0.2]),
)
def test_any_history(count: int, size: int, bad: set[int], seed: int, flaky: float) -> None:
    """Whatever happens: the budget holds, no task is in two requests, and none is ever forgotten."""
    rng = random.Random(seed)
    made = schedule(size=size, seed=seed, age_share=0, max_backoff=4, unknown_task_grace=1e6)
    flying: list[tuple[float, Ask]] = []
    last_asked = {f"t{number}": 0.0 for number in range(count)}
    for uid in last_asked:
        made.add(uid, 0.0)
    now = 0.0
    while now < 400:
        now = min([made.next_at(), *(at for at, _ in flying)])
        asks = made.take(now)
        assert len(asks) <= min(10, math.ceil(made.watched / size))
        assert all(0 < len(ask.tasks) <= size for ask in asks)
        flying += [(now + rng.choice([0.0, 0.1, 0.7]), ask) for ask in asks]
        held = Counter(task.uid for _, ask in flying for task in ask.tasks)
        assert set(held.values()) <= {1}
        last_asked |= dict.fromkeys(itertools.chain(*([task.uid for task in ask.tasks] for ask in asks)), now)
        for _, ask in [landed for landed in flying if landed[0] <= now]:
            flying = [other for other in flying if other[1] is not ask]
            uids = {task.uid for task in ask.tasks}
            if rng.random() < flaky:
                made.failed(ask, now)
            elif uids & {f"t{number}" for number in bad}:
                for task in made.refused(ask, now):
                    task.missing_since = 0.0
                    made.again(task, now)
            else:
                answer(made, ask, now)

    assert count == made.watched == len(made.tasks())
    assert min(last_asked.values()) > 200


def test_short_lists_are_filled_up() -> None:
    """Tasks that are not due yet ride along where there is room, those due next first."""
    made = schedule(size=3, jitter=0)
    ages = {"old": 0, "older": -60, "oldest": -90, "ancient": -99}
    for uid, since in ages.items():
        made.add(uid, since).since = since
    for ask in made.take(1):
        answer(made, ask, 1.0)
    made.add("new", 1.1)

    (ask,) = made.take(made.next_at())

    assert {"new", "old", "older"} == {task.uid for task in ask.tasks}


@pytest.mark.parametrize("trouble", [{"problem": "lost"}, {"refusals": 1}])
def test_trouble_does_not_ride_along(trouble: dict[str, Any]) -> None:
    """A task whose last poll went wrong waits for its turn, lest it spoil other lists."""
    made = schedule(age_share=10)
    made.add("a", 0)
    (ask,) = made.take(1)
    for name, value in trouble.items():
        setattr(ask.tasks[0], name, value)
    made.again(ask.tasks[0], 1)
    made.add("b", 1)

    (ask,) = made.take(made.next_at())

    assert ["b"] == [task.uid for task in ask.tasks]


def test_a_planned_half_does_not_ride_along() -> None:
    """A request that waits for its time keeps its tasks to itself."""
    made = schedule()
    for uid in ("a", "b"):
        made.add(uid, 0)
    (whole,) = made.take(1)
    made.refused(whole, 1)
    (half,) = made.take(made.next_at())
    made.failed(half, 2, retry_after=10)
    made.add("c", 2)
    while (now := made.next_at()) < 11:
        (ask,) = made.take(now)

        assert half.tasks[0] not in ask.tasks

        answer(made, ask, now)


@given(st.lists(st.tuples(st.floats(0, 600), st.floats(0, 20)), min_size=8, max_size=20), policies)
def test_a_learned_first_poll_has_a_latest_time(ends: list[tuple[float, float]], policy: PollPolicy) -> None:
    """Whatever was learned, nobody is asked about later than the longest interval says, and followers are not put off."""
    durations = Durations()
    for begin, (length, more) in enumerate(ends):
        durations.begin("a", "kind", begin)
        durations.end("a", after=begin + length, now=begin + length + more)
    for follows, longest in ((False, policy.max_interval), (True, 0.0)):
        made = Schedule(policy, Dialect(), random.Random(1), durations=durations)
        made.start(0.0)
        durations.begin("new", "kind", 100.0)
        made.add("new", 100.0, follows=follows)

        assert made.next_at() <= 100 + longest + 1.001 * policy.tick


def test_what_is_missing_is_not_put_off() -> None:
    """A learned duration does not keep us from asking again about a task that is missing, or that somebody follows."""
    durations = Durations()
    for _ in range(8):
        durations.begin("a", "kind", 0)
        durations.end("a", after=40, now=41)
    for name, value in {"missing_since": 0.0, "followers": 1}.items():
        made = schedule(durations=durations)
        durations.begin("new", "kind", 0)
        task = made.add("new", 0, follows=True)
        made.take(1)
        setattr(task, name, value)

        made.again(task, 1.0)

        assert made.next_at() < 2


def test_a_terminated_task_is_of_no_kind() -> None:
    """What was learned says nothing about a task that was terminated."""
    durations = Durations()
    for _ in range(8):
        durations.begin("a", "kind", 0)
        durations.end("a", after=40, now=41)
    durations.begin("new", "kind", 0)
    made = schedule(durations=durations)
    task = made.add("new", 0)
    assert made.next_at() > 2

    made.hasten("new", 0)

    assert task.kind is None
    assert made.next_at() < 2


@pytest.mark.parametrize("trouble", [{"kind": None}, {"problem": "no answer"}])
def test_followers_hasten_only_what_was_put_off(trouble: dict[str, Any]) -> None:
    """Who begins to follow a task changes nothing if it had been put off for another reason."""
    durations = Durations()
    for _ in range(8):
        durations.begin("a", "kind", 0)
        durations.end("a", after=40, now=41)
    made = schedule(durations=durations)
    durations.begin("new", "kind", 0)
    task = made.add("new", 0)
    due = task.due
    for name, value in trouble.items():
        setattr(task, name, value)

    made.add("new", 0, follows=True)
    assert due == task.due

    plain = {"kind": "kind", "problem": None}
    for name, value in plain.items():
        setattr(task, name, value)
    made.add("new", 0, follows=True)
    soon = task.due
    made.add("new", 0, follows=True)

    assert soon == task.due < due
