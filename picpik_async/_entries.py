"""What the journal knows of a job: a row, as a frozen value."""

from __future__ import annotations

import enum
import time
from typing import TYPE_CHECKING, Any

import attrs

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["JobState", "JournalEntry"]


class JobState(enum.Enum):
    """How far a job has come.

    Attributes:
        INTENT: prepared; the service certainly has not taken it, also if it is found like this after a crash.
        COMMIT: the last bytes may have left; without an answer the outcome is unknown.
        ACK: taken and charged; the `TaskUID` is known.
        DONE: the task ended well; its pictures are in `files`, if they were saved.
        FAILED: the task ended badly.
        REJECTED: the service refused.
    """

    INTENT = "intent"
    COMMIT = "commit"
    ACK = "ack"
    DONE = "done"
    FAILED = "failed"
    REJECTED = "rejected"

    @property
    def open(self) -> bool:
        """Whether something is left to do."""
        return self in {JobState.INTENT, JobState.COMMIT, JobState.ACK}


@attrs.frozen(kw_only=True)
class JournalEntry:
    """A job in the journal; no credentials, no bodies, no prompts, no addresses.

    Attributes:
        key: names the job.
        digest: hex SHA-256 of what was asked for.
        request_uuid: of the submit.
        action: the Action.
        changed: Unix time, in seconds, of the last change.
        seed: the `Seed` that was sent.
        auto_seed: the seed was drawn at random, so that Action and seed identify the job.
        state: how far it has come.
        task_uid: `TaskUID`, once it is known.
        acknowledged: Unix time, in seconds, when the `TaskUID` became known.
        files: the saved pictures.
        error: name of the exception for a job that failed or was refused.
        reason: in words, why the outcome is unknown, or why the job failed or was refused.
        ret_code: the `RetCode` of a refusal; None if it was an HTTP status.
        resubmits: how often a second charge was accepted.
        earlier_task_uids: tasks that were paid for before that.
    """

    key: str
    digest: str
    request_uuid: str
    action: str
    changed: float = attrs.field(factory=time.time)
    seed: int | None = None
    auto_seed: bool = False
    state: JobState = JobState.INTENT
    task_uid: str | None = None
    acknowledged: float | None = None
    files: tuple[Path, ...] = ()
    error: str | None = None
    reason: str | None = None
    ret_code: int | None = None
    resubmits: int = 0
    earlier_task_uids: tuple[str, ...] = ()

    def moved(self, state: JobState, **changes: Any) -> JournalEntry:
        """The entry in its next *state*, changed now."""
        return attrs.evolve(self, state=state, changed=time.time(), **changes)
