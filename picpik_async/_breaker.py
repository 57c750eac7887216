"""Stops submits when their outcomes stay unknown, lest an outage spend the account."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from picpik_async.errors import SubmitPausedError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["SpendBreaker"]

_IN_A_ROW: Final = 3
_WINDOW: Final = 200
_SHARE: Final = 0.05


class SpendBreaker:
    """A circuit breaker on unknown outcomes: 3 in a row, or more than 5 % of the last 200 submits, open it.

    After a pause it is half-open: one submit is let through, whose outcome closes or reopens it. One that the service
    turns away tells nothing, and one that is not heard of for another pause is no longer waited for: the next is tried.

    Args:
        pause: seconds.
        clock: the time in seconds.
    """

    def __init__(self, pause: float, clock: Callable[[], float]) -> None:
        self._pause = pause
        self._clock = clock
        self._in_a_row = 0
        self._window: deque[bool] = deque(maxlen=_WINDOW)
        self._opened: float | None = None
        self._probed: float | None = None

    def check(self) -> None:
        """Let a submit start.

        Raises:
            SubmitPausedError: not now.
        """
        if self._opened is None:
            return
        now = self._clock()
        left = self._opened + self._pause - now
        if left > 0 or (self._probed is not None and now < self._probed + self._pause):
            when = f"in {left:.0f} s one submit is tried" if left > 0 else "one submit is being tried"
            msg = (
                f"submits are paused, and this one was not sent: {self._in_a_row} in a row, {sum(self._window)} of the last"
                f" {len(self._window)}, had an unknown outcome, and each of them may be charged; {when}; polls and downloads"
                " go on"
            )
            raise SubmitPausedError(msg)

    def commit(self) -> bool:
        """Let a submit pass its commit point; returns whether it is the one that is tried while half-open.

        Raises:
            SubmitPausedError: not now.
        """
        self.check()
        if self._opened is None:
            return False
        self._probed = self._clock()
        return True

    def record(self, *, unknown: bool | None, probe: bool) -> None:
        """Note the outcome of a submit that passed.

        Args:
            unknown: whether it is unknown; None if the service turned the submit away, to be sent again later.
            probe: what `commit` returned.
        """
        if probe:
            self._probed = None
        if unknown is None:
            return
        self._window.append(unknown)
        self._in_a_row = self._in_a_row + 1 if unknown else 0
        if probe:
            self._opened = None
            if not unknown:
                self._window.clear()
        if unknown and (probe or self._in_a_row >= _IN_A_ROW or sum(self._window) > _SHARE * _WINDOW):
            self._opened = self._clock()
