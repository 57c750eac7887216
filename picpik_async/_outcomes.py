"""What becomes of one of many requests, and how far all of them have come."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from picpik_async._ranges import one_text, shown
from picpik_async.errors import (
    InvalidRequestError,
    PicpikError,
    SubmitOutcomeUnknownError,
    SubmitPausedError,
    TaskError,
)

if TYPE_CHECKING:
    from pathlib import Path

    from picpik_async._requests import Job
    from picpik_async._results import TaskResult

__all__ = ["Item", "Outcome", "Progress", "kind_of", "without_frames"]


@attrs.frozen(kw_only=True, eq=False)
class Outcome:
    """What became of one input of `PicpikSession.map`.

    Attributes:
        key: names the job: yours, or the journal's.
        request: the request, or what stood in its place.
        task_uid: `TaskUID`, if it is known.
        result: what the task gave; None after an error, and for a job that an earlier run has done.
        error: what went wrong; a `PicpikError` but for surprises.
        files: the saved pictures.
    """

    key: str | None = None
    request: Job
    task_uid: str | None = None
    result: TaskResult | None = None
    error: Exception | None = None
    files: tuple[Path, ...] = ()


@attrs.frozen(kw_only=True)
class Progress:
    """How far `PicpikSession.map` has come, in inputs.

    Attributes:
        pulled: taken from the iterable.
        submitted: sent and taken by the service.
        resumed: not sent, since the journal knows them as paid.
        done: ended well.
        failed: ended with an error that is none of the next two.
        unknown: ended with `SubmitOutcomeUnknownError`.
        paused: not sent, ended with `SubmitPausedError`.
        credits: what the tasks have cost, as far as the service tells.
        newest: uid of the task submitted last; `PicpikSession.task(newest).eta()` tells about the end of those in flight.
    """

    pulled: int = 0
    submitted: int = 0
    resumed: int = 0
    done: int = 0
    failed: int = 0
    unknown: int = 0
    paused: int = 0
    credits: int = 0
    newest: str | None = attrs.field(default=None, eq=False)


class Item:
    """An input on its way; *name* is the key that was given with it."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.name: str | None = None
        self.key: str | None = None
        self.request: Any = None
        self.task_uid: str | None = None
        self.result: TaskResult | None = None
        self.files: tuple[Path, ...] = ()

    def unpack(self, given: Any) -> None:
        """Take the input apart.

        Raises:
            InvalidRequestError: it is neither a request nor a pair.
        """
        self.request = given
        if isinstance(given, tuple):
            if len(given) != 2:  # noqa: PLR2004 - a pair
                msg = f"the input is {shown(given)}, but must be a request or a pair (key, request)"
                raise InvalidRequestError(msg, field="request", allowed="a Job, or a pair of a string and a Job")
            key, self.request = given
            self.key = self.name = one_text(key, "key")

    def outcome(self, error: Exception | None) -> Outcome:
        """What became of it."""
        if isinstance(error, TaskError):
            self.task_uid = error.task_uid
        return Outcome(
            key=self.key,
            request=self.request,
            task_uid=self.task_uid,
            result=self.result,
            error=error,
            files=self.files,
        )


def kind_of(error: Exception | None) -> str:
    """The field of `Progress` that counts it."""
    if error is None:
        return "done"
    if isinstance(error, SubmitOutcomeUnknownError):
        return "unknown"
    return "paused" if isinstance(error, SubmitPausedError) else "failed"


def without_frames(error: PicpikError) -> PicpikError:
    """The error without the frames it came through, since they hold pictures."""
    link: BaseException | None = error
    seen: set[int] = set()
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        link.__traceback__ = None
        link = link.__cause__ or link.__context__
    return error
