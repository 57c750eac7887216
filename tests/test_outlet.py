"""Sending from worker threads: in order, no more than leaves at once, and nothing after it was closed."""

from __future__ import annotations

import asyncio
import itertools
import resource
import socket
import ssl
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trustme

from picpik_async._outlet import SocketOutlet

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.anyio

FAR_TOO_MUCH = bytes(64 * 1024 * 1024)


@asynccontextmanager
async def connected() -> AsyncIterator[tuple[asyncio.Transport, socket.socket]]:
    """A connection of the event loop, and the other end of it."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)  # noqa: FBT003
    transport, _ = await asyncio.get_running_loop().create_connection(asyncio.Protocol, sock=ours)
    theirs.setblocking(False)  # noqa: FBT003
    try:
        yield transport, theirs
    finally:
        transport.abort()
        theirs.close()


def outlet_of(transport: asyncio.Transport) -> SocketOutlet:
    """The outlet of a plain connection, in use."""
    outlet = SocketOutlet.of(transport)
    assert outlet is not None
    assert outlet.is_clear
    return outlet


def received(end: socket.socket) -> bytes:
    """All that has arrived."""
    data = b""
    while True:
        try:
            more = end.recv(2**20)
        except BlockingIOError:
            return data
        if not more:
            return data
        data += more


async def test_what_leaves_at_once() -> None:
    """A little leaves whole, and is counted once."""
    async with connected() as (transport, theirs):
        outlet = outlet_of(transport)

        assert b"" == outlet.offer(b"hello")
        assert (5, 0) == (outlet.take_sent(), outlet.take_sent())
        assert b"hello" == received(theirs)
        outlet.close()


async def test_the_rest_comes_back() -> None:
    """Of too much, the rest comes back, to the byte; offered again while nobody reads, it comes back whole."""
    async with connected() as (transport, theirs):
        outlet = outlet_of(transport)
        rest = outlet.offer(FAR_TOO_MUCH)
        sent = outlet.take_sent()

        assert 0 < sent < len(FAR_TOO_MUCH) == sent + len(rest)
        assert rest == outlet.offer(rest)
        assert sent == len(received(theirs))
        outlet.close()


async def test_not_clear_while_the_loop_has_something_to_send() -> None:
    """What the event loop still has to send goes first."""
    async with connected() as (transport, theirs):
        outlet = outlet_of(transport)
        transport.write(FAR_TOO_MUCH)
        assert not outlet.is_clear
        left = len(FAR_TOO_MUCH)
        while left:
            left -= len(received(theirs))
            await asyncio.sleep(0)

        assert outlet.is_clear
        outlet.close()


async def test_nothing_leaves_after_it_was_closed() -> None:
    """Closed, it takes nothing any more, also if its connection's number has become another connection's."""
    async with connected() as (transport, theirs):
        outlet = outlet_of(transport)
        outlet.close()
        outlet.close()

        assert b"late" == outlet.offer(b"late")
        assert outlet.is_clear
        assert b"late" == outlet.offer(b"late")
        assert (b"", 0) == (received(theirs), outlet.take_sent())


async def test_too_many_descriptors() -> None:
    """Where none of its own can be had, all comes back, for the event loop to send."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    async with connected() as (transport, theirs):
        outlet = SocketOutlet.of(transport)
        assert outlet is not None
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
        try:
            assert outlet.is_clear
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

        assert (b"whole", b"") == (outlet.offer(b"whole"), received(theirs))
        outlet.close()


async def test_a_connection_that_is_gone() -> None:
    """An error is no business of the thread's: it comes back as a rest."""
    async with connected() as (transport, theirs):
        outlet = outlet_of(transport)
        theirs.close()

        assert b"lost" == outlet.offer(b"lost")
        outlet.close()


async def test_another_connection_of_the_same_number_gets_nothing() -> None:
    """The connection may be closed, and its descriptor reused, while a thread is about to send."""
    async with connected() as (transport, theirs):
        outlet = outlet_of(transport)
        number = transport.get_extra_info("socket").fileno()
        transport.abort()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        strangers = [socket.socketpair() for _ in range(3)]
        try:
            assert number in {end.fileno() for pair in strangers for end in pair}
            outlet.offer(b"signed")
            assert b"signed" == received(theirs)
            assert all(
                b"" == received(end)
                for pair in strangers
                for end in pair
                if end.setblocking(False) is None  # type: ignore[func-returns-value]  # noqa: FBT003
            )
        finally:
            outlet.close()
            for end in itertools.chain.from_iterable(strangers):
                end.close()


@pytest.mark.parametrize("anyio_backend", [("asyncio", {"use_uvloop": True})], ids=["uvloop"])
@pytest.mark.parametrize("first", [b"1", b"first"])
async def test_uvloop_writes_at_once(anyio_backend: Any, first: bytes) -> None:  # noqa: ARG001
    """On uvloop, which likes to write at the end of a turn, the order is kept, too."""
    async with connected() as (transport, theirs):
        outlet = outlet_of(transport)
        transport.write(first)

        assert outlet.is_clear
        assert first == received(theirs)
        outlet.close()


async def test_there_is_none_over_tls() -> None:
    """With TLS, bytes have to pass the event loop's cipher."""
    authority = trustme.CA()
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(server_side)
    client_side = ssl.create_default_context()
    authority.configure_trust(client_side)
    server = await asyncio.start_server(lambda _reader, writer: writer.close(), "localhost", 0, ssl=server_side)
    async with server:
        port = server.sockets[0].getsockname()[1]
        _, writer = await asyncio.open_connection("localhost", port, ssl=client_side)
        assert SocketOutlet.of(writer.transport) is None  # type: ignore[arg-type]
        writer.close()
        await writer.wait_closed()
