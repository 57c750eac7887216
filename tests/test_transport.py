"""Tests of the transport, against sockets that misbehave."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import os
import socket
import ssl
import time
import tracemalloc
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import aiohttp
import anyio
import anyio.to_thread
import attrs
import pytest
import trustme
from aiohttp import client_exceptions
from aiohttp.client_reqrep import ConnectionKey
from anyio import CapacityLimiter
from fault_server import SECONDS, FaultServer, after_reading, answering, raw_answer, until
from jobs import THREADS, picture, session
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from picpik_async._body import Body
from picpik_async._config import Limits, Secret
from picpik_async._images import ImageSource
from picpik_async._layout import lay_out
from picpik_async._patience import Patience
from picpik_async._transport import USER_AGENT, AiohttpTransport, Answer, _Payload, translate
from picpik_async.errors import (
    ConfigurationError,
    InvalidRequestError,
    MalformedAnswerError,
    RequestTimeoutError,
    TransportError,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator

    from fault_server import Exchange

    from picpik_async._body import Outlet
    from picpik_async._transport import BeforeTail

pytestmark = pytest.mark.anyio

TAIL = len(b',"Signature":""}') + 40
CANARY = "canary-7c1f"


@pytest.fixture(params=["small", "large"])
async def body(request: pytest.FixtureRequest) -> Body:
    """A body of one buffer, and one that is streamed."""
    return small_body() if request.param == "small" else await large_body()


def small_body() -> Body:
    """A body without pictures, of about 200 bytes."""
    parameters = {"Action": "Test", "Prompts": ["x" * 100]}
    return Body(lay_out(parameters, {}, data_uri=True), Secret(CANARY), slice_size=3, executor=THREADS)


async def large_body(side: int = 1200) -> Body:
    """A body of about `4 * side * side` bytes."""
    limiter = CapacityLimiter(2)
    source = ImageSource.of(picture(side))
    layout = lay_out({"Action": "Test", "Image": source}, {source: await source.open(limiter, Limits())}, data_uri=True)
    return Body(layout, Secret(CANARY), slice_size=384 * 1024, executor=THREADS)


async def nothing() -> None:
    """A `before_tail` without anything to do; what has one is a submit."""


@asynccontextmanager
async def connected(server: FaultServer, *, patience: float = 10, **options: Any) -> AsyncIterator[AiohttpTransport]:
    """A transport to *server*."""
    fields = {name: options.pop(name) for name in attrs.fields_dict(Limits) if name in options}
    limits = Limits(**{"stall_timeout": patience, "request_timeout": patience} | fields)
    async with AiohttpTransport(server.url + "/", limits, **options) as transport:
        yield transport


async def settle(server: FaultServer) -> None:
    """Wait until *server* has got all it will get."""
    await anyio.to_thread.run_sync(server.settle)


async def settle_any(server: FaultServer) -> None:
    """Wait until a request of *server* is over, and our side has heard of it."""
    await anyio.to_thread.run_sync(until, lambda: any(request.over for request in server.requests))
    await anyio.wait_all_tasks_blocked()


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """Who vouches for the test server."""
    return trustme.CA()


@pytest.fixture
def server_tls(authority: trustme.CA) -> ssl.SSLContext:
    """The server's side of TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    return context


@pytest.fixture
def client_tls(authority: trustme.CA) -> ssl.SSLContext:
    """The client's side of TLS."""
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


async def test_sends_whole(body: Body) -> None:
    """The body arrives whole, with its length, and the answer comes back."""
    with FaultServer(answering({"RetCode": 0}, headers={"Retry-After": "7"})) as server:
        async with connected(server) as transport:
            answer = await transport.send(body, before_tail=nothing)

        (request,) = server.complete

    assert Answer(200, b'{"RetCode": 0}', 7.0) == answer
    assert body.size == request.length
    assert "Test" == request.document["Action"]
    assert "application/json" == request.headers["content-type"]
    assert request.headers["user-agent"].startswith("picpik_async/")


async def test_sends_whole_over_tls(body: Body, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext) -> None:
    """TLS makes no difference."""
    with FaultServer(answering({"RetCode": 0}), tls=server_tls) as server:
        async with connected(server, ssl=client_tls) as transport:
            answer = await transport.send(body, before_tail=nothing)

        assert 200 == answer.status
        assert [body.size] == [request.length for request in server.complete]


