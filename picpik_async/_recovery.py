"""What to do about jobs whose outcome is unknown: propose tasks that may be theirs, and never guess."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING

import attrs

from picpik_async._entries import JobState
from picpik_async._records import Line, certain_refusals
from picpik_async._requests import ListRunningTasks, ListTasksDetails
from picpik_async.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from picpik_async._config import Dialect
    from picpik_async._engine import Engine
    from picpik_async._entries import JournalEntry
    from picpik_async._journal import Journal
    from picpik_async._records import Records
    from picpik_async._tasks import TaskDetail

__all__ = ["Proposal", "adopt", "is_doubtful", "propose"]


@attrs.frozen(kw_only=True)
class Proposal:
    """A job whose outcome is unknown, and the running tasks that may be its own.

    Attributes:
        entry: the job.
        candidates: tasks the journal does not know, with the same Action, and the same seed if they tell one.
        certain: there is one candidate, with the very seed that was drawn for this job and no other, so that it can
            only be this job's task.
    """

    entry: JournalEntry
    candidates: tuple[TaskDetail, ...] = ()
    certain: bool = False


async def propose(engine: Engine, journal: Journal, records: Records, dialect: Dialect) -> tuple[Proposal, ...]:
    """Look among the running tasks for those of jobs whose outcome is unknown, and not still awaited.

    Raises:
        JournalError: the journal cannot be read.
        TransportError: no answer, repeatedly.
        AnswerError: the service refused, or its answer is not legible.
    """
    entries = await journal.entries(JobState.COMMIT, JobState.REJECTED)
    doubtful = [entry for entry in entries if is_doubtful(entry, dialect) and entry.key not in records.active]
    if not doubtful:
        return ()
    # Asked first, so that a task which is acknowledged in between is not taken for nobody's.
    running = await engine.ask(ListRunningTasks())
    strangers = []
    for uid in running:
        owner = await journal.find_task(uid)
        if owner is None or is_doubtful(owner, dialect):  # which the answer may have named before it broke off
            strangers.append(uid)
    details: list[TaskDetail] = []
    for start in range(0, len(strangers), dialect.max_task_uids):
        rows = await engine.ask(ListTasksDetails(task_uid_list=strangers[start : start + dialect.max_task_uids]))
        details.extend(rows)
    return matched(doubtful, details)


def is_doubtful(entry: JournalEntry, dialect: Dialect) -> bool:
    """Whether nobody knows if the job was charged."""
    if entry.state is JobState.REJECTED:
        return entry.ret_code not in certain_refusals(dialect)
    return entry.state is JobState.COMMIT


def matched(doubtful: Sequence[JournalEntry], details: Iterable[TaskDetail]) -> tuple[Proposal, ...]:
    """Pair jobs and tasks by Action and seed."""
    tasks = tuple(details)
    seeds = Counter((entry.action, entry.seed) for entry in doubtful)
    proposals = []
    for entry in doubtful:
        fitting = tuple(task for task in tasks if _may_be(entry, task))
        exact = [task for task in fitting if task.seed is not None and task.action is not None]
        certain = (
            entry.auto_seed
            and entry.seed is not None
            and len(fitting) == len(exact) == 1
            and seeds[entry.action, entry.seed] == 1
        )
        proposals.append(Proposal(entry=entry, candidates=fitting, certain=certain))
    return tuple(proposals)


def _may_be(entry: JournalEntry, task: TaskDetail) -> bool:
    return task.action in {None, entry.action} and (task.seed in {None, entry.seed} or entry.seed is None)


async def adopt(
    journal: Journal,
    records: Records,
    dialect: Dialect,
    key: str,
    task_uid: str,
    *,
    expected: JournalEntry | None = None,
) -> JournalEntry:
    """Note that *task_uid* is the task of the job *key*.

    Args:
        journal: the journal.
        records: of the session.
        dialect: says which refusals are certain.
        key: names the job.
        task_uid: the task.
        expected: the job as it was when the task was found to be its own.

    Raises:
        InvalidRequestError: there is no such job, its outcome is known, it is being submitted, or the task has another job.
        JournalError: the journal cannot be read or written.
    """
    if key in records.active:
        msg = f"key {key!r} is being submitted at this moment; wait for that"
        raise InvalidRequestError(msg, field="key", value=key, allowed="a key that is not being submitted")
    line = Line(records, key)
    await line.take(key)  # at once, as nobody has it
    try:
        entry = await journal.find(key)
        if entry is None or not is_doubtful(entry, dialect) or not _is_the_same(entry, expected):
            state = "not in the journal" if entry is None else f"in state {entry.state.value}"
            msg = f"key {key!r} is {state}; only a job whose outcome is unknown can adopt a task"
            raise InvalidRequestError(msg, field="key", value=key, allowed="a key that recover() lists as commit")
        other = await journal.find_task(task_uid)
        if other is not None and other.key != key:
            msg = f"task_uid {task_uid!r} is the task of the job {other.key!r}"
            raise InvalidRequestError(msg, field="task_uid", value=task_uid, allowed="a task without a job")
        adopted = entry.moved(JobState.ACK, task_uid=task_uid, acknowledged=time.time(), reason=None, error=None)
        journal.record(adopted)
        records.settled(adopted.request_uuid, key)
    finally:
        line.release()
    await journal.flush()
    return adopted


def _is_the_same(entry: JournalEntry, expected: JournalEntry | None) -> bool:
    return expected is None or (entry.request_uuid, entry.seed) == (expected.request_uuid, expected.seed)
