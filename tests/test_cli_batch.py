"""`picpik batch`: what is checked, printed and kept, and that the same command goes on where it was."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from shell import lines_until, started

from picpik_async import Eta, Limits, ModifyMaskedPixels, Progress
from picpik_async.cli import main
from picpik_async.cli._batch import words_of
from picpik_async.cli._jobs_file import LONGEST_LINE, PIECE, JobsFile
from picpik_async.cli._output import Output
from picpik_async.cli._progress import PAUSE, LineProgress, LiveProgress
from picpik_async.cli._report import Report
from picpik_async.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Callable

    from picpik_async.emulator import Emulator

pytestmark = pytest.mark.usefixtures("surroundings", "room", "sofa")

INPAINT = {"image": "room.png", "mask": "sofa.png", "prompts": ["a sofa"]}


def write(*jobs: dict[str, Any] | str, name: str = "jobs.jsonl") -> Path:
    """A file of jobs, in the working directory."""
    path = Path(name)
    path.write_text("".join(f"{job if isinstance(job, str) else json.dumps(job)}\n" for job in jobs))
    return path


def keyed(count: int) -> list[dict[str, Any]]:
    """Jobs that differ by their key only."""
    return [{"key": f"room-{number}", **INPAINT} for number in range(count)]


# --- the whole command


def test_a_batch_saves_all_pictures_and_a_rerun_pays_for_nothing(
    serve: Callable[..., Emulator], capfd: pytest.CaptureFixture[str]
) -> None:
    """All three kinds of jobs are drawn once; paths go to stdout; the journal lies beside the file."""
    emulator = serve(run_time=0.05)
    write(
        "# a comment",
        "",
        {"key": "masked", **INPAINT, "negative": ["text"], "seed": 7, "mask_blur": 8, "batch_size": 2},
        {"image": "room.png", "boxes": [[8, 8, 40, 40]], "width": 128, "height": 96, "model": "PICPIK General"},
        {"key": "wide", "image": "room.png", "left": 16, "prompts": "a wall", "seed": None},
    )

    codes = [main(["batch", "jobs.jsonl", "--out", "out"])]
    first = capfd.readouterr()
    codes.append(main(["batch", "jobs.jsonl", "--out", "out"]))
    second = capfd.readouterr()

    assert [0, 0] == codes, first.err + second.err
    assert 3 == len(emulator.ledger)
    assert 4 == len(first.out.splitlines())
    assert all(Path(line).is_file() for line in first.out.splitlines())
    assert sorted(first.out.splitlines()) == sorted(second.out.splitlines())
    assert re.search(r"batch: 3 of 3 done, [0-9]+ credits$", first.err, re.MULTILINE)
    assert Path("jobs.jsonl.journal").is_file()


def test_a_batch_as_json(capfd: pytest.CaptureFixture[str]) -> None:
    """One document about all jobs; what an emulator draws gets no journal that a real run would believe."""
    write({"key": "room-1", **INPAINT, "seed": 3}, INPAINT)

    code = main(["batch", "jobs.jsonl", "--emulator", "--json", "--out", "out"])

    document = json.loads(capfd.readouterr().out)
    assert 0 == code
    assert {"done": 2, "failed": 0, "unknown": 0, "not_sent": 0, "credits": 2} == document["summary"]
    jobs = {job["line"]: job for job in document["jobs"]}
    assert ("room-1", "done", None, None) == (*(jobs[1][name] for name in ("key", "status", "error")), jobs[2]["key"])
    assert all(Path(job["files"][0]).name.endswith("-0.png") and job["task_uid"] for job in jobs.values())
    assert not Path("jobs.jsonl.journal").exists()


def test_a_wrong_line_stops_everything_before_it_starts(
    serve: Callable[..., Emulator], capfd: pytest.CaptureFixture[str]
) -> None:
    """One line on stderr names the line; nothing is sent, and no journal is made."""
    emulator = serve()
    write(INPAINT, {**INPAINT, "mask_blur": 65})

    assert 2 == main(["batch", "jobs.jsonl"])

    assert ("", "error: jobs.jsonl, line 2: masked.mask_blur is 65, but must be from 0 to 64\n") == capfd.readouterr()
    assert 0 == emulator.requests.total()
    assert not Path("jobs.jsonl.journal").exists()


def test_jobs_that_fail_are_told_and_the_others_go_on(
    serve: Callable[..., Emulator], capfd: pytest.CaptureFixture[str]
) -> None:
    """Failures are named by key or line, as they come; exit code 1, and how to go on."""
    serve(run_time=0.05, fail=lambda parameters: "too\x1b[31m tired" if parameters.get("Seed") == 13 else None)
    Path("empty.png").touch()
    write({"key": "bad\x1b", **INPAINT, "seed": 13}, {"image": "empty.png", "mask": "sofa.png"}, INPAINT)

    code = main(["batch", "jobs.jsonl"])

    out, err = capfd.readouterr()
    assert 1 == code
    assert 1 == len(out.splitlines())
    assert re.search(r"^bad\\x1b: TaskFailedError: .*too\\x1b\[31m tired", err, re.MULTILINE)
    assert re.search(r"^line 2: ImageError: ", err, re.MULTILINE)
    assert "batch: 1 of 3 done, 2 failed, " in err
    assert err.endswith("run the same command again later for the rest; what is paid is not sent again\n")


def test_what_is_paid_for_nothing_is_not_sent_again(
    serve: Callable[..., Emulator], capfd: pytest.CaptureFixture[str]
) -> None:
    """A task that failed is no reason to run the same command again."""
    serve(run_time=0.05, fail=lambda _parameters: "too tired")
    write(*keyed(1))

    assert 1 == main(["batch", "jobs.jsonl"])

    err = capfd.readouterr().err
    assert "run the same command again" not in err
    assert "what is paid and gave no pictures is not sent again; a job with another key is a new one" in err


def test_refusals_are_sent_again_once_they_are_known_to_be_free(
    serve: Callable[..., Emulator], capfd: pytest.CaptureFixture[str]
) -> None:
    """A rerun sends nothing, and the option that makes it do so is named; with that, all is drawn."""
    emulator = serve(run_time=0.05, faults=["no-creditsx3"])
    write(*keyed(3))

    codes = [main(["batch", "jobs.jsonl"]) for _ in range(2)]
    err = capfd.readouterr().err
    (option,) = set(re.findall(r"if RetCode -?[0-9]+ was not charged: picpik batch jobs\.jsonl … (--.*)", err))
    assert [1, 1] == codes
    assert 0 == len(emulator.ledger)
    assert 2 == err.count("3 refused with RetCode ")
    assert "run the same command again" not in err

    assert 0 == main(["batch", "jobs.jsonl", *option.split()])
    assert 3 == len(emulator.ledger)


def test_that_credits_ran_out_is_told_also_if_all_was_sent(
    serve: Callable[..., Emulator], capfd: pytest.CaptureFixture[str]
) -> None:
    """The balance explains the refusals; what else they might mean is left to whoever knows the code."""
    serve(run_time=0.05, credits=2)
    write(*keyed(3))

    assert 1 == main(["batch", "jobs.jsonl"])

    *_, stopped, hint = capfd.readouterr().err.splitlines()
    code = re.fullmatch(
        r"stopped: the credits .* have run out \(0 are left\), of which RetCode (\d+) may tell", stopped
    )
    assert code is not None
    assert hint.endswith(
        f"if RetCode {code[1]} was not charged: picpik batch jobs.jsonl … --not-charged-ret-code {code[1]}"
    )
    assert 1 == main(["batch", "jobs.jsonl", "--not-charged-ret-code", "-1", "--not-charged-ret-code", code[1]])
    assert "run the same command again later" in capfd.readouterr().err


def test_a_wrong_key_stops_the_batch(serve: Callable[..., Emulator], capfd: pytest.CaptureFixture[str]) -> None:
    """When all is refused from the start, most jobs are not even sent, and can be sent later."""
    serve(faults=["no-credits"])
    write(*keyed(100))

    assert 1 == main(["batch", "jobs.jsonl", "--json"])

    out, err = capfd.readouterr()
    summary = json.loads(out)["summary"]
    assert 5 <= summary["failed"] <= Limits().uploads + 5
    assert 100 == summary["failed"] + summary["not_sent"]
    assert "stopped: not submitted, and nothing was sent: the service refused the first 5 requests" in err
    assert "run the same command again later" in err


def test_files_stay_where_they_are(serve: Callable[..., Emulator], capfd: pytest.CaptureFixture[str]) -> None:
    """Another folder does not move what is done, and that is told."""
    serve(run_time=0.05)
    write(*keyed(2))

    assert 0 == main(["batch", "jobs.jsonl", "--out", "one"])
    assert "stay in" not in capfd.readouterr().err
    assert 0 == main(["batch", "jobs.jsonl", "--out", "two"])

    assert f"files of 2 jobs that were done earlier stay in {Path.cwd() / 'one'}\n" in capfd.readouterr().err
    assert [] == list(Path("two").iterdir())


def test_a_folder_that_cannot_be_written_stops_everything_before_it_starts(
    serve: Callable[..., Emulator], capfd: pytest.CaptureFixture[str]
) -> None:
    """Nothing is sent that could not be saved, neither by a batch nor one by one."""
    emulator = serve()
    write(INPAINT)
    out = ["--out", "/proc/none"]

    assert [2, 2] == [main([*words, *out]) for words in (["batch", "jobs.jsonl"], ["inpaint", "room.png", "sofa.png"])]

    message = "error: --out: nothing can be written to /proc/none (No such file or directory), and nothing was sent"
    assert 2 == capfd.readouterr().err.count(message)
    assert 0 == emulator.requests.total()
    assert not Path("jobs.jsonl.journal").exists()


def test_lost_answers_are_never_paid_again(serve: Callable[..., Emulator], capfd: pytest.CaptureFixture[str]) -> None:
    """A job that may be charged stays unknown, also in a rerun, and the way to its task is told."""
    emulator = serve(run_time=0.05, faults=["lose-answerx1"])
    write(*keyed(3))

    codes = [main(["batch", "jobs.jsonl", "--journal", "my journal", "--json"]) for _ in range(2)]

    out, err = capfd.readouterr()
    assert [1, 1] == codes
    for line in out.splitlines():
        summary = json.loads(line)["summary"]
        assert (2, 0, 1, 0) == tuple(summary[name] for name in ("done", "failed", "unknown", "not_sent"))
    assert 3 == len(emulator.ledger)
    assert 2 == err.count("look for the tasks with: picpik journal reconcile 'my journal'\n")
    assert 2 == err.count(": SubmitOutcomeUnknownError: ")


def test_when_credits_run_out_nothing_more_is_sent(
    serve: Callable[..., Emulator], capfd: pytest.CaptureFixture[str]
) -> None:
    """What is paid is finished; that it stopped is told once, however many jobs it concerns."""
    emulator = serve(run_time=0.05, credits=2)
    write(*keyed(100))

    code = main(["batch", "jobs.jsonl", "--json"])

    out, err = capfd.readouterr()
    summary = json.loads(out)["summary"]
    assert (1, 2, 2) == (code, summary["done"], len(emulator.ledger))
    assert 0 < summary["not_sent"] == 98 - summary["failed"]
    assert 1 == err.count("stopped: ")
    assert "the credits of the account have run out" in err
    assert "run the same command again later" in err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_batch_that_is_cut_off_goes_on(
    serve: Callable[..., Emulator], capfd: pytest.CaptureFixture[str], number: signal.Signals
) -> None:
    """After Ctrl-C or a crash the same command finishes the work; no job is charged twice."""
    emulator = serve(run_time=0.3, faults=["lose-answerx1"])
    write(*keyed(12))
    with started("batch", "jobs.jsonl", stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        lines_until(process.stderr, "SubmitOutcomeUnknownError")
        process.send_signal(number)
        out, err = process.communicate(timeout=30)

    assert "" == out
    if number is signal.SIGINT:
        hint = "error: interrupted; what is paid goes on, and the journal keeps it; run the same command again to go on"
        assert (130, hint) == (process.returncode, err.splitlines()[-1])
        assert re.search(r"batch: [0-9]+ of 12 done, 1 unknown", err)
    assert 1 == main(["batch", "jobs.jsonl", "--json"])
    summary = json.loads(capfd.readouterr().out)["summary"]
    assert 12 == summary["done"] + summary["unknown"]
    assert summary["done"] < len(emulator.ledger) <= 12  # a crash may cut off a request whose commit is on the disk
    assert 0 == summary["failed"]


# --- the file of jobs


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", 'this is not one JSON object, such as {"image": '),
        ("[1]", "this is not one JSON object"),
        ('{"image": "room.png", "mask": "sofa.png"} {}', "this is not one JSON object"),
        ('{"image": NaN}', "this is not one JSON object"),
        ('"' + "x" * LONGEST_LINE + '"', "this is not one JSON object"),
        ({**INPAINT, "prompt": "x"}, "'prompt' is not known; known are key, image, mask, boxes, left, "),
        ({**INPAINT, "pro\x1bmpt": "x"}, r"'pro\x1bmpt' is not known"),
        ({**INPAINT, "key": ""}, "key is '', but must be a string that is not empty"),
        ({**INPAINT, "key": 7}, "key is 7, but must be a string"),
        ({"mask": "sofa.png"}, "image is None, but must be the path of a picture"),
        ({"image": ["room.png"], "left": 8}, "image is ['room.png'], but must be the path of a picture"),
        ({"image": "gone.png", "left": 8}, "image: there is no file 'gone.png'"),
        ({"image": "x" * 5000, "left": 8}, "image: there is no file 'xxx"),
        ({"image": "\0", "left": 8}, r"image: there is no file '\x00'"),
        ({"image": "room.png", "mask": "gone.png"}, "mask: there is no file 'gone.png'"),
        ({"image": "room.png"}, "give either mask, or boxes, or margins (left, right, top, bottom)"),
        ({**INPAINT, "left": 8}, "give either mask, or boxes, or margins"),
        ({"image": "room.png", "boxes": [[1, 1, 2, 2]], "mask": "sofa.png"}, "give either mask, or boxes"),
        ({"image": "room.png", "boxes": 1}, "boxes is 1, but must be a list of boxes"),
        ({"image": "room.png", "boxes": []}, "boxes: none given"),
        ({"image": "room.png", "boxes": [1, 2, 3, 4]}, "boxes: 1 is not (left, top, right, bottom)"),
        ({"image": "room.png", "left": -1}, "left: -1 is not a number of pixels, 0 or more"),
        ({"image": "room.png", "left": 0}, "all margins are 0"),
        ({**INPAINT, "seed": 1.5}, "seed is 1.5, but must be a whole number"),
        ({**INPAINT, "batch_size": 17}, "batch_size is 17, but must be from 1 to 16"),
        ({**INPAINT, "prompts": 5}, "positive_prompts is 5, but must be a string, or a list of strings"),
        ({**INPAINT, "model": ""}, "model_code is ''"),
        ({**INPAINT, "key": "room-1"}, "key 'room-1' is on line 2, too; give each job a key of its own"),
    ],
)
def test_wrong_lines_are_named(line: dict[str, Any] | str, message: str) -> None:
    """The number of the line, the field and the way out."""
    jobs = JobsFile(write("", {"key": "room-1", **INPAINT}, "# a comment", line, "not looked at"))

    with pytest.raises(InvalidRequestError) as caught:
        jobs.check()

    assert str(caught.value).startswith("jobs.jsonl, line 4: ")
    assert message in str(caught.value)


@given(st.binary(min_size=1).filter(lambda line: line.strip() and not line.strip().startswith(b"#")))
def test_whatever_is_no_job_is_an_error_of_ours(tmp_path_factory: pytest.TempPathFactory, line: bytes) -> None:
    """Any bytes are refused in the same manner."""
    path = tmp_path_factory.getbasetemp() / "any.jsonl"
    path.write_bytes(line)

    with pytest.raises(InvalidRequestError, match=r"any\.jsonl, line [0-9]+: "):
        JobsFile(path).check()


def test_a_file_that_cannot_be_read() -> None:
    """The system's reason is told."""
    with pytest.raises(InvalidRequestError, match=r"^cannot read gone\.jsonl: No such file or directory$"):
        JobsFile(Path("gone.jsonl")).check()