async def test_connection_of_a_submit_ends_at_once(server_tls: ssl.SSLContext, client_tls: ssl.SSLContext) -> None:
    """A server that does not take leave over TLS cannot keep the connection of a submit open."""
    rest: list[bytes] = []

    def answer_and_wait(exchange: Exchange) -> None:
        exchange.read()
        exchange.answer({})
        with socket.socket(fileno=os.dup(exchange.socket.fileno())) as below:
            below.settimeout(SECONDS)
            while b"" not in rest:
                rest.append(below.recv(1024))

    with FaultServer(answer_and_wait, tls=server_tls) as server:
        async with connected(server, ssl=client_tls) as transport:
            await transport.send(small_body(), before_tail=nothing)
            await anyio.to_thread.run_sync(until, lambda: b"" in rest)


async def test_half_closed_while_bytes_are_left() -> None:
    """A server that ends its half while ours is stuck, and then reads on, is no reason for a foreign error."""

    def end_and_read(exchange: Exchange) -> None:
        exchange.read(100)
        exchange.stopped.wait(0.2)  # until all buffers on the way are full
        exchange.finish()

    with FaultServer(end_and_read) as server:
        async with connected(server) as transport:
            with pytest.raises(TransportError, match="send: ServerDisconnectedError"):
                await transport.send(await large_body(2000), before_tail=nothing)


async def test_tail_goes_last(body: Body) -> None:
    """`before_tail` is awaited when everything but the tail has arrived."""
    with FaultServer(answering({})) as server:

        async def all_but_the_tail_has_arrived() -> None:
            expected = body.size - TAIL
            await anyio.to_thread.run_sync(
                until, lambda: bool(server.requests) and len(server.requests[0].body) == expected
            )

        async with connected(server) as transport:
            await transport.send(body, before_tail=all_but_the_tail_has_arrived)

        assert 1 == len(server.complete)


async def test_slow_journal_is_not_the_fault_of_the_server(body: Body) -> None:
    """While `before_tail` is awaited no limit of the exchange runs; afterwards they do."""

    async def write_slowly() -> None:
        await anyio.sleep(0.3)

    with FaultServer(answering({}), after_reading(lambda exchange: exchange.hang())) as server:
        async with connected(server, patience=0.1) as transport:
            assert 200 == (await transport.send(body, before_tail=write_slowly)).status
            with pytest.raises(RequestTimeoutError, match=r"headers: no whole answer within 0\.1 s"):
                await transport.send(small_body(), before_tail=write_slowly)


async def test_untrusted_server_gets_no_byte(body: Body, server_tls: ssl.SSLContext) -> None:
    """A certificate nobody here vouches for ends the exchange before the request."""
    with FaultServer(answering({}), tls=server_tls) as server:
        async with connected(server) as transport:
            with pytest.raises(TransportError, match=r"connect: .*certificate is not trusted") as caught:
                await transport.send(body, before_tail=nothing)

        assert "connect" == caught.value.stage
        assert not caught.value.retryable
        assert [] == server.requests


async def test_nobody_listens(body: Body) -> None:
    """A refused connection says so, and with whom."""
    with FaultServer(answering({})) as server:
        url = server.url
    async with AiohttpTransport(url, Limits()) as transport:
        with pytest.raises(TransportError, match=r"connect: .*refused with localhost") as caught:
            await transport.send(body)

    assert "connect" == caught.value.stage


async def test_submits_never_share_a_connection() -> None:
    """Each submit has a connection of its own, reads share one, and neither keeps cookies."""
    with FaultServer(answering({}, headers={"Set-Cookie": "a=b"})) as server:
        async with connected(server) as transport:
            for before_tail in (None, nothing, None, nothing):
                await transport.send(small_body(), before_tail=before_tail)

        assert 4 == len(server.complete)
        assert 3 == server.connections
        assert not any("cookie" in request.headers for request in server.requests)


