"""The `picpik` command: what it prints where, its exit codes, and that nothing paid is lost."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import shlex
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from rich.console import Console
from shell import KEYS, lines_until, started

from picpik_async import errors
from picpik_async.cli import main
from picpik_async.cli._demo import MARGIN, PHOTO
from picpik_async.cli._options import box_of, size_of
from picpik_async.cli._output import Output, resume_hint
from picpik_async.cli._progress import LineProgress, LiveProgress, progress_on

if TYPE_CHECKING:
    from collections.abc import Callable

    from picpik_async.emulator import Emulator

pytestmark = pytest.mark.usefixtures("surroundings")


def uid_in(text: str) -> str:
    """The task id a command told on stderr."""
    match = re.search(r": task (\S+)", text)
    assert match is not None, text
    return match[1]


# --- making pictures


def test_inpaint_saves_the_picture_and_prints_its_path(
    serve: Callable[..., Emulator], room: str, sofa: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """Paths go to stdout, one a line; id, states and a summary to stderr."""
    emulator = serve(run_time=0.05)

    code = main(
        ["inpaint", room, sofa, "--prompt", "a green sofa", "--negative", "text", "--seed", "7", "--out", "out"]
    )

    out, err = capfd.readouterr()
    assert (0, "") == (code, "" if code == 0 else err)
    uid = emulator.ledger[0].task_uid
    assert [f"out/{uid}-0.png"] == out.splitlines()
    with Image.open(out.strip()) as picture:
        assert (96, 80) == picture.size
    assert uid == uid_in(err)
    assert re.search(r"^\[ +[0-9.]+ s\] inpaint room\.png: sending$", err, re.MULTILINE)
    assert "1 picture saved, seed 7, credits " in err


def test_inpaint_takes_boxes_and_all_options(
    serve: Callable[..., Emulator], room: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """Boxes stand for a mask; `--json` prints one document about all pictures."""
    serve(run_time=0.05)
    options = ["--box", "8,8,40,40", "--box", "50,50,60,60", "--mask-blur", "2", "--invert-mask", "--batch", "2"]
    more = ["--model", "PICPIK General", "--size", "128x96", "--reference", room, "--timeout", "60", "--seed", "3"]

    code = main(["inpaint", room, *options, *more, "--json"])

    out, err = capfd.readouterr()
    assert 0 == code, err
    document = json.loads(out)
    assert {"task_uid", "status", "files", "seed", "cost"} == set(document)
    assert ("finished", 3, uid_in(err)) == (document["status"], document["seed"], document["task_uid"])
    assert 2 == len(document["files"])
    for file in document["files"]:
        with Image.open(file) as picture:
            assert (128, 96) == picture.size


def test_outpaint_with_an_embedded_emulator(room: str, capfd: pytest.CaptureFixture[str]) -> None:
    """`--emulator` needs neither keys nor a service."""
    code = main(["outpaint", room, "--left", "16", "--top", "8", "--emulator", "--json"])

    out, err = capfd.readouterr()
    assert 0 == code, err
    with Image.open(json.loads(out)["files"][0]) as picture:
        assert (112, 88) == picture.size


def test_detach_prints_the_task_and_wait_fetches_it(
    serve: Callable[..., Emulator], room: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """A detached command prints the id alone; `task wait` saves the pictures later."""
    serve(run_time=0.05)

    assert 0 == main(["outpaint", room, "--right", "16", "--detach"])
    uid = capfd.readouterr().out.strip()
    assert 0 == main(["task", "wait", uid, "--out", "later"])

    assert f"later/{uid}-0.png" == capfd.readouterr().out.strip()
    assert 0 == main(["outpaint", room, "--right", "16", "--detach", "--json"])
    assert "submitted" == json.loads(capfd.readouterr().out)["status"]


# --- tasks and credits


def test_task_show_and_terminate(serve: Callable[..., Emulator], room: str, capfd: pytest.CaptureFixture[str]) -> None:
    """`task show` tells the state, for people and for scripts; `task terminate` ends the task."""
    serve(run_time=600.0)
    assert 0 == main(["outpaint", room, "--right", "16", "--detach"])
    uid = capfd.readouterr().out.strip()

    assert 0 == main(["task", "show", uid])
    assert f"task_uid: {uid}" in capfd.readouterr().out.splitlines()
    assert 0 == main(["task", "show", uid, "--json"])
    assert json.loads(capfd.readouterr().out)["status"] in {"queuing", "running"}
    assert 0 == main(["task", "terminate", uid])
    assert f"task {uid} terminated" == capfd.readouterr().out.strip()


def test_balance(serve: Callable[..., Emulator], capfd: pytest.CaptureFixture[str]) -> None:
    """`balance` is a sentence, or a document."""
    serve(credits=300)

    assert 0 == main(["balance"])
    assert "300 of 300 credits left, 0 used" == capfd.readouterr().out.strip()
    assert 0 == main(["balance", "--json"])
    assert 300 == json.loads(capfd.readouterr().out)["remaining_credits"]


# --- what goes wrong


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["bogus"], 'Unknown command "bogus"'),
        (["inpaint"], "see: picpik inpaint --help"),
        (["inpaint", "a.png", "--seed", "x"], "--seed"),
        (["inpaint", "a.png", "--emulator"], "MASK or --box"),
        (["inpaint", "a.png", "b.png", "--box", "1,2,3,4", "--emulator"], "MASK or --box"),
        (["inpaint", "a.png", "--box", "1,2,3", "--emulator"], "--box '1,2,3' is not LEFT,TOP,RIGHT,BOTTOM"),
        (["inpaint", "missing.png", "b.png", "--emulator"], "missing.png"),
        (["inpaint", "a.png", "b.png", "--mask-blur", "65", "--emulator"], "mask_blur"),
        (["outpaint", "a.png", "--emulator"], "all margins are 0"),
        (["outpaint", "a.png", "--left", "8", "--size", "big", "--emulator"], "--size 'big' is not WIDTHxHEIGHT"),
        (["outpaint", "a.png", "--left", "8", "--detach", "--emulator"], "picpik emulator"),
        (["outpaint", "a.png", "--left", "8", "--timeout", "0"], "--timeout"),
        (["balance"], "PICPIK_PUBLIC_KEY"),
        (["balance"], "add --emulator"),
    ],
)
def test_usage_errors(arguments: list[str], message: str, capfd: pytest.CaptureFixture[str]) -> None:
    """What the user can put right is one line on stderr, and exit code 2."""
    code = main(arguments)

    out, err = capfd.readouterr()
    assert (2, "") == (code, out)
    error = err.splitlines()[-1]
    assert error.startswith("error: ")
    assert message in error


def test_an_insecure_endpoint_gets_no_hint_about_keys(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """With keys at hand, the emulator is not the way out of a wrong setting."""
    for name, value in zip(KEYS, ("http://picpik.example", "public", "private"), strict=True):
        monkeypatch.setenv(name, value)

    assert 2 == main(["balance"])

    assert "--emulator" not in capfd.readouterr().err


def test_errors_as_json(capfd: pytest.CaptureFixture[str]) -> None:
    """With `--json` an error is a document too, even if the command line is wrong."""
    assert 2 == main(["inpaint", "--json"])
    assert "MissingArgumentError" == json.loads(capfd.readouterr().out)["error"]["type"]
    assert 2 == main(["balance", "--json"])
    assert "ConfigurationError" == json.loads(capfd.readouterr().out)["error"]["type"]


def test_a_wait_that_times_out_says_how_to_go_on(
    serve: Callable[..., Emulator], room: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """Exit code 1, and the command that waits on."""
    serve(run_time=600.0)

    assert 1 == main(["outpaint", room, "--right", "16", "--timeout", "0.2", "--json"])

    out, err = capfd.readouterr()
    error = json.loads(out)["error"]
    assert ("TaskTimeoutError", uid_in(err)) == (error["type"], error["task_uid"])
    assert f"go on with: picpik task wait {uid_in(err)}" == error["hint"]
    assert "outpaint room.png: failed" in err


def test_a_failing_task(serve: Callable[..., Emulator], room: str, capfd: pytest.CaptureFixture[str]) -> None:
    """A task that the service gives up on is exit code 1, with its id and the service's reason."""
    serve(run_time=0.05, fail=lambda _parameters: "too\x1b[31m tired")

    assert 1 == main(["outpaint", room, "--right", "16"])

    out, err = capfd.readouterr()
    assert "" == out
    error = err.splitlines()[-1]
    assert uid_in(err) in error
    assert "'too\\x1b[31m tired'" in error
    assert "picpik task wait" not in error


