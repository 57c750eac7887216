"""How a session opens and closes: what it is made of, on which loop, and in which process."""

from __future__ import annotations

import asyncio
import functools
import os
import ssl as ssl_module
import weakref
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import urlsplit

import anyio

from picpik_async._breaker import SpendBreaker
from picpik_async._config import Credentials, Dialect, Endpoint, Limits, PollPolicy, RetryPolicy, Secret
from picpik_async._endings import closed_error
from picpik_async._loading import loaded
from picpik_async._records import Records
from picpik_async._retry import RetryBudget
from picpik_async._sealed import sealed
from picpik_async._transport import Transport
from picpik_async.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from picpik_async._engine import Engine
    from picpik_async._journal import Journal

__all__ = ["Lifecycle"]

_CLOSE_SECONDS: Final = 5.0


class Lifecycle:
    """The part of a session that is not about requests; see `PicpikSession` for the arguments."""

    @sealed
    def __init__(
        self,
        credentials: Credentials | None = None,
        *,
        endpoint: Endpoint | str | None = None,
        dialect: Dialect | None = None,
        poll: PollPolicy | None = None,
        retry: RetryPolicy | None = None,
        limits: Limits | None = None,
        journal: str | os.PathLike[str] | None = None,
        ssl: ssl_module.SSLContext | None = None,
        proxy: str | None = None,
        transport: Transport | None = None,
    ) -> None:
        _check_kinds(credentials=credentials, endpoint=endpoint, dialect=dialect, poll=poll, retry=retry, limits=limits)
        _check_kinds(journal=journal, ssl=ssl, proxy=proxy, transport=transport)
        _check_proxy(proxy)
        self._credentials = credentials or Credentials.from_env()
        self._endpoint = Endpoint(endpoint) if isinstance(endpoint, str) else endpoint or Endpoint.from_env()
        self._dialect = dialect or Dialect()
        self._poll = poll or PollPolicy()
        self._retry = retry or RetryPolicy()
        self._limits = limits or Limits()
        self._new_journal = None if journal is None else _journals_at(journal)
        self._ssl = ssl
        self._proxy = None if proxy is None else Secret(proxy)  # it may hold a password
        self._transport = transport
        self._pid = os.getpid()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._engine: Engine | None = None
        self._closed = False
        self._forget: weakref.finalize[Any, Lifecycle] | None = None
        self._records = Records()
        # Of the session, not of its owner: an interrupt must not make it forget that outcomes are unknown.
        self._budget = RetryBudget()
        self._breaker = SpendBreaker(self._retry.submit_pause, anyio.current_time)

    async def __aenter__(self) -> Self:
        await self._open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the session, within 5 seconds: submits before their commit point are aborted, others may still answer.

        Remote tasks go on; `PicpikSession().task(uid)` resumes them.

        Raises:
            ConfigurationError: called from another event loop or process.
        """
        under_way = self._engine is not None and not self._engine.owner.done()
        if under_way or not self._closed:
            self._check_home()
        self._closed = True
        if self._engine is not None and under_way:
            self._engine.stop()
            await asyncio.wait([self._engine.owner], timeout=_CLOSE_SECONDS)

    def _require_journal(self) -> None:
        if self._new_journal is None:
            msg = "the session has no journal; make it with PicpikSession(journal='jobs.sqlite')"
            raise ConfigurationError(msg)

    async def _open_journal(self) -> Journal:
        self._require_journal()
        await self._open()
        assert self._records.journal is not None  # noqa: S101 - the engine is open, and there is a path
        return self._records.journal

    def _check_place(self) -> None:
        if self._closed and os.getpid() == self._pid:
            raise closed_error()
        self._check_home()

    def _check_home(self) -> None:
        if os.getpid() != self._pid:
            msg = "this PicpikSession was made before a fork; make one per process, after the fork"
            raise ConfigurationError(msg)
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # plain functions such as `Task.eta` can be called anywhere
            msg = (
                "no event loop is running in this thread; call it from the one whose loop the PicpikSession is used in"
            )
            raise ConfigurationError(msg) from None
        if self._loop not in (None, loop):
            msg = "this PicpikSession belongs to another event loop; make one per event loop, and per asyncio.run()"
            raise ConfigurationError(msg)

    @functools.cached_property
    def _limiter(self) -> anyio.CapacityLimiter:
        return anyio.CapacityLimiter(self._limits.threads)

    async def _open(self) -> Engine:
        self._check_place()
        assemble: Callable[[Lifecycle], Engine] = await loaded("picpik_async._assembly", "assemble")
        self._check_place()
        # An owner that is gone although nobody closed the session was interrupted, as in a notebook; start anew, when it
        # has let go of the journal.
        while self._engine is not None and self._engine.over and not self._engine.owner.done():
            await asyncio.wait([self._engine.owner])
            self._check_place()
        if self._engine is None or self._engine.over:
            self._loop = asyncio.get_running_loop()
            self._records.journal = None if self._new_journal is None else self._new_journal()
            self._engine = assemble(self)
            if self._forget is not None:
                self._forget.detach()
            self._forget = weakref.finalize(self, _stop_soon, self._loop, self._engine)
        engine = self._engine
        await engine.ready()
        return engine


def _journals_at(path: str | os.PathLike[str]) -> Callable[[], Journal]:
    from picpik_async._journal import Journal  # noqa: PLC0415 - few need it, and SQLite takes a while to import

    return functools.partial(Journal, path)


_KINDS: Final[dict[str, Any]] = {
    "credentials": Credentials,
    "endpoint": Endpoint | str,
    "dialect": Dialect,
    "poll": PollPolicy,
    "retry": RetryPolicy,
    "limits": Limits,
    "journal": str | os.PathLike,
    "ssl": ssl_module.SSLContext,
    "proxy": str,
    "transport": Transport,
}


def _check_kinds(**options: object) -> None:
    for name, value in options.items():
        if value is not None and not isinstance(value, _KINDS[name]):
            kind = getattr(_KINDS[name], "__name__", _KINDS[name])
            msg = f"{name} is a {type(value).__name__}, but must be {kind}"
            raise ConfigurationError(msg)


def _check_proxy(proxy: str | None) -> None:
    """Refuse an address of no HTTP proxy; it is not quoted, since it may hold a password."""
    try:
        parts = urlsplit("http://localhost" if proxy is None else proxy)
        fits = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0 and parts.path in {"", "/"}
    except ValueError:
        fits = False
    if not fits or any(char.isspace() for char in proxy or ""):
        msg = "proxy must be scheme (http or https), host and port of an HTTP proxy, such as http://user:password@proxy:3128"
        raise ConfigurationError(msg)


def _stop_soon(loop: asyncio.AbstractEventLoop, engine: Engine) -> None:
    """End a forgotten session's owner, from whatever thread collects garbage."""
    try:
        loop.call_soon_threadsafe(engine.stop)
    except RuntimeError:  # the loop is closed, and the owner will never run again
        engine.end()
