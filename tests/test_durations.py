"""What is learned from durations: known answers, and what always holds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from picpik_async import Eta
from picpik_async._durations import Durations

intervals = st.tuples(st.floats(0, 1000), st.floats(0, 100)).map(lambda pair: (pair[0], pair[0] + pair[1]))


def learned(*ends: tuple[float, float], kind: str = "kind") -> Durations:
    """Durations after tasks of a kind have begun at 0, and ended between two ages."""
    durations = Durations()
    for number, (after, now) in enumerate(ends):
        durations.begin(f"{number}", kind, 0)
        durations.end(f"{number}", after=after, now=now)
    return durations


def test_few_put_nothing_off() -> None:
    """Seven durations say nothing about polls yet, eight do."""
    assert 0 == learned(*[(30, 32)] * 7).quiet("kind", 0, 0.5)
    assert 30 == learned(*[(30, 32)] * 8).quiet("kind", 0, 0.5)


@pytest.mark.parametrize(
    ("age", "quiet"),
    [(0, 5), (4, 1), (5, 0), (5.5, 0), (5.9, 0), (6, 34), (30, 10), (40, 0), (41, 0), (44, 0), (50, 0)],
)
def test_two_modes(age: float, quiet: float) -> None:
    """No task is asked about before the first mode, or between the two; after the second there is nothing to go by."""
    durations = learned(*[(5, 6)] * 4, *[(40, 42), (41, 43), (42, 44), (42, 44)])

    assert quiet == durations.quiet("kind", age, 1)


def test_small_gaps_do_not_count() -> None:
    """A gap between durations has to be several polls, and a good part of the age, long."""
    durations = learned(*[(5, 6)] * 4, *[(10, 11)] * 4, *[(14, 15)] * 4)

    assert 4 == durations.quiet("kind", 6, 1)
    assert 0 == durations.quiet("kind", 6, 1.1)
    assert 0 == durations.quiet("kind", 11, 0.1)


def test_forgets() -> None:
    """Only the latest durations count, whichever they are."""
    durations = learned((1, 2), *[(30, 32)] * 63)
    assert 1 == durations.quiet("kind", 0, 0.5)

    durations.begin("more", "kind", 100)
    durations.end("more", after=140, now=141)

    assert 30 == durations.quiet("kind", 0, 0.5)


def test_forgets_kinds() -> None:
    """Of very many kinds, the one that learned nothing for longest is forgotten."""
    durations = Durations()
    for number in [*range(64), 0, 64]:
        durations.begin("a", number, 0)
        durations.end("a", after=1, now=2)
    for number in [0, 1, 2, 64]:
        durations.begin(f"{number}", number, 0)

    assert [True, False, True, True] == [durations.eta(f"{number}", 0) is not None for number in [0, 1, 2, 64]]


def test_what_is_not_known_teaches_nothing() -> None:
    """A task whose begin is not known, or is forgotten, leaves no trace."""
    durations = Durations()
    durations.end("a", after=1, now=2)
    durations.begin("b", "kind", 0)
    durations.forget("b")
    durations.end("b", after=1, now=2)
    durations.begin("c", "kind", 0)

    assert durations.eta("c", 0) is None
    assert durations.find("b") is None
    assert ("kind", 0) == durations.find("c")


@pytest.mark.parametrize(
    ("age", "seconds", "label"),
    [
        (0, 25, "about 25 s left (from 3 earlier tasks)"),
        (11, 14, "about 14 s left (from 3 earlier tasks)"),
        (26, 109, "about 2 min left (from 3 earlier tasks)"),
        (135.5, 0, "about 1 s left (from 3 earlier tasks)"),
        (140, 0, "overdue (3 earlier tasks took less time)"),
    ],
)
def test_eta(age: float, seconds: float, label: str) -> None:
    """The estimate is the median of those that took longer, from the middle of what is known of them, and never negative."""
    durations = learned((9, 11), (24, 26), (130, 140))
    durations.begin("new", "kind", 1000)

    eta = durations.eta("new", 1000 + age)

    assert Eta(seconds=seconds, overdue="overdue" in label, tasks=3) == eta
    assert label == str(eta)


def test_eta_is_capped() -> None:
    """An hour is the most it says."""
    durations = learned((9000, 9002))
    durations.begin("new", "kind", 0)

    assert "about 60 min left (from 1 earlier task)" == str(durations.eta("new", 0))


def test_no_eta() -> None:
    """Nothing is said of a task of another kind, or of one that nobody knows."""
    durations = learned((1, 2))
    durations.begin("new", "other", 0)

    assert durations.eta("new", 0) is None
    assert durations.eta("nobody's", 0) is None


@given(st.lists(intervals, min_size=8, max_size=64), st.floats(0, 1200), st.floats(0.01, 10))
def test_nothing_ended_when_it_is_quiet(ends: list[tuple[float, float]], age: float, usual: float) -> None:
    """No duration that is remembered ended between now and the end of the quiet time."""
    quiet = learned(*ends).quiet("kind", age, usual)

    assert quiet >= 0
    if quiet:
        assert all(upper <= age or lower >= (age + quiet) * (1 - 1e-9) for lower, upper in ends)


@given(st.lists(intervals, min_size=1, max_size=100), st.floats(0, 1e6))
def test_eta_has_bounds(ends: list[tuple[float, float]], age: float) -> None:
    """The estimate is from 0 to 3600, rests on 64 tasks at most, and is overdue only after the longest."""
    durations = learned(*ends)
    durations.begin("new", "kind", 0)

    eta = durations.eta("new", age)

    assert eta is not None
    assert 0 <= eta.seconds <= 3600
    assert min(64, len(ends)) == eta.tasks
    assert eta.overdue == all(upper <= age for _, upper in ends[-64:])


def test_tasks_nobody_awaits_are_forgotten() -> None:
    """The begins of the latest hundred thousand tasks are remembered, and never those of more than twice as many."""
    durations = Durations()
    for number in range(200_001):
        durations.begin(f"{number}", "kind", number)

    assert durations.find("99999") is None
    for number in (100_000, 199_999, 200_000):
        assert ("kind", number) == durations.find(f"{number}")
        durations.forget(f"{number}")
        assert durations.find(f"{number}") is None
