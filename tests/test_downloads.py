"""Tests of fetching results, from servers that give anything but."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gzip
import io
import logging
import socket
import struct
import subprocess
import sys
import threading
import time
import traceback
import zlib
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiohttp
import anyio
import anyio.to_thread
import pytest
from aiohttp.abc import AbstractResolver
from anyio import CapacityLimiter
from fault_server import Exchange, FaultServer, after_reading, answering, in_turn, raw_answer
from jobs import picture
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile
from spellings import BAD_HOSTS, INTERNAL

from picpik_async import Endpoint, Limits, ResultImage, RetryPolicy
from picpik_async._config import Secret
from picpik_async._downloads import Downloads, _next_hop, _trace
from picpik_async._retry import RetryBudget
from picpik_async._transport import new_client
from picpik_async.errors import DownloadError, InvalidImageError, ResultExpiredError, UnsafeUrlError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence
    from pathlib import Path

    from aiohttp.abc import ResolveResult

    from picpik_async._verification import Picture

pytestmark = pytest.mark.anyio

CANARY = "canary-signature"
LOCAL = Endpoint("http://localhost:1")


async def bytes_of(picture: Picture) -> bytes:
    """What a picture consists of."""
    return picture.data


MINE: Any = {"task_uid": "a-task", "expires": 0.0, "use": bytes_of}


@pytest.fixture(autouse=True)
def _secrets_stay(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """No log record of ours quotes an address."""
    caplog.set_level(logging.DEBUG)
    yield
    assert CANARY not in "".join(record.getMessage() for record in caplog.records if record.name == "picpik_async")


@asynccontextmanager
async def opened(
    *, attempts: int = 3, endpoint: Endpoint = LOCAL, options: dict[str, Any] | None = None, **limits: Any
) -> AsyncIterator[Downloads]:
    """A client for results."""
    retry = RetryPolicy(attempts=attempts, base_delay=0, throttle_delay=0)
    bounds = Limits(**{"request_timeout": 10} | limits)
    async with Downloads(endpoint, bounds, retry, CapacityLimiter(2), **options or {}) as downloads:
        yield downloads


async def fetch(server: FaultServer, *, attempts: int = 3, **limits: Any) -> bytes:
    """Fetch one picture."""
    async with opened(attempts=attempts, **limits) as downloads:
        data: bytes = await downloads.fetch(signed(f"{server.url}/result/1.png"), **MINE)
        return data


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


SIGNED = [
    "/1.png?prefix=out%2F2024&e=%7E%27%28%29%21%2C",
    "/it%27s%20a%20b.png?auth=%2Fx%2By%3D%3d",
    "/a//b/c.png?sig=AbC%2fd+e;f",
    "/?a=b=c&[d]=|^`{}",
]


@pytest.mark.parametrize("target", SIGNED)
async def test_signed_addresses_are_sent_as_they_stand(target: str) -> None:
    """Not a character of an address is quoted or unquoted, after a redirect neither, since it may be signed as it stands."""
    with FaultServer(in_turn(hop(target), answering(picture()))) as server:
        async with opened(attempts=1) as downloads:
            assert picture() == await downloads.fetch(Secret(f"{server.url}{target}#fragment"), **MINE)
        assert [target, target] == [request.target for request in server.requests]


async def test_what_is_no_ascii_is_quoted() -> None:
    """Spaces and characters beyond ASCII, which HTTP cannot send, are quoted, and nothing else."""
    with FaultServer(answering(picture())) as server:
        async with opened(attempts=1) as downloads:
            await downloads.fetch(Secret(f"{server.url}/é b.png?a=%7E"), **MINE)
        assert ["/%C3%A9%20b.png?a=%7E"] == [request.target for request in server.requests]


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
    message, requests = await failure(script, kind, attempts=4, max_image_bytes=200_000, max_result_pixels=1_000_000)

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

    assert "less than 10000 bytes/s came for longer than 0.3 s" in message
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
    load = JpegImageFile.load

    def slowly(image: JpegImageFile) -> Any:
        begun.release()
        go_on.wait(10)
        return load(image)

    monkeypatch.setattr(JpegImageFile, "load", slowly)
    limiter = CapacityLimiter(2)
    with FaultServer(answering(picture(kind="JPEG"))) as server:
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
            assert picture(kind="JPEG") == await downloads.fetch(signed(server.url), **MINE)

    assert 3 == sum(begun.acquire(blocking=False) for _ in range(9))


async def test_cancelled(caplog: pytest.LogCaptureFixture) -> None:
    """Whoever gives up sees the address in no frame of the traceback."""
    with FaultServer(after_reading(lambda exchange: exchange.hang())) as server:
        async with opened() as downloads:
            with pytest.raises(TimeoutError) as caught:
                async with asyncio.timeout(0.1):
                    await downloads.fetch(signed(server.url), **MINE)

    assert caught.value.__cause__ is not None
    report = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    assert CANARY not in "".join(report.format())
    assert CANARY not in caplog.text


async def test_stall() -> None:
    """What has come fast buys no time for what does not come."""

    def stall(exchange: Exchange) -> None:
        exchange.send(raw_answer(bytes(1_000_000), headers={"Content-Length": 2_000_000}))
        exchange.hang()

    start = time.monotonic()
    message, _ = await failure(stall, DownloadError, stall_timeout=0.3, attempts=1)

    assert "body: no progress for 0.3 s with localhost" in message
    assert "Limits.stall_timeout" in message
    assert time.monotonic() - start < 2


async def test_no_connection() -> None:
    """Connecting, the handshake of TLS included, has a limit of its own, which the error names."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        async with opened(attempts=1, connect_timeout=0.1) as downloads:
            with pytest.raises(DownloadError, match=r"connect: no connection within 0\.1 s .*Limits\.connect_timeout"):
                await downloads.fetch(signed(f"https://localhost:{listener.getsockname()[1]}/"), **MINE)