def test_a_task_that_the_service_does_not_know(capfd: pytest.CaptureFixture[str]) -> None:
    """Exit code 1, and no way to go on."""
    assert 1 == main(["task", "show", "nosuchtask", "--emulator"])

    out, err = capfd.readouterr()
    assert "" == out
    assert "nosuchtask" in err
    assert "picpik task wait" not in err


def test_a_folder_that_cannot_be_written(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A file where the folder should be is found before anything is submitted."""
    (tmp_path / "file").touch()

    assert 2 == main(["outpaint", "a.png", "--left", "8", "--out", "file"])
    assert "--out" in capfd.readouterr().err


@pytest.mark.parametrize("module", ["cyclopts", "rich"])
def test_a_missing_cli_extra(module: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """Without the packages of the extra, the command says how to install them."""
    monkeypatch.setitem(sys.modules, module, None)

    assert 2 == main(["--version"])

    err = capfd.readouterr().err
    assert module in err
    assert "pip install 'picpik-async[cli]'" in err


@pytest.mark.parametrize("arguments", [["balance", "--emulator"], ["emulator"], ["demo"]])
def test_a_missing_emulator_extra(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Without OpenCV, commands that need the emulator say how to install it."""
    monkeypatch.setitem(sys.modules, "cv2", None)

    assert 2 == main(arguments)
    assert "pip install 'picpik-async[emulator]'" in capfd.readouterr().err


def test_the_entry_point_imports_without_extras() -> None:
    """The module of the entry point imports nothing optional."""
    hidden = "import sys; sys.modules.update(cyclopts=None, rich=None, cv2=None, numpy=None)"
    script = f"{hidden}; from picpik_async.cli import main; sys.exit(main(['demo']))"

    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)  # noqa: S603

    assert (2, "") == (ended.returncode, ended.stdout)
    assert "error: cyclopts and rich cannot be imported; run: pip install 'picpik-async[cli]'\n" == ended.stderr