async def test_proxy() -> None:
    """A proxy gets the request if there is one."""
    with FaultServer(answering({})) as proxy:
        async with AiohttpTransport("http://192.0.2.1/", Limits(), proxy=proxy.url) as transport:
            await transport.send(small_body())

        assert ["http://192.0.2.1/"] == [request.target for request in proxy.complete]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_not_followed(status: int) -> None:
    """A redirect is an answer like any other; nothing goes where it points."""
    with FaultServer(answering({})) as other:
        redirect = answering(b"", status=status, headers={"Location": other.url + "/"})
        with FaultServer(redirect) as server:
            async with connected(server) as transport:
                answer = await transport.send(small_body(), before_tail=nothing)

        assert status == answer.status
        assert 0 == other.connections


async def test_server_that_never_reads() -> None:
    """An upload that stalls ends within the request timeout."""
    with FaultServer(lambda exchange: exchange.hang()) as server:
        async with connected(server, patience=0.3) as transport:
            body = await large_body(2000)
            start = time.monotonic()
            with pytest.raises(RequestTimeoutError, match=r"send: no progress for 0.3 s with localhost") as caught:
                await transport.send(body, before_tail=nothing)

    assert 0.3 <= time.monotonic() - start < 1
    assert "send" == caught.value.stage


async def test_server_that_never_reads_over_tls(server_tls: ssl.SSLContext, client_tls: ssl.SSLContext) -> None:
    """A stalled upload over TLS ends in time, too."""
    with FaultServer(lambda exchange: exchange.hang(), tls=server_tls) as server:
        body = await large_body(2000)
        start = time.monotonic()
        async with connected(server, patience=0.3, ssl=client_tls) as transport:
            with pytest.raises(RequestTimeoutError, match=r"send: no progress"):
                await transport.send(body, before_tail=nothing)

        assert time.monotonic() - start < 2
        assert [] == server.complete


async def test_slow_upload_may_take_its_time() -> None:
    """An upload that takes longer than the timeout in all goes on while it makes progress."""

    def slowly(exchange: Exchange) -> None:
        for size in range(0, exchange.length, 500_000):
            exchange.read(size)
            exchange.stopped.wait(0.05)
        exchange.read()
        exchange.answer({})

    with FaultServer(slowly) as server:
        async with connected(server, patience=1) as transport:
            body = await large_body(2000)
            start = time.monotonic()
            answer = await transport.send(body, before_tail=nothing)

    assert 200 == answer.status
    assert time.monotonic() - start > 1


async def test_busy_threads_are_not_the_fault_of_the_server() -> None:
    """An upload that waits for its turn in our own threads is no upload that stalls."""
    with FaultServer(after_reading(lambda exchange: exchange.answer({}))) as server, ThreadPoolExecutor(1) as threads:
        async with connected(server, stall_timeout=0.1) as transport:
            body = await large_body()
            body._executor = threads
            threads.submit(time.sleep, 0.3)
            answer = await transport.send(body, before_tail=nothing)

    assert 200 == answer.status


def test_a_slice_may_take_its_time() -> None:
    """Bytes that leave are progress, however large the slice is that they are of."""

    def slowly(exchange: Exchange) -> None:
        exchange.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        for size in range(0, exchange.length, 200_000):
            exchange.read(size)
            exchange.stopped.wait(0.02)
        exchange.read()
        exchange.answer({})

    async def send(server: FaultServer) -> Answer:
        body = await large_body(1600)  # 10 MB
        body._step = 9_000_000
        async with connected(server, stall_timeout=0.4) as transport:
            return await transport.send(body, before_tail=nothing)

    start = time.monotonic()
    with FaultServer(slowly) as server:
        assert 200 == asyncio.run(send(server)).status  # and not in anyio's runner, as nobody else has it
    assert time.monotonic() - start > 0.8


async def test_slow_upload_has_a_minimum_rate() -> None:
    """A server that keeps taking a little is given up, too, if it is too little in the long run."""

    def slowly(exchange: Exchange) -> None:
        for size in range(0, exchange.length, 1_000_000):
            exchange.read(size)
            exchange.stopped.wait(0.1)

    with FaultServer(slowly) as server:
        async with connected(server, stall_timeout=0.6, min_upload_rate=1e8) as transport:
            body = await large_body(2000)
            start = time.monotonic()
            with pytest.raises(
                RequestTimeoutError, match=r"send: less than 1e\+08 bytes/s .*min_upload_rate"
            ) as caught:
                await transport.send(body, before_tail=nothing)

    assert time.monotonic() - start < 1.6
    assert "send" == caught.value.stage