async def test_no_answer() -> None:
    """The head of an answer is waited for as long as `Limits.request_timeout` says."""
    hang = after_reading(lambda exchange: exchange.hang())
    message, _ = await failure(hang, DownloadError, attempts=1, request_timeout=0.2, connect_timeout=0.1)

    assert "headers: no whole answer within 0.2 s with localhost" in message
    assert "Limits.request_timeout" in message


async def test_unknown_name() -> None:
    """A host whose name is not known is asked for once more, and it is nothing about the endpoint."""
    resolver = Names()
    async with opened(attempts=5) as downloads:
        await ask_names(downloads, resolver=resolver)
        with pytest.raises(DownloadError, match=r"with cdn\.example; its name is not known, check the network$"):
            await downloads.fetch(Secret("https://cdn.example/1.png"), **MINE)

    assert 2 == resolver.asked


async def test_errors_name_the_hop() -> None:
    """What fails after a redirect is said of where that led, without what may be secret."""
    with FaultServer(answering(b"", status=404)) as other, FaultServer() as server:
        server._scripts.append(hop(f"{other.url}/?{CANARY}"))
        async with opened() as downloads:
            with pytest.raises(ResultExpiredError, match=rf"\(HTTP 404 from {other.url[7:]}\)"):
                await downloads.fetch(Secret(server.url), **MINE)
        server._scripts[:] = [hop("http://127.0.0.1:1/")]
        async with opened(attempts=1) as downloads:
            with pytest.raises(DownloadError, match=r"with 127\.0\.0\.1:1$"):
                await downloads.fetch(Secret(server.url), **MINE)


async def test_a_long_wish() -> None:
    """Who asks to wait for longer than is waited is not asked again, and the error says how long."""
    busy = answering(b"", status=429, headers={"Retry-After": "3600"})
    message, requests = await failure(busy, DownloadError)

    assert "HTTP 429; it asks to wait 3600 s (Retry-After)" in message
    assert 1 == requests


