"""`picpik journal`: what it shows, fetches, proposes and adopts."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from picpik_async import JobState, JournalEntry, Proposal, TaskDetail
from picpik_async._journal import Journal
from picpik_async._journal_guard import Lock
from picpik_async.cli import main
from picpik_async.cli._journal import _proposal_line, _row_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from picpik_async.emulator import Emulator

pytestmark = pytest.mark.usefixtures("surroundings", "room", "sofa")

FILE = "jobs.jsonl.journal"


def entry(key: str, state: JobState, **facts: Any) -> JournalEntry:
    """A row."""
    return JournalEntry(key=key, digest="d", request_uuid=f"u-{key}", action="A", state=state, **facts)


def write(*entries: JournalEntry) -> None:
    """A journal of these jobs."""

    async def record() -> None:
        async with Journal(FILE) as journal:
            for row in entries:
                journal.record(row)
            await journal.flush()

    asyncio.run(record())


def batch(*keys: str, timeout: str = "60", **more: Any) -> int:
    """Run jobs of these keys."""
    jobs = [{"key": key, "image": "room.png", "mask": "sofa.png", **more} for key in keys]
    Path("jobs.jsonl").write_text("\n".join(map(json.dumps, jobs)))
    return main(["batch", "jobs.jsonl", "--timeout", timeout])


# --- show


def test_show_lists_every_job(capfd: pytest.CaptureFixture[str]) -> None:
    """Counts first, then the jobs, those first that are open; no keys are needed, and nothing of it can fool a terminal."""
    write(
        entry("old", JobState.DONE, task_uid="t1", files=(Path("/out/a.png"), Path("/out/b.png"))),
        entry("no", JobState.REJECTED, reason="RetCode 7"),
        entry("bad\x1b", JobState.FAILED, task_uid="t2", reason="too tired"),
        entry("new", JobState.INTENT),
        entry("paid", JobState.ACK, task_uid="t3"),
        entry("lost", JobState.COMMIT, reason="the answer broke off"),
    )

    assert 0 == main(["journal", "show", FILE])

    assert [
        "1 commit: may be paid: its outcome is unknown",
        "1 ack: paid, and its pictures are not saved yet",
        "1 intent: not sent: nothing is paid",
        "1 failed: the task ended badly",
        "1 rejected: the service refused",
        "1 done: the task ended well",
        "lost: commit, the answer broke off",
        "paid: ack, task t3",
        "new: intent",
        "bad\\x1b: failed, task t2, too tired",
        "no: rejected, RetCode 7",
        "old: done, task t1, /out/a.png, /out/b.png",
    ] == capfd.readouterr().out.splitlines()


def test_show_as_json(capfd: pytest.CaptureFixture[str]) -> None:
    """One document, with the counts of all states."""
    write(entry("old", JobState.DONE, task_uid="t1", files=(Path("/out/a.png"),)))

    assert 0 == main(["journal", "show", FILE, "--json"])

    document = json.loads(capfd.readouterr().out)
    assert {"commit": 0, "ack": 0, "intent": 0, "failed": 0, "rejected": 0, "done": 1} == document["counts"]
    job = {"key": "old", "state": "done", "task_uid": "t1", "files": ["/out/a.png"], "reason": None}
    assert [job] == document["jobs"]


def test_show_an_empty_journal(capfd: pytest.CaptureFixture[str]) -> None:
    """Nothing is a result, too."""
    write()

    assert 0 == main(["journal", "show", FILE])

    assert "no jobs\n" == capfd.readouterr().out


def test_a_journal_in_use(capfd: pytest.CaptureFixture[str]) -> None:
    """It can be looked at; for anything else, who has it is told."""
    write()
    lock = Lock(Path(FILE))

    codes = [main(["journal", "show", FILE]), main(["journal", "recover", FILE, "--emulator"])]

    lock.release()
    assert [0, 1] == codes
    assert "is in use by another session of this process; close that one first" in capfd.readouterr().err


@pytest.mark.parametrize("command", ["show", "recover", "reconcile"])
def test_a_journal_that_is_not_there(command: str, capfd: pytest.CaptureFixture[str]) -> None:
    """A name that is mistyped makes no journal."""
    assert 2 == main(["journal", command, "gone"])

    assert '"gone" does not exist' in capfd.readouterr().err
    assert not Path("gone").exists()


# --- recover


def test_recover_saves_what_is_paid(serve: Callable[..., Emulator], capfd: pytest.CaptureFixture[str]) -> None:
    """Pictures are named after the keys; jobs that failed count; nothing is sent; the journal knows it afterwards."""
    reasons = iter(["too tired"])
    emulator = serve(run_time=600.0, fail=lambda _parameters: next(reasons, None))
    assert 1 == batch("room-1", "room-2", "room-3", timeout="0.1")
    emulator.advance(600)
    capfd.readouterr()

    codes = [main(["journal", "recover", FILE, "--out", "out"]) for _ in range(2)]

    out, err = capfd.readouterr()
    assert [1, 0] == codes, err
    assert 2 == len(out.splitlines())
    assert {Path(line).name for line in out.splitlines()} < {f"room-{number}-0.png" for number in (1, 2, 3)}
    assert "room-" in err.partition(": TaskFailedError: ")[0]
    assert "recover: 2 of 3 paid jobs saved, 1 failed\n" in err
    assert "recover: 0 of 0 paid jobs saved\n" in err
    assert 3 == len(emulator.ledger)


def test_recover_names_files_as_the_batch_does(
    serve: Callable[..., Emulator], capfd: pytest.CaptureFixture[str]
) -> None:
    """A job without a key of the user's is called after its task."""
    emulator = serve(run_time=600.0)
    Path("jobs.jsonl").write_text(json.dumps({"image": "room.png", "mask": "sofa.png"}))
    assert 1 == main(["batch", "jobs.jsonl", "--timeout", "0.1"])
    emulator.advance(600)
    capfd.readouterr()

    assert 0 == main(["journal", "recover", FILE])

    assert f"{emulator.ledger[0].task_uid}-0.png\n" == capfd.readouterr().out


