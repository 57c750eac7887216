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
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import quote

import aiohttp
import anyio
from yarl import URL

from picpik_async._addresses import AddressRules, redirected, shown_url
from picpik_async._config import Secret
from picpik_async._retry import RetryBudget, delay, may_repeat_read, parse_retry_after
from picpik_async._slots import Slots
from picpik_async._threads import in_thread
from picpik_async._transfers import Transfer
from picpik_async._transport import new_client, translate
from picpik_async._verification import HopelessImageError, check_picture
from picpik_async.errors import (
    DownloadError,
    HttpStatusError,
    InvalidImageError,
    PicpikError,
    RequestTimeoutError,
    ResultExpiredError,
    TransportError,
    UnsafeUrlError,
    bare,
)

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable
    from types import TracebackType

    from picpik_async._config import Endpoint, Limits, RetryPolicy

__all__ = ["Downloads"]

_MINIMUM_RATE: Final = (
    10_000  # bytes per second; what comes slower than this is not waited for beyond the request timeout
)
_AT_ONCE: Final = 1024 * 1024  # pixels; of what has more, one picture is decoded at a time
_GONE: Final = frozenset({403, 404, 410})
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_MAX_REDIRECTS: Final = 3
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
        self._large = anyio.CapacityLimiter(1)
        self._budget = budget or RetryBudget()
        self._ssl = ssl
        self._proxy = None if proxy is None else Secret(proxy)  # it may hold a password
        self._slots = Slots(limits.downloads)
        self._rng = random.Random()  # noqa: S311 - jitter

    async def __aenter__(self) -> Self:
        # A proxy may be anywhere; what it is asked for was listed by the user.
        guard: dict[str, Any] = {} if self._proxy else {"socket_factory": self._new_socket}
        self._client = new_client(self._ssl, keepalive_timeout=10, **guard)
        await self._client.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._client.__aexit__(kind, error, traceback)

    def _new_socket(self, address: tuple[Any, ...]) -> socket.socket:
        """A socket, unless what it is to connect to is off limits; nothing reaches the network around this."""
        family, kind, protocol, _, (host, *_) = address
        if not self._rules.admits(host):
            raise _RefusedAddressError
        return socket.socket(family, kind, protocol)

    async def fetch(self, url: Secret, *, task_uid: str, expires: float) -> bytes:
        """The picture at *url*, whole and decodable; of those who wait, whose *expires* (Unix time) is first is next.

        Raises:
            UnsafeUrlError: the address, or one it redirects to, is not one this client will visit.
            ResultExpiredError: the picture is gone.
            InvalidImageError: what arrives, repeatedly, is not a whole picture within the limits.
            DownloadError: it could not be fetched.
        """
        # One place for all attempts: between them the transfer keeps what has arrived, which is to stay bounded.
        async with self._slots.held(expires):
            outcome = await self._try_often(url)
        if isinstance(outcome, bytes):
            return outcome
        raise _final_error(outcome, url, task_uid)

    async def _try_often(self, url: Secret) -> bytes | PicpikError:
        transfer, damaged, spent = Transfer(self._limits.max_image_bytes), 0, 0
        for attempt in range(self._retry.attempts):
            outcome = await self._attempt(url, transfer)
            if isinstance(outcome, bytes):
                self._budget.refund(spent)
                return outcome
            damaged += isinstance(outcome, InvalidImageError)
            if attempt + 1 == self._retry.attempts or damaged == _DAMAGED_ATTEMPTS or not self._may_repeat(outcome):
                return outcome
            cost = self._budget.take(outcome)
            if not cost:
                return outcome
            spent += cost
            await anyio.sleep(delay(attempt, outcome, self._retry, self._rng))
        raise AssertionError  # pragma: no cover - the last attempt returns

    def _may_repeat(self, error: PicpikError) -> bool:
        if isinstance(error, InvalidImageError):
            return not isinstance(error, HopelessImageError)
        return may_repeat_read(error, max_retry_after=self._retry.max_retry_after)

    async def _attempt(self, url: Secret, transfer: Transfer) -> bytes | PicpikError:
        """The picture, or why there is none; returned, since what is raised here has foreign errors as its context."""
        try:
            await self._continue(url, transfer)
            data = transfer.take()
            await self._check(data)
        except (TransportError, HttpStatusError, DownloadError) as error:
            return bare(error)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            if isinstance(getattr(error, "os_error", None), _RefusedAddressError):
                return UnsafeUrlError("its host is not at a public address")
            return translate(error, url.reveal(), "download")
        except asyncio.CancelledError as error:
            raise bare(error)  # noqa: B904 - the very same
        return data

    async def _check(self, data: bytes) -> None:
        check = functools.partial(check_picture, data, self._limits.max_result_pixels)
        if not await in_thread(functools.partial(check, at_once=_AT_ONCE), limiter=self._limiter):
            await in_thread(check, limiter=self._large)

    async def _continue(self, url: Secret, transfer: Transfer) -> None:
        start, patience = anyio.current_time(), self._limits.request_timeout
        with anyio.move_on_after(patience) as scope:

            def extend(received: int) -> None:
                scope.deadline = min(anyio.current_time(), start + received / _MINIMUM_RATE) + patience

            await self._follow(url, transfer, extend)
        if scope.cancelled_caught:
            msg = (
                f"download: nothing came for {patience:g} s, or less than {_MINIMUM_RATE} bytes/s for longer than that"
            )
            raise RequestTimeoutError(msg, stage="download")

    async def _follow(self, url: Secret, transfer: Transfer, on_progress: Callable[[int], None]) -> None:
        for _ in range(_MAX_REDIRECTS + 1):
            problem = self._rules.problem(url)
            if problem is not None:
                raise UnsafeUrlError(problem)
            proxy = None if self._proxy is None else self._proxy.reveal()
            options: Any = {"allow_redirects": False, "auto_decompress": False, "proxy": proxy}
            async with self._client.get(_verbatim(url), headers=transfer.request_headers(), **options) as response:
                if response.status not in _REDIRECTS:
                    await _receive(response, transfer, on_progress)
                    return
                url = _next_hop(url, Secret(response.headers.get("Location", "")))
        msg = f"it was redirected more than {_MAX_REDIRECTS} times"
        raise DownloadError(msg)


class _RefusedAddressError(OSError):
    """The socket would connect to what is off limits; an `OSError`, so that another address of the name is tried."""


async def _receive(response: aiohttp.ClientResponse, transfer: Transfer, on_progress: Callable[[int], None]) -> None:
    if not transfer.accepts(response.status):
        retry_after = parse_retry_after(response.headers.get("Retry-After"), now=time.time())
        msg = f"HTTP {response.status}"
        raise HttpStatusError(msg, status=response.status, retry_after=retry_after)
    transfer.begin(response.status, response.headers)
    received = 0
    async for chunk in response.content.iter_any():
        transfer.add(chunk)
        received += len(chunk)
        on_progress(received)


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
        msg = f"the result is gone (HTTP {error.status}); the service keeps pictures for 24 hours"
        return ResultExpiredError(msg, **where)
    if isinstance(error, UnsafeUrlError):
        return UnsafeUrlError(f"the result's address is not fetched: {error}", **where)
    kind = InvalidImageError if isinstance(error, InvalidImageError) else DownloadError
    return kind(f"the result could not be fetched: {error}", **where)
