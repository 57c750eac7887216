"""What handles and pictures need of their session: they ask through a link, which keeps the session alive."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Self, TypeVar

from picpik_async._errands import Errand
from picpik_async._requests import ListTasksDetails, TerminateTask
from picpik_async._results import ResultImage, TaskResult
from picpik_async._retry import may_have_worked
from picpik_async._threads import in_thread
from picpik_async.errors import ApiError, PicpikError, TaskVanishedError, legible

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from types import EllipsisType

    from picpik_async._config import Secret
    from picpik_async._engine import Engine
    from picpik_async._poller import Updates
    from picpik_async._session import PicpikSession
    from picpik_async._tasks import TaskDetail

__all__ = ["Link"]

T = TypeVar("T")


class Link:
    """What handles and pictures need of their session; they keep it alive."""

    def __init__(self, session: PicpikSession) -> None:
        self._session = session

    async def detail_of(self, task_uid: str) -> TaskDetail:
        """See `Task.detail`."""
        with _about(task_uid):
            for detail in await self._session.call(ListTasksDetails(task_uid_list=(task_uid,))):
                if detail.task_uid == task_uid:
                    return detail
        uid = legible(task_uid)
        msg = f"the service does not know task {uid}; results are kept for 24 hours, and a new task may take a moment"
        raise TaskVanishedError(msg, task_uid=task_uid)

    async def wait_for(
        self,
        task_uid: str,
        timeout: float | EllipsisType | None,  # noqa: ASYNC109 - the poller keeps the deadline
        *,
        since: float | None = None,
    ) -> TaskResult:
        """See `Task.wait`; *timeout* counts from *since*, on the loop's clock, or from now."""
        with _about(task_uid):
            seconds = self._session._seconds(timeout)
            engine = await self._session._open()
            detail = await engine.poller.wait(task_uid, timeout=seconds, since=since)
        images = (ResultImage(url, self, task_uid=task_uid, index=index) for index, url in enumerate(detail.image_urls))
        return TaskResult(detail=detail, images=tuple(images))

    def updates_of(self, task_uid: str, timeout: float | EllipsisType | None) -> AsyncIterator[TaskDetail]:
        """See `Task.updates`."""
        return _Updates(self._session, task_uid, self._session._seconds(timeout))

    async def terminate(self, task_uid: str) -> None:
        """See `Task.terminate`."""
        with _about(task_uid):
            engine = await self._session._open()
            await engine.detached(Errand(lambda: _terminate(engine, task_uid)))

    async def fetch(self, url: Secret, *, task_uid: str) -> bytes:
        """See `ResultImage.read`."""
        with _about(task_uid):
            engine = await self._session._open()
            return await engine.hosted(lambda: engine.downloads.fetch(url, task_uid=task_uid))

    async def in_thread(self, function: Callable[..., T], *args: Any) -> T:
        """Run blocking work in the session's own worker threads; works with a closed session, too."""
        return await in_thread(function, *args, limiter=self._session._limiter)


class _Updates:
    """`Poller.updates`, on an engine that opens with the first step."""

    def __init__(self, session: PicpikSession, task_uid: str, seconds: float | None) -> None:
        self._session = session
        self._task_uid = task_uid
        self._seconds = seconds
        self._inner: Updates | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> TaskDetail:
        with _about(self._task_uid):
            engine = await self._session._open()
            if self._inner is None:
                self._inner = engine.poller.updates(self._task_uid, timeout=self._seconds)
            return await anext(self._inner)

    async def aclose(self) -> None:
        """End the iteration."""
        if self._inner is not None:
            await self._inner.aclose()


@contextlib.contextmanager
def _about(task_uid: str) -> Iterator[None]:
    """Let every error tell which task it is about."""
    try:
        yield
    except PicpikError as error:
        error.task_uid = error.task_uid or task_uid
        raise


async def _terminate(engine: Engine, task_uid: str) -> None:
    lost: list[PicpikError] = []
    try:
        await engine.ask(TerminateTask(task_uid=task_uid), on_retry=lost.append)
    except ApiError:
        if not any(map(may_have_worked, lost)):
            raise
        # Refused after a try whose answer was lost: that try has most likely ended the task.
    engine.poller.terminated(task_uid)
