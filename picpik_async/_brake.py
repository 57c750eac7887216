"""When a map of many requests stops submitting: no credits, only refusals from the start, or too many unknown outcomes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import anyio

from picpik_async.errors import PicpikError, SubmitPausedError, legible

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from picpik_async._config import Dialect
    from picpik_async._types import CreditBalance
    from picpik_async.errors import ApiError

__all__ = ["Brake"]

_PAUSE: Final = 3.0  # seconds from one look at the balance to the next
_REFUSALS: Final = 5  # without a single success: the keys or the settings are wrong, and not one request


class Brake:
    """Stops the submits of one map, once and for all.

    Args:
        dialect: the `RetCode`s that mean "not enough credits".
        balance: asks for the credits that are left.
        clock: the time in seconds.

    Attributes:
        reason: why nothing is to be submitted any more; empty while it goes on.
    """

    def __init__(
        self,
        dialect: Dialect,
        balance: Callable[[], Awaitable[CreditBalance]],
        *,
        clock: Callable[[], float] = anyio.current_time,
    ) -> None:
        self.reason = ""
        self._dialect = dialect
        self._balance = balance
        self._clock = clock
        self._least = 0
        self._left: tuple[float, int] = (math.inf, 0)
        self._refusals: int | None = 0
        self._looked_at = -math.inf
        self._looking = anyio.Lock()

    @property
    def stopped(self) -> bool:
        """Whether nothing is to be submitted any more."""
        return bool(self.reason)

    def check(self) -> None:
        """Let a request pass.

        Raises:
            SubmitPausedError: nothing is submitted any more.
        """
        if not self.stopped:
            return
        msg = (
            f"not submitted, and nothing was sent: {self.reason}; this map submits nothing more, and finishes what is paid;"
            " run the rest again later"
        )
        raise SubmitPausedError(msg)

    def paused(self) -> None:
        """Stop, since the session has paused all submits."""
        self._stop("too many submits had an unknown outcome, and each of them may be charged")

    def taken(self) -> None:
        """Note that the service has taken a request."""
        self._refusals = None

    def paid(self, cost: int) -> None:
        """Note what a task has cost."""
        if cost > 0:
            self._least = min(self._least or cost, cost)
            self._judge()

    async def refused(self, error: ApiError) -> None:
        """Look whether a submit was refused for want of credits, or as all before it, and stop if so."""
        if error.ret_code in self._dialect.no_credit_ret_codes:
            self._stop(f"the credits of the account have run out (RetCode {error.ret_code})")
        await self._look(error.ret_code)
        if self._refusals is not None and error.ret_code not in self._dialect.throttle_ret_codes:
            self._refusals += 1
            if self._refusals >= _REFUSALS:
                words = f": {legible(error.message, limit=200)}" if error.message else ""
                self._stop(
                    f"the service refused the first {_REFUSALS} requests, the last with RetCode {error.ret_code}{words},"
                    " and has certainly taken none so far; look at the keys and the account"
                )

    async def _look(self, ret_code: int) -> None:
        async with self._looking:
            now = self._clock()
            if self.stopped or now < self._looked_at + _PAUSE:
                return
            self._looked_at = now
            try:
                self._left = (await self._balance()).remaining_credits, ret_code
            except PicpikError:  # nobody knows, so it goes on
                return
        self._judge()

    def _judge(self) -> None:
        """Stop if what was left when a submit was refused is too little for any task that was paid for so far."""
        left, ret_code = self._left
        if left <= 0 or left < self._least:
            self._stop(
                f"the credits of the account have run out ({left} are left), of which RetCode {ret_code} may tell"
            )

    def _stop(self, reason: str) -> None:
        self.reason = self.reason or reason
