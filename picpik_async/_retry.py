"""When and how long to wait before trying again: pure arithmetic and data.

The tables are the vendor-neutral rules of HTTP, read for a service whose every call is a POST: what may be repeated
depends on the Action, not on the verb.
"""

from __future__ import annotations

import math
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Final

from picpik_async.errors import ApiError, HttpStatusError, MalformedAnswerError, PicpikError, TransportError

if TYPE_CHECKING:
    import random
    from collections.abc import Collection

    from picpik_async._config import RetryPolicy

__all__ = [
    "HTTP_OK",
    "REFUSED_STATUSES",
    "RetryBudget",
    "delay",
    "is_turned_away",
    "may_have_worked",
    "may_repeat_read",
    "may_repeat_submit",
    "parse_retry_after",
]

HTTP_OK: Final = range(200, 300)

REFUSED_STATUSES: Final = frozenset({400, 401, 403, 404, 405, 411, 413, 414, 415, 422, 425, 429, 431, 501, 505})
"""After these a submit was certainly not taken: refused, or turned away before it was processed (425, 429)."""

TRANSIENT_STATUSES: Final = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
"""After these a read may succeed later."""


_TURNED_AWAY: Final = frozenset({425, 429, 503})
_TOO_BUSY: Final = frozenset({425, 429})
_SERVER_ERRORS: Final = range(500, 600)
_BEFORE_THE_END: Final = frozenset({"connect", "send"})  # stages in which the request was not complete
_LONGEST_WISH: Final = 60.0  # seconds; `RetryPolicy.max_retry_after` unless set otherwise


class RetryBudget:
    """Tokens that the retries of a session take, so that an outage is not made worse by asking ever again.

    A retry that is repaid by its success costs nothing in the end; with nothing but failures 35 are left.
    """

    CAPACITY: Final = 500
    TRANSIENT_COST: Final = 14
    THROTTLE_COST: Final = 5

    def __init__(self) -> None:
        self.tokens = self.CAPACITY

    def take(self, error: PicpikError) -> int:
        """Pay for a retry after *error*.

        Returns:
            The tokens it takes, for `refund`; 0 if there are not enough, and then there must be no retry.
        """
        cost = self.THROTTLE_COST if _is_throttle(error) else self.TRANSIENT_COST
        if cost > self.tokens:
            return 0
        self.tokens -= cost
        return cost

    def refund(self, taken: int = 0) -> None:
        """Note a success: give back what the retries before it took, or one token if there were none."""
        self.tokens = min(self.CAPACITY, self.tokens + (taken or 1))


def _is_throttle(error: PicpikError) -> bool:
    """Whether *error*, which may be repeated, asks to slow down rather than tells of a failure."""
    if isinstance(error, HttpStatusError):
        return error.status in _TOO_BUSY or (error.status in _TURNED_AWAY and error.retry_after is not None)
    return isinstance(error, ApiError)


def is_turned_away(error: PicpikError, throttle_ret_codes: Collection[int] = ()) -> bool:
    """Whether the service did not look at the request, and asks to come back later.

    Args:
        error: what it answered.
        throttle_ret_codes: `RetCode`s that only mean "slow down".
    """
    if isinstance(error, HttpStatusError):
        return error.status in _TURNED_AWAY
    return isinstance(error, ApiError) and error.ret_code in throttle_ret_codes


def may_repeat_read(
    error: PicpikError,
    throttle_ret_codes: Collection[int] = (),
    *,
    attempt: int = 0,
    max_retry_after: float = _LONGEST_WISH,
) -> bool:
    """Whether a read that failed with *error* is worth another try.

    Args:
        error: why it failed.
        throttle_ret_codes: `RetCode`s that only mean "slow down".
        attempt: how many attempts have failed before this one.
        max_retry_after: seconds; a server that asks for more is not asked again.
    """
    if isinstance(error, HttpStatusError):
        return error.status in TRANSIENT_STATUSES and (error.retry_after or 0) <= max_retry_after
    if isinstance(error, ApiError):
        return error.ret_code in throttle_ret_codes
    if isinstance(error, TransportError):
        return error.retries is None or attempt < error.retries
    return isinstance(error, MalformedAnswerError)


def may_repeat_submit(
    error: PicpikError,
    throttle_ret_codes: Collection[int] = (),
    *,
    attempt: int = 0,
    max_retry_after: float = _LONGEST_WISH,
) -> bool:
    """Whether to send a submit again that was certainly not taken; that it was not is for the caller to know.

    Args:
        error: why it was not.
        throttle_ret_codes: `RetCode`s that only mean "slow down".
        attempt: how many attempts have failed before this one.
        max_retry_after: seconds; a server that asks for more is not asked again.
    """
    if isinstance(error, HttpStatusError):
        return _may_pass(error.status) and (error.retry_after or 0) <= max_retry_after
    if isinstance(error, ApiError):
        return error.ret_code in throttle_ret_codes
    if isinstance(error, TransportError):
        return error.stage in _BEFORE_THE_END and (error.retries is None or attempt < error.retries)
    return False


def _may_pass(status: int) -> bool:
    """Whether a request turned away with *status* may be taken later: 408, 425, 429, and most of 5xx."""
    return status in TRANSIENT_STATUSES - {409} or (status in _SERVER_ERRORS and status not in REFUSED_STATUSES)


def may_have_worked(error: PicpikError) -> bool:
    """Whether the service may have done what was asked although the answer was *error*."""
    if isinstance(error, HttpStatusError):
        return error.status in TRANSIENT_STATUSES - _TURNED_AWAY
    if isinstance(error, TransportError):
        return error.stage not in _BEFORE_THE_END
    return isinstance(error, MalformedAnswerError)


def delay(attempt: int, error: PicpikError, policy: RetryPolicy, rng: random.Random) -> float:
    """Seconds to wait after *error*: full jitter, or what the server asks for if that is longer.

    Args:
        attempt: how many attempts have failed before this one.
        error: one that may be repeated.
        policy: bounds.
        rng: source of jitter.
    """
    is_busy = isinstance(error, ApiError) or (isinstance(error, HttpStatusError) and error.status in _TURNED_AWAY)
    base = policy.throttle_delay if is_busy else policy.base_delay
    jittered = rng.uniform(0, min(policy.max_delay, base * 2.0 ** min(attempt, 60)))
    retry_after = error.retry_after if isinstance(error, HttpStatusError) else None
    if retry_after is None or retry_after > policy.max_retry_after:
        return jittered
    return max(jittered, retry_after)


def parse_retry_after(text: str | None, *, now: float) -> float | None:
    """Seconds from a `Retry-After` header, a number or an HTTP date; None if absent, negative or not legible.

    Args:
        text: the header's value.
        now: Unix time in seconds, for dates.
    """
    if text is None:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = _parse_date(text) - now
    return seconds if math.isfinite(seconds) and seconds >= 0 else None


def _parse_date(text: str) -> float:
    """Unix time of an HTTP date, which is in GMT where it names no zone; NaN if it is none."""
    try:
        date = parsedate_to_datetime(text)
        return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    except (OverflowError, ValueError):
        return math.nan
