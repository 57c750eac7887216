"""Garbage in, typed errors out: answers, pictures, names and journals that are nothing like what they should be."""

from __future__ import annotations

import asyncio
import json
import random
import re
import sqlite3
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any

import pytest
from garbage import assert_tame, spoilt_answer, spoilt_bytes, spoilt_picture, try_decoders, try_sniffer
from hypothesis import example, given, settings
from hypothesis import strategies as st
from jobs import CREDENTIALS, job, mask, picture

from picpik_async import ImageSource, ModifyMaskedPixels, PicpikSession, PollPolicy, RetryPolicy
from picpik_async._results import ResultImage
from picpik_async._transport import Answer
from picpik_async._verification import Picture
from picpik_async.errors import MalformedAnswerError, TransportError
from picpik_async.testing import FakeTransport

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from picpik_async._config import Secret

SEEDED = st.integers(0, 2**32).map(random.Random)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)
ANSWERS = SEEDED.map(spoilt_answer) | JSON.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=50)
STATUSES = st.sampled_from(
    [200] * 8 + [0, 100, 201, 204, 301, 307, 400, 401, 404, 408, 409, 425, 429, 500, 503, 999, -1]
)
EACH = 30_000  # inputs a process is handed at a time
INPUTS = 1_020_000  # of the long version, for each target


@given(ANSWERS)
@example(b'{"RetCode":0,"X":' + b"[" * 100_000)
def test_decoders(body: bytes) -> None:
    """No answer to any call is more than an answer, a refusal or a `MalformedAnswerError`."""
    try_decoders(body)


@given(SEEDED.map(spoilt_picture) | st.binary(max_size=100))
def test_sniffers(data: bytes) -> None:
    """What is no whole picture is an `InvalidImageError`, or an `ImageError` at the first look."""
    try_sniffer(data)


async def outcome(sort: str, work: Awaitable[Any]) -> None:
    """Wait for what a call does: give something, or raise an error of ours."""
    error: BaseException | None = None
    try:
        await work
    except Exception as caught:  # noqa: BLE001 - looked at
        error = caught
    if error is not None:
        assert_tame(error)
        assert sort != "submit" or not isinstance(error, (MalformedAnswerError, TransportError)), repr(error)


async def run_pipeline(picpik: PicpikSession, *, timeout: float) -> None:  # noqa: ASYNC109 - of each task
    """Run two requests."""
    async for each in picpik.map([("mine", job()), ("mine", job())], timeout=timeout):
        if each.error is not None:
            assert_tame(each.error)


async def call_everything(answers: list[Answer]) -> None:
    """Call all there is, each with another of the answers."""
    left = iter(answers * 30)
    options: dict[str, Any] = {
        "poll": PollPolicy(tick=0.001, request_timeout=1, unknown_task_grace=0),
        "retry": RetryPolicy(attempts=1, submit_attempts=1),
    }
    transport = FakeTransport(lambda _request: next(left))
    async with PicpikSession(CREDENTIALS, endpoint="http://localhost:9", transport=transport, **options) as picpik:
        task = picpik.task("a-task")
        await outcome("submit", picpik.submit(job()))
        await outcome("read", picpik.run(job(), timeout=0.002))
        for call in (picpik.models, picpik.balance, picpik.running_tasks, task.detail, task.terminate):
            await outcome("read", call())
        await outcome("read", task.wait(timeout=0.002))
        await outcome("read", picpik.task("x" * 5000).wait(timeout=0.002))
        await outcome("read", anext(task.updates(timeout=0.002)))
        async for each in picpik.map([job(), job()], timeout=0.002):
            if each.error is not None:
                assert_tame(each.error)
                assert not isinstance(each.error, (MalformedAnswerError, TransportError)), repr(each.error)


@settings(max_examples=60)
@given(st.lists(st.builds(Answer, STATUSES, ANSWERS, st.none() | st.floats()), min_size=1, max_size=6))
def test_the_public_api(answers: list[Answer]) -> None:
    """Whatever the service answers, only errors of ours leave a call, and a submit never says "not taken" after its tail."""
    asyncio.run(call_everything(answers))


