"""Fetching results: addresses checked, sizes capped, pictures decoded whole before anyone sees them.

An address may hold a signature, so it is a `Secret` in every frame here, and errors are made anew where no foreign
exception, which quotes it, is at hand to become their context.
"""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING, Final, Self
from urllib.parse import urlsplit, urlunsplit

import aiohttp
import anyio

from picpik_async._config import is_loopback
from picpik_async._retry import TRANSIENT_STATUSES, delay, parse_retry_after
from picpik_async._threads import in_thread
from picpik_async._transport import new_client, read_capped, translate
from picpik_async._verification import HopelessImageError, check_picture
from picpik_async.errors import (
    DownloadError,
    HttpStatusError,
    InvalidImageError,
    MalformedAnswerError,
    PicpikError,
    RequestTimeoutError,
    ResultExpiredError,
    TransportError,
    UnsafeUrlError,
    legible,
)

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable
    from types import TracebackType

    from picpik_async._config import Endpoint, Limits, RetryPolicy, Secret

__all__ = ["Downloads", "check_url", "shown_url"]

_MINIMUM_RATE: Final = (
    10_000  # bytes per second; what comes slower than this is not waited for beyond the request timeout
)
_GONE: Final = frozenset({403, 404, 410})
_DAMAGED_ATTEMPTS: Final = 3  # what is damaged three times over is so where it lies
_HEADERS: Final = {"Accept-Encoding": "identity"}


class Downloads:
    """The client for results: its own connections, no credentials, a bound on how many run at once."""

    def __init__(
        self,
        endpoint: Endpoint,
        limits: Limits,
        retry: RetryPolicy,
        limiter: anyio.CapacityLimiter,
        *,
        ssl: ssl.SSLContext | None = None,
        proxy: str | None = None,
    ) -> None:
        self._endpoint = endpoint
        self._limits = limits
        self._retry = retry
        self._limiter = limiter
        self._ssl = ssl
        self._proxy = proxy
        self._slots = anyio.Semaphore(limits.downloads)
        self._rng = random.Random()  # noqa: S311 - jitter

    async def __aenter__(self) -> Self:
        self._client = new_client(self._ssl, keepalive_timeout=10)
        await self._client.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._client.__aexit__(kind, error, traceback)

    async def fetch(self, url: Secret, *, task_uid: str) -> bytes:
        """The picture at *url*, whole and decodable.

        Raises:
            UnsafeUrlError: the address is not one this client will visit.
            ResultExpiredError: the picture is gone.
            InvalidImageError: what arrives, repeatedly, is not a whole picture within the limits.
            DownloadError: it could not be fetched.
        """
        check_url(url, self._endpoint, task_uid=task_uid)
        damaged = 0
        for attempt in range(self._retry.attempts):
            outcome = await self._attempt(url)
            if isinstance(outcome, bytes):
                return outcome
            damaged += isinstance(outcome, InvalidImageError)
            if attempt + 1 == self._retry.attempts or damaged == _DAMAGED_ATTEMPTS or not _may_repeat(outcome):
                raise _final_error(outcome, url, task_uid)
            retry_after = getattr(outcome, "retry_after", None)
            await anyio.sleep(delay(attempt, self._retry, self._rng, retry_after=retry_after))
        raise AssertionError  # pragma: no cover - the last attempt returns or raises

    async def _attempt(self, url: Secret) -> bytes | PicpikError:
        """The picture, or why there is none; returned, since what is raised here has foreign errors as its context."""
        try:
            async with self._slots:
                return await self._fetch_once(url)
        except (TransportError, HttpStatusError, InvalidImageError) as error:
            return error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return translate(error, url.reveal(), "download")

    async def _fetch_once(self, url: Secret) -> bytes:
        start = anyio.current_time()
        with anyio.move_on_after(self._limits.request_timeout) as scope:

            def extend(received: int) -> None:
                scope.deadline = start + self._limits.request_timeout + received / _MINIMUM_RATE

            data = await self._get(url, extend)
            await in_thread(check_picture, data, self._limits.max_image_pixels, limiter=self._limiter)
            return data
        msg = (
            f"download: took longer than {self._limits.request_timeout:g} s, and less than {_MINIMUM_RATE} bytes/s came"
        )
        raise RequestTimeoutError(msg, stage="download")

    async def _get(self, url: Secret, on_progress: Callable[[int], None]) -> bytes:
        async with self._client.get(
            url.reveal(), allow_redirects=False, auto_decompress=False, headers=_HEADERS, proxy=self._proxy
        ) as response:
            if response.status != 200:  # noqa: PLR2004 - HTTP OK
                retry_after = parse_retry_after(response.headers.get("Retry-After"), now=time.time())
                msg = f"HTTP {response.status}"
                raise HttpStatusError(msg, status=response.status, retry_after=retry_after)
            if response.headers.get("Content-Encoding", "identity") != "identity":
                msg = "the picture is compressed once more (Content-Encoding)"
                raise HopelessImageError(msg)
            try:
                return await read_capped(response, self._limits.max_image_bytes, on_progress=on_progress)
            except MalformedAnswerError:
                msg = f"the picture has more than {self._limits.max_image_bytes} bytes (Limits.max_image_bytes)"
                raise HopelessImageError(msg) from None


def _may_repeat(error: PicpikError) -> bool:
    if isinstance(error, HttpStatusError):
        return error.status in TRANSIENT_STATUSES
    return not isinstance(error, HopelessImageError)


def _final_error(error: PicpikError, url: Secret, task_uid: str) -> DownloadError:
    where = {"url": shown_url(url), "task_uid": task_uid}
    if isinstance(error, HttpStatusError) and error.status in _GONE:
        msg = f"the result is gone (HTTP {error.status}); the service keeps pictures for 24 hours"
        return ResultExpiredError(msg, **where)
    kind = InvalidImageError if isinstance(error, InvalidImageError) else DownloadError
    return kind(f"the result could not be fetched: {error}", **where)


def shown_url(url: Secret) -> str:
    """*url* without its query, user and fragment, which may hold secrets."""
    try:
        parts = urlsplit(url.reveal())
        return urlunsplit((parts.scheme, parts.hostname or "", parts.path, "", ""))
    except ValueError:
        return "(not an address)"


def check_url(url: Secret, endpoint: Endpoint, *, task_uid: str) -> None:
    """Accept https, and plain http only from this machine while the service runs on it too.

    Raises:
        UnsafeUrlError: the address is of another kind.
    """
    if not _is_safe(url.reveal(), endpoint):
        shown = shown_url(url)
        msg = f"the result's address is not fetched: it must be https, without a user, but is {legible(shown)}"
        raise UnsafeUrlError(msg, url=shown, task_uid=task_uid)


def _is_safe(url: str, endpoint: Endpoint) -> bool:
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError:
        return False
    local = parts.scheme == "http" and endpoint.is_loopback and is_loopback(host or "")
    return bool(host) and parts.username is None and (parts.scheme == "https" or local)
