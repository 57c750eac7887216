"""Fetching results: addresses checked at every hop, sizes capped, pictures decoded whole before anyone sees them.

An address may hold a signature, so it is a `Secret` in every frame here, and errors are made anew where no foreign
exception, which quotes it, is at hand to become their context.
"""

from __future__ import annotations

import asyncio
import functools
import random
import socket
import string
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar
from urllib.parse import quote

import aiohttp
import anyio
import attrs
from yarl import URL

from picpik_async._addresses import AddressRules, redirected, shown_url
from picpik_async._config import Secret
from picpik_async._patience import Patience
from picpik_async._retry import RetryBudget, delay, may_repeat_read, parse_retry_after
from picpik_async._slots import Slots
from picpik_async._threads import in_thread
from picpik_async._transfers import Transfer
from picpik_async._transport import host_of, new_client, translate
from picpik_async._verification import HopelessImageError, Picture, check_picture
from picpik_async.errors import (
    DownloadError,
    HttpStatusError,
    InvalidImageError,
    PicpikError,
    ResultExpiredError,
    TransportError,
    UnsafeUrlError,
    bare,
)

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable
    from types import TracebackType

    from picpik_async._config import Endpoint, Limits, RetryPolicy

__all__ = ["Downloads"]

T = TypeVar("T")

_MINIMUM_RATE: Final = 10_000  # bytes per second; what comes slower is not waited for beyond Limits.request_timeout
_GONE: Final = frozenset({403, 404, 410})
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_MAX_REDIRECTS: Final = 3
_SHORT_PAUSE: Final = 1.0  # seconds, over which a place and what has arrived are kept
_DAMAGED_ATTEMPTS: Final = 3  # what is damaged three times over is so where it lies