async def test_server_that_reads_next_to_nothing() -> None:
    """A kilobyte now and then is no progress of an upload."""

    def drip(exchange: Exchange) -> None:
        for size in range(0, exchange.length, 1000):
            exchange.read(size)
            exchange.stopped.wait(0.1)

    with FaultServer(drip) as server:
        async with connected(server, stall_timeout=0.3) as transport:
            body = await large_body(2000)
            start = time.monotonic()
            with pytest.raises(RequestTimeoutError, match=r"send: no progress for 0.3 s .*Limits.stall_timeout"):
                await transport.send(body, before_tail=nothing)

    assert time.monotonic() - start < 1.3


async def test_handshake_that_hangs(body: Body) -> None:
    """A connection without TLS on the other side is given up in time."""
    with FaultServer(answering({})) as server:
        start = time.monotonic()
        async with AiohttpTransport(server.url.replace("http", "https"), Limits(connect_timeout=0.3)) as transport:
            with pytest.raises(
                RequestTimeoutError, match=r"connect: no connection within 0.3 s .*connect_time"
            ) as caught:
                await transport.send(body, before_tail=nothing)

    assert 0.3 <= time.monotonic() - start < 1.3
    assert "connect" == caught.value.stage
    assert caught.value.retryable


@pytest.mark.parametrize(
    ("script", "kind", "hint", "retryable"),
    [
        pytest.param(lambda exchange: exchange.hang(), RequestTimeoutError, "no connection", True, id="hang"),
        pytest.param(lambda exchange: exchange.reset(), TransportError, "connect: ", True, id="reset"),
        pytest.param(answering(b"", status=502), TransportError, "ClientHttpProxyError", True, id="502"),
        pytest.param(answering(b"", status=407), TransportError, "asks for a user and a password", False, id="407"),
    ],
)
async def test_proxy_that_opens_no_tunnel(
    script: Callable[[Exchange], None], kind: type[TransportError], hint: str, *, retryable: bool
) -> None:
    """Without a tunnel nothing is sent, and only a proxy that wants a password will not change its mind."""
    with FaultServer(script) as proxy:
        limits = Limits(connect_timeout=0.3 if kind is RequestTimeoutError else 10)
        async with AiohttpTransport("https://192.0.2.1/", limits, proxy=proxy.url) as transport:
            with pytest.raises(kind, match=hint) as caught:
                await transport.send(small_body(), before_tail=nothing)

        assert {"CONNECT"} >= {request.method for request in proxy.requests}
    assert "connect" == caught.value.stage
    assert retryable == caught.value.retryable


HALF = raw_answer(b"{}", headers={"Content-Length": 3})


async def test_proxy_that_is_not_there() -> None:
    """What the proxy is to blame for is not said of the endpoint."""
    async with AiohttpTransport("https://localhost:2/", Limits(), proxy=f"http://u:{CANARY}@localhost:1") as transport:
        with pytest.raises(TransportError, match="refused with the proxy, on the way to localhost:2") as caught:
            await transport.send(small_body(), before_tail=nothing)
    assert CANARY not in str(caught.value)

    unknown = connection_error(aiohttp.ClientConnectorDNSError, socket.gaierror(socket.EAI_NONAME, ""))
    assert "check the proxy's address and the network" in str(translate(unknown, "https://example.com", "connect"))


@pytest.mark.parametrize(
    "proxy",
    [
        "user:canary@proxy:3128",
        "socks5://user:canary@localhost:1",
        "http://user:canary@localhost:99999",
        "http://user:canary@localhost:0",
        "http://user:canary@[::1",
        "http://user:canary@localhost:3128/path",
        "http://user:can ary@localhost",
        "http://",
        "",
    ],
)
def test_what_is_no_proxy(proxy: str) -> None:
    """What is no address of a proxy is refused as such where it is given, without its password."""
    with pytest.raises(ConfigurationError, match="proxy must be scheme") as caught:
        session("http://localhost:1", proxy=proxy)

    assert "canary" not in str(caught.value)


def dripping(data: bytes, *, first: bytes = b"") -> Callable[[Exchange], None]:
    """A script: read the request, send *first*, then a byte of *data* now and then."""

    def script(exchange: Exchange) -> None:
        exchange.read()
        exchange.send(first)
        for byte in data:
            exchange.send(bytes([byte]))
            exchange.stopped.wait(0.05)

    return script