def test_a_file_without_jobs(serve: Callable[..., Emulator], capfd: pytest.CaptureFixture[str]) -> None:
    """There is nothing to do, and no journal is made for it."""
    serve()
    write("# a comment", "")

    assert 2 == main(["batch", "jobs.jsonl"])

    assert "error: jobs.jsonl holds no jobs; write one JSON object per line\n" == capfd.readouterr().err
    assert not Path("jobs.jsonl.journal").exists()


def test_a_pipe() -> None:
    """The file is read twice, which a pipe cannot be."""
    os.mkfifo("pipe")

    with pytest.raises(InvalidRequestError, match=r"^pipe is a pipe or the like"):
        JobsFile(Path("pipe")).check()


def test_a_mark_of_windows() -> None:
    """A byte order mark before the first line is no part of it."""
    path = write(INPAINT)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())

    assert 1 == JobsFile(path).check()


def test_lines_become_requests() -> None:
    """What stands in a line is what the methods of `ModifyMaskedPixels` would be given."""
    write({**INPAINT, "key": "k", "negative": "text", "seed": 7, "mask_blur": 8, "width": 512, "model": "m"})

    (job,) = JobsFile(Path("jobs.jsonl"))

    request = job.request
    assert ("k", 1, 7, 512, ("text",)) == (job.key, job.number, request.seed, request.width, request.negative_prompts)
    assert request.masked is not None
    assert request.main_model is not None
    assert (8, "m") == (request.masked.mask_blur, request.main_model.model_code)


