"""Tests of task handles and details."""

from __future__ import annotations

import pytest
from jobs import CREDENTIALS

from picpik_async import PicpikSession, TaskDetail, TaskStatus
from picpik_async.testing import FakeTransport


def test_handle_shows_its_uid() -> None:
    """A handle is its uid."""
    picpik = PicpikSession(CREDENTIALS, transport=FakeTransport(lambda _request: {}))

    assert "<Task a-task>" == repr(picpik.task("a-task"))


@pytest.mark.parametrize(
    ("detail", "finished", "failed"),
    [
        (TaskDetail(task_uid="a"), False, False),
        (TaskDetail(task_uid="a", status=TaskStatus.RUNNING, image_urls=("x",)), False, False),
        (TaskDetail(task_uid="a", status=TaskStatus.FINISHED), True, False),
        (TaskDetail(task_uid="a", status=TaskStatus.FINISHED, error_code=0), True, False),
        (TaskDetail(task_uid="a", status=TaskStatus.FINISHED, error_code=5), False, True),
        (TaskDetail(task_uid="a", status=TaskStatus.ERROR), False, True),
        (TaskDetail(task_uid="a", image_urls=("x",)), True, False),
        (TaskDetail(task_uid="a", texts=("x",)), True, False),
        (TaskDetail(task_uid="a", texts=("x",), error_code=1), False, True),
    ],
)
def test_end_signs(detail: TaskDetail, *, finished: bool, failed: bool) -> None:
    """An error code always ends a task; results end it only under a word we do not know."""
    assert (finished, failed) == (detail.finished, detail.failed)
