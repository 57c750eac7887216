"""Bytes out, bytes in: the one place where aiohttp's client carries API calls."""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, aclosing
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final, Protocol, Self, runtime_checkable
from urllib.parse import urlsplit

import aiohttp
import anyio
import attrs

from picpik_async._retry import parse_retry_after
from picpik_async.errors import MalformedAnswerError, PicpikError, RequestTimeoutError, TransportError

if TYPE_CHECKING:
    import asyncio
    import ssl
    from types import TracebackType

    from aiohttp.abc import AbstractStreamWriter

    from picpik_async._body import Body
    from picpik_async._config import Limits

__all__ = ["AiohttpTransport", "Answer", "BeforeTail", "Transport", "new_client", "read_capped", "translate"]

BeforeTail = Callable[[], Awaitable[None]]
USER_AGENT: Final = f"picpik_async/{version('picpik-async')}"


@attrs.frozen
class Answer:
    """An HTTP answer.

    Attributes:
        status: the HTTP status.
        body: the decoded body, or what has arrived of it.
        retry_after: seconds the server asks to wait, if it does.
        broken: why the body is not whole, without any of its text; None if it is. Reads raise instead.
    """

    status: int
    body: bytes = attrs.field(repr=lambda body: f"<{len(body)} bytes>")
    retry_after: float | None = None
    broken: str | None = None


@runtime_checkable
class Transport(Protocol):
    """Carries one signed body to the service."""

    async def send(self, body: Body, *, before_tail: BeforeTail | None = None) -> Answer:
        """Send *body* once and read the answer.

        Args:
            body: send all of `body.head()`, then `body.tail()`.
            before_tail: for a submit, awaited when everything but the tail has left; the tail must not be sent unless it
                returns, nor after `send` has ended.

        Raises:
            TransportError: no usable answer arrived.
            MalformedAnswerError: the answer is too large.
            PicpikError: what making the body or *before_tail* raised.
        """
        ...


class AiohttpTransport:
    """The transport over aiohttp: a fresh connection for each submit, kept ones for reads, no redirects, no cookies."""

    def __init__(
        self, url: str, limits: Limits, *, ssl: ssl.SSLContext | None = None, proxy: str | None = None
    ) -> None:
        self._url = url
        self._limits = limits
        self._ssl = ssl
        self._proxy = proxy
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        # A kept connection may be closed by the server just as a paid request starts on it, so submits never share one.
        self._submits = await self._stack.enter_async_context(new_client(self._ssl, force_close=True))
        self._reads = await self._stack.enter_async_context(new_client(self._ssl, keepalive_timeout=10))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def send(self, body: Body, *, before_tail: BeforeTail | None = None) -> Answer:
        """See `Transport.send`."""
        client = self._reads if before_tail is None else self._submits
        with anyio.CancelScope() as scope:
            payload = _Payload(body, before_tail, scope, self._limits.request_timeout)
            try:
                return await self._exchange(client, payload)
            except (aiohttp.ClientError, OSError, ValueError) as error:
                raise payload.failure or translate(error, self._url, payload.stage) from None
            finally:
                payload.abandon()
        msg = f"{payload.stage}: no progress for {self._limits.request_timeout:g} s with {urlsplit(self._url).hostname}"
        raise RequestTimeoutError(msg, stage=payload.stage)

    async def _exchange(self, client: aiohttp.ClientSession, payload: _Payload) -> Answer:
        async with client.post(self._url, data=payload, allow_redirects=False, proxy=self._proxy) as response:
            retry_after = parse_retry_after(response.headers.get("Retry-After"), now=time.time())
            if not payload.complete:  # who answers before being asked gets no more to read
                payload.abandon()
                return Answer(response.status, b"", retry_after)
            payload.reach("body")
            data = await read_capped(response, self._limits.max_answer_bytes)
            payload.keep_connection()
            return Answer(response.status, data, retry_after)


