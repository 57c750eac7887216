"""Bytes out, bytes in: the one place where aiohttp's client carries API calls."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, aclosing, suppress
from typing import TYPE_CHECKING, Any, Final, Protocol, Self, runtime_checkable
from urllib.parse import urlsplit

import aiohttp
import anyio
import attrs

from picpik_async._config import Secret
from picpik_async._outlet import SocketOutlet
from picpik_async._patience import Patience
from picpik_async._retry import parse_retry_after
from picpik_async.errors import MalformedAnswerError, PicpikError, TransportError, bare

if TYPE_CHECKING:
    from types import TracebackType

    from aiohttp.abc import AbstractStreamWriter

    from picpik_async._body import Body
    from picpik_async._config import Limits

__all__ = ["AiohttpTransport", "Answer", "BeforeTail", "Transport", "host_of", "new_client", "translate"]

BeforeTail = Callable[[], Awaitable[None]]
_LOOKS: Final = 8  # for progress in the time after which there must have been some
USER_AGENT: Final = "picpik_async/0.1.0"  # looked up in the package's metadata, it would be 4 % of the import


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

        An answer to a submit that breaks off is returned as far as it has come, with `Answer.broken`.

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
        self._proxy = None if proxy is None else Secret(proxy)  # it may hold a password
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
        arrived = _Arrived()
        outcome = await self._try(body, before_tail, arrived)
        if isinstance(outcome, Answer):
            return outcome
        is_of_answer = isinstance(outcome, (TransportError, MalformedAnswerError))
        if is_of_answer and before_tail is not None and arrived.head is not None:
            return attrs.evolve(arrived.head, body=bytes(arrived.body), broken=str(outcome))
        raise outcome

    async def _try(self, body: Body, before_tail: BeforeTail | None, arrived: _Arrived) -> Answer | PicpikError:
        """The answer, or why there is none; returned, since what is raised here has foreign errors as its context."""
        client = self._reads if before_tail is None else self._submits
        with anyio.CancelScope() as scope:
            patience = Patience(scope, self._limits, clock=asyncio.get_running_loop().time)
            payload = _Payload(body, before_tail, patience)
            try:
                return await self._exchange(client, payload, patience, arrived)
            except PicpikError as error:
                return bare(error)
            except (aiohttp.ClientError, OSError, ValueError) as error:
                return bare(payload.failure or translate(error, self._url, patience.stage))
            except asyncio.CancelledError as error:
                raise bare(error)  # noqa: B904 - the very same
            finally:
                payload.abandon()
        return patience.error(urlsplit(self._url).hostname)

    async def _exchange(
        self, client: aiohttp.ClientSession, payload: _Payload, patience: Patience, arrived: _Arrived
    ) -> Answer:
        proxy = None if self._proxy is None else self._proxy.reveal()
        async with client.post(self._url, data=payload, allow_redirects=False, proxy=proxy) as response:
            retry_after = parse_retry_after(response.headers.get("Retry-After"), now=time.time())
            arrived.head = Answer(response.status, b"", retry_after)
            if not payload.complete:  # who answers before being asked gets no more to read
                payload.abandon()
                return arrived.head
            patience.start_reading()
            await _read_into(arrived.body, response, self._limits.max_answer_bytes, patience.note_received)
            if client is self._reads:  # the others are not used again, and TLS would keep them open for a long goodbye
                payload.keep_connection()
            return attrs.evolve(arrived.head, body=bytes(arrived.body))


class _Arrived:
    """As much of an answer as there is so far."""

    def __init__(self) -> None:
        self.head: Answer | None = None
        self.body = bytearray()


class _Payload(aiohttp.payload.Payload):
    """A `Body` as aiohttp wants it, which also notes the progress of the upload."""

    def __init__(self, body: Body, before_tail: BeforeTail | None, patience: Patience) -> None:
        super().__init__(None, content_type="application/json")
        self._size = body.size
        self._body = body
        self._before_tail = before_tail
        self._patience = patience
        self.failure: PicpikError | None = None
        self.abandoned = False
        self.complete = False
        self._connection: asyncio.Transport | None = None
        self._outlet: SocketOutlet | None = None

    def abandon(self) -> None:
        """End it here: nothing more leaves, not even what is buffered; merely closed, a connection would send that."""
        self.abandoned = True
        if self._outlet is not None:
            self._outlet.close()
        if self._connection is not None:
            with suppress(AttributeError):  # asyncio's own, if the last bytes left after the server's half had ended
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
        self._patience.start_sending()
        self._connection = getattr(writer, "transport")  # noqa: B009 - not declared by the abstract writer
        # So that drain() waits until all bytes have left; with high=0 it would wait for ever over TLS.
        self._open_connection().set_write_buffer_limits(high=1, low=0)
        writer.send_headers()  # alone, since they would be joined with what follows to bytes
        outlet = self._outlet = SocketOutlet.of(self._open_connection())
        async with aclosing(self._body.head(outlet)) as head:
            self._patience.suspend()
            async for data in head:
                self._patience.resume()
                view = memoryview(data)  # does not show its bytes in a traceback with locals, of asyncio's log neither
                del data
                if outlet is not None and (sent := outlet.take_sent()):
                    self._patience.note_sent(sent)
                with _Outflow(self._open_connection(), self._patience, len(view)) as outflow:
                    await writer.write(view)
                    del view  # the connection has its own copy of what is not sent yet
                    await writer.drain()
                    outflow.note(0)
                self._patience.suspend()
        if outlet is not None:
            outlet.close()
        self._open_connection()
        if self._before_tail is not None:
            self._patience.suspend()
            await self._before_tail()
            self._open_connection()
        self._patience.start_sending()
        self.complete = True
        await writer.write(memoryview(self._body.tail()))
        self._patience.start_waiting()

    def _open_connection(self) -> asyncio.Transport:
        if self.abandoned or self._connection is None or self._connection.is_closing():
            msg = "send: the connection ended before the request was complete"
            raise TransportError(msg, stage="send")
        return self._connection


class _Outflow:
    """Notes the progress of a slice while it leaves, since a slow line may take long over one.

    Args:
        connection: what it leaves through.
        patience: what it is noted in.
        size: bytes.
    """

    def __init__(self, connection: asyncio.Transport, patience: Patience, size: int) -> None:
        self._connection = connection
        self._patience = patience
        self._left = size

    def __enter__(self) -> Self:
        self._look_later()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()

    def note(self, left: int) -> None:
        """So many bytes have not left yet."""
        if left < self._left:
            self._patience.note_sent(self._left - left)
            self._left = left

    def _look_later(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._patience.stall_timeout / _LOOKS, self._look)

    def _look(self) -> None:
        self.note(self._connection.get_write_buffer_size())
        self._look_later()


def new_client(
    ssl: ssl.SSLContext | None, *, trace: aiohttp.TraceConfig | None = None, **connector: Any
) -> aiohttp.ClientSession:
    """An aiohttp client without cookies, environment or limits of its own; call it on the running loop."""
    return aiohttp.ClientSession(
        trace_configs=None if trace is None else [trace],
        connector=aiohttp.TCPConnector(limit=0, ssl=ssl or True, **connector),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"User-Agent": USER_AGENT},
        timeout=aiohttp.ClientTimeout(total=None, connect=None, sock_connect=None, sock_read=None),
    )


async def _read_into(
    data: bytearray, response: aiohttp.ClientResponse, limit: int, on_progress: Callable[[int], None]
) -> None:
    """Let *data* grow to the decoded body; what has arrived when reading fails is in it.

    Raises:
        MalformedAnswerError: it is longer than *limit*; reading stops there.
    """
    try:
        async for chunk in response.content.iter_any():
            room = limit - len(data)
            data += chunk[:room]
            if len(chunk) > room:
                response.close()
                msg = f"the answer is longer than {limit} bytes (Limits.max_answer_bytes)"
                raise MalformedAnswerError(msg)
            on_progress(len(data))
    except aiohttp.ClientError:
        # What came along with the failure is still in the reader, which only repeats the failure unless it is cleared.
        response.content.set_exception(None)  # type: ignore[arg-type]
        data += response.content.read_nowait()[: limit - len(data)]
        raise


_CUT_OFF: Final = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError)
_UNKNOWN_NAME: Final = frozenset({socket.EAI_NONAME, socket.EAI_NODATA})


def _diagnose(error: Exception, settings: str) -> tuple[str, int | None]:
    """A hint for the message, and `TransportError.retries`; *settings* is what may be set wrong."""
    cause = getattr(error, "os_error", None)
    match error:
        case aiohttp.ClientConnectorCertificateError():
            return "; its TLS certificate is not trusted here", 0
        case aiohttp.ClientConnectorSSLError() if not isinstance(cause, _CUT_OFF):
            return "; it does not speak TLS there, or not a version that is accepted here", 0
        case aiohttp.ClientConnectorDNSError() if getattr(cause, "errno", None) in _UNKNOWN_NAME:
            return f"; its name is not known, check {settings}the network", 1
        case aiohttp.ClientConnectorDNSError():
            return "; its name could not be looked up, check the network", None
        case aiohttp.ClientHttpProxyError(status=407):
            return "; the proxy asks for a user and a password", 0
    return "", None


def translate(error: Exception, url: str, stage: str, *, settings: str = "the endpoint and ") -> TransportError:
    """A foreign error as ours, without what it quotes: foreign messages may hold signed addresses and headers.

    Args:
        error: what was raised.
        url: what was asked; only its host and port are told.
        stage: how far the exchange got.
        settings: what may be set wrong if the name of the host is not known, and "and".
    """
    number = getattr(error, "errno", None)
    of_proxy = _is_of_proxy(error, url)
    hint, retries = _diagnose(error, "the proxy's address and " if of_proxy else settings)
    reason = f": {os.strerror(number)}" if isinstance(number, int) and number > 0 and not hint else ""
    whom = f"the proxy, on the way to {host_of(url)}" if of_proxy else host_of(url)
    msg = f"{stage}: {type(error).__name__}{reason} with {whom}{hint}"
    return TransportError(msg, stage=stage, retries=retries)


def _is_of_proxy(error: Exception, url: str) -> bool:
    if isinstance(error, (aiohttp.ClientProxyConnectionError, aiohttp.ClientHttpProxyError)):
        return True
    return isinstance(error, aiohttp.ClientConnectorError) and error.host != urlsplit(url).hostname


def host_of(url: str) -> str:
    """Host and port of an address, without its user."""
    return urlsplit(url).netloc.rpartition("@")[2]
