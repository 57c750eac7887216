"""What the journal of a batch knows, and what can still be had of it."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any, Final

import anyio

from picpik_async._entries import JobState
from picpik_async._journal import Journal
from picpik_async.cli._batch import reconcile_command
from picpik_async.cli._report import DONE, FAILED, NOT_SENT, UNKNOWN, Report
from picpik_async.cli._run import FAILURE
from picpik_async.errors import PicpikError, legible

if TYPE_CHECKING:
    from pathlib import Path

    from picpik_async._entries import JournalEntry
    from picpik_async._recovery import Proposal
    from picpik_async.cli._options import Waiting
    from picpik_async.cli._output import Output
    from picpik_async.cli._run import Desk

__all__ = ["reconcile", "recover", "show"]

NAME: Final = "recover"
AT_ONCE: Final = 1000  # tasks awaited at once
MEANINGS: Final = {  # in the order they are shown
    JobState.COMMIT: "may be paid: its outcome is unknown",
    JobState.ACK: "paid, and its pictures are not saved yet",
    JobState.INTENT: "not sent: nothing is paid",
    JobState.FAILED: "the task ended badly",
    JobState.REJECTED: "the service refused",
    JobState.DONE: "the task ended well",
}


async def show(file: Path, output: Output) -> None:
    """Print what the journal knows of every job, those first that are open.

    Raises:
        JournalError: the file is no journal, or cannot be read.
    """
    async with Journal(file, read_only=True) as journal:
        counts = await journal.counts()
        entries = [entry for state in MEANINGS for entry in await journal.entries(state)]
    counted = {state: counts.get(state, 0) for state in MEANINGS}
    jobs = [
        {
            "key": entry.key,
            "state": entry.state.value,
            "task_uid": entry.task_uid,
            "files": list(map(str, entry.files)),
            "reason": entry.reason,
        }
        for entry in entries
    ]
    lines = [f"{count} {state.value}: {MEANINGS[state]}" for state, count in counted.items() if count]
    document = {"counts": {state.value: count for state, count in counted.items()}, "jobs": jobs}
    output.result(document, [*(lines or ["no jobs"]), *map(_line, entries)])


def _line(entry: JournalEntry) -> str:
    parts: list[Any] = [entry.state.value, entry.task_uid and f"task {entry.task_uid}", *entry.files, entry.reason]
    return f"{legible(entry.key)}: {', '.join(legible(part) for part in parts if part)}"


async def recover(desk: Desk, file: Path, waiting: Waiting) -> int:
    """Save the pictures of every job that is paid, tell which others are open, and return the exit code.

    Raises:
        JournalError: the file cannot be used, or is in use.
    """
    report = Report(desk.output)
    entries = await desk.picpik.recover()
    paid = [entry for entry in entries if entry.state is JobState.ACK]
    room = anyio.Semaphore(AT_ONCE)

    def words() -> str:
        failed = report.counts[FAILED]
        return f"{report.counts[DONE]} of {len(paid)} paid jobs saved" + (f", {failed} failed" if failed else "")

    async def fetch(entry: JournalEntry) -> None:
        try:
            await _fetch(desk, entry, waiting, report)
        finally:
            room.release()
        desk.progress.tally(NAME, words())

    with desk.progress:
        desk.progress.tally(NAME, words())
        async with anyio.create_task_group() as group:
            for entry in paid:
                await room.acquire()
                group.start_soon(fetch, entry)
        desk.progress.tell(NAME, words(), last=True)
    for entry in entries:
        _tell_open(desk.output, report, entry)
    if report.counts[UNKNOWN]:
        desk.output.note(f"look for the tasks of unknown jobs with: {reconcile_command(file)}")
    report.publish()
    return FAILURE if report.counts[FAILED] or report.counts[UNKNOWN] else 0


async def _fetch(desk: Desk, entry: JournalEntry, waiting: Waiting, report: Report) -> None:
    assert entry.task_uid is not None  # noqa: S101 - it is paid
    error, files = None, []
    try:
        result = await desk.picpik.task(entry.task_uid).wait(timeout=waiting.limit)
        name = None if entry.key == entry.digest else entry.key  # as the batch names them: the key is not the user's
        files = await result.save(waiting.out, name=name)
    except PicpikError as caught:
        error = caught
    report.end(legible(entry.key), error, key=entry.key, task_uid=entry.task_uid, files=files)


def _tell_open(output: Output, report: Report, entry: JournalEntry) -> None:
    if entry.state is JobState.COMMIT:
        report.add(UNKNOWN, key=entry.key, task_uid=entry.task_uid)
        output.note(f"{legible(entry.key)}: unknown: it may be paid, and is not sent again")
    elif entry.state is JobState.INTENT:
        report.add(NOT_SENT, key=entry.key)
        output.note(f"{legible(entry.key)}: not sent, nothing is paid; its batch sends it when it is run again")


async def reconcile(desk: Desk, file: Path, *, adopt: bool, chosen: tuple[tuple[str, str], ...] = ()) -> None:
    """Print which running tasks may be those of jobs whose outcome is unknown.

    Args:
        desk: what to work with.
        file: the journal.
        adopt: take over the tasks that are certain.
        chosen: keys, and the tasks to take over for them whether that is certain or not.

    Raises:
        JournalError: the file cannot be used, or is in use.
        InvalidRequestError: a chosen key has no unknown outcome, or its task belongs to another job.
        TaskVanishedError: the service does not know a chosen task.
        TransportError: no answer, repeatedly.
        AnswerError: the service refused, or its answer is not legible.
    """
    for key, task_uid in chosen:
        await desk.picpik.task(task_uid).detail()
        await desk.picpik.adopt(key, task_uid)
    proposals = await desk.picpik.reconcile(adopt=adopt)
    paid = {(entry.key, entry.task_uid) for entry in await desk.picpik.recover() if entry.state is JobState.ACK}
    rows = [_row_of(proposal, paid) for proposal in proposals]
    _advise(desk.output, rows, file, adopted=bool(chosen) or any(row["adopted"] for row in rows))
    lines = [f"{legible(key)}: {legible(task_uid)} (adopted)" for key, task_uid in chosen]
    document = {"adopted": dict(chosen), "proposals": rows}
    desk.output.result(document, [*lines, *map(_proposal_line, rows)])


def _row_of(proposal: Proposal, paid: set[tuple[str, str | None]]) -> dict[str, Any]:
    uids = [task.task_uid for task in proposal.candidates]
    return {
        "key": proposal.entry.key,
        "request_uuid": proposal.entry.request_uuid,
        "candidates": uids,
        "certain": proposal.certain,
        "adopted": any((proposal.entry.key, uid) in paid for uid in uids),
    }


def _proposal_line(row: dict[str, Any]) -> str:
    candidates = ", ".join(map(legible, row["candidates"])) or "no running task fits"
    mark = " (adopted)" if row["adopted"] else " (certain)" if row["certain"] else ""
    return f"{legible(row['key'])}: {candidates}{mark}"


def _advise(output: Output, rows: list[dict[str, Any]], file: Path, *, adopted: bool) -> None:
    if adopted:
        output.note(f"fetch with: picpik journal recover {shlex.quote(legible(file))}")
    elif not rows:
        output.note("no job has an unknown outcome")
    command = reconcile_command(file)
    if any(row["certain"] and not row["adopted"] for row in rows):
        output.note(f"certain means that the task can only be this job's; adopt with: {command} --adopt")
    if not all(row["certain"] for row in rows):
        output.note(
            "absence proves nothing: a quick task may have ended already; a task that you know is right is taken over with:"
            f" {command} --adopt-task KEY=UID; session.resubmit(key, request, accept_double_charge=True) pays again"
        )