@pytest.mark.anyio
async def test_requests_are_read_piece_by_piece() -> None:
    """A line that went wrong after the check is met when its turn comes; what was handed out can be told."""
    count = 2 * PIECE
    jobs = JobsFile(write(*keyed(count), "wrong"))
    given: list[Any] = []

    with pytest.raises(InvalidRequestError, match=f"line {count + 1}: "):  # noqa: PT012 - it comes in between
        async for key, request in jobs.requests():  # type: ignore[misc]
            given.append(key)
            assert isinstance(request, ModifyMaskedPixels)
            assert key == jobs.take_back(request).label

    assert [f"room-{number}" for number in range(count)] == given


# --- what is told


def test_how_far_it_has_come_in_words() -> None:
    """What is zero is left out, but for what is done."""
    assert "0 of 9 done" == words_of(Progress(), 9)
    progress = Progress(pulled=9, done=2, failed=1, unknown=1, paused=3, credits=8)
    words = "2 of 9 done, 1 failed, 1 unknown, 3 not sent, 2 in flight, 8 credits"
    assert words == words_of(progress, 9)
    eta = Eta(seconds=12.3, overdue=False, tasks=2)
    assert f"{words}, newest: about 12 s left (from 2 earlier tasks)" == words_of(progress, 9, eta=eta)


