"""A file of jobs, run with `PicpikSession.map`."""

from __future__ import annotations

import contextlib
import shlex
from typing import TYPE_CHECKING, Final

from picpik_async.cli._report import DONE, FAILED, NOT_SENT, UNKNOWN, Report
from picpik_async.cli._run import FAILURE
from picpik_async.errors import legible

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from picpik_async._outcomes import Outcome, Progress
    from picpik_async.cli._jobs_file import JobLine, JobsFile
    from picpik_async.cli._options import Waiting
    from picpik_async.cli._run import Desk

__all__ = ["reconcile_command", "run_batch"]

NAME: Final = "batch"  # short, so that all counts fit on a line


async def run_batch(desk: Desk, jobs: JobsFile, *, total: int, waiting: Waiting, journal: Path | None) -> int:
    """Run all jobs, print what came of them, and return the exit code.

    Raises:
        JournalError: the journal cannot be opened.
        InvalidRequestError: the file has changed for the worse since it was checked.
    """
    report = Report(desk.output)
    outcomes = desk.picpik.map(
        jobs.requests(),
        save_to=waiting.out,
        timeout=waiting.limit,
        on_progress=lambda progress: desk.progress.tally(NAME, words_of(progress, total)),
    )
    with desk.progress:
        try:
            async with contextlib.aclosing(outcomes):
                async for outcome in outcomes:
                    _note(report, jobs.take_back(outcome.request), outcome)
        finally:
            desk.progress.tell(NAME, words_of(outcomes.progress, total), last=True)
    for hint in _hints(report, journal):
        desk.output.note(hint)
    report.publish(credits=outcomes.progress.credits)
    return 0 if report.counts[DONE] == total else FAILURE


def _note(report: Report, job: JobLine, outcome: Outcome) -> None:
    report.end(
        job.label,
        outcome.error,
        key=outcome.key,
        task_uid=outcome.task_uid,
        files=outcome.files,
        line=job.number,
    )


def words_of(progress: Progress, total: int) -> str:
    """How far it has come, for people."""
    ended = progress.done + progress.failed + progress.unknown + progress.paused
    counts = {
        "failed": progress.failed,
        "unknown": progress.unknown,
        "not sent": progress.paused,
        "in flight": progress.pulled - ended,
        "credits": progress.credits,
    }
    return ", ".join(
        [f"{progress.done} of {total} done", *(f"{count} {word}" for word, count in counts.items() if count)]
    )


def reconcile_command(journal: Path) -> str:
    """The command that looks for the tasks of jobs whose outcome is unknown."""
    return f"picpik journal reconcile {shlex.quote(legible(journal))}"


def _hints(report: Report, journal: Path | None) -> Iterator[str]:
    if journal is None:
        return
    if report.counts[UNKNOWN]:
        yield f"unknown may be charged, and is not sent again; look for the tasks with: {reconcile_command(journal)}"
    if report.counts[FAILED] or report.counts[NOT_SENT]:
        yield "run the same command again later for the rest; what is paid is not sent again"
