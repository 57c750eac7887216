"""How long each stage of an HTTP exchange may take: one deadline, which progress moves on."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import anyio

from picpik_async.errors import RequestTimeoutError

if TYPE_CHECKING:
    from collections.abc import Callable

    from picpik_async._config import Limits

__all__ = ["Patience"]

_WHAT: Final = {
    "connect_timeout": "no connection within {limit:g} s",
    "stall_timeout": "no progress for {limit:g} s",
    "min_upload_rate": "less than {limit:g} bytes/s were taken",
    "request_timeout": "no whole answer within {limit:g} s",
}
_TOO_SLOW: Final = "less than {rate:g} bytes/s came for longer than {limit:g} s"


class Patience:
    """The deadline of one exchange, kept in the cancel scope it runs in.

    Args:
        scope: see there.
        limits: how long.
        min_rate: bytes per second; an answer's body that comes as fast may take longer than `Limits.request_timeout`.
        clock: that of the event loop; anyio's own cannot be asked from a callback.

    Attributes:
        stage: how far the exchange got: `connect`, `send`, `headers` or `body`.
        stall_timeout: see `Limits`.
    """

    def __init__(
        self,
        scope: anyio.CancelScope,
        limits: Limits,
        *,
        min_rate: float = math.inf,
        clock: Callable[[], float] = anyio.current_time,
    ) -> None:
        self._scope = scope
        self._limits = limits
        self._min_rate = min_rate
        self._clock = clock
        self.stall_timeout = limits.stall_timeout
        self.start_connecting()

    def start_connecting(self) -> None:
        """There is no connection yet, or none to where a redirect leads."""
        self._enter("connect", "connect_timeout")

    def start_sending(self) -> None:
        """There is a connection, or all but the tail has left."""
        self._enter("send", "stall_timeout")

    def note_sent(self, size: int) -> None:
        """*size* bytes have left; what was fast saves up no more than one stall."""
        stalled = self._clock() + self._limits.stall_timeout
        too_slow = self._scope.deadline + size / self._limits.min_upload_rate
        self._wait_until((stalled, "stall_timeout"), (too_slow, "min_upload_rate"))

    def suspend(self) -> None:
        """Wait for our own disk and threads, for which nobody at the other end is to blame, until `resume` or the next stage."""
        self._suspended = self._clock(), self._scope.deadline
        self._scope.deadline = math.inf

    def resume(self) -> None:
        """Go on where `suspend` was called: there is as much time left as there was."""
        since, deadline = self._suspended
        self._scope.deadline = deadline + self._clock() - since

    def start_waiting(self) -> None:
        """The request is complete."""
        self._enter("headers", "request_timeout")

    def start_reading(self) -> None:
        """The head of the answer has arrived."""
        self._enter("body", "request_timeout")
        self._start = self._clock()
        self.note_received(0)

    def note_received(self, size: int) -> None:
        """So far *size* bytes of the answer's body have arrived."""
        now = self._clock()
        in_time = min(now, self._start + size / self._min_rate)
        self._wait_until(
            (now + self._limits.stall_timeout, "stall_timeout"),
            (in_time + self._limits.request_timeout, "request_timeout"),
        )

    def error(self, host: str | None) -> RequestTimeoutError:
        """The error for an exchange with *host* whose time is up."""
        what = _WHAT[self._setting]
        if (self.stage, self._setting) == ("body", "request_timeout") and self._min_rate < math.inf:
            what = _TOO_SLOW
        what = what.format(limit=getattr(self._limits, self._setting), rate=self._min_rate)
        msg = f"{self.stage}: {what} with {host} (Limits.{self._setting})"
        return RequestTimeoutError(msg, stage=self.stage)

    def _enter(self, stage: str, setting: str) -> None:
        self.stage = stage
        self._wait_until((self._clock() + getattr(self._limits, setting), setting))

    def _wait_until(self, *ends: tuple[float, str]) -> None:
        """Let the first of *ends*, each of which a setting stands for, be the deadline."""
        self._scope.deadline, self._setting = min(ends)