def test_version_and_help(capfd: pytest.CaptureFixture[str]) -> None:
    """Both go to stdout and succeed."""
    assert 0 == main(["--version"])
    assert re.fullmatch(r"[0-9]+\.[0-9]+\.[0-9]+\S*", capfd.readouterr().out.strip())
    assert 0 == main(["inpaint", "--help"])
    assert "--prompt" in capfd.readouterr().out


# --- the demo


def test_demo(capfd: pytest.CaptureFixture[str]) -> None:
    """The demo saves two pictures and a contact sheet, says where, and names its source."""
    assert 0 == main(["demo"])

    out, err = capfd.readouterr()
    names = ["without-patch.png", "wider.png", "contact-sheet.png"]
    assert [f"picpik-demo/{name}" for name in names] == out.splitlines()
    assert "Eileen Collins, NASA" in err
    sizes = []
    for path in out.splitlines():
        with Image.open(path) as picture:
            sizes.append(picture.size)
    assert [(512, 512), (512 + 2 * MARGIN, 512)] == sizes[:2]
    assert sizes[2] > (3 * sizes[1][0], 2 * 512)


def test_demo_changes_what_it_says_it_does(capfd: pytest.CaptureFixture[str]) -> None:
    """The patch is gone, the face is untouched."""
    assert 0 == main(["demo", "--out", "here", "--json"])

    document = json.loads(capfd.readouterr().out)
    assert "here/contact-sheet.png" == document["contact_sheet"]
    with Image.open(PHOTO) as before, Image.open(document["jobs"][0]["files"][0]) as after:
        face, patch = (170, 40, 280, 160), (150, 365, 190, 405)
        assert before.convert("RGB").crop(face).tobytes() == after.convert("RGB").crop(face).tobytes()
        assert before.convert("RGB").crop(patch).tobytes() != after.convert("RGB").crop(patch).tobytes()