@pytest.mark.parametrize(
    ("script", "message"),
    [
        pytest.param(after_reading(lambda exchange: exchange.hang()), "headers: no whole answer", id="no answer"),
        pytest.param(dripping(raw_answer(b"{}")), "headers: no whole answer within 0.4 s", id="drip of headers"),
        pytest.param(
            after_reading(HALF, lambda exchange: exchange.hang()), "body: no progress for 0.3 s", id="half a body"
        ),
        pytest.param(
            dripping(b" " * 40, first=raw_answer(b"", headers={"Content-Length": 40})), "body: no whole", id="drip"
        ),
    ],
)
async def test_answer_that_stalls(body: Body, script: Callable[[Exchange], None], message: str) -> None:
    """Waiting for the answer ends in time, also if it comes in crumbs, and says how far it got."""
    with FaultServer(script) as server:
        async with connected(server, stall_timeout=0.3, request_timeout=0.4) as transport:
            start = time.monotonic()
            with pytest.raises(RequestTimeoutError, match=message) as caught:
                await transport.send(body)

        assert time.monotonic() - start < 1.4
        assert message.startswith(f"{caught.value.stage}: ")
        assert 1 == len(server.complete)


DOCUMENT = b'{"RetCode": 0, "TaskUID": "26edb0bf", "Text": "the end"}'
CHUNKED: dict[str, object] = {"Transfer-Encoding": "chunked", "Content-Length": None}


def half_packed() -> bytes:
    """A chunk that can be unpacked, and one that cannot."""
    pack = zlib.compressobj(wbits=31)
    chunks = [pack.compress(DOCUMENT[:40]) + pack.flush(zlib.Z_SYNC_FLUSH), b"\xff" * 9]
    return b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)


def pause(exchange: Exchange) -> None:
    """A step: let what was sent arrive on its own."""
    exchange.stopped.wait(0.02)


@pytest.mark.parametrize("encrypted", [False, True], ids=["http", "https"])
@pytest.mark.parametrize(
    ("headers", "sent", "end", "why"),
    [
        pytest.param({"Content-Length": 50}, DOCUMENT[:40], "hang", "body: no progress for 0.3 s", id="hang"),
        pytest.param({"Content-Length": 50}, DOCUMENT[:40], "reset", "body: Client", id="RST"),
        pytest.param({"Content-Length": 50}, DOCUMENT[:40], "finish", "body: ClientPayloadError", id="FIN"),
        pytest.param(CHUNKED, b"28\r\n%s\r\nx" % DOCUMENT[:40], "hang", "body: no progress", id="chunk"),
    ],
)
async def test_broken_answer_of_a_submit(
    headers: dict[str, object],
    sent: bytes,
    end: str,
    why: str,
    *,
    encrypted: bool,
    server_tls: ssl.SSLContext,
    client_tls: ssl.SSLContext,
) -> None:
    """What has come of the answer to a paid request is handed over, with the reason why there is not more."""
    script = after_reading(
        raw_answer(b"", headers=headers),
        pause,
        sent,
        lambda exchange: getattr(exchange, end)(),
    )
    with FaultServer(script, tls=server_tls if encrypted else None) as server:
        async with connected(server, stall_timeout=0.3, ssl=client_tls) as transport:
            answer = await transport.send(small_body(), before_tail=nothing)
            with pytest.raises(TransportError, match=why):
                await transport.send(small_body())

    assert Answer(200, DOCUMENT[:40], None, answer.broken) == answer
    assert answer.broken is not None
    assert why in answer.broken


async def test_answer_that_is_broken_when_it_comes() -> None:
    """What can be unpacked is kept, even if it comes in one piece with what cannot."""
    sent = raw_answer(half_packed(), headers={"Content-Encoding": "gzip"} | CHUNKED)
    with FaultServer(after_reading(sent, lambda exchange: exchange.finish())) as server:
        async with connected(server) as transport:
            answer = await transport.send(small_body(), before_tail=nothing)

    assert Answer(200, DOCUMENT[:40], None, answer.broken) == answer
    assert "body: ClientPayloadError" in str(answer.broken)


