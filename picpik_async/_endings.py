"""Why a wait ended without pictures: exceptions that say what to do next, with server text escaped and cut."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from picpik_async.errors import (
    ConfigurationError,
    TaskFailedError,
    TaskTerminatedError,
    TaskTimeoutError,
    TaskVanishedError,
    legible,
)

if TYPE_CHECKING:
    from picpik_async._watched import Watched
    from picpik_async.errors import TaskError

__all__ = ["closed_error", "ending_error", "timeout_error"]

_LONGEST_UID: Final = 128  # in messages, which name it twice


def ending_error(task: Watched, *, terminated: bool) -> TaskError:
    """The exception for a task that ended otherwise than well; *terminated*: we asked for it."""
    uid, detail = legible(task.uid, limit=_LONGEST_UID), task.detail
    if terminated:
        msg = f"task {uid} was terminated; submit the request again if you still want the pictures"
        return TaskTerminatedError(msg, task_uid=task.uid, detail=detail)
    if task.vanished or detail is None:
        msg = (
            f"the service does not know task {uid} (any more); check uid, keys and endpoint, and if they are right,"
            f" session.task('{uid}') asks again"
        )
        return TaskVanishedError(msg, task_uid=task.uid, detail=detail)
    msg = (
        f"task {uid} failed with error code {detail.error_code}: '{legible(detail.error_message or '')}'; a new submit is"
        " charged anew, so look at the reason first"
    )
    return TaskFailedError(msg, task_uid=task.uid, detail=detail)


def timeout_error(task: Watched, timeout: float | None) -> TaskTimeoutError:
    """The exception for a wait of *timeout* seconds that was too short."""
    uid, detail = legible(task.uid, limit=_LONGEST_UID), task.detail
    word = "not known yet" if detail is None else f"'{legible(detail.status_word or '', limit=80)}'"
    problem = "" if task.problem is None else f" (the last poll failed: {legible(task.problem, limit=300)})"
    msg = (
        f"task {uid} has not ended within {timeout} seconds; its status is {word}{problem}; it goes on remotely,"
        f" and session.task('{uid}').wait() waits on"
    )
    return TaskTimeoutError(msg, task_uid=task.uid, detail=detail)


def closed_error(*, task_uid: str | None = None, request_uuid: str | None = None) -> ConfigurationError:
    """The exception for everything that a closed session is asked to do."""
    msg = "the session is closed; make a new PicpikSession"
    if task_uid is not None:
        uid = legible(task_uid, limit=_LONGEST_UID)
        msg += f". Task {uid} goes on remotely, and session.task('{uid}') of a new session resumes it"
    return ConfigurationError(msg, task_uid=task_uid, request_uuid=request_uuid)
