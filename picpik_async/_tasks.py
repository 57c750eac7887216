"""A remote task: its state as a frozen value, and the handle to ask about it, wait for it, terminate it."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any, Protocol

import attrs
import orjson

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine, Generator
    from types import EllipsisType

    from picpik_async._durations import Eta
    from picpik_async._results import TaskResult

__all__ = ["Task", "TaskDetail", "TaskStatus"]


class TaskStatus(enum.Enum):
    """What a `Status` word means; which word means what is a setting (`Dialect`), since no current list is published."""

    QUEUING = "queuing"
    RUNNING = "running"
    FINISHED = "finished"
    ERROR = "error"
    UNKNOWN = "unknown"


@attrs.frozen(kw_only=True)
class TaskDetail:
    """A row of `ListTasksDetails`.

    See https://www.picpik.ai/api-docs/appendix/complex-data-types/TaskDetail.

    Attributes:
        task_uid: `TaskUID`.
        action: the Action that made the task.
        status: what the status word means.
        status_word: the word itself.
        image_urls: addresses of the results, valid for 24 hours.
        seed: one seed, also for a batch.
        texts: descriptions, from `DescribeImages`.
        cost: credits consumed.
        error_code: 0 or None means no error.
        error_message: the service's own words.
    """

    task_uid: str
    action: str | None = None
    status: TaskStatus = TaskStatus.UNKNOWN
    status_word: str | None = None
    image_urls: tuple[str, ...] = attrs.field(default=(), repr=lambda urls: f"<{len(urls)}>")
    seed: int | None = None
    texts: tuple[str, ...] = ()
    cost: int | None = None
    error_code: int | None = None
    error_message: str | None = None
    # As JSON a row takes a third of the memory, 430 bytes less, and the garbage collector does not look at it.
    _raw: dict[str, Any] | bytes = attrs.field(factory=dict, alias="raw", repr=False, eq=False)

    @property
    def raw(self) -> dict[str, Any]:
        """The row as it came, unknown fields included; a dict of your own each time."""
        return dict(self._raw) if isinstance(self._raw, dict) else orjson.loads(self._raw)

    @property
    def failed(self) -> bool:
        """Whether the task ended badly: a non-zero `ErrorCode` always says so."""
        return bool(self.error_code) or self.status is TaskStatus.ERROR

    @property
    def finished(self) -> bool:
        """Whether the task ended well; results under a status word we do not know count as an end."""
        if self.failed:
            return False
        if self.status is TaskStatus.UNKNOWN:
            return bool(self.image_urls or self.texts)
        return self.status is TaskStatus.FINISHED


class TaskOwner(Protocol):
    """What a handle needs of its session."""

    async def detail_of(self, task_uid: str) -> TaskDetail:
        """Ask once."""
        ...

    async def wait_for(self, task_uid: str, timeout: float | EllipsisType | None) -> TaskResult:  # noqa: ASYNC109
        """Wait for the end."""
        ...

    def updates_of(self, task_uid: str, timeout: float | EllipsisType | None) -> AsyncIterator[TaskDetail]:
        """Follow."""
        ...

    def eta_of(self, task_uid: str) -> Eta | None:
        """Estimate."""
        ...

    async def terminate(self, task_uid: str) -> None:
        """Stop it."""
        ...


class Task:
    """A handle on a remote task: its id and the session to ask; it holds no state of its own.

    `await task` is `await task.wait()`.

    Attributes:
        uid: the `TaskUID`; enough to make the handle anew in any process, with `session.task(uid)`.
    """

    __slots__ = ("_owner", "uid")

    def __init__(self, uid: str, owner: TaskOwner) -> None:
        self.uid: str = uid
        self._owner = owner

    async def detail(self) -> TaskDetail:
        """Ask for the task's state once.

        Raises:
            TaskVanishedError: the service does not know the task.
            TransportError: no answer, repeatedly.
            ApiError: the service refused: `RetCode` is not 0.
            HttpStatusError: the service refused with an HTTP status.
            MalformedAnswerError: the answer is not legible, repeatedly.
            ConfigurationError: wrong event loop, forked process or closed session.
        """
        return await self._owner.detail_of(self.uid)

    def wait(self, *, timeout: float | EllipsisType | None = ...) -> Coroutine[Any, Any, TaskResult]:
        """Wait for the end; any number of waiters share their polls, and failing polls fail nobody.

        Args:
            timeout: seconds for the whole wait; None waits for ever, left out it is `PollPolicy.timeout`.

        Raises:
            TaskFailedError: the service reports an error.
            TaskTerminatedError: the task was terminated through this session.
            TaskVanishedError: the service does not know the task any more.
            TaskTimeoutError: time is up; the task itself may still be running, and can be waited for again.
            InvalidRequestError: *timeout* is negative or not a number.
            ConfigurationError: wrong event loop, forked process or closed session.
        """
        # Not a coroutine around a coroutine, which takes 220 bytes for each of a hundred thousand waiters.
        return self._owner.wait_for(self.uid, timeout)

    def __await__(self) -> Generator[Any, Any, TaskResult]:
        return self.wait().__await__()

    def updates(self, *, timeout: float | EllipsisType | None = ...) -> AsyncIterator[TaskDetail]:
        """Follow the task: its state now, then each change, the final one last.

        A failed task is told, not raised.

        Args:
            timeout: as in `wait`.

        Raises:
            TaskVanishedError: the service does not know the task any more.
            TaskTerminatedError: the same, after the task was terminated through this session.
            TaskTimeoutError: time is up.
            InvalidRequestError: *timeout* is negative or not a number.
            ConfigurationError: wrong event loop, forked process or closed session.
        """
        return self._owner.updates_of(self.uid, timeout)

    def eta(self) -> Eta | None:
        """When the task may be finished, judging by how long like ones of this session took; no I/O.

        Alike are tasks of the same Action, model and size: width × height × batch, within ± 19 %. The clock starts when the
        service has accepted the task.

        Returns:
            None if nothing is known: no such task was seen to end yet, this one was, or was terminated, or another session
            has submitted it. What `detail` tells does not count, only what is seen for those who wait or follow.

        Raises:
            ConfigurationError: wrong event loop or forked process.
        """
        return self._owner.eta_of(self.uid)

    async def terminate(self) -> None:
        """Stop the remote task; whether credits come back is not documented.

        Raises:
            ApiError: the service refused: `RetCode` is not 0.
            HttpStatusError: the service refused with an HTTP status.
            MalformedAnswerError: the answer is not legible, repeatedly.
            TransportError: no answer, repeatedly.
            ConfigurationError: wrong event loop, forked process or closed session.
        """
        await self._owner.terminate(self.uid)

    def __repr__(self) -> str:
        return f"<Task {self.uid}>"