def test_demo_in_a_place_that_cannot_be_written(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A picture that cannot be saved fails the demo, with one line that names the folder."""
    (tmp_path / "file").touch()

    assert 1 == main(["demo", "--out", "file/below"])

    error = capfd.readouterr().err.splitlines()[-1]
    assert error.startswith("error: cannot write file/below")


def test_a_contact_sheet_that_cannot_be_written(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A problem of the file system is one line, too."""
    (tmp_path / "out" / "contact-sheet.png").mkdir(parents=True)

    assert 1 == main(["demo", "--out", "out"])

    assert "error: cannot write out/contact-sheet.png: Is a directory" == capfd.readouterr().err.splitlines()[-1]


# --- as a process


def test_interrupting_a_wait_says_how_to_resume(serve: Callable[..., Emulator], room: str) -> None:
    """Ctrl-C ends the command, not the task: exit code 130, and the command that resumes."""
    emulator = serve(run_time=600.0)
    with started("outpaint", room, "--left", "8", stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        lines_until(process.stderr, "Running")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)

    uid = emulator.ledger[0].task_uid
    assert (130, "") == (process.returncode, out)
    assert "outpaint room.png: interrupted" in err
    assert f"error: interrupted; task {uid} goes on; resume with: picpik task wait {uid}" == err.splitlines()[-1]


def test_interrupting_with_an_embedded_emulator() -> None:
    """Nothing goes on where the service ends with the command."""
    with started("demo", stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        lines_until(process.stderr, "sending")
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)

    assert 130 == process.returncode
    assert "error: interrupted" == err.splitlines()[-1]


def test_standard_output_that_cannot_be_written() -> None:
    """A full disk, or a reader that has gone, is one line and exit code 1."""
    with (
        Path("/dev/full").open("w") as full,
        started("balance", "--emulator", stdout=full, stderr=subprocess.PIPE) as process,
    ):
        _, err = process.communicate(timeout=30)

    assert 1 == process.returncode
    assert "error: cannot write to standard output: No space left on device\n" == err


def test_emulator_serves_until_interrupted(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """`picpik emulator` prints what to export; other commands reach it by that; Ctrl-C is its regular end."""
    with started("emulator", "--port", "0", stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        lines_until(process.stderr, "listening")
        assert process.stdout is not None
        exports = [shlex.split(process.stdout.readline()) for _ in KEYS]
        for _, setting in exports:
            name, _, value = setting.partition("=")
            monkeypatch.setenv(name, value)
        code = main(["balance", "--json"])
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)

    assert (0, 0) == (code, process.returncode)
    assert set(KEYS) == {setting.partition("=")[0] for _, setting in exports}
    assert json.loads(capfd.readouterr().out)["remaining_credits"] > 0
    assert "emulator stopped" in err


def test_emulator_on_a_port_in_use(capfd: pytest.CaptureFixture[str]) -> None:
    """A port that is taken is one line and exit code 2."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert 2 == main(["emulator", "--port", str(port)])

    assert f"port {port}" in capfd.readouterr().err


def test_progress_on_a_terminal(room: str) -> None:
    """On a terminal the states are rewritten in place, with the elapsed time; stdout stays clean."""
    ours, theirs = pty.openpty()
    with started(
        "outpaint",
        room,
        "--left",
        "8",
        "--emulator",
        stdout=subprocess.PIPE,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "100"},
    ) as process:
        os.close(theirs)
        screen = b""
        with contextlib.suppress(OSError):  # how Linux says that the other end of a terminal is closed
            while chunk := os.read(ours, 65536):
                screen += chunk
        out, _ = process.communicate(timeout=30)
    os.close(ours)

    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.decode())
    assert 0 == process.returncode, text
    assert out.strip().endswith("-0.png")
    assert b"\x1b[" in screen
    assert "sending" in text
    assert re.search(r"outpaint room\.png +1 picture saved, .* 0:00:0[0-9]", text)
    assert re.search(r"outpaint room\.png: task \S+", text)


# --- the parts


@given(st.integers(0, 10**9 - 1), st.integers(0, 10**9 - 1))
def test_sizes_and_boxes_are_read(first: int, second: int) -> None:
    """Numbers come back as they were written."""
    assert (first, second) == size_of(f"{first}x{second}")
    assert (first, second, 0, 1) == box_of(f"{first},{second},0,1")


@given(st.text().filter(lambda text: re.fullmatch("[0-9]+[x×,].*", text) is None))
def test_other_text_is_refused_with_the_form(text: str) -> None:
    """Whatever is not a size or a box gives an error that shows the form."""
    with pytest.raises(errors.InvalidRequestError, match="such as 1024x768"):
        size_of(text)
    with pytest.raises(errors.InvalidRequestError, match="such as 40,60,120,140"):
        box_of(text)


@pytest.mark.parametrize(
    ("error", "resumable"),
    [
        (errors.TaskTimeoutError("m", task_uid="t"), True),
        (errors.DownloadError("m", task_uid="t"), True),
        (errors.TransportError("m", task_uid="t"), True),
        (errors.TransportError("m"), False),
        (errors.ResultExpiredError("m", task_uid="t"), False),
        (errors.TaskFailedError("m", task_uid="t"), False),
    ],
)
def test_only_what_may_still_come_is_offered_again(error: errors.PicpikError, *, resumable: bool) -> None:
    """A task that failed or expired is not waited for again."""
    assert resumable == (resume_hint(error) is not None)


def test_ids_missing_from_a_message_are_added(capfd: pytest.CaptureFixture[str]) -> None:
    """The ids are told once, escaped."""
    Output(as_json=False).error("X", "task t1 broke", task_uid="t1", request_uuid="u\x1b1")

    assert "error: task t1 broke (request_uuid u\\x1b1)\n" == capfd.readouterr().err


def test_file_names_need_not_be_text(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    """A path that is no UTF-8 is printed as the bytes it has."""
    Output(as_json=False).result({}, [Path(os.fsdecode(b"\xff.png"))])

    assert b"\xff.png\n" == capfdbinary.readouterr().out


def test_a_dumb_terminal_gets_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the cursor cannot move, changes are lines; where it can, a table."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(progress_on(Console(stderr=True, force_terminal=True)), LineProgress)
    monkeypatch.setenv("TERM", "xterm")
    assert isinstance(progress_on(Console(stderr=True, force_terminal=True)), LiveProgress)
