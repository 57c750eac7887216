"""When submits are paused, and when they go on."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from picpik_async._breaker import SpendBreaker
from picpik_async.errors import SubmitPausedError


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """The time."""
        return self.now


def run(breaker: SpendBreaker, outcomes: str) -> None:
    """Submits one after the other: `?` is an unknown outcome, `+` a known one, `-` is turned away."""
    for outcome in outcomes:
        breaker.record(unknown={"?": True, "+": False, "-": None}[outcome], probe=breaker.commit())


def test_three_in_a_row_open_it() -> None:
    """The fourth is not sent, and the message says what happened and when it goes on."""
    breaker = SpendBreaker(30, Clock())
    run(breaker, "+??+???")

    with pytest.raises(SubmitPausedError, match=r"3 in a row, 5 of the last 7.*in 30 s"):
        breaker.check()


def test_more_than_five_percent_of_the_last_200_open_it() -> None:
    """Ten unknown outcomes are borne, the eleventh is not, even if they never come in a row."""
    breaker = SpendBreaker(30, Clock())
    run(breaker, "?+" * 10 + "+" * 179)
    breaker.check()

    run(breaker, "?")

    with pytest.raises(SubmitPausedError, match="11 of the last 200"):
        breaker.check()


def test_what_is_long_ago_does_not_count() -> None:
    """Only the last 200 submits are looked at."""
    breaker = SpendBreaker(30, Clock())
    run(breaker, "?+" * 10 + "+" * 200 + "?+" * 10)

    breaker.check()


def test_half_open_lets_one_through() -> None:
    """After the pause one submit is tried, and others wait for its outcome."""
    clock = Clock()
    breaker = SpendBreaker(30, clock)
    run(breaker, "???")
    clock.now = 30.0

    assert breaker.commit()

    with pytest.raises(SubmitPausedError, match="one submit is being tried"):
        breaker.commit()


def test_a_good_probe_closes_it() -> None:
    """And what was before is forgotten."""
    clock = Clock()
    breaker = SpendBreaker(30, clock)
    run(breaker, "?+" * 10 + "?")
    clock.now = 30.0

    run(breaker, "+" + "?+" * 10)

    assert not breaker.commit()


def test_a_bad_probe_opens_it_again() -> None:
    """For another pause."""
    clock = Clock()
    breaker = SpendBreaker(30, clock)
    run(breaker, "???")
    clock.now = 31.0
    run(breaker, "?")
    clock.now = 60.0

    with pytest.raises(SubmitPausedError, match="in 1 s"):
        breaker.commit()


def test_what_is_turned_away_does_not_count() -> None:
    """A busy service neither ends a row of unknown outcomes nor makes them rarer."""
    breaker = SpendBreaker(30, Clock())
    run(breaker, "?-?-" + "-" * 200 + "?")

    with pytest.raises(SubmitPausedError, match="3 in a row, 3 of the last 3"):
        breaker.check()


def test_a_probe_that_is_turned_away_leaves_it_half_open() -> None:
    """Nothing is known of what becomes of those that are taken: the next one is tried, and no other beside it."""
    clock = Clock()
    breaker = SpendBreaker(30, clock)
    run(breaker, "???")
    clock.now = 30.0

    run(breaker, "--")

    assert breaker.commit()
    with pytest.raises(SubmitPausedError, match="one submit is being tried"):
        breaker.commit()


def test_a_probe_that_is_not_heard_of() -> None:
    """After another pause the next one is tried; late news of the first still count."""
    clock = Clock()
    breaker = SpendBreaker(30, clock)
    run(breaker, "???")
    clock.now = 30.0
    breaker.commit()
    clock.now = 59.0
    with pytest.raises(SubmitPausedError, match="one submit is being tried"):
        breaker.commit()
    clock.now = 60.0

    assert breaker.commit()

    with pytest.raises(SubmitPausedError, match="one submit is being tried"):
        breaker.commit()
    breaker.record(unknown=False, probe=True)
    assert not breaker.commit()


def test_outcomes_of_submits_already_under_way_do_not_close_it() -> None:
    """Only the probe does."""
    breaker = SpendBreaker(30, Clock())
    late = breaker.commit()
    run(breaker, "???")
    breaker.record(unknown=False, probe=late)

    with pytest.raises(SubmitPausedError):
        breaker.check()


@given(st.integers(1, 40), st.integers(0, 500))
def test_an_outage_costs_at_most_those_under_way_and_three(concurrency: int, jobs: int) -> None:
    """However many wait, and however they overlap."""
    breaker = SpendBreaker(30, Clock())
    charged, flying = 0, 0
    for _ in range(jobs):
        try:
            breaker.commit()
        except SubmitPausedError:
            break
        charged, flying = charged + 1, flying + 1
        if flying == concurrency:
            breaker.record(unknown=True, probe=False)
            flying -= 1

    assert charged <= concurrency + 3
