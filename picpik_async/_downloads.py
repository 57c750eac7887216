"""Fetching results: addresses checked, sizes capped, pictures decoded whole before anyone sees them."""

from __future__ import annotations

import io
import math
import random
import time
from typing import TYPE_CHECKING, Final, Self
from urllib.parse import urlsplit, urlunsplit

import aiohttp
import anyio
import anyio.to_thread

from picpik_async._config import is_loopback
from picpik_async._pixels import sniff
from picpik_async._retry import TRANSIENT_STATUSES, delay, parse_retry_after
from picpik_async._transport import new_client, read_capped, translate
from picpik_async.errors import (
    DownloadError,
    HttpStatusError,
    ImageError,
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

    from picpik_async._config import Endpoint, Limits, RetryPolicy

__all__ = ["Downloads", "check_picture", "check_url", "shown_url"]

_MINIMUM_RATE: Final = (
    10_000  # bytes per second; what comes slower than this is not waited for beyond the request timeout
)
_GONE: Final = frozenset({403, 404, 410})
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

    async def fetch(self, url: str, *, task_uid: str) -> bytes:
        """The picture at *url*, whole and decodable.

        Raises:
            UnsafeUrlError: the address is not one this client will visit.
            ResultExpiredError: the picture is gone.
            InvalidImageError: what arrives, repeatedly, is not a whole picture within the limits.
            DownloadError: it could not be fetched.
        """
        where = {"url": shown_url(url), "task_uid": task_uid}
        check_url(url, self._endpoint, task_uid=task_uid)
        for attempt in range(self._retry.attempts):
            try:
                async with self._slots:
                    return await self._fetch_once(url)
            except (TransportError, HttpStatusError, InvalidImageError) as error:
                if isinstance(error, HttpStatusError) and error.status in _GONE:
                    msg = f"the result is gone (HTTP {error.status}); the service keeps pictures for 24 hours"
                    raise ResultExpiredError(msg, **where) from None
                if not _may_repeat(error) or attempt + 1 == self._retry.attempts:
                    kind = InvalidImageError if isinstance(error, InvalidImageError) else DownloadError
                    msg = f"the result could not be fetched: {error}"
                    raise kind(msg, **where) from None
                pause = delay(attempt, self._retry, self._rng, retry_after=getattr(error, "retry_after", None))
            await anyio.sleep(pause)
        raise AssertionError  # pragma: no cover - the last attempt returns or raises

    async def _fetch_once(self, url: str) -> bytes:
        start = anyio.current_time()
        with anyio.move_on_after(self._limits.request_timeout) as scope:

            def extend(received: int) -> None:
                scope.deadline = start + self._limits.request_timeout + received / _MINIMUM_RATE

            try:
                data = await self._get(url, extend)
            except (aiohttp.ClientError, OSError, ValueError) as error:
                raise translate(error, url, "download") from None
            await anyio.to_thread.run_sync(check_picture, data, self._limits.max_image_pixels, limiter=self._limiter)
            return data
        msg = (
            f"download: took longer than {self._limits.request_timeout:g} s, and less than {_MINIMUM_RATE} bytes/s came"
        )
        raise RequestTimeoutError(msg, stage="download")

    async def _get(self, url: str, on_progress: Callable[[int], None]) -> bytes:
        async with self._client.get(
            url, allow_redirects=False, auto_decompress=False, headers=_HEADERS, proxy=self._proxy
        ) as response:
            if response.status != 200:  # noqa: PLR2004 - HTTP OK
                retry_after = parse_retry_after(response.headers.get("Retry-After"), now=time.time())
                msg = f"HTTP {response.status}"
                raise HttpStatusError(msg, status=response.status, retry_after=retry_after)
            if response.headers.get("Content-Encoding", "identity") != "identity":
                msg = "the picture is compressed once more (Content-Encoding)"
                raise InvalidImageError(msg)
            try:
                return await read_capped(response, self._limits.max_image_bytes, on_progress=on_progress)
            except MalformedAnswerError:
                msg = f"the picture has more than {self._limits.max_image_bytes} bytes (Limits.max_image_bytes)"
                raise _TooLargeError(msg) from None


class _TooLargeError(InvalidImageError):
    """A picture over a limit, which another try would not change."""


def _may_repeat(error: PicpikError) -> bool:
    if isinstance(error, HttpStatusError):
        return error.status in TRANSIENT_STATUSES
    return not isinstance(error, _TooLargeError)


def shown_url(url: str) -> str:
    """*url* without its query, user and fragment, which may hold secrets."""
    try:
        parts = urlsplit(url)
        return urlunsplit((parts.scheme, parts.hostname or "", parts.path, "", ""))
    except ValueError:
        return "(not an address)"


def check_url(url: str, endpoint: Endpoint, *, task_uid: str) -> None:
    """Accept https, and plain http only from this machine while the service runs on it too.

    Raises:
        UnsafeUrlError: the address is of another kind.
    """
    where = {"url": shown_url(url), "task_uid": task_uid}
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        msg = "the result's address is not legible"
        raise UnsafeUrlError(msg, **where) from None
    local = parts.scheme == "http" and endpoint.is_loopback and is_loopback(host)
    if not host or parts.username is not None or not (parts.scheme == "https" or local):
        msg = f"the result's address is not fetched: it must be https, without a user, but is {legible(shown_url(url))}"
        raise UnsafeUrlError(msg, **where)


def check_picture(data: bytes, max_pixels: int) -> None:
    """Decode *data*, which must be one whole PNG, JPEG or WebP picture; runs in a worker thread.

    Raises:
        InvalidImageError: it is none of these, cut short, followed by something else, or too large.
    """
    from PIL import Image  # noqa: PLC0415 - keeps the import of the package light

    if not _is_complete(data):
        msg = f"{len(data)} bytes that are not one whole PNG, JPEG or WebP picture"
        raise InvalidImageError(msg)
    try:
        with Image.open(io.BytesIO(data), formats=["PNG", "JPEG", "WEBP"]) as picture:
            too_large = math.prod(picture.size) > max_pixels
            if not too_large:
                picture.load()
    except Exception as error:  # noqa: BLE001 - Pillow raises anything on broken pictures
        msg = f"the picture cannot be decoded ({type(error).__name__})"
        raise InvalidImageError(msg) from None
    if too_large:
        msg = f"the picture has {picture.width}×{picture.height} pixels, more than Limits.max_image_pixels"
        raise _TooLargeError(msg)


def _is_complete(data: bytes) -> bool:
    """Whether *data* starts and ends as a picture does; decoders overlook a missing end and anything behind it."""
    ends = {
        "png": data.endswith(b"IEND\xaeB`\x82"),
        "jpeg": data.endswith(b"\xff\xd9"),
        "webp": len(data) == int.from_bytes(data[4:8], "little") + 8,
    }
    try:
        return ends.get(sniff(data[:64]), False)
    except ImageError:
        return False