async def test_broken_answer_at_every_byte() -> None:
    """Wherever the answer breaks off, all before that is kept."""
    whole = raw_answer(DOCUMENT)
    cuts = [*range(len(whole) - len(DOCUMENT), len(whole))]
    scripts = [after_reading(whole[:cut], lambda exchange: exchange.reset()) for cut in cuts]
    with FaultServer(*scripts) as server:
        async with connected(server) as transport:
            answers = [await transport.send(small_body(), before_tail=nothing) for _ in cuts]

    assert [DOCUMENT[:size] for size in range(len(DOCUMENT))] == [answer.body for answer in answers]
    assert all(answer.broken for answer in answers)


async def test_endless_answer_of_a_submit() -> None:
    """The beginning of an answer that is too long is handed over, too."""
    with FaultServer(answering(DOCUMENT)) as server:
        async with connected(server, max_answer_bytes=40) as transport:
            answer = await transport.send(small_body(), before_tail=nothing)

    assert Answer(200, DOCUMENT[:40], None, "the answer is longer than 40 bytes (Limits.max_answer_bytes)") == answer


@pytest.mark.parametrize("status", [200, 413, 500])
@pytest.mark.parametrize("sent", [b"{}", b"HTTP/1.1"], ids=["whole", "half"])
async def test_answer_before_the_end_of_the_request(status: int, sent: bytes) -> None:
    """Who answers before the request is complete never gets the rest of it, and its answer is known by its status."""
    early = raw_answer(sent, status=status, headers={"Content-Length": 8, "Retry-After": 3})
    with FaultServer(after_reading(early, lambda exchange: exchange.drain(), size=1000)) as server:
        async with connected(server) as transport:
            answer = await transport.send(await large_body(2000), before_tail=nothing)
        await settle(server)

        assert Answer(status, b"", 3.0) == answer
        assert [] == server.complete


async def stubborn() -> None:
    """A `before_tail` that waits for ever, and does not mind being cancelled."""
    with contextlib.suppress(asyncio.CancelledError):
        await anyio.sleep_forever()


async def test_answer_while_the_tail_is_held_back(body: Body) -> None:
    """The tail is not sent either if the answer comes while `before_tail` is at work."""
    with FaultServer(after_reading(raw_answer(b""), lambda exchange: exchange.drain(), size=10)) as server:
        async with connected(server) as transport:
            answer = await transport.send(body, before_tail=stubborn)
        await settle(server)

        assert 200 == answer.status
        assert [] == server.complete


@pytest.mark.parametrize("held_back", [anyio.sleep_forever, stubborn])
async def test_reset_before_the_tail(body: Body, held_back: BeforeTail) -> None:
    """A connection that ends before the tail gives a `TransportError`, and the tail is not sent."""
    with FaultServer(after_reading(lambda exchange: exchange.reset(), size=body.size - TAIL)) as server:
        async with connected(server) as transport:
            with pytest.raises(TransportError) as caught:
                await transport.send(body, before_tail=held_back)

        assert "send" == caught.value.stage
        assert [] == server.complete


async def test_timeout_before_the_tail(body: Body) -> None:
    """The tail is not sent once the time of the caller is up."""
    with FaultServer(after_reading(lambda exchange: exchange.drain())) as server:
        async with connected(server) as transport:
            with anyio.move_on_after(0.3) as scope:
                await transport.send(body, before_tail=stubborn)
        await settle(server)

        assert scope.cancelled_caught
        assert [] == server.complete


async def test_connection_that_ended_is_noticed_before_the_commit_point() -> None:
    """`before_tail` is not awaited on a connection that is gone."""
    closed = anyio.Event()
    committed = []

    class Halting(Body):
        async def head(self, outlet: Outlet | None = None) -> AsyncGenerator[bytes, None]:
            async for data in super().head(outlet):
                yield data
            await closed.wait()

    async def commit() -> None:
        committed.append(True)

    with FaultServer(after_reading(lambda exchange: exchange.reset(), size=10)) as server:
        body = Halting(lay_out({"Action": "Test"}, {}, data_uri=True), Secret("k"), slice_size=3, executor=THREADS)
        async with connected(server) as transport, anyio.create_task_group() as group:

            async def close_soon() -> None:
                await settle_any(server)
                closed.set()

            group.start_soon(close_soon)
            with pytest.raises(TransportError):
                await transport.send(body, before_tail=commit)

    assert [] == committed


