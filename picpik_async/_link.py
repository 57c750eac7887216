"""What handles and pictures need of their session: they ask through a link, which keeps the session alive."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Self, TypeVar

import anyio

from picpik_async._config import Secret
from picpik_async._errands import Errand
from picpik_async._records import note_failure, note_files
from picpik_async._requests import ListTasksDetails
from picpik_async._results import ResultImage, TaskResult
from picpik_async._threads import in_thread
from picpik_async.errors import (
    AnswerError,
    DownloadError,
    PicpikError,
    ResultExpiredError,
    TaskFailedError,
    TaskTerminatedError,
    TaskVanishedError,
    TransportError,
    legible,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
    from pathlib import Path
    from types import EllipsisType

    from picpik_async._durations import Eta
    from picpik_async._session import PicpikSession
    from picpik_async._tasks import TaskDetail
    from picpik_async._updates import Updates
    from picpik_async._verification import Picture

__all__ = ["Link"]

T = TypeVar("T")


class Link:
    """What handles and pictures need of their session; they keep it alive."""

    __slots__ = ("_session",)

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
        expires: float | None = None,
    ) -> TaskResult:
        """See `Task.wait`; *timeout* counts from *since*, on the loop's clock, or from now.

        The pictures are there until *expires* (Unix time), or for 24 hours from now.
        """
        try:  # not _about(), which takes 100 bytes more for each waiter
            seconds = self._session._seconds(timeout)
            engine = await self._session._open()
            detail = await engine.poller.wait(task_uid, timeout=seconds, since=since)
        except PicpikError as error:
            error.task_uid = error.task_uid or task_uid
            if isinstance(error, (TaskFailedError, TaskTerminatedError)):
                await note_failure(self._session._records.journal, error)
            raise
        return self._result(detail, task_uid, expires)

    def _result(self, detail: TaskDetail, task_uid: str, expires: float | None) -> TaskResult:
        images = (
            ResultImage(url, self, task_uid=task_uid, index=index, expires=expires)
            for index, url in enumerate(detail.image_urls)
        )

        async def note(files: list[Path]) -> None:
            journal = self._session._records.journal
            if journal is not None:
                absolute = await self.in_thread(lambda: [file.absolute() for file in files])
                await note_files(journal, task_uid, absolute)

        return TaskResult(detail=detail, images=tuple(images), on_saved=note)

    def updates_of(self, task_uid: str, timeout: float | EllipsisType | None) -> AsyncIterator[TaskDetail]:
        """See `Task.updates`."""
        return _Updates(self._session, task_uid, self._session._seconds(timeout))

    def eta_of(self, task_uid: str) -> Eta | None:
        """See `Task.eta`."""
        with _about(task_uid):
            self._session._check_home()
            return self._session._records.durations.eta(task_uid, anyio.current_time())

    async def terminate(self, task_uid: str) -> None:
        """See `Task.terminate`."""
        with _about(task_uid):
            engine = await self._session._open()
            await engine.detached(Errand(lambda: engine.terminate(task_uid)))

    def check_place(self, task_uid: str) -> None:
        """See `Fetcher.check_place`."""
        with _about(task_uid):
            self._session._check_place()

    async def fetch(
        self, url: Secret, *, task_uid: str, index: int, expires: float, use: Callable[[Picture], Awaitable[T]]
    ) -> T:
        """See `Fetcher.fetch`; an address that is gone is replaced once, by the one the service gives now."""
        where: Any = {"task_uid": task_uid, "expires": expires, "use": use}
        with _about(task_uid):
            engine = await self._session._open()
            try:
                return await engine.hosted(lambda: engine.downloads.fetch(url, **where))
            except ResultExpiredError as error:
                gone = error
            fresh = await self._fresh_url(task_uid, index, gone)
            if fresh is None or fresh.reveal() == url.reveal():
                raise gone
            return await engine.hosted(lambda: engine.downloads.fetch(fresh, **where))

    async def _fresh_url(self, task_uid: str, index: int, gone: ResultExpiredError) -> Secret | None:
        try:
            detail = await self.detail_of(task_uid)
        except TaskVanishedError:
            return None
        except (TransportError, AnswerError) as error:
            msg = f"{gone}; a fresh address could not be asked for: {error}"
        else:
            return Secret(detail.image_urls[index]) if index < len(detail.image_urls) else None
        raise DownloadError(msg, url=gone.url)

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
