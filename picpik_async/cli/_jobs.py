"""Submitting, waiting and saving, told step by step."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from picpik_async.errors import legible

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from picpik_async._requests import ModifyMaskedPixels
    from picpik_async._results import TaskResult
    from picpik_async._tasks import Task, TaskDetail
    from picpik_async.cli._progress import ProgressReport
    from picpik_async.cli._run import Desk

__all__ = ["document_of", "ended", "follow", "submit", "summary_of"]


async def submit(desk: Desk, request: ModifyMaskedPixels, *, job: str) -> Task:
    """Submit *request* and tell its `TaskUID` at once, lest it be lost."""
    desk.progress.tell(job, "sending")
    task = await desk.picpik.submit(request)
    desk.output.note(f"{job}: task {legible(task.uid)}")
    return task


async def follow(desk: Desk, task: Task, *, job: str, timeout: float | None) -> TaskResult:  # noqa: ASYNC109
    """Wait for *task*, telling its states; *timeout* is in seconds, None means `PollPolicy.timeout`."""
    limit = ... if timeout is None else timeout
    async for detail in task.updates(timeout=limit):
        desk.progress.tell(job, word_of(detail))
    return await task.wait(timeout=limit)


@contextlib.contextmanager
def ended(progress: ProgressReport, job: str) -> Iterator[None]:
    """Tell if *job* breaks off."""
    try:
        yield
    except BaseException as error:
        progress.tell(job, "failed" if isinstance(error, Exception) else "interrupted", last=True)
        raise


def word_of(detail: TaskDetail) -> str:
    """The service's own word for the state of a task."""
    return legible(detail.status_word or detail.status.value)


def document_of(result: TaskResult, files: list[Path]) -> dict[str, Any]:
    """What `--json` says of a finished task."""
    return {
        "task_uid": result.detail.task_uid,
        "status": result.detail.status.value,
        "files": list(map(str, files)),
        "seed": result.seed,
        "cost": result.cost,
    }


def summary_of(result: TaskResult, files: list[Path]) -> str:
    """What people read of a finished task."""
    known = {"seed": result.seed, "credits": result.cost}
    count = "1 picture" if len(files) == 1 else f"{len(files)} pictures"
    return ", ".join([f"{count} saved", *(f"{name} {value}" for name, value in known.items() if value is not None)])
