"""Tests of fetching results, from servers that give anything but."""

from __future__ import annotations

import asyncio
import functools
import gzip
import io
import logging
import threading
import time
import traceback
import zlib
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from anyio import CapacityLimiter
from fault_server import Exchange, FaultServer, after_reading, answering, in_turn, raw_answer
from jobs import picture
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

from picpik_async import Endpoint, Limits, RetryPolicy
from picpik_async._config import Secret
from picpik_async._downloads import Downloads
from picpik_async.errors import DownloadError, InvalidImageError, ResultExpiredError, UnsafeUrlError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

pytestmark = pytest.mark.anyio

CANARY = "canary-signature"
LOCAL = Endpoint("http://localhost:1")
MINE: Any = {"task_uid": "a-task", "expires": 0.0}


@pytest.fixture(autouse=True)
def _secrets_stay(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """No log record of ours quotes an address."""
    caplog.set_level(logging.DEBUG)
    yield
    assert CANARY not in "".join(record.getMessage() for record in caplog.records if record.name == "picpik_async")


@asynccontextmanager
async def opened(*, attempts: int = 3, **limits: Any) -> AsyncIterator[Downloads]:
    """A client for results."""
    retry = RetryPolicy(attempts=attempts, base_delay=0)
    async with Downloads(LOCAL, Limits(**{"request_timeout": 10} | limits), retry, CapacityLimiter(2)) as downloads:
        yield downloads


async def fetch(server: FaultServer, *, attempts: int = 3, **limits: Any) -> bytes:
    """Fetch one picture."""
    async with opened(attempts=attempts, **limits) as downloads:
        return await downloads.fetch(signed(f"{server.url}/result/1.png"), **MINE)


def signed(url: str) -> Secret:
    """The address with a query that nobody may see."""
    return Secret(f"{url}?signature={CANARY}")


def assert_silent(error: DownloadError) -> None:
    """Neither the error, nor its traceback with all locals, nor a foreign exception behind it tells the signature."""
    assert "a-task" == error.task_uid
    assert None is error.__cause__ is error.__context__
    report = traceback.TracebackException.from_exception(error, capture_locals=True)
    assert CANARY not in f"{error}{error!r}{vars(error)}{''.join(report.format())}"


async def failure(script: Callable[[Exchange], None], kind: type[DownloadError], **options: Any) -> tuple[str, int]:
    """The message of the error, and how many requests there were."""
    with FaultServer(script) as server:
        with pytest.raises(DownloadError) as caught:
            await fetch(server, **options)
        requests = len(server.requests)
        url = "http://localhost/result/1.png"
    assert kind is type(caught.value), repr(caught.value)
    assert url == caught.value.url
    assert_silent(caught.value)
    return str(caught.value), requests


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
async def test_fetch(kind: str) -> None:
    """A whole picture is handed over as it came, and asked for without secrets."""
    data = picture(kind=kind)
    with FaultServer(answering(data)) as server:
        assert data == await fetch(server)
        (request,) = server.requests

    assert "GET" == request.method
    assert f"/result/1.png?signature={CANARY}" == request.target
    assert "identity" == request.headers["accept-encoding"]
    assert {"cookie", "authorization", "referer"}.isdisjoint(request.headers)


async def test_fetch_without_length() -> None:
    """A picture need not come with its length."""
    data = picture()
    whole = raw_answer(data, headers={"Content-Length": None, "Connection": "close"})
    with FaultServer(after_reading(whole, lambda exchange: exchange.finish())) as server:
        assert data == await fetch(server)


@pytest.mark.parametrize("status", [403, 404, 410])
async def test_expired(status: int) -> None:
    """A picture that is gone says how long pictures are kept."""
    message, requests = await failure(answering(b"", status=status), ResultExpiredError)

    assert f"(HTTP {status})" in message
    assert "24 hours" in message
    assert 1 == requests


BLANK = io.BytesIO()
Image.new("1", (3000, 3000)).save(BLANK, "PNG")


@pytest.mark.parametrize(
    ("script", "kind", "words", "attempts"),
    [
        pytest.param(answering(picture()[:-1]), InvalidImageError, "not one whole", 3, id="truncated"),
        pytest.param(
            after_reading(raw_answer(picture()[:999], headers={"Content-Length": 9999}), lambda e: e.finish()),
            DownloadError,
            "download: ClientPayloadError",
            4,
            id="length",
        ),
        pytest.param(answering(picture() + b"x"), InvalidImageError, "not one whole", 3, id="trailing"),
        pytest.param(answering(b"<html>gone</html>"), InvalidImageError, "not one whole", 3, id="HTML"),
        pytest.param(
            answering(picture(kind="JPEG")[:20] + b"\xff\xd9"), InvalidImageError, "cannot be decoded", 3, id="damaged"
        ),
        pytest.param(answering(BLANK.getvalue()), InvalidImageError, "3000×3000", 1, id="pixels"),
        pytest.param(answering(bytes(200_001)), InvalidImageError, "more than 200000 bytes", 1, id="bytes"),
        pytest.param(
            answering(gzip.compress(picture()), headers={"Content-Encoding": "gzip"}),
            InvalidImageError,
            "compressed once more",
            1,
            id="gzip",
        ),
        pytest.param(answering(b"", status=500), DownloadError, "HTTP 500", 4, id="500"),
        pytest.param(answering(b"", status=401), DownloadError, "HTTP 401", 1, id="401"),
        pytest.param(answering(b"", status=206), DownloadError, "HTTP 206", 1, id="206"),
        pytest.param(after_reading(f"{CANARY}\r\n\r\n".encode()), DownloadError, "download: ", 4, id="garbled"),
    ],
)
async def test_bad_result(
    script: Callable[[Exchange], None], kind: type[DownloadError], words: str, attempts: int
) -> None:
    """What is not a whole picture within the limits is a typed error, after as many attempts as make sense."""
    message, requests = await failure(script, kind, attempts=4, max_image_bytes=200_000, max_image_pixels=1_000_000)

    assert words in message
    assert attempts == requests


async def test_hang() -> None:
    """A download that takes too long ends."""

    def drip(exchange: Exchange) -> None:
        exchange.send(b"HTTP/1.1 200 OK\r\n\r\n")
        while not exchange.stopped.wait(0.05):
            exchange.send(b"x")

    start = time.monotonic()
    message, _ = await failure(drip, DownloadError, request_timeout=0.3, attempts=1)

    assert "nothing came for 0.3 s, or less than" in message
    assert time.monotonic() - start < 2


@pytest.mark.parametrize(
    "first",
    [
        pytest.param(answering(b"", status=500), id="500"),
        pytest.param(answering(b"", status=429, headers={"Retry-After": "0"}), id="429"),
        pytest.param(answering(picture()[:-1]), id="truncated"),
        pytest.param(after_reading(lambda exchange: exchange.reset()), id="RST"),
        pytest.param(after_reading(lambda exchange: exchange.hang()), id="hang"),
    ],
)
async def test_retried(first: Callable[[Exchange], None]) -> None:
    """A failure that may pass is tried again."""
    with FaultServer(in_turn(first, answering(picture()))) as server:
        assert picture() == await fetch(server, request_timeout=0.3)


async def test_damage_is_counted_apart() -> None:
    """Failures of another kind before it do not use up the repetitions of a damaged picture."""
    busy, damaged = answering(b"", status=500), answering(picture()[:-1])
    with FaultServer(in_turn(damaged, busy, busy, damaged, answering(picture()))) as server:
        assert picture() == await fetch(server, attempts=5)


async def test_deflate_bomb() -> None:
    """A picture that says it is compressed is not even read."""
    message, _ = await failure(
        answering(zlib.compress(bytes(2**24)), headers={"Content-Encoding": "deflate"}), InvalidImageError, attempts=1
    )

    assert "compressed once more" in message


async def test_parallel_and_bounded() -> None:
    """Downloads run at the same time, but no more of them than the limit says."""
    most = 0
    with FaultServer(answering(picture())) as server:

        def slowly(exchange: Exchange) -> None:
            nonlocal most
            most = max(most, sum(not request.over for request in server.requests))
            exchange.stopped.wait(0.05)
            exchange.answer(picture())
            exchange.over = True

        server._scripts[:] = [slowly]
        async with opened(downloads=3) as downloads, anyio.create_task_group() as group:
            for number in range(9):
                group.start_soon(functools.partial(downloads.fetch, signed(f"{server.url}/{number}"), **MINE))

    assert 3 == most


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/1.png",
        "http://169.254.169.254/latest",
        "http://127.0.0.1.example.com/",
        "http://0x7f.0.0.1/",
        "ftp://localhost/1.png",
        "file:///etc/passwd",
        "data:image/png;base64,AAAA",
        "//localhost/1.png",
        "/1.png",
        "",
        "https://",
        "https:///1.png",
        "https://user@example.com/1.png",
        "https://user:canary-signature@example.com/1.png",
        "https://@example.com/1.png",
        "tcp://localhost/",
        "unix:///run/x",
        "https://[::1/canary-signature",
        "javascript:alert(1)",
    ],
)
async def test_unsafe_address(url: str) -> None:
    """An address of another kind is not visited, and its secrets are not told."""
    async with opened() as downloads:
        with pytest.raises(UnsafeUrlError, match="the result's address is not fetched: ") as caught:
            await downloads.fetch(signed(url), **MINE)

    del url
    assert_silent(caught.value)


