"""A remote task: its state as a frozen value, and the handle to ask about it, wait for it, terminate it."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any, Protocol

import attrs

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Generator

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
        raw: the row as it came, unknown fields included.
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
    raw: dict[str, Any] = attrs.field(factory=dict, repr=False, eq=False)

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
