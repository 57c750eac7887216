"""Work that outlives the cancellation of whoever waits for it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Generic, TypeVar, cast

from picpik_async._endings import closed_error

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from picpik_async.errors import PicpikError

__all__ = ["Errand"]

T = TypeVar("T")


class Errand(Generic[T]):
    """Work in a task of the session's own, and the caller in another task who waits for its outcome.

    Args:
        work: what to do.
        cut_off: the error if it is ended from outside, with the session or by an interrupt.
        unattended: told the result or the error if the caller is cancelled and never sees it.
    """

    def __init__(
        self,
        work: Callable[[], Awaitable[T]],
        *,
        cut_off: Callable[[], PicpikError] = closed_error,
        unattended: Callable[[T | None, BaseException | None], None] = lambda _result, _error: None,
    ) -> None:
        self._work = work
        self._cut_off = cut_off
        self._unattended = unattended
        self._outcome: asyncio.Future[T] = asyncio.get_running_loop().create_future()

    async def run(self) -> None:
        """Do the work; whatever it raises goes to the caller."""
        try:
            result = await self._work()
        except Exception as error:  # noqa: BLE001 - handed to the caller
            self._settle(None, error)
        except asyncio.CancelledError:  # not raised on: a stray one would end all others in the task group
            self._settle(None, self._cut_off())
        except BaseException:
            self._settle(None, self._cut_off())
            raise
        else:
            self._settle(result, None)

    async def outcome(self) -> T:
        """Wait for the work to end."""
        try:
            return await self._outcome
        except asyncio.CancelledError:
            if self._outcome.done() and not self._outcome.cancelled():  # in the same tick; the cancellation wins
                error = self._outcome.exception()
                self._unattended(self._outcome.result() if error is None else None, error)
            raise

    def _settle(self, result: T | None, error: Exception | None) -> None:
        if self._outcome.done():
            self._unattended(result, error)
        elif error is not None:
            self._outcome.set_exception(error)
        else:
            self._outcome.set_result(cast("T", result))