async def test_a_long_pause_keeps_no_place() -> None:
    """While a host asks to wait, the pictures of others come; what had arrived is asked for anew."""
    part = after_reading(raw_answer(picture(), headers={"ETag": '"1"'})[:5000], lambda exchange: exchange.finish())
    busy = answering(b"", status=503, headers={"Retry-After": "2"})
    with FaultServer(in_turn(part, busy, answering(picture()))) as bad, FaultServer(answering(picture())) as good:
        async with opened(downloads=1) as downloads, anyio.create_task_group() as group:
            waiting = functools.partial(downloads.fetch, Secret(bad.url), **MINE | {"expires": 1.0})
            group.start_soon(waiting)
            while len(bad.requests) < 2:  # noqa: ASYNC110 - threads set no event of ours
                await anyio.sleep(0.01)
            with anyio.fail_after(1):
                await downloads.fetch(Secret(good.url), **MINE | {"expires": 2.0})
        assert [False, True, False] == ["range" in request.headers for request in bad.requests]


async def test_a_place_is_kept_until_the_picture_is_used() -> None:
    """Pictures that wait for the disk take a place, so that there are no more of them than downloads."""
    most = held = 0

    async def use(_picture: Picture) -> None:
        nonlocal held, most
        held += 1
        most = max(most, held)
        await anyio.sleep(0.02)
        held -= 1

    with FaultServer(answering(picture())) as server:
        async with opened(downloads=2) as downloads, anyio.create_task_group() as group:
            for number in range(8):
                picked: Any = MINE | {"use": use}
                group.start_soon(functools.partial(downloads.fetch, Secret(f"{server.url}/{number}"), **picked))

    assert 2 == most


async def test_empty_budget() -> None:
    """Retries are paid from the session's budget, and repaid by success."""
    budget = RetryBudget()
    with FaultServer(in_turn(answering(b"", status=500), answering(picture()))) as server:
        async with opened(options={"budget": budget}) as downloads:
            await downloads.fetch(signed(server.url), **MINE)
    assert budget.CAPACITY == budget.tokens

    budget.tokens = 0
    with FaultServer(in_turn(answering(b"", status=500), answering(picture()))) as server:
        async with opened(options={"budget": budget}) as downloads:
            with pytest.raises(DownloadError, match="HTTP 500"):
                await downloads.fetch(signed(server.url), **MINE)


# --- going on where it broke off --------------------------------------------------------------------------------------


def serving(
    data: bytes, *, etag: str | None = '"v1"', end: Callable[[Exchange], None] = Exchange.finish
) -> Callable[[Exchange], None]:
    """A script: serve ranges of *data*; `/n` breaks off after *n* bytes at first, `/n/always` each time."""
    seen = set()

    def script(exchange: Exchange) -> None:
        size, _, always = exchange.target.strip("/").partition("/")
        asked = exchange.headers.get("range") if exchange.headers.get("if-range") == etag else None
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
        headers: dict[str, object] = {"ETag": etag, "Content-Length": len(data) - start}
        if asked:
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        answer = raw_answer(data[start:], status=206 if asked else 200, headers=headers)
        if exchange.target in seen and not always:
            exchange.send(answer)
            return
        seen.add(exchange.target)
        exchange.send(answer[: len(answer) - len(data) + start + int(size)])
        end(exchange)

    return script


def reset(exchange: Exchange) -> None:
    """Send RST once what was sent may have been read."""
    exchange.stopped.wait(0.002)
    exchange.reset()


class Fetcher:
    """What pictures need of a session: the client for results."""

    def __init__(self, downloads: Downloads) -> None:
        self._downloads = downloads

    def check_place(self, task_uid: str) -> None:
        """See `Fetcher.check_place`."""

    async def fetch(self, url: Secret, *, task_uid: str, index: int, expires: float, use: Any) -> Any:
        """See `Fetcher.fetch`."""
        del index
        return await self._downloads.fetch(url, task_uid=task_uid, expires=expires, use=use)

    async def in_thread(self, function: Callable[..., Any], *args: Any) -> Any:
        """See `Fetcher.in_thread`."""
        return await anyio.to_thread.run_sync(function, *args)


