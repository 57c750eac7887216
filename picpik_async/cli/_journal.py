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
        files = await result.save(waiting.out, name=entry.key)
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


async def reconcile(desk: Desk, file: Path, *, adopt: bool) -> None:
    """Print which running tasks may be those of jobs whose outcome is unknown; *adopt* takes over the certain ones.

    Raises:
        JournalError: the file cannot be used, or is in use.
        TransportError: no answer, repeatedly.
        AnswerError: the service refused, or its answer is not legible.
    """
    proposals = await desk.picpik.reconcile(adopt=adopt)
    documents = [
        {
            "key": proposal.entry.key,
            "request_uuid": proposal.entry.request_uuid,
            "candidates": [task.task_uid for task in proposal.candidates],
            "certain": proposal.certain,
            "adopted": proposal.certain and adopt,
        }
        for proposal in proposals
    ]
    _advise(desk.output, proposals, file, adopt=adopt)
    desk.output.result({"proposals": documents}, [_proposal_line(proposal, adopt=adopt) for proposal in proposals])


def _proposal_line(proposal: Proposal, *, adopt: bool) -> str:
    candidates = ", ".join(legible(task.task_uid) for task in proposal.candidates) or "no running task fits"
    mark = (" (adopted)" if adopt else " (certain)") if proposal.certain else ""
    return f"{legible(proposal.entry.key)}: {candidates}{mark}"


def _advise(output: Output, proposals: tuple[Proposal, ...], file: Path, *, adopt: bool) -> None:
    if not proposals:
        output.note("no job has an unknown outcome")
        return
    path = shlex.quote(legible(file))
    if any(proposal.certain for proposal in proposals):
        advice = (
            f"fetch with: picpik journal recover {path}" if adopt else f"adopt with: {reconcile_command(file)} --adopt"
        )
        output.note(f"certain means that the task can only be this job's; {advice}")
    if not all(proposal.certain for proposal in proposals):
        output.note(
            "absence proves nothing: a quick task may have ended already; session.adopt(key, task_uid) takes a candidate"
            " that you know is right, session.resubmit(key, request, accept_double_charge=True) pays again"
        )