async def send_pictures(image: bytes, other: bytes) -> None:
    """Use both as a picture and as a mask."""
    transport = FakeTransport(lambda _request: {"RetCode": 0, "TaskUID": "a-task"})
    async with PicpikSession(CREDENTIALS, endpoint="http://localhost:9", transport=transport) as picpik:
        for pair in ((image, mask()), (picture(), other), (image, other)):
            await outcome("read", picpik.submit(ModifyMaskedPixels.inpaint(*pair)))
        for data in (image, other):
            await outcome("read", ImageSource.of(data).pil())


@settings(max_examples=40)
@given(SEEDED.map(spoilt_picture), SEEDED.map(spoilt_picture) | st.binary(max_size=100))
def test_pictures_in(image: bytes, other: bytes) -> None:
    """Damaged pictures are sent, or refused with an error of ours."""
    asyncio.run(send_pictures(image, other))


class Fetched:
    """Gives a picture without a network."""

    def check_place(self, task_uid: str) -> None:
        """Anywhere."""

    async def fetch(self, url: Secret, *, task_uid: str, index: int, expires: float, use: Any) -> Any:  # noqa: ARG002
        """A picture."""
        return await use(Picture(picture(1)))

    async def in_thread(self, function: Callable[..., Any], *args: Any) -> Any:
        """Run it, in a thread of the loop's own."""
        return await asyncio.to_thread(function, *args)


NAMES = st.text() | st.sampled_from(
    ["..", ".", "/", "../../x", "a/b", "C:\\x", "CON", "nul.", "a\0b", "\u202egnp", "x" * 5000]
)


@settings(max_examples=60)
@given(NAMES)
def test_names(tmp_path_factory: pytest.TempPathFactory, task_uid: str) -> None:
    """No `TaskUID` leads a file out of its folder, or gives it a name that means something elsewhere."""
    folder = tmp_path_factory.getbasetemp() / "names"
    image = ResultImage("https://example.com/1.png", Fetched(), task_uid=task_uid, index=0)

    saved = asyncio.run(image.save(f"{folder}/"))

    assert folder == saved.parent
    assert saved.resolve().is_relative_to(folder.resolve())
    assert re.fullmatch(r"(?=.{1,134}\Z)[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*-0\.png", saved.name)


async def use_journal(path: Path) -> list[dict[str, Any]]:
    """Do with a journal whatever can be done; returns what was sent."""
    transport = FakeTransport(lambda _request: {"RetCode": 0, "TaskUID": "new-task", "TaskUIDList": ["stranger"]})
    options: dict[str, Any] = {"transport": transport, "journal": path, "retry": RetryPolicy(attempts=1)}
    picpik = PicpikSession(CREDENTIALS, endpoint="http://localhost:9", **options)
    try:
        await outcome("read", picpik.recover())
        await outcome("read", picpik.reconcile(adopt=True))
        await outcome("read", picpik.submit(job(), key="mine"))
        await outcome("read", picpik.adopt("mine", "a-task"))
        await outcome("read", run_pipeline(picpik, timeout=0))
        await outcome("read", picpik.resubmit("mine", job()))
    finally:
        await picpik.aclose()
    return [request for request in transport.requests if request["Action"] == "ModifyMaskedPixels"]