class Downloads:
    """The client for results: its own connections, no credentials, a bound on how many run at once.

    Args:
        endpoint: results are on this machine only if the service is.
        limits: bounds.
        retry: how often to try.
        limiter: bounds the worker threads that decode.
        hosts: `Dialect.result_hosts`.
        budget: what retries are paid from; the session's.
        ssl: a TLS context.
        proxy: address of an HTTP proxy.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        limits: Limits,
        retry: RetryPolicy,
        limiter: anyio.CapacityLimiter,
        *,
        hosts: frozenset[str] = frozenset(),
        budget: RetryBudget | None = None,
        ssl: ssl.SSLContext | None = None,
        proxy: str | None = None,
    ) -> None:
        self._rules = AddressRules(local=endpoint.is_loopback, hosts=hosts, proxied=proxy is not None)
        self._limits = limits
        self._retry = retry
        self._limiter = limiter
        # As many as there are threads have at most as many pixels together as the one that has more.
        self._share = limits.max_result_pixels // limits.threads
        # Always the same thread, since the C library keeps for each what it has taken for pictures.
        self._large = ThreadPoolExecutor(1, thread_name_prefix="picpik decoder")
        self._budget = budget or RetryBudget()
        self._ssl = ssl
        self._proxy = None if proxy is None else Secret(proxy)  # it may hold a password
        self._slots = Slots(limits.downloads)
        self._rng = random.Random()  # noqa: S311 - jitter

    async def __aenter__(self) -> Self:
        # A proxy may be anywhere; what it is asked for was listed by the user.
        guard: dict[str, Any] = {} if self._proxy else {"socket_factory": self._new_socket}
        self._client = new_client(self._ssl, trace=_trace(), keepalive_timeout=10, **guard)
        await self._client.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._large.shutdown(wait=False)
        await self._client.__aexit__(kind, error, traceback)

    def _new_socket(self, address: tuple[Any, ...]) -> socket.socket:
        """A socket, unless what it is to connect to is off limits; nothing reaches the network around this."""
        family, kind, protocol, _, (host, *_) = address
        if not self._rules.admits(host):
            raise _RefusedAddressError
        return socket.socket(family, kind, protocol)

    async def fetch(self, url: Secret, *, task_uid: str, expires: float, use: Callable[[Picture], Awaitable[T]]) -> T:
        """What *use* makes of the picture at *url*, which is whole and decodable.

        Of those who wait, whose *expires* (Unix time) is first is next. A place is kept while there is anything to keep
        in memory: until *use* is done with the picture, but not over a long pause, in which others are served.

        Raises:
            UnsafeUrlError: the address, or one it redirects to, is not one this client will visit.
            ResultExpiredError: the picture is gone.
            InvalidImageError: what arrives, repeatedly, is not a whole picture within the limits.
            DownloadError: it could not be fetched.
        """
        visit = _Visit(url, Transfer(self._limits.max_image_bytes))
        while True:
            async with self._slots.held(expires):
                outcome = await self._try_for_a_while(visit)
                if isinstance(outcome, Picture):
                    return await use(outcome)
            if isinstance(outcome, PicpikError):
                raise _final_error(outcome, url, task_uid)
            await anyio.sleep(outcome)

    async def _try_for_a_while(self, visit: _Visit) -> Picture | PicpikError | float:
        """The picture, why there will be none, or seconds after which to try again."""
        while True:
            outcome = await self._attempt(visit)
            if isinstance(outcome, Picture):
                self._budget.refund(visit.spent)
                return outcome
            pause = self._pause(visit, outcome)
            if pause is None:
                return outcome
            if pause > _SHORT_PAUSE:
                visit.transfer.forget()
                return pause
            await anyio.sleep(pause)

    def _pause(self, visit: _Visit, error: PicpikError) -> float | None:
        """Seconds until the next try; None if there is to be none."""
        attempt = visit.failed
        visit.failed += 1
        visit.damaged += isinstance(error, InvalidImageError)
        if visit.failed >= self._retry.attempts or visit.damaged == _DAMAGED_ATTEMPTS:
            return None
        if not self._may_repeat(error, attempt) or not (cost := self._budget.take(error)):
            return None
        visit.spent += cost
        return delay(attempt, error, self._retry, self._rng)

    def _may_repeat(self, error: PicpikError, attempt: int) -> bool:
        if isinstance(error, InvalidImageError):
            return not isinstance(error, HopelessImageError)
        return may_repeat_read(error, attempt=attempt, max_retry_after=self._retry.max_retry_after)

    async def _attempt(self, visit: _Visit) -> Picture | PicpikError:
        """The picture, or why there is none; returned, since what is raised here has foreign errors as its context."""
        visit.hop = visit.url
        try:
            await self._receive(visit)
            picture = Picture(visit.transfer.take())
            await self._check(picture.data)
        except (TransportError, HttpStatusError, DownloadError) as error:
            return bare(error)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            if isinstance(getattr(error, "os_error", None), _RefusedAddressError):
                return UnsafeUrlError("its host is not at a public address")
            return translate(error, visit.hop.reveal(), "download", settings="")
        except asyncio.CancelledError as error:
            raise bare(error)  # noqa: B904 - the very same
        return picture

    async def _check(self, data: bytes) -> None:
        check = functools.partial(check_picture, data, self._limits.max_result_pixels)
        if not await in_thread(functools.partial(check, at_once=self._share), limiter=self._limiter):
            await asyncio.get_running_loop().run_in_executor(self._large, check)

    async def _receive(self, visit: _Visit) -> None:
        with anyio.CancelScope() as scope:
            patience = Patience(scope, self._limits, min_rate=_MINIMUM_RATE)
            await self._follow(visit, patience)
        if scope.cancelled_caught:
            raise patience.error(host_of(visit.hop.reveal()))

    async def _follow(self, visit: _Visit, patience: Patience) -> None:
        proxy = None if self._proxy is None else self._proxy.reveal()
        options: Any = {"allow_redirects": False, "auto_decompress": False, "proxy": proxy}
        options["trace_request_ctx"] = patience
        for _ in range(_MAX_REDIRECTS + 1):
            problem = self._rules.problem(visit.hop)
            if problem is not None:
                raise UnsafeUrlError(problem)
            patience.start_connecting()
            headers = visit.transfer.request_headers()
            async with self._client.get(_verbatim(visit.hop), headers=headers, **options) as response:
                if response.status not in _REDIRECTS:
                    await _read(response, visit, patience)
                    return
                visit.hop = _next_hop(visit.hop, Secret(response.headers.get("Location", "")))
        msg = f"it was redirected more than {_MAX_REDIRECTS} times"
        raise DownloadError(msg)


@attrs.define
class _Visit:
    """One picture's way here.

    Attributes:
        url: where it is said to be.
        transfer: what has arrived of it.
        hop: where the redirects of the current try have led so far.
        failed: how many tries have failed.
        damaged: how many of these brought something that is no picture.
        spent: what the retries have cost.
    """

    url: Secret
    transfer: Transfer
    hop: Secret = attrs.field(default=attrs.Factory(lambda visit: visit.url, takes_self=True))
    failed: int = 0
    damaged: int = 0
    spent: int = 0


def _trace() -> aiohttp.TraceConfig:
    """Lets the `Patience` of a request know when it has left; aiohttp tells it nowhere else."""

    async def note(_client: object, context: Any, _headers: object) -> None:
        context.trace_request_ctx.start_waiting()

    trace = aiohttp.TraceConfig()
    trace.on_request_headers_sent.append(note)
    return trace


class _RefusedAddressError(OSError):
    """The socket would connect to what is off limits; an `OSError`, so that another address of the name is tried."""


async def _read(response: aiohttp.ClientResponse, visit: _Visit, patience: Patience) -> None:
    transfer = visit.transfer
    if not transfer.accepts(response.status):
        raise _refusal(response, "" if visit.hop is visit.url else f" from {host_of(visit.hop.reveal())}")
    transfer.begin(response.status, response.headers)
    patience.start_reading()
    received = 0
    async for chunk in response.content.iter_any():
        transfer.add(chunk)
        received += len(chunk)
        patience.note_received(received)


def _refusal(response: aiohttp.ClientResponse, whence: str) -> HttpStatusError:
    retry_after = parse_retry_after(response.headers.get("Retry-After"), now=time.time())
    wish = "" if retry_after is None else f"; it asks to wait {retry_after:.0f} s (Retry-After)"
    msg = f"HTTP {response.status}{whence}{wish}"
    return HttpStatusError(msg, status=response.status, retry_after=retry_after)


def _verbatim(url: Secret) -> URL:
    """*url* as it stands, since its signature may be of the very text; only spaces and non-ASCII characters are quoted."""
    return URL(quote(url.reveal(), safe=string.punctuation), encoded=True)


def _next_hop(url: Secret, location: Secret) -> Secret:
    target = redirected(url, location)
    if target is None:
        msg = "it was redirected to nowhere"
        raise DownloadError(msg)
    if url.reveal()[:6].lower() == "https:" and target.reveal()[:5].lower() == "http:":
        msg = "it was redirected from https to plain http"
        raise UnsafeUrlError(msg)
    return target


def _final_error(error: PicpikError, url: Secret, task_uid: str) -> DownloadError:
    where = {"url": shown_url(url), "task_uid": task_uid}
    if isinstance(error, HttpStatusError) and error.status in _GONE:
        msg = f"the result is gone ({error}); the service keeps pictures for 24 hours"
        return ResultExpiredError(msg, **where)
    if isinstance(error, UnsafeUrlError):
        return UnsafeUrlError(f"the result's address is not fetched: {error}", **where)
    kind = InvalidImageError if isinstance(error, InvalidImageError) else DownloadError
    return kind(f"the result could not be fetched: {error}", **where)
