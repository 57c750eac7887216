"""What becomes of a task, step by step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from picpik_async._deadlines import deadline_of
from picpik_async.errors import PicpikError

if TYPE_CHECKING:
    from picpik_async._poller import Poller
    from picpik_async._tasks import TaskDetail

__all__ = ["Updates"]


class Updates:
    """What becomes of a task, as an asynchronous iterator; made by `Poller.updates`.

    The task is watched only while the next detail is awaited, so leaving the loop early leaves nothing behind.
    """

    def __init__(self, poller: Poller, task_uid: str, *, timeout: float | None) -> None:
        self._poller = poller
        self._task_uid = task_uid
        self._timeout = timeout
        self._deadline: float | None = None
        self._last: TaskDetail | None = None
        self._over = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> TaskDetail:
        """The next detail.

        Raises:
            TaskVanishedError: the service does not know the task.
            TaskTerminatedError: the service does not know the task any more, after we terminated it.
            TaskTimeoutError: the timeout has passed.
            ConfigurationError: the session was closed.
        """
        if self._over:
            raise StopAsyncIteration
        if self._deadline is None:
            self._deadline = deadline_of(self._timeout)
        try:
            detail, self._over = await self._poller.next_change(
                self._task_uid, timeout=self._timeout, deadline=self._deadline, last=self._last
            )
        except PicpikError:
            self._over = True
            raise
        if detail is None:
            raise StopAsyncIteration
        self._last = detail
        return detail

    async def aclose(self) -> None:
        """End the iteration."""
        self._over = True