def test_recover_tells_what_else_is_open(capfd: pytest.CaptureFixture[str]) -> None:
    """Unknown jobs are exit code 1, and the way to their tasks is told; those that were never sent are none."""
    write(entry("new", JobState.INTENT))
    assert 0 == main(["journal", "recover", FILE, "--emulator"])
    assert "new: not sent, nothing is paid; its batch sends it when it is run again\n" in capfd.readouterr().err

    write(entry("lost", JobState.COMMIT, reason="cut off"))
    assert 1 == main(["journal", "recover", FILE, "--emulator", "--json"])
    out, err = capfd.readouterr()
    assert {"done": 0, "failed": 0, "unknown": 1, "not_sent": 1} == json.loads(out)["summary"]
    assert ["lost", "new"] == sorted(job["key"] for job in json.loads(out)["jobs"])
    assert "lost: unknown: it may be paid, and is not sent again\n" in err
    assert f"picpik journal reconcile {FILE}" in err


# --- reconcile


def test_reconcile_proposes_and_adopts(serve: Callable[..., Emulator], capfd: pytest.CaptureFixture[str]) -> None:
    """A task with the very seed that was drawn is certain; adopted, its pictures can be fetched."""
    emulator = serve(run_time=600.0, faults=["lose-answerx1"])
    assert 1 == batch("lost")
    uid = emulator.ledger[0].task_uid
    capfd.readouterr()

    assert 0 == main(["journal", "reconcile", FILE])
    out, err = capfd.readouterr()
    assert f"lost: {uid} (certain)\n" == out
    assert f"adopt with: picpik journal reconcile {FILE} --adopt\n" in err
    assert "absence proves nothing" not in err

    assert 0 == main(["journal", "reconcile", FILE, "--adopt", "--json"])
    out, err = capfd.readouterr()
    (proposal,) = json.loads(out)["proposals"]
    assert ("lost", [uid], True, True) == tuple(proposal[name] for name in ("key", "candidates", "certain", "adopted"))
    assert f"fetch with: picpik journal recover {FILE}\n" in err

    emulator.advance(600)
    assert 0 == main(["journal", "recover", FILE])
    assert "lost-0.png\n" == capfd.readouterr().out
    assert 0 == main(["journal", "reconcile", FILE])
    assert ("", "no job has an unknown outcome\n") == capfd.readouterr()


def test_reconcile_does_not_guess(serve: Callable[..., Emulator], capfd: pytest.CaptureFixture[str]) -> None:
    """A seed of one's own may be another task's, too; a task that is not running proves nothing."""
    emulator = serve(run_time=600.0, faults=["lose-answerx1"])
    assert 1 == batch("lost", seed=7)
    capfd.readouterr()

    assert 0 == main(["journal", "reconcile", FILE, "--adopt"])
    out, err = capfd.readouterr()
    assert f"lost: {emulator.ledger[0].task_uid}\n" == out
    assert "absence proves nothing: a quick task may have ended already" in err
    assert "certain" not in err

    emulator.advance(600)
    assert 0 == main(["journal", "reconcile", FILE])
    assert "lost: no running task fits\n" == capfd.readouterr().out


def test_a_task_of_ones_own_choice(serve: Callable[..., Emulator], capfd: pytest.CaptureFixture[str]) -> None:
    """What nobody can be certain of is taken over by hand, if the service knows it and its job is open."""
    emulator = serve(run_time=600.0, faults=["lose-answerx1"])
    assert 1 == batch("a=b", seed=7)
    uid = emulator.ledger[0].task_uid
    assert 0 == main(["journal", "reconcile", FILE])
    assert f"picpik journal reconcile {FILE} --adopt-task KEY=UID" in capfd.readouterr().err

    choices = ["a=b", "=x", "a=b=gone", f"other={uid}", f"a=b={uid}", f"a=b={uid}"]
    codes = [main(["journal", "reconcile", FILE, "--adopt-task", choice]) for choice in choices]

    out, err = capfd.readouterr()
    assert [1, 2, 1, 2, 0, 2] == codes
    assert "--adopt-task '=x' is not KEY=UID" in err
    assert "does not know task gone" in err
    assert "key 'other' is not in the journal" in err
    assert f"a=b: {uid} (adopted)\n" == out
    assert f"fetch with: picpik journal recover {FILE}\n" in err


def test_what_was_not_adopted_is_not_called_so() -> None:
    """A job whose answer came in the meantime keeps its own task."""
    proposal = Proposal(entry=entry("k", JobState.COMMIT), candidates=(TaskDetail(task_uid="t"),), certain=True)
    paid: list[set[tuple[str, str | None]]] = [set(), {("k", "t")}, {("k", "other")}]
    rows = [_row_of(proposal, tasks) for tasks in paid]

    assert [False, True, False] == [row["adopted"] for row in rows]
    assert ["k: t (certain)", "k: t (adopted)", "k: t (certain)"] == [_proposal_line(row) for row in rows]
