"""What becomes of the submits of a session: in memory, and in the journal if there is one."""

from __future__ import annotations

import logging
import random
import time
import uuid
from typing import TYPE_CHECKING, Final

import anyio
import attrs

from picpik_async._digest import digest
from picpik_async._entries import JobState, JournalEntry
from picpik_async._requests._generation import MAX_SEED
from picpik_async.errors import (
    ApiError,
    HttpStatusError,
    InvalidRequestError,
    JournalError,
    SubmitOutcomeUnknownError,
    TaskFailedError,
    TaskTerminatedError,
    legible,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from picpik_async._config import Dialect
    from picpik_async._images import ImageSource, OpenImage
    from picpik_async._journal import Journal
    from picpik_async._requests import Job
    from picpik_async._workshop import Workshop
    from picpik_async.errors import TaskError

__all__ = ["Line", "Records", "certain_refusals", "note_failure", "note_files", "settled_uid"]

_logger = logging.getLogger("picpik_async")
_seeds: Final = random.SystemRandom()


@attrs.define(eq=False)
class Records:
    """What became of the submits of a session, those included whose caller was cancelled.

    Attributes:
        tasks: `TaskUID`s, in the order they became known.
        unknown: reasons by `request_uuid`, of submits that may have been accepted and charged.
        journal: the journal, while the session is open and has one.
        doubtful: by key, the jobs of this session whose outcome is unknown.
        active: by key, the submits under way.
    """

    tasks: dict[str, None] = attrs.field(factory=dict)
    unknown: dict[str, str] = attrs.field(factory=dict)
    journal: Journal | None = None
    doubtful: dict[str, Job] = attrs.field(factory=dict)
    active: dict[str, anyio.Event] = attrs.field(factory=dict)

    def acknowledged(self, entry: JournalEntry) -> None:
        """Note that the task of a job is known after all."""
        self.unknown.pop(entry.request_uuid, None)
        self.doubtful.pop(entry.key, None)


class Line:
    """The line of one submit in the journal; without a journal nothing happens.

    Args:
        records: of the session.
        key: names the job; None takes the digest of its contents.
        anew: pay again, whatever the journal says.

    Attributes:
        entry: the line as it stands.
    """

    def __init__(self, records: Records, key: str | None, *, anew: bool = False) -> None:
        self.entry: JournalEntry | None = None
        self._records = records
        self._key = key
        self._anew = anew
        self._before: JournalEntry | None = None
        self._claimed: str | None = None
        self._committing = False
        self._request: Job | None = None
        self._journal: Journal  # there is one if there is an entry

    @property
    def key(self) -> str | None:
        """Names the job, as far as that is known yet."""
        return self._claimed or self._key

    async def claim(self, request: Job, request_uuid: str, shop: Workshop) -> JournalEntry | None:
        """Take the job's key, wait for another submit under it, and return what the journal says of it.

        Raises:
            InvalidRequestError: the key belongs to another job.
            ImageError: an image cannot be read.
            JournalError: the journal cannot be read.
        """
        journal = self._records.journal
        if journal is None:
            return None
        self._journal = journal
        asked = "" if self._key else digest(request, await shop.fingerprints(request.images()), shop.dialect)
        key = self._key or asked
        while (other := self._records.active.get(key)) is not None:
            await other.wait()
        self._records.active[key] = anyio.Event()
        self._claimed = key
        self._request = request
        found = await journal.find(key)
        if found is None:
            self.entry = JournalEntry(key=key, digest=asked, request_uuid=request_uuid, action=request.action)
            return None
        if found.digest != (asked or digest(request, await shop.sizes(request.images()), shop.dialect)):
            msg = (
                f"key {key!r} names another job in the journal: parameters or image sizes differ; give the changed request"
                " another key"
            )
            raise InvalidRequestError(msg, field="key", value=key, allowed="a key of its own for each job")
        if self._anew:
            self._before = None if found.state is JobState.INTENT else found
            self.entry = attrs.evolve(found, request_uuid=str(uuid.uuid4()), resubmits=found.resubmits + 1)
            return None
        self.entry = found
        return found

    def release(self) -> None:
        """Let the next submit under the same key go on."""
        if self._claimed is not None and (event := self._records.active.pop(self._claimed, None)) is not None:
            event.set()

    async def describe(self, images: Mapping[ImageSource, OpenImage], shop: Workshop) -> None:
        """Complete the line of a new job, whose *images* are open by now, with a digest.

        Raises:
            ImageError: an image cannot be read.
        """
        if self.entry is not None and self._request is not None and not self.entry.digest:
            sizes = await shop.sizes(self._request.images(), images)
            self.entry = attrs.evolve(self.entry, digest=digest(self._request, sizes, shop.dialect))

    def intend(self, request: Job) -> Job:
        """Note that *request* is about to be sent; returns it with a seed by which it can be told."""
        if self.entry is None:
            return request
        seeded = request.seeded(_seeds.randint(0, MAX_SEED))
        self.entry = self.entry.moved(
            JobState.INTENT,
            seed=getattr(seeded, "seed", None),
            auto_seed=seeded is not request,
            task_uid=None,
            acknowledged=None,
            files=(),
            error=None,
            reason=None,
            ret_code=None,
        )
        if self._before is None:  # what was paid for before stays on disk until it may be paid for again
            self._journal.record(self.entry)
        return seeded

    async def commit(self) -> None:
        """Note, durably, that the request may be taken from now on.

        Raises:
            JournalError: it could not be written, and the request must not be completed.
        """
        if self.entry is not None:
            self.entry = self.entry.moved(JobState.COMMIT)
            self._committing = True
            await self._journal.commit(self.entry)

    def retract(self) -> None:
        """Note that the service has certainly not taken the request after all; a commit of another run stays."""
        if self._committing:
            self._committing = False
            if self._before is None:
                self._move(JobState.INTENT)
            else:
                self._journal.record(self._before)

    def acknowledged(self, task_uid: str) -> None:
        """Note the `TaskUID`."""
        self._move(JobState.ACK, task_uid=task_uid, acknowledged=time.time(), reason=None)
        if self.key is not None:
            self._records.doubtful.pop(self.key, None)

    def unknown(self, reason: str, task_uid: str | None) -> None:
        """Note why the outcome is not known, and which task it may be."""
        self._move(JobState.COMMIT, reason=reason, task_uid=task_uid)
        if self.entry is not None and self._request is not None:
            self._records.doubtful[self.entry.key] = self._request

    def refused(self, error: ApiError | HttpStatusError) -> None:
        """Note that the service refused."""
        if self._before is None or self._before.state is JobState.REJECTED:
            ret_code = error.ret_code if isinstance(error, ApiError) else None
            self._move(JobState.REJECTED, error=type(error).__name__, reason=str(error), ret_code=ret_code)
        else:
            self._journal.record(self._before)

    def _move(self, state: JobState, **changes: object) -> None:
        if self.entry is not None:
            self.entry = self.entry.moved(state, **changes)
            self._journal.record(self.entry)


def settled_uid(entry: JournalEntry, dialect: Dialect) -> str | None:
    """The `TaskUID` of a job that was paid for before, or None if it may be sent.

    Raises:
        SubmitOutcomeUnknownError: it may have been paid for before.
        ApiError: it was refused before with a `RetCode` that does not rule out a charge.
        TaskFailedError: it was paid for, and its task ended badly.
        TaskTerminatedError: it was paid for, and its task was terminated.
    """
    key, reason = legible(repr(entry.key), limit=200), legible(entry.reason or "it was cut off", limit=300)
    way_out = f"resubmit({key}, accept_double_charge=True) sends it again"
    paid = entry.state in {JobState.ACK, JobState.DONE}
    if paid and entry.task_uid:
        return entry.task_uid
    if entry.state is JobState.FAILED:
        kind = TaskTerminatedError if entry.error == TaskTerminatedError.__name__ else TaskFailedError
        msg = f"the task of this job ended badly in an earlier run: {reason}; {way_out}"
        raise kind(msg, task_uid=entry.task_uid, request_uuid=entry.request_uuid)
    if entry.state is JobState.COMMIT or paid:  # paid without a TaskUID: no row of ours, and none to be sent
        msg = (
            f"the submit {legible(entry.request_uuid, limit=100)} of an earlier run may have been accepted and charged"
            f" ({reason}); it is not sent again. reconcile() looks for its task; {way_out}"
        )
        raise SubmitOutcomeUnknownError(
            msg,
            stage="answer",
            reason=entry.reason,
            key=entry.key,
            request_uuid=entry.request_uuid,
            task_uid=entry.task_uid,
        )
    if entry.state is JobState.REJECTED and entry.ret_code not in certain_refusals(dialect):
        msg = (
            f"{legible(entry.action, limit=100)}: refused earlier with RetCode {entry.ret_code}, and whether that was charged"
            f" is not documented; if it was not, name the code in Dialect.rejected_ret_codes; {way_out}"
        )
        raise ApiError(msg, ret_code=entry.ret_code or 0, action=entry.action, request_uuid=entry.request_uuid)
    return None


def certain_refusals(dialect: Dialect) -> frozenset[int | None]:
    """The `RetCode`s after which nothing was charged; None stands for a refusal by HTTP status."""
    return dialect.throttle_ret_codes | dialect.no_credit_ret_codes | dialect.rejected_ret_codes | {None}


async def note_failure(journal: Journal | None, error: TaskError) -> None:
    """Note in the journal that a task ended badly."""
    if error.task_uid is not None:
        await _note(journal, error.task_uid, JobState.FAILED, error=type(error).__name__, reason=str(error))


async def note_files(journal: Journal | None, task_uid: str, files: list[Path]) -> None:
    """Note in the journal that the pictures of a task were saved; *files* are absolute paths."""
    await _note(journal, task_uid, JobState.DONE, files=tuple(files))


async def _note(journal: Journal | None, task_uid: str, state: JobState, **changes: object) -> None:
    if journal is None:
        return
    try:
        entry = await journal.find_task(task_uid)
    except JournalError:
        _logger.exception(
            "the journal cannot be read; a rerun will ask about this task again", extra={"task_uid": task_uid}
        )
    else:
        if entry is not None:
            journal.record(entry.moved(state, **changes))
