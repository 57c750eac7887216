"""When and how long to wait before another try."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from picpik_async import RetryPolicy
from picpik_async._retry import (
    REFUSED_STATUSES,
    TRANSIENT_STATUSES,
    RetryBudget,
    delay,
    may_have_worked,
    may_repeat_read,
    may_repeat_submit,
    parse_retry_after,
)
from picpik_async.errors import (
    ApiError,
    ConfigurationError,
    HttpStatusError,
    InvalidRequestError,
    MalformedAnswerError,
    RequestTimeoutError,
    TransportError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from picpik_async.errors import PicpikError

NOW = 1_700_000_000.0  # Tue, 14 Nov 2023 22:13:20 GMT


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (TransportError("m"), True),
        (TransportError("m", retries=1), True),
        (TransportError("m", retries=0), False),
        (RequestTimeoutError("m"), True),
        (MalformedAnswerError("m"), True),
        (ApiError("m", ret_code=7), True),
        (ApiError("m", ret_code=8), False),
        (ConfigurationError("m"), False),
        (InvalidRequestError("m"), False),
        *[(HttpStatusError("m", status=status), True) for status in (408, 409, 425, 429, 500, 502, 503, 504)],
        *[(HttpStatusError("m", status=status), False) for status in (301, 400, 401, 403, 404, 413, 501, 505)],
    ],
)
def test_reads_are_repeated_after_what_may_pass(error: PicpikError, *, expected: bool) -> None:
    """No answer, an illegible one, a busy server or a throttling RetCode: another try may help; a refusal stays one."""
    assert expected == may_repeat_read(error, {7})


@pytest.mark.parametrize("may_repeat", [may_repeat_read, may_repeat_submit])
@pytest.mark.parametrize(("asked", "expected"), [(None, True), (0, True), (60, True), (60.1, False), (86_400, False)])
def test_who_asks_for_much_time_is_not_asked_again(
    may_repeat: Callable[[PicpikError], bool], asked: float | None, *, expected: bool
) -> None:
    """Nobody waits longer than a minute for another try."""
    assert expected == may_repeat(HttpStatusError(status=429, retry_after=asked))


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (TransportError(stage="connect"), True),
        (TransportError(stage="connect", retries=0), False),
        (TransportError(stage="connect", retries=1), True),
        (RequestTimeoutError(stage="connect"), True),
        (RequestTimeoutError(stage="send"), True),
        (TransportError(stage="send"), True),
        (TransportError(stage="headers"), False),
        (TransportError(stage="body"), False),
        (TransportError(), False),
        *[(HttpStatusError(status=status), True) for status in (408, 425, 429, 500, 502, 503, 504, 520)],
        *[(HttpStatusError(status=status), False) for status in (200, 302, 400, 403, 407, 409, 413, 431, 501, 505)],
        (ApiError(ret_code=7), True),
        (ApiError(ret_code=8), False),
        (MalformedAnswerError(), False),
        (ConfigurationError(), False),
        (InvalidRequestError(), False),
    ],
)
def test_submits_are_repeated_only_after_what_may_pass(error: PicpikError, *, expected: bool) -> None:
    """A submit that was not taken is sent again if its path failed or the server was busy, never if it was refused."""
    assert expected == may_repeat_submit(error, {7})


def test_an_unknown_name_is_looked_up_once_more() -> None:
    """What may help once is not tried twice."""
    error = TransportError(stage="connect", retries=1)

    assert [True, False, False] == [may_repeat_submit(error, attempt=attempt) for attempt in range(3)]


@pytest.mark.parametrize(
    ("error", "cost"),
    [
        (TransportError(), 14),
        (MalformedAnswerError(), 14),
        (HttpStatusError(status=500), 14),
        (HttpStatusError(status=503), 14),
        (HttpStatusError(status=500, retry_after=1), 14),
        (HttpStatusError(status=503, retry_after=1), 5),
        (HttpStatusError(status=425), 5),
        (HttpStatusError(status=429), 5),
        (ApiError(ret_code=7), 5),
    ],
)
def test_retries_take_tokens_until_none_are_left(error: PicpikError, cost: int) -> None:
    """Failures take 14 tokens of 500, requests to slow down take 5; then there are no more retries."""
    budget = RetryBudget()

    costs = [budget.take(error) for _ in range(101)]

    assert [cost] * (500 // cost) == [taken for taken in costs if taken]
    assert 0 == budget.take(error)
    assert 500 % cost == budget.tokens


def test_success_refunds_what_the_retries_took() -> None:
    """A retried success gives back all, a plain one earns one token, and there are never more than 500."""
    budget = RetryBudget()
    taken = budget.take(TransportError()) + budget.take(HttpStatusError(status=429))
    assert 500 - 19 == budget.tokens

    budget.refund()
    assert 500 - 18 == budget.tokens
    budget.refund(taken)
    assert 500 == budget.tokens


def test_no_ret_code_means_slow_down_by_default() -> None:
    """The vendor publishes no list, so a refusal is final unless the dialect says otherwise."""
    assert not may_repeat_read(ApiError("m", ret_code=7))


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (HttpStatusError(status=500), True),
        (HttpStatusError(status=504), True),
        (HttpStatusError(status=503), False),
        (HttpStatusError(status=429), False),
        (HttpStatusError(status=403), False),
        (TransportError(stage="connect"), False),
        (TransportError(stage="send"), False),
        (TransportError(stage="headers"), True),
        (RequestTimeoutError(stage="body"), True),
        (MalformedAnswerError(), True),
        (ApiError(ret_code=7), False),
    ],
)
def test_what_may_have_worked_although_it_failed(error: PicpikError, *, expected: bool) -> None:
    """A lost answer says nothing; a request that never arrived, or was turned away, did nothing."""
    assert expected == may_have_worked(error)


def test_a_refused_submit_is_not_a_server_error() -> None:
    """A broken server may have taken the request; of the 5xx only "not implemented" and "wrong version" say it did not."""
    assert {501, 505} == {status for status in REFUSED_STATUSES if status >= 500}
    assert {425, 429} == REFUSED_STATUSES & TRANSIENT_STATUSES


LOST = TransportError(stage="headers")
BUSY = [HttpStatusError(status=425), HttpStatusError(status=429), HttpStatusError(status=503), ApiError(ret_code=7)]


@given(st.integers(0, 10_000), st.integers(0, 2**32))
def test_the_delay_is_random_below_a_growing_ceiling(attempt: int, seed: int) -> None:
    """Full jitter: anything from 0 to a ceiling that doubles up to its maximum."""
    policy = RetryPolicy(base_delay=0.2, max_delay=20)

    waiting = delay(attempt, LOST, policy, random.Random(seed))

    assert 0 <= waiting <= min(20, 0.2 * 2 ** min(attempt, 10))


@pytest.mark.parametrize(
    ("error", "base"), [(LOST, 0.5), (HttpStatusError(status=500, retry_after=0), 0.5), *[(error, 1) for error in BUSY]]
)
def test_delays_reach_their_ceiling(error: PicpikError, base: float) -> None:
    """The jitter uses the whole range, which is another one for who is too busy."""
    policy = RetryPolicy(base_delay=0.5, throttle_delay=1, max_delay=20)
    rng = random.Random(1)

    for attempt in range(8):
        ceiling = min(20, base * 2**attempt)
        waits = [delay(attempt, error, policy, rng) for _ in range(1000)]
        assert ceiling >= max(waits) > 0.98 * ceiling
        assert min(waits) < 0.02 * ceiling


@pytest.mark.parametrize(("asked", "least", "most"), [(30, 30, 30), (60, 60, 60), (61, 0, 1), (0, 0, 1), (0.5, 0.5, 1)])
def test_the_server_may_ask_for_more_time(asked: float, least: float, most: float) -> None:
    """Its wish is honoured up to a maximum; beyond that, and below our own delay, ours holds."""
    policy = RetryPolicy(throttle_delay=1, max_delay=1, max_retry_after=60)
    error = HttpStatusError(status=429, retry_after=asked)

    assert least <= delay(0, error, policy, random.Random(1)) <= most


@pytest.fixture
def far_from_greenwich(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine whose own time zone is not that of HTTP."""
    with monkeypatch.context() as context:
        context.setenv("TZ", "Asia/Tokyo")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, None),
        ("", None),
        ("soon", None),
        ("0", 0),
        ("120", 120),
        (" 1.5 ", 1.5),
        ("-1", None),
        ("nan", None),
        ("inf", None),
        ("1e999", None),
        ("Tue, 14 Nov 2023 22:13:50 GMT", 30),
        ("Tue, 14 Nov 2023 23:13:50 +0100", 30),
        ("Tue, 14 Nov 2023 22:13:20 GMT", 0),
        ("Tue, 14 Nov 2023 22:13:19 GMT", None),
        ("Tue, 99 Nov 2023 22:13:19 GMT", None),
        ("Tue, 14 Nov 99999 22:13:19 GMT", None),
        ("Tue Nov 14 22:13:50 2023", 30),
        ("Tue, 14 Nov 2023 22:13:50 99999999999999999999", None),
        ("Mon, 01 Jan 0001 00:00:00 -0000", None),
        ("Fri, 31 Dec 9999 23:59:59 -0000", 253402300799 - 1_700_000_000),
    ],
)
@pytest.mark.usefixtures("far_from_greenwich")
def test_retry_after(text: str | None, expected: float | None) -> None:
    """Seconds or an HTTP date; what is past, negative, endless or illegible counts as absent."""
    assert expected == parse_retry_after(text, now=NOW)


DATES = st.from_regex(
    r"\A[A-Za-z]{0,4},? ?\d{1,3} (Jan|Feb|Dec|x) -?\d{1,6} \d{1,3}:\d{1,3}(:\d{1,3})?( ?[+-]?\d{0,9}|Z)?\Z"
)


@given(st.text(max_size=60) | st.text("0123456789:+-, GMTJanDec", max_size=40) | DATES)
def test_any_header_is_read_without_an_error(text: str) -> None:
    """A server's header never breaks a retry."""
    seconds = parse_retry_after(text, now=NOW)

    assert seconds is None or 0 <= seconds < float("inf")


@pytest.mark.parametrize(("retries", "tries"), [(0, 1), (1, 2), (None, 9)])
def test_a_cause_that_stays_is_not_tried_for_ever(retries: int | None, tries: int) -> None:
    """A read is repeated as often as the error says that it may help."""
    error = TransportError("m", stage="connect", retries=retries)

    assert [attempt + 1 < tries for attempt in range(8)] == [may_repeat_read(error, attempt=n) for n in range(8)]