class _Payload(aiohttp.payload.Payload):
    """A `Body` as aiohttp wants it, which also holds the exchange's deadline and moves it on with each progress."""

    def __init__(self, body: Body, before_tail: BeforeTail | None, scope: anyio.CancelScope, patience: float) -> None:
        super().__init__(None, content_type="application/json")
        self._size = body.size
        self._body = body
        self._before_tail = before_tail
        self._scope = scope
        self._patience = patience
        self.failure: PicpikError | None = None
        self.abandoned = False
        self.complete = False
        self._connection: asyncio.Transport | None = None
        self.reach("connect")

    def reach(self, stage: str) -> None:
        """Note progress, which renews the deadline."""
        self.stage = stage
        self._scope.deadline = anyio.current_time() + self._patience

    def abandon(self) -> None:
        """End it here: nothing more leaves, not even what is buffered; merely closed, a connection would send that."""
        self.abandoned = True
        if self._connection is not None:
            self._connection.abort()

    def keep_connection(self) -> None:
        """Leave the connection to whoever made it; all went well."""
        self._connection = None

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """Refuse: a signed body is never kept as text."""
        raise NotImplementedError

    async def write(self, writer: AbstractStreamWriter) -> None:
        """Send the body; see `Transport.send` for the order."""
        try:
            await self._write(writer)
        except PicpikError as error:
            self.failure = error
            raise

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:  # noqa: ARG002
        """Send the body; *content_length* is its own size."""
        await self.write(writer)

    async def _write(self, writer: AbstractStreamWriter) -> None:
        self.reach("send")
        self._connection = getattr(writer, "transport")  # noqa: B009 - not declared by the abstract writer
        # So that drain() waits until all bytes have left; with high=0 it would wait for ever over TLS.
        self._open_connection().set_write_buffer_limits(high=1, low=0)
        async with aclosing(self._body.head()) as head:
            async for data in head:
                await writer.write(data)
                del data  # the connection has its own copy of what is not sent yet
                await writer.drain()
                self.reach("send")
        self._open_connection()
        if self._before_tail is not None:
            await self._before_tail()
            self._open_connection()
        self.complete = True
        await writer.write(self._body.tail())
        self.reach("headers")

    def _open_connection(self) -> asyncio.Transport:
        if self.abandoned or self._connection is None or self._connection.is_closing():
            msg = "send: the connection ended before the request was complete"
            raise TransportError(msg, stage="send")
        return self._connection


def new_client(ssl: ssl.SSLContext | None, **connector: Any) -> aiohttp.ClientSession:
    """An aiohttp client without cookies, environment or limits of its own; call it on the running loop."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, ssl=ssl or True, **connector),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"User-Agent": USER_AGENT},
        timeout=aiohttp.ClientTimeout(total=None, connect=None, sock_connect=None, sock_read=None),
    )


async def read_capped(
    response: aiohttp.ClientResponse, limit: int, *, on_progress: Callable[[int], None] | None = None
) -> bytes:
    """The decoded body, of at most *limit* bytes; *on_progress* is told how many have arrived.

    Raises:
        MalformedAnswerError: it is longer; reading stops there.
    """
    data = bytearray()
    async for chunk in response.content.iter_any():
        data += chunk
        if len(data) > limit:
            response.close()
            msg = f"the answer is longer than {limit} bytes"
            raise MalformedAnswerError(msg)
        if on_progress is not None:
            on_progress(len(data))
    return bytes(data)


_HINTS: Final[dict[type[Exception], str]] = {
    aiohttp.ClientConnectorCertificateError: "; its TLS certificate is not trusted here",
    aiohttp.ClientConnectorSSLError: "; it does not speak TLS there, or not a version that is accepted here",
    aiohttp.ClientConnectorDNSError: "; its name is not known, check the endpoint and the network",
}


def translate(error: Exception, url: str, stage: str) -> TransportError:
    """A foreign error as ours, without what it quotes: foreign messages may hold signed addresses and headers."""
    parts = urlsplit(url)
    number = getattr(error, "errno", None)
    hint = _HINTS.get(type(error), "")
    reason = f": {os.strerror(number)}" if isinstance(number, int) and number > 0 and not hint else ""
    msg = f"{stage}: {type(error).__name__}{reason} with {parts.netloc.rpartition('@')[2]}{hint}"
    return TransportError(msg, stage=stage)