async def test_reset_after_the_tail(body: Body) -> None:
    """A connection that ends after the tail is told by its stage."""
    with FaultServer(after_reading(lambda exchange: exchange.reset())) as server:
        async with connected(server) as transport:
            with pytest.raises(TransportError) as caught:
                await transport.send(body, before_tail=nothing)

        assert "headers" == caught.value.stage
        assert 1 == len(server.complete)


async def test_before_tail_can_refuse(body: Body) -> None:
    """What `before_tail` raises comes out of `send`, and the tail stays here."""
    error = InvalidRequestError("no")

    async def refuse() -> None:
        raise error

    with FaultServer(after_reading(lambda exchange: exchange.drain())) as server:
        async with connected(server) as transport:
            with pytest.raises(InvalidRequestError) as caught:
                await transport.send(body, before_tail=refuse)
        await settle(server)

        assert error is caught.value
        assert [] == server.complete


async def test_before_tail_breaks(body: Body) -> None:
    """A foreign exception of `before_tail` becomes a `TransportError` without its text."""

    async def breaks() -> None:
        raise RuntimeError(CANARY)

    with FaultServer(after_reading(lambda exchange: exchange.drain())) as server:
        async with connected(server) as transport:
            with pytest.raises(TransportError) as caught:
                await transport.send(body, before_tail=breaks)
        await settle(server)

        assert CANARY not in str(caught.value)
        assert caught.value.__cause__ is None
        assert caught.value.__context__ is None
        assert [] == server.complete


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"HTTP/1.1 2000000 \x00\r\n\r\n", id="status line"),
        pytest.param(b"canary-7c1f\r\n\r\n", id="no status line"),
        pytest.param(b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 100_000 + b"\r\n", id="headers"),
        pytest.param(b"HTTP/1.1 200 OK\r\nA: " + b"b" * 100_000 + b"\r\n\r\n", id="header"),
        pytest.param(raw_answer(b"canary-7c1f", headers={"Content-Encoding": "gzip"}), id="encoding"),
        pytest.param(raw_answer(b"{}", headers={"Content-Length": 9}), id="length"),
        pytest.param(
            raw_answer(b"5\r\nab", headers={"Transfer-Encoding": "chunked", "Content-Length": None}), id="chunks"
        ),
    ],
)
async def test_garbled_answer(answer: bytes) -> None:
    """An answer that cannot be parsed is no answer, and none of it is quoted."""
    with FaultServer(after_reading(answer, lambda exchange: exchange.finish())) as server:
        async with connected(server) as transport:
            with pytest.raises(TransportError) as caught:
                await transport.send(small_body())

    assert CANARY not in repr(caught.value)


async def test_bomb() -> None:
    """2 GiB in 2 MiB are not unpacked further than the limit."""
    pack = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = pack.compress(bytes(16 * 1024**2)) + pack.flush(zlib.Z_FULL_FLUSH)
    bomb = b"\x1f\x8b\x08\0\0\0\0\0\0\xff" + block * 128
    assert len(bomb) < 4 * 1024**2

    with FaultServer(answering(bomb, headers={"Content-Encoding": "gzip"})) as server:
        async with connected(server) as transport:
            tracemalloc.start()
            try:
                with pytest.raises(MalformedAnswerError, match="longer than 8388608 bytes"):
                    await transport.send(small_body())
                _, peak = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()

    assert peak < 64 * 1024**2


async def test_answer_at_the_limit() -> None:
    """An answer of exactly the limit is read, one more byte is too much."""
    with FaultServer(answering(b"x" * 10)) as server:
        async with connected(server, max_answer_bytes=10) as transport:
            assert b"x" * 10 == (await transport.send(small_body())).body
        async with connected(server, max_answer_bytes=9) as transport:
            with pytest.raises(MalformedAnswerError):
                await transport.send(small_body())


def test_the_user_agent_has_the_version() -> None:
    """It is written out, and agrees with the package's metadata."""
    assert f"picpik_async/{version('picpik-async')}" == USER_AGENT


def test_answer_does_not_show_its_body() -> None:
    """The repr of an answer tells its length only."""
    assert "Answer(status=200, body=<5 bytes>, retry_after=None, broken=None)" == repr(Answer(200, b"abcde"))


