"""A file of jobs, run with `PicpikSession.map`."""

from __future__ import annotations

import contextlib
import shlex
from typing import TYPE_CHECKING, Final

from picpik_async.cli._report import DONE, NOT_SENT, UNKNOWN, Report
from picpik_async.cli._run import FAILURE
from picpik_async.errors import legible

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from picpik_async._durations import Eta
    from picpik_async._outcomes import Outcome, Progress
    from picpik_async.cli._jobs_file import JobLine, JobsFile
    from picpik_async.cli._options import Waiting
    from picpik_async.cli._run import Desk

__all__ = ["reconcile_command", "run_batch"]

NAME: Final = "batch"  # short, so that all counts fit on a line


async def run_batch(
    desk: Desk,
    jobs: JobsFile,
    *,
    total: int,
    waiting: Waiting,
    journal: Path | None,
    not_charged: tuple[int, ...] = (),
) -> int:
    """Run all jobs, print what came of them, and return the exit code; `waiting.out` is an absolute path.

    Raises:
        JournalError: the journal cannot be opened.
        InvalidRequestError: the file has changed for the worse since it was checked.
    """
    report = Report(desk.output, not_charged=not_charged)
    elsewhere: list[Path] = []
    outcomes = desk.picpik.map(
        jobs.requests(),
        save_to=waiting.out,
        timeout=waiting.limit,
        on_progress=lambda progress: desk.progress.tally(NAME, words_of(progress, total, eta=_newest(desk, progress))),
    )
    with desk.progress:
        try:
            async with contextlib.aclosing(outcomes):
                async for outcome in outcomes:
                    _note(report, jobs.take_back(outcome.request), outcome)
                    elsewhere.extend(file for file in outcome.files[:1] if file.parent != waiting.out)
        finally:
            desk.progress.tell(NAME, words_of(outcomes.progress, total), last=True)
    if elsewhere:
        desk.output.note(
            f"files of {len(elsewhere)} jobs that were done earlier stay in {legible(elsewhere[0].parent)}"
        )
    if outcomes.stopped and not report.counts[NOT_SENT]:  # else it was told with the first that was not sent
        desk.output.note(f"stopped: {outcomes.stopped}")
    if journal is not None:
        for hint in _hints(report, jobs.path, journal):
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


def _newest(desk: Desk, progress: Progress) -> Eta | None:
    return None if progress.newest is None else desk.picpik.task(progress.newest).eta()


def words_of(progress: Progress, total: int, *, eta: Eta | None = None) -> str:
    """How far it has come, for people; *eta* is that of the newest task."""
    ended = progress.done + progress.failed + progress.unknown + progress.paused
    counts = {
        "failed": progress.failed,
        "unknown": progress.unknown,
        "not sent": progress.paused,
        "in flight": progress.pulled - ended,
        "credits": progress.credits,
    }
    parts = [f"{progress.done} of {total} done", *(f"{count} {word}" for word, count in counts.items() if count)]
    return ", ".join(parts if eta is None else [*parts, f"newest: {eta}"])


def reconcile_command(journal: Path) -> str:
    """The command that looks for the tasks of jobs whose outcome is unknown."""
    return f"picpik journal reconcile {shlex.quote(legible(journal))}"


def _hints(report: Report, jobs: Path, journal: Path) -> Iterator[str]:
    if report.counts[UNKNOWN]:
        yield f"unknown may be charged, and is not sent again; look for the tasks with: {reconcile_command(journal)}"
    for code, count in sorted(report.ret_codes.items()):
        command = f"picpik batch {shlex.quote(legible(jobs))} … --not-charged-ret-code {code}"
        yield (
            f"not sent again, since nobody knows whether that was charged: {count} refused with RetCode {code};"
            f" if RetCode {code} was not charged: {command}"
        )
    if report.spent:
        yield "what is paid and gave no pictures is not sent again; a job with another key is a new one, and is paid for"
    if report.sent_again:
        yield "run the same command again later for the rest; what is paid is not sent again"
