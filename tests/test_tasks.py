"""Tests of task handles and details."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import pytest
from jobs import CREDENTIALS, job

from picpik_async import PicpikSession, PollPolicy, TaskDetail, TaskStatus
from picpik_async.testing import FakeTransport

if TYPE_CHECKING:
    from picpik_async.testing import Reply


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


class Service:
    """Accepts everything, and ends what is in `finished`."""

    def __init__(self) -> None:
        self.finished: set[str] = set()
        self._uids = map(str, itertools.count())

    def __call__(self, request: dict[str, Any]) -> Reply:
        """Answer a request."""
        if request["Action"] != "ListTasksDetails":
            return {"RetCode": 0, "TaskUID": next(self._uids)}
        words = {uid: "Finished" if uid in self.finished else "Running" for uid in request["TaskUIDList"]}
        return {"RetCode": 0, "TaskDetailList": [{"TaskUID": uid, "Status": word} for uid, word in words.items()]}


@pytest.mark.anyio
async def test_eta() -> None:
    """A task of the same Action, model and size has an estimate from the first one that ended; others have none."""
    service, poll = Service(), PollPolicy(tick=0.001, max_requests_per_second=1000)
    async with PicpikSession(CREDENTIALS, transport=FakeTransport(service), poll=poll) as picpik:
        first = await picpik.submit(job())
        assert first.eta() is None
        service.finished.add(first.uid)
        await first

        alike = await picpik.submit(job().with_seed(3))
        large = await picpik.submit(job().with_size(1024, 2048))

        eta = alike.eta()
        assert eta is not None
        assert 1 == eta.tasks
        assert large.eta() is None
        assert first.eta() is None
        assert picpik.task("unknown").eta() is None
    assert alike.eta() is not None
