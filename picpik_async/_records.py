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
from picpik_async._durations import Durations
from picpik_async._entries import JobState, JournalEntry
from picpik_async._requests._generation import MAX_SEED
from picpik_async.errors import (
    ApiError,
    HttpStatusError,
    InvalidRequestError,
    JournalError,
    RequestTimeoutError,
    SubmitOutcomeUnknownError,
    TaskFailedError,
    TaskTerminatedError,
    legible,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from picpik_async._config import Dialect
    from picpik_async._images import ImageSource
    from picpik_async._journal import Journal
    from picpik_async._opened import OpenImage
    from picpik_async._requests import Job
    from picpik_async._workshop import Workshop
    from picpik_async.errors import PicpikError, TaskError

__all__ = ["Line", "Records", "certain_refusals", "note_failure", "note_files", "settled_uid"]

_logger = logging.getLogger("picpik_async")
_seeds: Final = random.SystemRandom()


class Records:
    """What became of the submits of a session, those included whose caller was cancelled.

    Attributes:
        tasks: `TaskUID`s, in the order they became known.
        unknown: reasons by `request_uuid`, of submits that may have been accepted and charged.
        journal: the journal, while the session is open and has one.
        doubtful: by key, the jobs of this session whose outcome is unknown.
        active: by key, the submits under way.
        durations: how long tasks take, and when those under way began.
    """

    def __init__(self) -> None:
        self.tasks: dict[str, None] = {}
        self.unknown: dict[str, str] = {}
        self.journal: Journal | None = None
        self.doubtful: dict[str, Job] = {}
        self.active: dict[str, Line] = {}
        self.durations = Durations()

    def settled(self, request_uuid: str, key: str | None) -> None:
        """Note that the outcome of a submit is known after all."""
        self.unknown.pop(request_uuid, None)
        if key is not None:
            self.doubtful.pop(key, None)


class Line:
    """The line of one submit in the journal; without a journal nothing happens.

    Args:
        records: of the session.
        key: names the job; None takes the digest of its contents.
        anew: pay again, whatever the journal says.

    Attributes:
        entry: the line as it stands.
        awaited: the line of another submit of the same job, while that is under way.
    """

    def __init__(self, records: Records, key: str | None, *, anew: bool = False) -> None:
        self.entry: JournalEntry | None = None
        self.awaited: Line | None = None
        self._records = records
        self._key = key
        self._anew = anew
        self._before: JournalEntry | None = None
        self._claimed: str | None = None
        self._released = anyio.Event()
        self._committing = False
        self._request: Job | None = None
        self._journal: Journal  # there is one if there is an entry
        self._dialect: Dialect

    @property
    def key(self) -> str | None:
        """Names the job, as far as that is known yet."""
        return self._claimed or self._key

    @property
    def needs_contents(self) -> bool:
        """Whether the key is a digest of what the images hold."""
        return self._key is None and self._records.journal is not None

    async def claim(
        self, request: Job, request_uuid: str, shop: Workshop, images: Mapping[ImageSource, OpenImage] | None = None
    ) -> JournalEntry | None:
        """Take the job's key, wait for another submit under it, and return what the journal says of it.

        Args:
            request: as the user made it.
            request_uuid: for a job that the journal does not know.
            shop: looks at images.
            images: those of *request*, if they are open.

        Raises:
            InvalidRequestError: the key belongs to another job.
            ImageError: an image cannot be read.
            JournalError: the journal cannot be read.
        """
        journal = self._records.journal
        if journal is None:
            return None
        self._journal, self._dialect, self._request = journal, shop.dialect, request
        asked = "" if self._key else await _contents_digest(request, shop, images)
        waited = await self.take(self._key or asked)
        key = str(self._claimed)
        found = await journal.find(key)
        if found is None:
            self.entry = JournalEntry(key=key, digest=asked, request_uuid=request_uuid, action=request.action)
            return None
        if found.digest != (asked or await _digest_like(found, request, shop, images)):
            msg = (
                f"key {key!r} names another job in the journal: parameters or images differ; give the changed request"
                " another key"
            )
            raise InvalidRequestError(msg, field="key", value=key, allowed="a key of its own for each job")
        if self._anew and not (waited and found.state is JobState.ACK):
            self._before = None if found.state is JobState.INTENT else found
            earlier = found.earlier_task_uids + ((found.task_uid,) if found.task_uid else ())
            self.entry = attrs.evolve(
                found, request_uuid=str(uuid.uuid4()), resubmits=found.resubmits + 1, earlier_task_uids=earlier
            )
            return None
        self.entry = found
        return found

    async def take(self, key: str) -> bool:
        """Be the only one who changes the line of *key*, until `release`; returns whether that meant waiting."""
        waited = False
        while (other := self._records.active.get(key)) is not None:
            waited, self.awaited = True, other
            await other._released.wait()  # noqa: SLF001 - our own class
        self.awaited = None
        self._records.active[key] = self
        self._claimed = key
        return waited

    def release(self) -> None:
        """Let the next submit under the same key go on."""
        if self._claimed is not None and self._records.active.get(self._claimed) is self:
            del self._records.active[self._claimed]
            self._released.set()

    def still_under_way(self, seconds: float | None) -> PicpikError:
        """The error for another submit of this job that could not wait any longer."""
        request_uuid = None if self.entry is None else self.entry.request_uuid
        if self._committing:
            reason = f"another submit of this job is under way, and has no answer within {seconds:g} s"
            msg = f"{reason}; it may have been accepted and charged, and is still awaited, see session.tasks"
            return SubmitOutcomeUnknownError(
                msg, stage="headers", reason=reason, key=self.key, request_uuid=request_uuid
            )
        msg = f"another submit of this job is under way, and has not ended within {seconds:g} s; allow more time"
        return RequestTimeoutError(msg, stage="send", request_uuid=request_uuid)

    def intend(self, request: Job, images: Mapping[ImageSource, OpenImage]) -> Job:
        """Note that *request*, with its open *images*, is about to be sent; returns it with a seed by which it can be told."""
        if self.entry is None or self._request is None:
            return request
        asked = self.entry.digest
        if not asked:
            sizes = {source: str(image.original.size) for source, image in images.items()}
            asked = digest(self._request, sizes, self._dialect)
        seeded = request.seeded(_seeds.randint(0, MAX_SEED))
        self.entry = self.entry.moved(
            JobState.INTENT,
            digest=asked,
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

    def unknown(self, reason: str, task_uid: str | None) -> None:
        """Note why the outcome is not known, and which task it may be."""
        self._move(JobState.COMMIT, reason=reason, task_uid=task_uid)
        if self.entry is not None and self._request is not None:
            self._records.doubtful[self.entry.key] = self._request

    def refused(self, error: ApiError | HttpStatusError) -> None:
        """Note that the service refused; a certain refusal says nothing of an earlier submit that may be charged."""
        ret_code = error.ret_code if isinstance(error, ApiError) else None
        before = self._before
        if before is None or (before.state is JobState.REJECTED and self._outweighs(ret_code, before)):
            self._move(JobState.REJECTED, error=type(error).__name__, reason=str(error), ret_code=ret_code)
        else:
            self._journal.record(before)

    def _outweighs(self, ret_code: int | None, before: JournalEntry) -> bool:
        certain = certain_refusals(self._dialect)
        return ret_code not in certain or before.ret_code in certain

    def _move(self, state: JobState, **changes: object) -> None:
        if self.entry is not None:
            self.entry = self.entry.moved(state, **changes)
            self._journal.record(self.entry)


async def _contents_digest(request: Job, shop: Workshop, images: Mapping[ImageSource, OpenImage] | None) -> str:
    sources = request.images()
    opened = await shop.open_images(sources) if images is None else images
    return digest(request, await shop.fingerprints(sources, opened), shop.dialect)


async def _digest_like(
    entry: JournalEntry, request: Job, shop: Workshop, images: Mapping[ImageSource, OpenImage] | None
) -> str:
    """The digest of *request*, made as that of *entry*: over contents if it names itself, and otherwise over sizes."""
    if entry.digest == entry.key:
        return await _contents_digest(request, shop, images)
    return digest(request, await shop.sizes(request.images()), shop.dialect)


def settled_uid(entry: JournalEntry, dialect: Dialect) -> str | None:
    """The `TaskUID` of a job that was paid for before, or None if it may be sent.

    Raises:
        SubmitOutcomeUnknownError: it may have been paid for before.
        ApiError: it was refused before with a `RetCode` that does not rule out a charge.
        TaskFailedError: it was paid for, and its task ended badly.
        TaskTerminatedError: it was paid for, and its task was terminated.
    """
    key, reason = legible(repr(entry.key), limit=200), legible(entry.reason or "it was cut off", limit=300)
    way_out = f"resubmit({key}, request, accept_double_charge=True) sends it again"
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