async def test_payload_is_never_text() -> None:
    """What aiohttp is handed cannot be turned to text, so nothing can log it."""
    with pytest.raises(NotImplementedError):
        _Payload(small_body(), None, Patience(anyio.CancelScope(), Limits())).decode()


def client_errors() -> Iterator[Any]:
    """One of each exception of aiohttp's client, and of what the operating system raises, with secrets in its text."""
    key = ConnectionKey(
        "localhost",
        1,
        is_ssl=False,
        ssl=True,
        proxy=None,
        proxy_auth=None,
        proxy_headers_hash=None,
        server_hostname=None,
    )
    info: Any = aiohttp.RequestInfo(URL(f"http://localhost/?{CANARY}"), "POST", CIMultiDictProxy(CIMultiDict()))
    system = OSError(111, CANARY)
    special: dict[str, tuple[Any, ...]] = {
        "ClientConnectorCertificateError": (key, ssl.CertificateError(CANARY)),
        "ServerFingerprintMismatch": (CANARY.encode(), b"", CANARY, 1),
        "UnixClientConnectorError": (CANARY, key, system),
        "InvalidURL": (CANARY,),
    }
    for kind in vars(client_exceptions).values():
        if not (inspect.isclass(kind) and issubclass(kind, Exception)):
            continue
        args: tuple[Any, ...] = (CANARY,)
        if kind.__name__ in special:
            args = special[kind.__name__]
        elif issubclass(kind, aiohttp.ClientConnectorError):
            args = (key, system)
        elif issubclass(kind, aiohttp.ClientResponseError):
            yield kind(info, (), status=400, message=CANARY)
            continue
        yield kind(*args)
    yield from (
        OSError(CANARY),
        OSError(104, CANARY),
        TimeoutError(CANARY),
        ValueError(CANARY),
        ssl.SSLError(1, CANARY),
    )


def connection_error(kind: Any, cause: OSError) -> Exception:
    """What aiohttp makes of *cause*."""
    error: Exception = kind(ConnectionKey("localhost", 1, True, True, None, None, None, None), cause)  # noqa: FBT003
    return error


@pytest.mark.parametrize(
    ("error", "retries"),
    [
        (connection_error(aiohttp.ClientConnectorDNSError, socket.gaierror(socket.EAI_NONAME, "")), 1),
        (connection_error(aiohttp.ClientConnectorDNSError, socket.gaierror(socket.EAI_NODATA, "")), 1),
        (connection_error(aiohttp.ClientConnectorDNSError, socket.gaierror(socket.EAI_AGAIN, "")), None),
        (connection_error(aiohttp.ClientConnectorDNSError, TimeoutError()), None),
        (connection_error(aiohttp.ClientConnectorError, ConnectionRefusedError()), None),
        (connection_error(aiohttp.ClientConnectorSSLError, ssl.SSLEOFError()), None),
        (connection_error(aiohttp.ClientConnectorSSLError, ssl.SSLError(1, "WRONG_VERSION_NUMBER")), 0),
        (connection_error(aiohttp.ClientConnectorCertificateError, ssl.SSLCertVerificationError()), 0),
        (connection_error(aiohttp.ClientProxyConnectionError, ConnectionRefusedError()), None),
        (aiohttp.ServerDisconnectedError(), None),
    ],
)
def test_what_stays_as_it_is_needs_no_other_try(error: Exception, retries: int | None) -> None:
    """A wrong certificate or protocol is not tried again, an unknown name once more, and the rest as often as allowed."""
    assert retries == translate(error, "https://localhost/", "connect").retries


@pytest.mark.parametrize("error", [*client_errors()], ids=lambda error: type(error).__name__)
def test_translation(error: Exception) -> None:
    """Every error of the client becomes one of ours, which names the host and quotes nothing."""
    assert CANARY in repr(error) or CANARY in str(error) or CANARY in repr(error.args)

    translated = translate(error, f"https://localhost/{CANARY}?{CANARY}", "headers")

    assert type(translated) is TransportError
    assert "headers" == translated.stage
    assert f"headers: {type(error).__name__}" in str(translated)
    assert "localhost" in str(translated)
    assert CANARY not in repr(translated)
