"""Worker threads whose number holds, whatever becomes of those who wait for them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
import anyio.to_thread

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["in_thread"]

T = TypeVar("T")


async def in_thread(function: Callable[..., T], *args: Any, limiter: anyio.CapacityLimiter) -> T:
    """Run blocking work in a worker thread that keeps its place in *limiter* until the work ends.

    A caller who is cancelled goes on at once and leaves the thread behind. `anyio.to_thread.run_sync` alone would wait for
    it, or free the place while it works on if asyncio cancels the caller, with `Task.cancel()` or `asyncio.timeout()`.
    """
    place = object()
    await limiter.acquire_on_behalf_of(place)
    work = asyncio.ensure_future(anyio.to_thread.run_sync(function, *args, limiter=anyio.CapacityLimiter(1)))

    def leave(work: asyncio.Future[T]) -> None:
        limiter.release_on_behalf_of(place)
        if not work.cancelled():
            work.exception()  # looked at, for asyncio would log it if the caller is gone

    work.add_done_callback(leave)
    await asyncio.wait([work])
    return work.result()
