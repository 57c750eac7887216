"""What exceptions about tasks say."""

from __future__ import annotations

import pytest

from picpik_async._endings import closed_error, ending_error, timeout_error
from picpik_async._tasks import TaskDetail
from picpik_async._watched import Watched
from picpik_async.errors import TaskError, TaskFailedError, TaskTerminatedError, TaskVanishedError

CANARY = "\x1b[2J\r\n" + "é" * 2000


def watched(*, detail: TaskDetail | None = None, vanished: bool = False, problem: str | None = None) -> Watched:
    """A task in some state."""
    task = Watched("uid-7", 0.0)
    task.detail = detail
    task.vanished = vanished
    task.problem = problem
    return task


ROW = TaskDetail(task_uid="uid-7", status_word=CANARY, error_code=9, error_message=CANARY)


@pytest.mark.parametrize(
    ("task", "terminated", "kind", "advice"),
    [
        (watched(detail=ROW), False, TaskFailedError, "error code 9"),
        (watched(detail=ROW), True, TaskTerminatedError, "submit the request again"),
        (watched(vanished=True), True, TaskTerminatedError, "submit the request again"),
        (watched(vanished=True), False, TaskVanishedError, "session.task('uid-7') asks again"),
        (watched(detail=ROW, vanished=True), False, TaskVanishedError, "check uid, keys and endpoint"),
    ],
)
def test_ending_error(task: Watched, terminated: bool, kind: type[TaskError], advice: str) -> None:
    """Each bad end has its own class, carries uid and detail, and says what to do."""
    error = ending_error(task, terminated=terminated)

    assert kind is type(error)
    assert ("uid-7", task.detail) == (error.task_uid, error.detail)
    assert advice in str(error)
    assert str(error).isprintable()
    assert len(str(error)) < 700


def test_timeout_error() -> None:
    """Seconds, status and the last problem are told, on one line."""
    fresh = timeout_error(watched(problem="TransportError: no route"), 2.5)
    known = timeout_error(watched(detail=ROW), 60)

    assert "within 2.5 seconds; its status is not known yet (the last poll failed: TransportError: no route)" in str(
        fresh
    )
    assert "session.task('uid-7').wait() waits on" in str(known)
    assert ("uid-7", ROW) == (known.task_uid, known.detail)
    assert str(known).isprintable()


def test_closed_error() -> None:
    """A closed session tells how to resume."""
    error = closed_error(task_uid="uid-7")

    assert "uid-7" == error.task_uid
    assert "session.task('uid-7') of a new session resumes it" in str(error)
