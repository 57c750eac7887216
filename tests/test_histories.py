"""Tests of the history checker: each invariant can fail, and holds where it should."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import pytest
from histories import Charge, History, Outcome, Verdict, read_ledger, untraced, verdict, violations

from picpik_async._entries import JobState, JournalEntry
from picpik_async.errors import (
    ApiError,
    DownloadError,
    HttpStatusError,
    InvalidRequestError,
    PicpikError,
    SubmitOutcomeUnknownError,
    TransportError,
)

if TYPE_CHECKING:
    from pathlib import Path

PICTURE = b"a picture"


def entry(state: JobState, request_uuid: str = "a", task_uid: str | None = None) -> JournalEntry:
    """A line of the journal."""
    return JournalEntry(
        key=request_uuid, digest="", request_uuid=request_uuid, action="Paint", state=state, task_uid=task_uid
    )


def sent(_task_uid: str) -> str:
    """What the server sent."""
    return hashlib.sha256(PICTURE).hexdigest()


@pytest.mark.parametrize(
    ("history", "words"),
    [
        pytest.param({"charges": [Charge("a", "t"), Charge("a", "u")]}, "I1: a was charged 2 times", id="I1"),
        pytest.param(
            {"charges": [Charge("a", "t")], "outcomes": [Outcome("a", Verdict.NOT_TAKEN)]},
            "I2: a was charged as t, and its caller was told that it was not taken",
            id="I2",
        ),
        pytest.param(
            {"charges": [], "outcomes": [Outcome("a", Verdict.ACK, "t")]},
            "I3: its caller was told that a became task t, which was charged for nothing",
            id="I3 never charged",
        ),
        pytest.param(
            {"charges": [Charge("b", "t")], "outcomes": [Outcome("a", Verdict.ACK, "t")]},
            "I3: its caller was told that a became task t, which was charged for b",
            id="I3 another's task",
        ),
        pytest.param(
            {"charges": [Charge("a", "t")], "outcomes": [Outcome("a", Verdict.ACK)]},
            "I3: its caller was told that a became task None, which was charged for nothing",
            id="I3 no task",
        ),
        pytest.param(
            {"charges": [Charge("a", "t")], "entries": [entry(JobState.ACK, task_uid="u")]},
            "I3: the journal was told that a became task u, which was charged for nothing",
            id="I3 journal",
        ),
        pytest.param(
            {"charges": [Charge("a", "t")], "entries": []}, "I4: a was charged as t, and is not in the journal", id="I4"
        ),
        pytest.param(
            {"charges": [Charge("a", "t")], "entries": [entry(JobState.INTENT)]},
            "I4: a was charged as t, and is in the journal as never sent",
            id="I4 intent",
        ),
        pytest.param(
            {"charges": [Charge("a", "t")], "outcomes": [Outcome("a", Verdict.ACK, "t")], "sent": sent},
            "I5: a became task t, and ended neither in files nor in an error",
            id="I5",
        ),
        pytest.param(
            {"charges": [Charge("a", "t"), Charge("b", "u")], "jobs": 1},
            "I7: 2 charges for 1 jobs and 0 resubmits",
            id="I7",
        ),
    ],
)
def test_violation(history: dict[str, Any], words: str) -> None:
    """Each invariant can fail, alone, and says how."""
    assert [words] == violations(History(**history))


def test_files(tmp_path: Path) -> None:
    """A file that is missing, or holds something else, violates I6."""
    files = tuple(tmp_path / name for name in ("good.png", "bad.png", "gone.png"))
    files[0].write_bytes(PICTURE)
    files[1].write_bytes(PICTURE[:-1])
    history = History(charges=[Charge("a", "t")], outcomes=[Outcome("a", Verdict.ACK, "t", files)], sent=sent)

    assert [
        "I6: bad.png of task t is not what the server sent",
        "I6: gone.png of task t is missing",
    ] == violations(history)


def test_good_history(tmp_path: Path) -> None:
    """What is as it should be is no violation: taken, refused, unknown, cancelled, paid again, failed later."""
    file = tmp_path / "picture.png"
    file.write_bytes(PICTURE)
    history = History(
        charges=[Charge(uuid, f"task-{uuid}") for uuid in "abcde"],
        outcomes=[
            Outcome("a", Verdict.ACK, "task-a", files=(file,)),
            Outcome("b", Verdict.UNKNOWN),
            Outcome("c", Verdict.NOTHING),
            Outcome("d", Verdict.REJECTED),
            Outcome("e", Verdict.ACK, "task-e", error=DownloadError("gone")),
            Outcome("f", Verdict.NOT_TAKEN),
        ],
        entries=[
            entry(JobState.DONE, "a", "task-a"),
            entry(JobState.COMMIT, "b"),
            entry(JobState.REJECTED, "d"),
            entry(JobState.FAILED, "e", "task-e"),
            entry(JobState.INTENT, "f"),
        ],
        jobs=4,
        resubmits=1,
        replaced={"c"},
        sent=sent,
    )

    assert [] == violations(history)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (None, Verdict.ACK),
        (SubmitOutcomeUnknownError("?"), Verdict.UNKNOWN),
        (ApiError("no", ret_code=1), Verdict.REJECTED),
        (TransportError("reset", stage="send"), Verdict.NOT_TAKEN),
        (HttpStatusError("too large", status=413), Verdict.NOT_TAKEN),
        (InvalidRequestError("wrong"), Verdict.NOT_TAKEN),
    ],
)
def test_verdict(error: PicpikError | None, expected: Verdict) -> None:
    """What a submit raises says whether it was taken."""
    assert expected is verdict(error)


def test_no_verdict() -> None:
    """Anything else that a submit raises is a mistake of ours."""
    with pytest.raises(TypeError, match="must not raise OSError"):
        verdict(OSError())


def test_untraced() -> None:
    """A charge is traced by its task or by its request."""
    charges = [Charge("a", "t"), Charge("b", "u"), Charge("c", "v")]

    assert ["c was charged as v, and nobody knows"] == untraced(charges, tasks={"t"}, request_uuids={"b"})


def test_ledger(tmp_path: Path) -> None:
    """The ledger's lines are read as they are written."""
    path = tmp_path / "ledger"
    path.write_text("a t 1.500000\nb u 2.000000\n")

    assert [Charge("a", "t", 1.5), Charge("b", "u", 2.0)] == read_ledger(path)