def test_lines_about_many_jobs_are_few() -> None:
    """Without a terminal a tally is a line every few seconds; on one it is rewritten in place."""
    screen, now = io.StringIO(), 0.0
    lines = LineProgress(Console(file=screen), clock=lambda: now)
    for second in range(int(PAUSE) + 1):
        now = float(second)
        lines.tally("batch", f"{second} done")

    assert ["[   0.0 s] batch: 0 done", "[   5.0 s] batch: 5 done"] == screen.getvalue().splitlines()

    screen = io.StringIO()
    with LiveProgress(Console(file=screen, force_terminal=True, width=80)) as live:
        live.tally("batch", "1 of 2 done")
        live.tally("batch", "2 of 2 done")
    assert "2 of 2 done" in screen.getvalue()


def test_foreign_errors_are_not_quoted(capfd: pytest.CaptureFixture[str]) -> None:
    """A surprise is told by its kind alone, for its text may hold anything."""
    report = Report(Output(as_json=True))

    report.end("room-1", ZeroDivisionError("secret"), key="room-1")
    report.publish()

    out, err = capfd.readouterr()
    assert "room-1: ZeroDivisionError: an error that is none of picpik_async's own\n" == err
    assert "ZeroDivisionError" == json.loads(out)["jobs"][0]["error"]["type"]
    assert "secret" not in out