async def save_all(server: FaultServer, paths: Sequence[str], folder: Path) -> list[Path]:
    """Save the picture at each path, as far as it arrives."""
    saved = []
    async with opened(attempts=2, downloads=8, request_timeout=5) as downloads, anyio.create_task_group() as group:

        async def save(index: int) -> None:
            image = ResultImage(server.url + paths[index], Fetcher(downloads), task_uid="a-task", index=index)
            with contextlib.suppress(DownloadError):
                saved.append(await image.save(folder))

        for index in range(len(paths)):
            group.start_soon(save, index)
    return saved


def names(folder: Path) -> list[str]:
    """All files in a folder, hidden ones too."""
    return sorted(path.name for path in folder.iterdir())


async def check_truncations(folder: Path, data: bytes, sizes: Sequence[int]) -> None:
    """Cut after each of the sizes: resumed and whole if it can be, absent if not."""
    once, always = [f"/{size}" for size in sizes], [f"/{size}/always" for size in sizes[:: len(sizes) // 10]]
    for end in (Exchange.finish, reset):
        with FaultServer(serving(data, end=end)) as server:
            saved = await save_all(server, once, folder)
            ranges = sum("range" in request.headers for request in server.requests)
        assert len(sizes) == len(saved)
        assert len(sizes) - 1 <= ranges <= len(sizes)  # nothing to go on with if cut after the headers
        assert {data} == {path.read_bytes() for path in saved}
        assert len(sizes) == len(names(folder))

    with FaultServer(serving(data, etag=None)) as server:
        assert len(sizes) == len(await save_all(server, once, folder))
        assert not any("range" in request.headers for request in server.requests)
    nothing = folder / "nothing"
    with FaultServer(serving(data, etag=None)) as server:
        assert [] == await save_all(server, always, nothing)
    assert not nothing.exists()


async def test_truncated_at_every_kib(tmp_path: Path) -> None:
    """Wherever a transfer breaks off, by FIN or RST, it is resumed; a file is whole or absent."""
    data = picture(128)
    await check_truncations(tmp_path, data, range(0, len(data), 1024))


@pytest.mark.long
async def test_truncated_at_every_kib_of_a_large_picture(tmp_path: Path) -> None:
    """The same of a picture of 0.8 MB."""
    data = picture(512)
    await check_truncations(tmp_path, data, range(0, len(data), 1024))


async def test_resumed_after_a_stall() -> None:
    """A transfer that stalls is resumed, too, as often as there are attempts."""
    data = picture()
    with FaultServer(serving(data, end=Exchange.hang)) as server:
        async with opened(attempts=2, request_timeout=0.2) as downloads:
            assert data == await downloads.fetch(Secret(f"{server.url}/5000"), **MINE)
        assert [None, "bytes=5000-"] == [request.headers.get("range") for request in server.requests]


@pytest.mark.parametrize("status", [416, 206])
async def test_resumed_by_another_server(status: int) -> None:
    """An answer that does not continue the transfer starts it anew."""
    first = after_reading(raw_answer(picture(), headers={"ETag": '"1"'})[:5000], lambda exchange: exchange.finish())
    with FaultServer(in_turn(first, answering(b"xyz", status=status), answering(picture()))) as server:
        assert picture() == await fetch(server)
        ranges = [request.headers.get("range", "all") for request in server.requests]

    assert ["all", "all"] == ranges[::2]
    assert ranges[1].startswith("bytes=")


async def test_damaged_rest() -> None:
    """A whole made of parts that do not belong together is not taken, and not continued either."""
    data = picture()
    one = after_reading(raw_answer(data, headers={"ETag": '"1"'})[:5000], lambda exchange: exchange.finish())

    def rest(exchange: Exchange) -> None:
        start = int(exchange.headers["range"][6:-1])
        headers = {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"}
        exchange.answer(bytes(len(data) - start), status=206, headers=headers)

    with FaultServer(in_turn(one, rest, answering(data))) as server:
        assert data == await fetch(server)
        assert "range" not in server.requests[2].headers


# --- bombs ------------------------------------------------------------------------------------------------------------


def chunk(kind: bytes, content: bytes) -> bytes:
    """A PNG chunk."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def many_pixels(side: int) -> bytes:
    """A whole PNG of many black pixels and few bytes."""
    rows = zlib.compressobj()
    data = b"".join(rows.compress(bytes(side // 8 + 1)) for _ in range(side)) + rows.flush()
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def animated(kind: str, frames: int, side: int) -> bytes:
    """A picture that moves."""
    file = io.BytesIO()
    first, *rest = [Image.new("RGB", (side, side), "black" if number % 2 else "white") for number in range(frames)]
    first.save(file, kind, save_all=True, append_images=rest)
    return file.getvalue()


def endless(start: bytes, *, chunked: bool = False) -> Callable[[Exchange], None]:
    """A script: an answer that does not end."""
    block = bytes(1024**2)

    def script(exchange: Exchange) -> None:
        exchange.send(
            raw_answer(b"", headers={"Content-Length": None} | ({"Transfer-Encoding": "chunked"} if chunked else {}))
        )
        exchange.socket.settimeout(1)
        with contextlib.suppress(OSError):
            piece = start
            while not exchange.stopped.is_set():
                exchange.socket.sendall(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
                piece = block
        exchange.over = True

    return script


# Grows by what the first picture needs, decoders included, before it is measured.
GREEDY = """
import asyncio, sys
from pathlib import Path
import anyio
from picpik_async import Endpoint, Limits, RetryPolicy
from picpik_async._config import Secret
from picpik_async._downloads import Downloads
from picpik_async.errors import DownloadError

async def forget(picture):
    pass

def peak():  # in MiB; that of getrusage would count what this process was forked from
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) / 1024

async def main(url, count, at_once, **limits):
    limits = Limits(max_image_bytes=60 * 1024**2, **limits)
    async with Downloads(Endpoint(url), limits, RetryPolicy(base_delay=0, throttle_delay=0), anyio.CapacityLimiter(4)) as downloads:
        async def fetch(index):
            try:
                await downloads.fetch(Secret(f"{url}/{index}"), task_uid="a", expires=0, use=forget)
            except DownloadError as error:
                print(type(error).__name__, error, file=sys.stderr)
        for index in range(count):
            await asyncio.gather(*(fetch(index) for _ in range(at_once)))
            if not index:
                start = peak()
            print(index, round(peak() - start, 1), file=sys.stderr)
    print(peak() - start)

asyncio.run(main(sys.argv[1], **eval(sys.argv[2])))
"""


def growth(bombs: Sequence[Callable[[Exchange], None]], **options: int) -> float:
    """By how many MiB a process of its own grows that fetches each of *bombs*, the first of which is harmless."""
    with FaultServer(lambda exchange: bombs[int(exchange.target[1:])](exchange)) as server:
        command = [sys.executable, "-W", "error", "-c", GREEDY, server.url, repr({"count": len(bombs)} | options)]
        result = subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603
    assert 0 == result.returncode, result.stderr
    return float(result.stdout)


def test_memory_stays_bounded() -> None:
    """Whatever a server sends, memory grows by no more than one picture of the allowed size."""
    bombs = [
        answering(picture(512)),
        answering(gzip.compress(bytes(2**24)), headers={"Content-Encoding": "gzip"}),
        answering(gzip.compress(gzip.compress(bytes(2**24))), headers={"Content-Encoding": "gzip, gzip"}),
        answering(gzip.compress(bytes(2**24))),
        answering(many_pixels(20_000)),
        answering(animated("PNG", 50, 600)),
        answering(animated("WEBP", 20, 600)),
        endless(b""),
        endless(picture()[:33] + b"\x7f\xff\xff\xffIDAT"),
        endless(picture()[:33] + b"\x7f\xff\xff\xffIDAT", chunked=True),
        endless(b"\xff\xd8\xff"),
        answering(b"", headers={"Content-Length": 10**12}),
    ]

    assert growth(bombs, at_once=1) < 64


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    """A picture as a file."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize(("side", "at_once"), [(2000, 4), pytest.param(4000, 8, marks=pytest.mark.long)])
def test_memory_stays_bounded_just_below_the_limit(side: int, at_once: int) -> None:
    """Pictures of few bytes and just as many pixels as allowed are decoded one after the other."""
    first, second = (Image.new("RGBA", (side, side), color) for color in ("white", "black"))
    lossless: Any = {"lossless": True, "quality": 0, "method": 0}
    pictures = [
        picture(512),
        encoded(first, "PNG"),
        encoded(first, "WEBP", **lossless),
        encoded(first, "WEBP", save_all=True, append_images=[second], **lossless),
        encoded(first.convert("RGB"), "JPEG", progressive=True, subsampling=0),
    ]
    assert max(map(len, pictures[1:])) < 1_000_000

    grown = growth([answering(data) for data in pictures], at_once=at_once, max_result_pixels=side * side)
    assert grown < 16 * side * side / 2**20 + 64


# --- where it may lead ------------------------------------------------------------------------------------------------


class Names(AbstractResolver):
    """A name server that says what it is told to."""

    def __init__(self, *addresses: str) -> None:
        self._addresses = addresses
        self.asked = 0

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """See `AbstractResolver.resolve`."""
        del family
        self.asked += 1
        if not self._addresses:
            raise socket.gaierror(socket.EAI_NONAME, "unknown")
        return [
            {
                "hostname": host,
                "host": address,
                "port": port,
                "family": socket.AF_INET6 if ":" in address else socket.AF_INET,
                "proto": 0,
                "flags": 0,
            }
            for address in self._addresses
        ]

    async def close(self) -> None:
        """Nothing is open."""


async def ask_names(downloads: Downloads, *addresses: str, resolver: Names | None = None) -> None:
    """Give the client a name server of its own."""
    await downloads._client.close()
    downloads._client = new_client(
        None, trace=_trace(), socket_factory=downloads._new_socket, resolver=resolver or Names(*addresses)
    )


@asynccontextmanager
async def nobody_comes() -> AsyncIterator[int]:
    """The port of a listener on all addresses of this machine, at which nobody must arrive."""
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as listener:
        listener.setblocking(False)  # noqa: FBT003 - the standard library's
        yield listener.getsockname()[1]
        with pytest.raises(BlockingIOError):
            listener.accept()


async def refuse(downloads: Downloads, url: str) -> None:
    """The address is refused, at once and without its secrets."""
    with pytest.raises(UnsafeUrlError, match="the result's address is not fetched: ") as caught:
        await downloads.fetch(signed(url), **MINE)
    del url
    assert_silent(caught.value)


async def test_no_spelling_leads_inside() -> None:
    """No spelling of an internal address is connected to, neither as it stands nor as what a name server says."""
    async with nobody_comes() as port, opened(endpoint=Endpoint.INTERNATIONAL) as downloads:
        for host in [*BAD_HOSTS, "localhost", "127.0.0.1", "[::1]", "localhost."]:
            await refuse(downloads, f"https://{host}:{port}/1.png")
        for address in INTERNAL:
            await ask_names(downloads, address)
            await refuse(downloads, f"https://cdn.example:{port}/1.png")
        await ask_names(downloads, "127.0.0.1", "10.0.0.1", "::1")  # the first is no better than the others
        await refuse(downloads, f"https://cdn.example:{port}/1.png")


async def test_the_socket_alone_refuses() -> None:
    """Were the text of an address not looked at, still no socket would lead inside."""
    urls = [f"http://{host}" for host in [*BAD_HOSTS, "localhost", "127.0.0.1", "[::1]"]]
    async with nobody_comes() as port, opened(endpoint=Endpoint.INTERNATIONAL) as downloads:
        for url in urls:
            with pytest.raises((aiohttp.ClientError, ValueError, OSError)):
                await downloads._client.get(f"{url}:{port}/")


async def test_public_addresses_are_dialled() -> None:
    """The socket is made for what is public, and for this machine if the service is there."""
    address = (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "")
    async with opened(endpoint=Endpoint.INTERNATIONAL) as downloads:
        downloads._new_socket((*address, ("93.184.215.14", 443))).close()
    async with opened() as downloads:
        downloads._new_socket((*address, ("127.0.0.1", 443))).close()


def hop(location: str | None, status: int = 302) -> Callable[[Exchange], None]:
    """A script: redirect."""
    return answering(b"", status=status, headers={"Location": location})


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirect(status: int) -> None:
    """Redirects are followed, three at most, and carry no secrets of ours."""
    with FaultServer(answering(picture())) as server:
        scripts = [hop("2", status), hop(f"http://127.0.0.1:{server.url[-5:]}/a/3", status), hop("../4", status)]
        server._scripts[:0] = scripts
        assert picture() == await fetch(server, attempts=1)
        targets = [request.target for request in server.requests]
        assert {"GET"} == {request.method for request in server.requests}
        assert all({"cookie", "authorization", "referer"}.isdisjoint(request.headers) for request in server.requests)

    assert [f"/result/1.png?signature={CANARY}", "/result/2", "/a/3", "/4"] == targets


@pytest.mark.parametrize(
    ("location", "kind", "words", "requests"),
    [
        pytest.param("1.png", DownloadError, "redirected more than 3 times", 4, id="loop"),
        pytest.param(None, DownloadError, "redirected to nowhere", 1, id="missing"),
        pytest.param("", DownloadError, "redirected to nowhere", 1, id="empty"),
        pytest.param("https://[::1", DownloadError, "redirected to nowhere", 1, id="illegible"),
        pytest.param("http://example.com/", UnsafeUrlError, "plain http to example.com", 1, id="http"),
        pytest.param("https://10.0.0.1/", UnsafeUrlError, "10.0.0.1 is not a public address", 1, id="internal"),
        pytest.param("https://169.254.169.254/latest", UnsafeUrlError, "not a public", 1, id="metadata"),
        pytest.param(f"https://{CANARY}@example.com/", UnsafeUrlError, "without a user", 1, id="user"),
        pytest.param("file:///etc/passwd", UnsafeUrlError, "it must be https", 1, id="file"),
        pytest.param("ftp://localhost/1.png", UnsafeUrlError, "it must be https", 1, id="ftp"),
        pytest.param("data:image/png;base64,AAAA", UnsafeUrlError, "it must be https", 1, id="data"),
        pytest.param("https://\u0661.example/", UnsafeUrlError, "it must be https", 1, id="Unicode"),
    ],
)
async def test_bad_redirect(location: str | None, kind: type[DownloadError], words: str, requests: int) -> None:
    """A redirect that leads nowhere or inside is the end."""
    message, count = await failure(hop(location), kind)

    assert words in message
    assert requests == count


async def test_redirect_inside_by_name() -> None:
    """A redirect to a name that leads inside is the end, too."""
    with FaultServer(hop("https://cdn.example/")) as server:
        async with opened() as downloads:
            await ask_names(downloads, "10.0.0.1")
            await refuse(downloads, server.url.replace("localhost", "127.0.0.1"))
        assert 1 == len(server.requests)


@pytest.mark.parametrize("location", ["http://example.com/", "HTTP://localhost:1/"])
def test_downgrade(location: str) -> None:
    """No redirect leads from https to plain http, not even on this machine."""
    with pytest.raises(UnsafeUrlError, match="from https to plain http"):
        _next_hop(Secret("HTTPS://localhost/1.png"), Secret(location))


async def test_proxy() -> None:
    """Behind a proxy, which hides where names lead, only listed hosts are asked for."""
    with FaultServer(answering(picture())) as proxy:
        options = {"proxy": proxy.url, "hosts": frozenset({"localhost"})}
        async with opened(options=options) as downloads:
            assert picture() == await downloads.fetch(Secret("http://localhost:9/1.png"), **MINE)
            await refuse(downloads, "https://cdn.example/1.png")
        async with opened(options={"proxy": proxy.url}) as downloads:
            with pytest.raises(UnsafeUrlError, match=r"cdn\.example is not in Dialect\.result_hosts, which must"):
                await downloads.fetch(Secret("https://cdn.example/1.png"), **MINE)
        assert ["http://localhost:9/1.png"] == [request.target for request in proxy.requests]
