"""Tests of the emulator's faults, each through a real session on a real socket."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiohttp
import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest
from emulator_client import Client, masked_pixels, signed
from jobs import job

from picpik_async import Limits, PicpikSession, PollPolicy, RetryPolicy
from picpik_async.cli import main
from picpik_async.emulator import Emulator, Fault
from picpik_async.emulator._faults import NATURES, Moment
from picpik_async.emulator._ledger import LedgerFile
from picpik_async.emulator._plan import Plan
from picpik_async.emulator._tasks import LedgerEntry
from picpik_async.errors import (
    ApiError,
    ConfigurationError,
    DownloadError,
    HttpStatusError,
    InvalidImageError,
    PicpikError,
    ResultExpiredError,
    SubmitOutcomeUnknownError,
    TaskVanishedError,
    TransportError,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable
    from pathlib import Path

    from picpik_async import Task

QUICK = Limits(request_timeout=0.3)
PATIENT = Limits(request_timeout=20)


@asynccontextmanager
async def serving(
    *faults: Fault | str, limits: Limits = QUICK, **options: Any
) -> AsyncIterator[tuple[Emulator, PicpikSession]]:
    """An emulator with faults, and a session that does not wait long for anything."""
    async with Emulator(**{"run_time": 0, "faults": faults, **options}) as emulator:
        poll = PollPolicy(tick=0.02, max_backoff=0.1, request_timeout=0.3, unknown_task_grace=0.2)
        retry = RetryPolicy(attempts=2, base_delay=0, throttle_delay=0)
        async with emulator.session(limits=limits, poll=poll, retry=retry) as picpik:
            with anyio.fail_after(30):
                yield emulator, picpik


@pytest.mark.parametrize(
    ("text", "fault", "label"),
    [
        ("hang", Fault("hang", on="submit", share=1.0, count=None, after=None), "hang"),
        ("lose-answer:0.05", Fault("lose-answer", share=0.05), "lose-answer"),
        ("reset@1000:0.1", Fault("reset", after=1000, share=0.1), "reset"),
        ("reset@1000x3", Fault("reset", after=1000, count=3), "reset"),
        ("504x3", Fault("504", count=3), "504"),
        ("poll.503@5:1x2", Fault("503", on="poll", after=5, share=1, count=2), "poll.503"),
        ("submit.taken-504", Fault("taken-504"), "taken-504"),
        ("download.404", Fault("404", on="download"), "download.404"),
        ("vanish:.5", Fault("vanish", on="poll", share=0.5), "vanish"),
        ("429", Fault(429), "429"),  # a number is as good a name
    ],
)
def test_faults_are_written_down(text: str, fault: Fault, label: str) -> None:
    """Kind of request, name, number, share and count, in this order; all but the name may be left out."""
    assert fault == Fault.parse(text)
    assert label == fault.label


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("hng", r"'hng' is unknown; known are drip, garbage, .*, wrong-bytes, 400 to 599, and taken-400 to taken-599"),
        ("399", "unknown"),
        ("taken-600", "unknown"),
        ("", r"not written \[ON.\]NAME"),
        ("hang::", r"not written \[ON.\]NAME"),
        ("\x1b[2J", r"fault '\\\\x1b\[2J' is not written"),
        ("download.lose-answer", "on of fault 'lose-answer' is 'download', but must be one of submit$"),
        ("hang:1.5", "share of fault 'hang' is 1.5, but must be a number from 0 to 1"),
        ("hang:1..5", "share of fault 'hang' is '1..5', but must be a number"),
        ("hangx0", "count of fault 'hang' is 0, but must be a whole number, at least 1"),
        ("hang@5", "after of fault 'hang' is 5, but must be unset"),
    ],
)
def test_wrong_faults_are_refused(text: str, complaint: str) -> None:
    """The message says what is known, or allowed; an emulator refuses them before it starts."""
    with pytest.raises(ConfigurationError, match=complaint):
        Emulator(faults=[text])


def test_numbers_are_checked() -> None:
    """Also those that cannot be written as text."""
    with pytest.raises(ConfigurationError, match="after of fault 'reset' is -1"):
        Fault("reset", after=-1)


def strikes(*faults: str, seed: int = 0) -> list[str | None]:
    """Which fault strikes each of 100 submits that are to be looked at."""
    plan = Plan(faults, seed=seed)
    struck = [plan.strike(Moment.REQUEST, "submit") for _ in range(100)]
    return [fault.name if fault else None for fault in struck]


def test_the_dice_fall_the_same_way_in_every_run() -> None:
    """The seed says which requests are struck, the share how many."""
    struck = strikes("hang:0.3")

    assert struck == strikes("hang:0.3") == strikes("hang:0.3", "poll.504")
    assert struck != strikes("hang:0.3", seed=1)
    assert 15 < struck.count("hang") < 45
    assert [None] * 100 == strikes("hang:0", "reset", "taken-504")


def test_a_count_is_a_limit() -> None:
    """A fault that has struck often enough leaves the rest to the next one."""
    assert ["504"] * 2 + ["html"] + [None] * 97 == strikes("504x2", "htmlx1")


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("fault", "kinds"),
    [
        ("reset", (TransportError, SubmitOutcomeUnknownError)),  # a body of this size may have left whole
        ("reset@100000000", SubmitOutcomeUnknownError),
        ("hang", SubmitOutcomeUnknownError),
        ("garbage", SubmitOutcomeUnknownError),
        ("html", SubmitOutcomeUnknownError),
        ("503", SubmitOutcomeUnknownError),
        ("400", HttpStatusError),
        ("429@0", HttpStatusError),
        ("no-credits", ApiError),
    ],
)
async def test_a_submit_that_is_not_taken(fault: str, kinds: Any) -> None:
    """Nothing is charged, whether the client can know or not."""
    async with serving(fault) as (emulator, picpik):
        with pytest.raises(kinds):
            await picpik.submit(job(400))

    assert () == emulator.ledger
    assert {Fault.parse(fault).name} == set(emulator.injected)


@pytest.mark.anyio
async def test_a_reset_before_the_end_is_certain() -> None:
    """What is cut off before its last bytes was not taken, and the client knows."""
    async with serving("reset@1000", limits=PATIENT) as (emulator, picpik):
        with pytest.raises(TransportError):
            await picpik.submit(job(1400))

    assert () == emulator.ledger


@pytest.mark.anyio
async def test_retry_after_is_told() -> None:
    """429 and 503 say when to come again, other statuses do not."""
    faults = ["poll.429x1", "poll.503@7x1", "poll.500x1"]
    async with Emulator(faults=faults) as emulator, aiohttp.ClientSession() as http:
        told = []
        for _ in faults:
            async with http.post(emulator.url, json={"Action": "GetCreditBalance"}) as response:
                told.append((response.status, response.headers.get("Retry-After")))

    assert [(429, "1"), (503, "7"), (500, None)] == told


@pytest.mark.anyio
@pytest.mark.parametrize(
    "fault",
    ["lose-answer", "taken-hang", "taken-garbage", "taken-html", "taken-500", "taken-504", "truncate@10", "drip@5"],
)
async def test_a_submit_that_is_taken_and_not_answered(fault: str) -> None:
    """It is charged once, nothing is sent again, and the client says that it does not know."""
    async with serving(fault) as (emulator, picpik):
        with pytest.raises(SubmitOutcomeUnknownError) as caught:
            await picpik.submit(job())
        balance = await picpik.balance()

    [entry] = emulator.ledger
    assert caught.value.request_uuid == entry.request_uuid
    assert (1, entry.cost) == (emulator.requests["ModifyMaskedPixels"], balance.used_credits)
    assert {Fault.parse(fault).name: 1} == emulator.injected


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", [("asyncio", {"use_uvloop": True})], ids=["uvloop"])
@pytest.mark.parametrize("fault", ["lose-answer", "taken-hang", "taken-garbage", "truncate@10", "drip@5"])
async def test_faults_on_another_loop(fault: str) -> None:
    """On uvloop they are the same."""
    async with serving(fault) as (emulator, picpik):
        with pytest.raises(SubmitOutcomeUnknownError):
            await picpik.submit(job())

    assert 1 == len(emulator.ledger)


@pytest.mark.anyio
async def test_some_answers_are_lost() -> None:
    """Of many submits those that the dice say are charged without an answer, the others have one."""
    async with serving(Fault("lose-answer", share=0.3), seed=1, limits=PATIENT) as (emulator, picpik):
        outcomes = [await outcome_of(picpik.submit(job(200))) for _ in range(7)]

    lost = outcomes.count(SubmitOutcomeUnknownError)
    assert (7, lost) == (len(emulator.ledger), emulator.injected["lose-answer"])
    assert 0 < lost < 7


async def outcome_of(submit: Awaitable[Task]) -> type:
    """The type of what comes of a submit, error or not."""
    try:
        return type(await submit)
    except PicpikError as error:
        return type(error)


@pytest.mark.anyio
@pytest.mark.parametrize(
    "fault",
    [
        "poll.504x3",
        "poll.resetx2",
        "poll.hangx1",
        "poll.garbagex2",
        "poll.htmlx2",
        "poll.truncatex2",
        "poll.dripx1",
        "missing-rowx3",
        "unknown-word",
    ],
)
async def test_polls_may_fail(fault: str) -> None:
    """A failed poll is not a failed task: the task finishes."""
    async with serving(fault) as (emulator, picpik):
        result = await picpik.run(job(), timeout=20)

    assert 1 == len(result.images)
    assert emulator.injected[Fault.parse(fault).label] >= (Fault.parse(fault).count or 1)


@pytest.mark.anyio
async def test_a_task_may_vanish() -> None:
    """The service knows nothing of it any more, in no query; the client gives up after its grace."""
    async with serving("vanishx1", run_time=100) as (emulator, picpik):
        gone, known = await picpik.submit(job()), await picpik.submit(job())
        with pytest.raises(TaskVanishedError):
            await gone.wait(timeout=20)
        with pytest.raises(ApiError):
            await gone.terminate()
        running = await picpik.running_tasks()

    assert [known.uid] == [task.uid for task in running]
    assert {"vanish": 1} == emulator.injected


@pytest.mark.anyio
async def test_a_task_may_poison_lists() -> None:
    """Lists that contain it are refused; the client finds it out, and the others finish."""
    async with serving("poisonx1") as (emulator, picpik):
        poison, *others = [await picpik.submit(job()) for _ in range(4)]
        ends = await asyncio.gather(
            *[task.wait(timeout=20) for task in others], poison.wait(timeout=20), return_exceptions=True
        )

    assert [False] * 3 == [isinstance(end, BaseException) for end in ends[:3]]
    assert isinstance(ends[3], TaskVanishedError)
    assert {"poison": 1} == emulator.injected


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ("wrong-bytes", InvalidImageError),
        ("download.html", InvalidImageError),
        ("download.404", ResultExpiredError),
        ("redirect", DownloadError),
        ("download.500", DownloadError),
        ("download.reset", DownloadError),
        ("download.hang", DownloadError),
        ("download.garbage", DownloadError),
        ("download.truncate", DownloadError),
        ("download.drip@9", DownloadError),
    ],
)
async def test_a_download_fails(fault: str, kind: type[DownloadError], tmp_path: Path) -> None:
    """What does not arrive whole is an error, and no file."""
    async with serving(fault) as (_, picpik):
        result = await picpik.run(job(), timeout=20)
        with pytest.raises(kind):
            await result.save(tmp_path)

    assert [] == await anyio.to_thread.run_sync(os.listdir, tmp_path)


@pytest.mark.anyio
@pytest.mark.parametrize("fault", ["download.truncate", "download.503@0", "download.reset"])
async def test_a_download_recovers(fault: str) -> None:
    """Faults that pass are overcome."""
    async with serving(f"{fault}x1", limits=PATIENT) as (emulator, picpik):
        result = await picpik.run(job(), timeout=20)
        file = await result.images[0].read()

    assert file.startswith(b"\x89PNG")
    assert {Fault.parse(fault).label: 1} == emulator.injected


@pytest.mark.anyio
async def test_the_kind_of_request_shows_wherever_its_action_stands() -> None:
    """A reset strikes submits whose Action comes last, too, and leaves alone what has none."""
    body = json.dumps(dict(reversed(signed(masked_pixels()).items()))).encode()

    async def pieces() -> AsyncIterator[bytes]:
        cut = body.rindex(b"Action") + 3
        for piece in (body[:cut], body[cut:]):
            yield piece
            await asyncio.sleep(0.02)

    async with Emulator(faults=["reset"]) as emulator, aiohttp.ClientSession() as http:
        with pytest.raises(aiohttp.ClientError):
            await http.post(emulator.url, data=pieces())
        async with http.post(emulator.url, json=[]) as response:
            assert 200 == response.status

    assert {"reset": 1} == emulator.injected


@pytest.mark.anyio
@pytest.mark.parametrize("fault", ["hang", "drip"])
async def test_leaving_ends_what_would_last(fault: str) -> None:
    """An emulator that is left does not wait for the clients it keeps waiting."""
    async with aiohttp.ClientSession() as http:
        async with Emulator(faults=[fault]) as emulator:
            waiting = asyncio.create_task(Client(emulator, http).submit())
            with anyio.fail_after(10):
                while not emulator.injected:
                    await anyio.lowlevel.checkpoint()
            start = anyio.current_time()
        with anyio.fail_after(10), pytest.raises(aiohttp.ClientError):
            await waiting

    assert anyio.current_time() - start < 1


@pytest.mark.anyio
async def test_a_drip_ends() -> None:
    """A client with enough patience gets the whole answer."""
    async with Emulator(faults=["poll.drip@116x1"]) as emulator, aiohttp.ClientSession() as http:
        answer = await Client(emulator, http).call("GetCreditBalance")

    assert 300 == answer["TotalCredits"]
    assert {"poll.drip": 1} == emulator.injected


def lines_of(file: Path) -> list[dict[str, Any]]:
    """The lines of a ledger."""
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.mark.anyio
async def test_the_ledger_is_on_the_disk(tmp_path: Path) -> None:
    """A line per charge, also if the answer is lost, and never one less than answers; a second emulator goes on."""
    file = tmp_path / "ledger.jsonl"
    async with serving("lose-answerx1", ledger_file=file, limits=PATIENT) as (emulator, picpik):
        jobs = [picpik.submit(job()) for _ in range(8)]
        outcomes = await asyncio.gather(*jobs, return_exceptions=True)
        lines = await anyio.to_thread.run_sync(lines_of, file)
    async with serving(ledger_file=str(file), limits=PATIENT) as (_, picpik):
        task = await picpik.submit(job())

    assert 1 == sum(isinstance(outcome, SubmitOutcomeUnknownError) for outcome in outcomes)
    assert [
        {"request_uuid": entry.request_uuid, "TaskUID": entry.task_uid, "time": entry.time, "cost": entry.cost}
        for entry in emulator.ledger
    ] == lines
    assert [*(line["TaskUID"] for line in lines), task.uid] == [line["TaskUID"] for line in lines_of(file)]


@pytest.mark.anyio
async def test_lines_share_a_sync(tmp_path: Path) -> None:
    """What comes at once is all on the disk when the first returns."""
    file = LedgerFile(tmp_path / "ledger.jsonl")
    entries = [
        LedgerEntry(request_uuid=None, task_uid=str(n), action="", time=n, cost=1, parameters={}, images=())
        for n in range(5)
    ]
    await file.open()
    async with anyio.create_task_group() as group:
        for entry in entries:
            group.start_soon(file.append, entry)
    await file.aclose()

    assert list("01234") == [line["TaskUID"] for line in lines_of(tmp_path / "ledger.jsonl")]


@pytest.mark.anyio
async def test_a_ledger_that_cannot_be_opened(tmp_path: Path) -> None:
    """The message names the file and the way out."""
    with pytest.raises(ConfigurationError, match=r"cannot be written \(Is a directory\); choose another file"):
        await Emulator(ledger_file=tmp_path).__aenter__()


@pytest.mark.anyio
async def test_a_ledger_that_cannot_be_written(caplog: pytest.LogCaptureFixture) -> None:
    """Without its witness a submit is not answered as if all were well."""
    async with serving(ledger_file="/dev/full") as (_, picpik):
        with pytest.raises(SubmitOutcomeUnknownError, match="HTTP 500"):
            await picpik.submit(job())

    assert "No space left on device" in caplog.text


def test_the_help_lists_all_faults(capfd: pytest.CaptureFixture[str]) -> None:
    """`picpik emulator --help` names each of them, and how they are written."""
    main(["emulator", "--help"])
    words = capfd.readouterr().out

    assert [] == [name for name in NATURES if name not in words]
    assert "[ON.]NAME[@AFTER][:SHARE][xCOUNT]" in words


def test_an_unknown_fault_on_the_command_line(capfd: pytest.CaptureFixture[str]) -> None:
    """One line with the known ones, and exit code 2."""
    assert 2 == main(["emulator", "--port", "0", "--fault", "hng"])

    assert "fault 'hng' is unknown; known are drip, garbage" in capfd.readouterr().err


def test_faults_from_the_command_line(tmp_path: Path) -> None:
    """`picpik emulator --fault … --ledger FILE` serves with them."""
    code = "import sys; from picpik_async.cli import main; sys.exit(main())"
    file = tmp_path / "ledger.jsonl"
    words = ["emulator", "--port", "0", "--fault", "lose-answerx1", "--fault", "no-creditsx2", "--ledger", str(file)]
    arguments = [sys.executable, "-c", code, *words]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:  # noqa: S603
        assert process.stdout is not None
        exports = [process.stdout.readline() for _ in range(3)]
        url = exports[0].strip().partition("=")[2]
        statuses = asyncio.run(submits(url))
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)

    assert ["refused", "refused", "lost", "taken"] == statuses
    assert 2 == len(lines_of(file))


async def submits(url: str) -> list[str]:
    """What becomes of four submits."""
    found = []
    async with aiohttp.ClientSession() as http:
        for _ in range(4):
            try:
                async with http.post(url, json=signed(masked_pixels())) as response:
                    found.append("refused" if (await response.json())["RetCode"] else "taken")
            except aiohttp.ClientError:
                found.append("lost")
    return found


@pytest.mark.parametrize("fault", ["lose-answer:0.05x2", Fault("lose-answer", share=0.05, count=2)])
def test_one_fault_needs_no_list(fault: Fault | str) -> None:
    """A single fault may stand alone."""
    (found,) = Plan(fault, seed=0)._faults

    assert Fault("lose-answer", share=0.05, count=2) == found


@pytest.mark.parametrize(
    ("faults", "words"),
    [
        (5, "faults is a int, but must be faults"),
        (None, "faults is a NoneType, but must be faults"),
        ([5], "fault '5' is unknown"),
        ([None], "fault 'None' is not written"),
        (["taken-429@5"], "after of fault 'taken-429' is 5, but must be unset, as this fault takes no number"),
        (["x" * 5000], "^fault 'x{99}…' is unknown; .{1,400}$"),
    ],
)
def test_what_is_no_fault(faults: Any, words: str) -> None:
    """What is no fault is refused before the emulator starts, and told in a line."""
    with pytest.raises(ConfigurationError, match=words):
        Emulator(faults=faults)


@pytest.mark.anyio
async def test_ipv6() -> None:
    """The emulator serves on IPv6, too."""
    async with Emulator(host="::1") as emulator, emulator.session() as picpik:
        assert emulator.url.startswith("http://[::1]:")
        assert 300 == (await picpik.balance()).total_credits


@pytest.mark.anyio
async def test_a_full_disk_leaves_no_half_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A charge that could be written down only in part is written whole with the next one."""
    file, write, full = LedgerFile(tmp_path / "ledger"), os.write, [False, True]

    def until_full(descriptor: int, data: bytes) -> int:
        if full and full.pop(0):
            raise OSError(28, "No space left on device")
        return write(descriptor, data[:20] if full else data)

    a, b = (
        LedgerEntry(request_uuid=uuid, task_uid="t", action="", time=1, cost=1, parameters={}, images=())
        for uuid in "ab"
    )
    await file.open()
    monkeypatch.setattr(os, "write", until_full)
    with pytest.raises(OSError, match="No space"):
        await file.append(a)
    assert b"" == (tmp_path / "ledger").read_bytes()
    await file.append(b)
    monkeypatch.undo()
    await file.aclose()

    lines = (tmp_path / "ledger").read_text().splitlines()
    assert ["a", "b"] == [json.loads(line)["request_uuid"] for line in lines]