@pytest.mark.parametrize("url", ["https://localhost:1/1.png", "http://localhost:1/1.png"])
async def test_address_nobody_answers_at(url: str) -> None:
    """An address that passes the check but cannot be asked is an error like any other."""
    async with opened(attempts=1) as downloads:
        with pytest.raises(DownloadError, match="the result could not be fetched: download: ") as caught:
            await downloads.fetch(signed(url), **MINE)

    assert DownloadError is type(caught.value)
    assert_silent(caught.value)


async def test_the_thread_limit_holds_under_native_cancellation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever gives up while a picture is decoded makes no room for another one to be decoded beside it."""
    begun, go_on = threading.Semaphore(0), threading.Event()
    load = PngImageFile.load

    def slowly(image: PngImageFile) -> Any:
        begun.release()
        go_on.wait(10)
        return load(image)

    monkeypatch.setattr(PngImageFile, "load", slowly)
    limiter = CapacityLimiter(2)
    with FaultServer(answering(picture())) as server:
        async with Downloads(LOCAL, Limits(), RetryPolicy(), limiter) as downloads:

            async def give_up() -> None:
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.3):
                        await downloads.fetch(signed(server.url), **MINE)

            async with anyio.create_task_group() as group:
                for _ in range(6):
                    group.start_soon(give_up)
            assert 2 == limiter.borrowed_tokens
            go_on.set()
            assert picture() == await downloads.fetch(signed(server.url), **MINE)

    assert 3 == sum(begun.acquire(blocking=False) for _ in range(9))
