"""Judges what happened to paid requests: what a server charged for, against what the client and its journal say.

In the manner of Jepsen: the ledger, the outcomes and the journal are written down while anything goes wrong, and the
invariants are checked over them afterwards. Each violation is a sentence.

- I1: no request is charged twice.
- I2: what the client calls not taken was not charged.
- I3: the tasks that the client knows were charged, each for its own request.
- I4: what was charged is in the journal, as committed or later.
- I5: each task that the client knows ends in files or in an error.
- I6: files hold what the server sent.
- I7: there are no more charges than jobs, and charges that the user accepted anew.
"""

from __future__ import annotations

import enum
import hashlib
from collections import Counter
from typing import TYPE_CHECKING

import attrs

from picpik_async._entries import JobState, JournalEntry
from picpik_async.errors import (
    ApiError,
    ConfigurationError,
    HttpStatusError,
    InvalidRequestError,
    JournalError,
    SubmitOutcomeUnknownError,
    SubmitPausedError,
    TransportError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from pathlib import Path


@attrs.frozen
class Charge:
    """A line of the ledger: money was spent.

    Attributes:
        request_uuid: for which request.
        task_uid: the task that was made of it.
        time: Unix time, in seconds.
    """

    request_uuid: str
    task_uid: str
    time: float = 0.0


def read_ledger(path: Path) -> list[Charge]:
    """The lines of a ledger, in their order."""
    rows = [line.split(" ") for line in path.read_text().splitlines()]
    return [Charge(request_uuid, task_uid, float(time)) for request_uuid, task_uid, time in rows]


class Verdict(enum.Enum):
    """What the client says of a submit."""

    ACK = "ack"
    """It was taken, and this is its task."""
    NOT_TAKEN = "not taken"
    """It was certainly not charged."""
    REJECTED = "rejected"
    """The service refused with a `RetCode`, and whether that was charged is not documented."""
    UNKNOWN = "unknown"
    """It may have been charged."""
    NOTHING = "nothing"
    """The caller was cancelled or killed, and heard nothing."""


_NOT_TAKEN = (
    ConfigurationError,
    HttpStatusError,
    InvalidRequestError,
    JournalError,
    SubmitPausedError,
    TransportError,
)


def verdict(error: BaseException | None) -> Verdict:
    """What the outcome of `submit` says.

    Raises:
        TypeError: a submit must not raise this.
    """
    if error is None:
        return Verdict.ACK
    if isinstance(error, SubmitOutcomeUnknownError):
        return Verdict.UNKNOWN
    if isinstance(error, ApiError):
        return Verdict.REJECTED
    if isinstance(error, _NOT_TAKEN):
        return Verdict.NOT_TAKEN
    msg = f"a submit must not raise {error!r}"
    raise TypeError(msg)


@attrs.frozen
class Outcome:
    """How a submit ended for its caller.

    Attributes:
        request_uuid: of the submit.
        verdict: what its caller was told.
        task_uid: the task, if the caller knows it.
        files: the saved pictures.
        error: what the wait for the task, or its download, raised.
    """

    request_uuid: str
    verdict: Verdict
    task_uid: str | None = None
    files: tuple[Path, ...] = ()
    error: BaseException | None = None


@attrs.frozen(kw_only=True)
class History:
    """What happened.

    Attributes:
        charges: the ledger.
        outcomes: of all submits; a job may have several, one per run.
        entries: the journal, if there was one.
        jobs: how many there were, if I7 is to be judged.
        resubmits: how often the user accepted to pay again.
        replaced: `request_uuid`s that the journal forgot because the user accepted to pay again.
        sent: SHA-256 of what the server sent, by `TaskUID`, if I5 and I6 are to be judged.
    """

    charges: Collection[Charge]
    outcomes: Collection[Outcome] = ()
    entries: Collection[JournalEntry] | None = None
    jobs: int | None = None
    resubmits: int = 0
    replaced: Collection[str] = ()
    sent: Callable[[str], str] | None = None


def violations(history: History) -> list[str]:
    """All that must not be; empty if all is well."""
    rules = (charged_once, not_taken, acknowledged, journalled, ended, intact, within_bounds)
    return [violation for rule in rules for violation in rule(history)]


def charged_once(history: History) -> list[str]:
    """I1: no request is charged twice."""
    times = Counter(charge.request_uuid for charge in history.charges)
    return [f"I1: {uuid} was charged {count} times" for uuid, count in times.items() if count > 1]


def not_taken(history: History) -> list[str]:
    """I2: what the client calls not taken was not charged."""
    charged = _by_request(history.charges)
    return [
        f"I2: {outcome.request_uuid} was charged as {charged[outcome.request_uuid].task_uid}, and its caller was told that"
        f" it was not taken"
        for outcome in history.outcomes
        if outcome.verdict is Verdict.NOT_TAKEN and outcome.request_uuid in charged
    ]


def acknowledged(history: History) -> list[str]:
    """I3: the tasks that the client knows were charged, each for its own request."""
    owners = {charge.task_uid: charge.request_uuid for charge in history.charges}
    said = [("its caller", outcome.request_uuid, outcome.task_uid) for outcome in _acked(history)]
    said += [
        ("the journal", entry.request_uuid, entry.task_uid)
        for entry in history.entries or ()
        if entry.state in {JobState.ACK, JobState.DONE, JobState.FAILED}
    ]
    return [
        f"I3: {who} was told that {uuid} became task {uid}, which was charged for {owners.get(uid or '', 'nothing')}"
        for who, uuid, uid in said
        if owners.get(uid or "") != uuid
    ]


def journalled(history: History) -> list[str]:
    """I4: what was charged is in the journal, as committed or later."""
    if history.entries is None:
        return []
    states = {entry.request_uuid: entry.state for entry in history.entries}
    found = []
    for charge in history.charges:
        state = states.get(charge.request_uuid)
        if charge.request_uuid not in history.replaced and state in {None, JobState.INTENT}:
            where = "not in the journal" if state is None else "in the journal as never sent"
            found.append(f"I4: {charge.request_uuid} was charged as {charge.task_uid}, and is {where}")
    return found


def ended(history: History) -> list[str]:
    """I5: each task that the client knows ends in files or in an error."""
    if history.sent is None:
        return []
    return [
        f"I5: {outcome.request_uuid} became task {outcome.task_uid}, and ended neither in files nor in an error"
        for outcome in _acked(history)
        if not outcome.files and outcome.error is None
    ]


def intact(history: History) -> list[str]:
    """I6: files hold what the server sent."""
    if history.sent is None:
        return []
    found = []
    for outcome in history.outcomes:
        for path in outcome.files:
            if not path.is_file():
                found.append(f"I6: {path.name} of task {outcome.task_uid} is missing")
            elif hashlib.sha256(path.read_bytes()).hexdigest() != history.sent(outcome.task_uid or ""):
                found.append(f"I6: {path.name} of task {outcome.task_uid} is not what the server sent")
    return found


def within_bounds(history: History) -> list[str]:
    """I7: there are no more charges than jobs, and charges that the user accepted anew."""
    charges = len(history.charges)
    if history.jobs is None or charges <= history.jobs + history.resubmits:
        return []
    return [f"I7: {charges} charges for {history.jobs} jobs and {history.resubmits} resubmits"]


def untraced(charges: Collection[Charge], *, tasks: Collection[str], request_uuids: Collection[str]) -> list[str]:
    """Charges of which the client knows neither the task nor the request: money that nobody can follow."""
    return [
        f"{charge.request_uuid} was charged as {charge.task_uid}, and nobody knows"
        for charge in charges
        if charge.task_uid not in tasks and charge.request_uuid not in request_uuids
    ]


def _acked(history: History) -> list[Outcome]:
    return [outcome for outcome in history.outcomes if outcome.verdict is Verdict.ACK]


def _by_request(charges: Collection[Charge]) -> Mapping[str, Charge]:
    return {charge.request_uuid: charge for charge in charges}