@pytest.fixture(scope="module")
def journal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A journal with one job, which is paid for."""
    path = tmp_path_factory.mktemp("journal") / "jobs"
    assert 1 == len(asyncio.run(use_journal(path)))
    return path


@settings(max_examples=40)
@given(SEEDED)
def test_damaged_journals(journal: Path, tmp_path_factory: pytest.TempPathFactory, rng: random.Random) -> None:
    """A damaged journal, or something else in its place, is refused or read, and nothing else happens."""
    path = tmp_path_factory.mktemp("damaged") / "jobs"
    path.write_bytes(spoilt_bytes(journal.read_bytes(), rng) if rng.random() < 0.8 else rng.randbytes(200))
    for suffix in ("-wal", "-shm"):
        if rng.random() < 0.5:
            path.with_name(path.name + suffix).write_bytes(rng.randbytes(rng.choice([0, 32, 5000])))

    asyncio.run(use_journal(path))


ROWS: dict[str, list[Any]] = {
    "state": [None, "", "later", "ACK", 5, b"\xff", "x" * 100_000],
    "task_uid": [None, "", 5, b"\xff", "\x1b[31m", "x" * 100_000],
    "digest": [None, "", 5, b"\xff"],
    "request_uuid": [None, 5, b"\xff", "x" * 100_000, "\x1b[31m"],
    "action": [None, 5, b"\xff", "x" * 100_000],
    "changed": [None, "x", b"\xff", float("inf")],
    "seed": [None, "x", 0.5, 2**62],
    "auto_seed": [None, "x", 7],
    "acknowledged": [None, "x", float("inf")],
    "files": [None, "", "{", "5", "[5]", '["a\\u0000b"]', "[" * 100_000, b"\xff"],
    "error": [None, 5, "x" * 100_000],
    "reason": [None, 5, "\x1b[31m\r\n\u202e", "x" * 100_000],
    "ret_code": ["x", 0.5],
    "resubmits": [None, "x", -1],
}


@pytest.mark.parametrize("column", ROWS)
def test_rows_nobody_wrote(column: str, journal: Path, tmp_path: Path) -> None:
    """A row with what no version of ours writes is an error, and a job that is paid for is not paid for again."""
    for number, value in enumerate(ROWS[column]):
        for state in ("ack", "commit", "done", "failed", "rejected"):
            path = tmp_path / f"{number}-{state}"
            path.write_bytes(journal.read_bytes())
            spoil_row(path, {"state": state, "ret_code": 7, column: value})

            assert [] == asyncio.run(use_journal(path)), (state, value)


def spoil_row(path: Path, values: dict[str, Any]) -> None:
    """Put values into a journal, past all its checks."""
    with sqlite3.connect(path) as connection:
        (words,) = connection.execute("SELECT sql FROM sqlite_master WHERE name = 'jobs'").fetchone()
        loose = re.sub(r" NOT NULL| (TEXT|REAL|INTEGER)(?! PRIMARY)|STRICT", "", words).replace("jobs", "loose", 1)
        connection.execute(loose)
        connection.execute("INSERT INTO loose SELECT * FROM jobs")
        connection.execute("DROP TABLE jobs")
        connection.execute("ALTER TABLE loose RENAME TO jobs")
        names = ", ".join(f"{name} = ?" for name in values)
        connection.execute(f"UPDATE jobs SET {names}", list(values.values()))  # noqa: S608 - names of ours
    connection.close()


def _throw(target: str, first: int) -> tuple[int, int]:
    """Throw some inputs at a target, in a process of its own; how many, and how many passed."""
    make: Any = {"decoders": spoilt_answer, "sniffers": spoilt_picture}[target]
    take = {"decoders": try_decoders, "sniffers": try_sniffer}[target]
    passed = 0
    for seed in range(first, first + EACH):
        try:
            passed += take(make(random.Random(seed))) > 0
        except Exception as error:
            msg = f"{target}, seed {seed}"
            raise AssertionError(msg) from error
    return EACH, passed


@pytest.mark.long
@pytest.mark.parametrize("target", ["decoders", "sniffers"])
def test_a_million_inputs(target: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The same with a million inputs for each target, reproducible by their seeds."""
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        results = list(pool.map(_throw, [target] * (INPUTS // EACH), range(0, INPUTS, EACH)))
    tried, passed = (sum(column) for column in zip(*results, strict=True))
    with capsys.disabled():
        sys.stdout.write(
            f"\n{target}: {tried} inputs tried, {passed} passed for valid, the others were errors of ours\n"
        )

    assert tried >= 1_000_000
    assert 0 < passed < tried
