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

__all__ = ["HTTP_OK", "REFUSED_STATUSES", "delay", "may_have_worked", "may_repeat_read", "parse_retry_after"]

HTTP_OK: Final = range(200, 300)

REFUSED_STATUSES: Final = frozenset({400, 401, 403, 404, 405, 411, 413, 414, 415, 422, 425, 429, 431, 501, 505})
"""After these a submit was certainly not taken: refused, or turned away before it was processed (425, 429)."""

TRANSIENT_STATUSES: Final = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
"""After these a read may succeed later."""


_TURNED_AWAY: Final = frozenset({425, 429, 503})


def may_repeat_read(error: PicpikError, throttle_ret_codes: Collection[int] = ()) -> bool:
    """Whether a read that failed with *error* is worth another try."""
    if isinstance(error, HttpStatusError):
        return error.status in TRANSIENT_STATUSES
    if isinstance(error, ApiError):
        return error.ret_code in throttle_ret_codes
    return isinstance(error, (TransportError, MalformedAnswerError))


def may_have_worked(error: PicpikError) -> bool:
    """Whether the service may have done what was asked although the answer was *error*."""
    if isinstance(error, HttpStatusError):
        return error.status in TRANSIENT_STATUSES - _TURNED_AWAY
    if isinstance(error, TransportError):
        return error.stage not in {"connect", "send"}
    return isinstance(error, MalformedAnswerError)


def delay(attempt: int, policy: RetryPolicy, rng: random.Random, *, retry_after: float | None = None) -> float:
    """Seconds to wait after failed *attempt* number 0, 1, …: full jitter, or what the server asks for if that is longer."""
    ceiling = min(policy.max_delay, policy.base_delay * 2.0 ** min(attempt, 60))
    jittered = rng.uniform(0, ceiling)
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
