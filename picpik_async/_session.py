"""The session: what the user holds; it opens the engine, and checks that it is used where it belongs."""

from __future__ import annotations

import asyncio
import os
import ssl as ssl_module
import uuid
import weakref
from concurrent.futures import ThreadPoolExecutor
from types import EllipsisType
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

import anyio

from picpik_async._config import Credentials, Dialect, Endpoint, Limits, PollPolicy, RetryPolicy
from picpik_async._downloads import Downloads
from picpik_async._endings import closed_error
from picpik_async._engine import Engine
from picpik_async._link import Link
from picpik_async._poller import check_timeout
from picpik_async._ranges import one_text
from picpik_async._requests import (
    GetCreditBalance,
    Job,
    ListModels,
    ListRunningTasks,
    Query,
    TerminateTask,
)
from picpik_async._submits import Records, Submit, Workshop
from picpik_async._tasks import Task
from picpik_async._transport import AiohttpTransport, Transport
from picpik_async.errors import (
    ConfigurationError,
    InvalidRequestError,
)

if TYPE_CHECKING:
    from types import TracebackType

    from picpik_async._results import TaskResult
    from picpik_async._types import CreditBalance, Models

__all__ = ["PicpikSession"]

AnswerT = TypeVar("AnswerT")
T = TypeVar("T")
_CLOSE_SECONDS: Final = 5.0


class PicpikSession:
    """A connection to PICPIK: submits requests, waits for tasks, fetches pictures.

    Use it as `async with PicpikSession() as picpik:`, or without: it opens on first use and ends with `aclose()` or when
    it is forgotten. It belongs to the event loop of its first use.

    Args:
        credentials: the keys; left out they are read from `PICPIK_PUBLIC_KEY` and `PICPIK_PRIVATE_KEY`.
        endpoint: an `Endpoint` or an address; left out it is `PICPIK_ENDPOINT`, or the international service.
        dialect: settings for what the service does not document.
        poll: how to wait for tasks.
        retry: how to retry reads and downloads; submits are never retried.
        limits: bounds on time, memory and concurrency.
        ssl: a TLS context of your own; verification cannot be switched off otherwise.
        proxy: address of an HTTP proxy.
        transport: carries API calls instead of aiohttp; it stays yours to close.

    Raises:
        ConfigurationError: no keys, or an endpoint that cannot be used.
    """

    def __init__(
        self,
        credentials: Credentials | None = None,
        *,
        endpoint: Endpoint | str | None = None,
        dialect: Dialect | None = None,
        poll: PollPolicy | None = None,
        retry: RetryPolicy | None = None,
        limits: Limits | None = None,
        ssl: ssl_module.SSLContext | None = None,
        proxy: str | None = None,
        transport: Transport | None = None,
    ) -> None:
        _check_kinds(credentials=credentials, endpoint=endpoint, dialect=dialect, poll=poll, retry=retry, limits=limits)
        _check_kinds(ssl=ssl, proxy=proxy, transport=transport)
        self._credentials = credentials or Credentials.from_env()
        self._endpoint = Endpoint(endpoint) if isinstance(endpoint, str) else endpoint or Endpoint.from_env()
        self._dialect = dialect or Dialect()
        self._poll = poll or PollPolicy()
        self._retry = retry or RetryPolicy()
        self._limits = limits or Limits()
        self._ssl = ssl
        self._proxy = proxy
        self._transport = transport
        self._limiter = anyio.CapacityLimiter(self._limits.threads)
        self._pid = os.getpid()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._engine: Engine | None = None
        self._closed = False
        self._forget: weakref.finalize[Any, PicpikSession] | None = None
        self._records = Records()

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
        if not self._closed:
            self._check_place()
            self._closed = True
        if self._engine is not None:
            self._engine.stop()
            await asyncio.wait([self._engine.owner], timeout=_CLOSE_SECONDS)

    async def submit(self, request: Job, *, request_uuid: str | None = None) -> Task:
        """Send *request*, which costs credits, once; return as soon as its `TaskUID` is known.

        Args:
            request: such as `ModifyMaskedPixels`.
            request_uuid: a UUID of your own for the request; the service does not use it to tell duplicates.

        Raises:
            InvalidRequestError: found locally, nothing was sent.
            ConfigurationError: wrong event loop, forked process or closed session; nothing was sent.
            TransportError: the service certainly did not get the whole request.
            ApiError: the service refused: `RetCode` is not 0.
            HttpStatusError: the service refused with an HTTP status.
            SubmitOutcomeUnknownError: it may have been accepted and charged.
        """
        engine = await self._open()
        uid = await engine.submit(self._new_submit(request, request_uuid))
        return Task(uid, Link(self))

    async def run(
        self,
        request: Job,
        *,
        timeout: float | EllipsisType | None = ...,  # noqa: ASYNC109 - the poller keeps the deadline
        request_uuid: str | None = None,
    ) -> TaskResult:
        """Submit *request* and wait for its result.

        Args:
            request: such as `ModifyMaskedPixels`.
            timeout: seconds for all of it; None waits for ever, left out it is `PollPolicy.timeout`.
            request_uuid: see `submit`.

        Raises:
            RequestTimeoutError: time was up before the service had the whole request; nothing was paid.
            SubmitOutcomeUnknownError: time was up while the answer was awaited, or as in `submit`.
            PicpikError: the other kinds that `submit` and `Task.wait` name.
        """
        seconds = self._seconds(timeout)
        engine = await self._open()
        submit = self._new_submit(request, request_uuid)
        start = anyio.current_time()
        with anyio.move_on_after(seconds):
            await engine.submit(submit)
        if submit.uid is None:
            raise submit.timed_out(seconds)
        return await Link(self).wait_for(submit.uid, seconds, since=start)

    def task(self, task_uid: str) -> Task:
        """The handle of a task, from any process; no I/O.

        Raises:
            InvalidRequestError: *task_uid* is not a string, or empty.
        """
        return Task(TerminateTask(task_uid=task_uid).task_uid, Link(self))

    @property
    def tasks(self) -> tuple[Task, ...]:
        """Every task this session submitted, also those whose caller was cancelled."""
        return tuple(Task(uid, Link(self)) for uid in self._records.tasks)

    @property
    def unknown_submits(self) -> dict[str, str]:
        """Reasons by `request_uuid`, of every submit of this session that may have been accepted and charged.

        Those whose caller was cancelled are among them; one whose answer still arrives moves to `tasks`.
        """
        return dict(self._records.unknown)

    async def call(self, query: Query[AnswerT]) -> AnswerT:
        """Ask *query*, which costs nothing; retried with backoff.

        Raises:
            InvalidRequestError: *query* is not a query.
            TransportError: no answer, repeatedly.
            AnswerError: the service refused, or its answer is not legible.
            ConfigurationError: wrong event loop, forked process or closed session.
        """
        if not isinstance(query, Query):
            msg = (
                f"call() takes a query such as ListModels(), not {type(query).__name__}; use submit() or run() for jobs"
            )
            raise InvalidRequestError(msg, field="query", allowed="a Query")
        engine = await self._open()
        return await engine.hosted(lambda: engine.ask(query))

    async def models(self) -> Models:
        """The models of the account; raises as `call`."""
        return await self.call(ListModels())

    async def running_tasks(self) -> tuple[Task, ...]:
        """The tasks the service says are running; raises as `call`."""
        uids = await self.call(ListRunningTasks())
        return tuple(self.task(uid) for uid in uids)

    async def balance(self) -> CreditBalance:
        """The credits of the account; raises as `call`."""
        return await self.call(GetCreditBalance())

    def _new_submit(self, request: Job, request_uuid: str | None) -> Submit:
        if not isinstance(request, Job):
            msg = f"{type(request).__name__} is not a job such as ModifyMaskedPixels; queries go to session.call()"
            raise InvalidRequestError(msg, field="request", allowed="a Job")
        name = str(uuid.uuid4()) if request_uuid is None else one_text(request_uuid, "request_uuid")
        return Submit(request, name, self._records)

    def _seconds(self, timeout: float | EllipsisType | None) -> float | None:
        seconds = self._poll.timeout if isinstance(timeout, EllipsisType) else timeout
        check_timeout(seconds)
        return seconds

    def _check_place(self) -> None:
        if os.getpid() != self._pid:
            msg = "this PicpikSession was made before a fork; make one per process, after the fork"
            raise ConfigurationError(msg)
        if self._closed:
            raise closed_error()
        if self._loop not in (None, asyncio.get_running_loop()):
            msg = "this PicpikSession belongs to another event loop; make one per event loop, and per asyncio.run()"
            raise ConfigurationError(msg)

    async def _open(self) -> Engine:
        self._check_place()
        # An owner that is gone although nobody closed the session was interrupted, as in a notebook; start anew.
        if self._engine is None or self._engine.over:
            self._loop = asyncio.get_running_loop()
            self._engine = self._new_engine()
            if self._forget is not None:
                self._forget.detach()
            self._forget = weakref.finalize(self, _stop_soon, self._loop, self._engine)
        engine = self._engine
        await engine.ready()
        return engine

    def _new_engine(self) -> Engine:
        net: Any = {"ssl": self._ssl, "proxy": self._proxy}
        workshop = Workshop(
            credentials=self._credentials,
            dialect=self._dialect,
            limits=self._limits,
            limiter=self._limiter,
            encoders=ThreadPoolExecutor(max(1, self._limits.threads // 2), thread_name_prefix="picpik"),
            upload_slots=anyio.Semaphore(self._limits.uploads),
            transport=self._transport or AiohttpTransport(self._endpoint.url + self._dialect.path, self._limits, **net),
        )
        downloads = Downloads(self._endpoint, self._limits, self._retry, self._limiter, **net)
        return Engine(workshop, downloads, self._poll, self._retry)


_KINDS: Final[dict[str, Any]] = {
    "credentials": Credentials,
    "endpoint": Endpoint | str,
    "dialect": Dialect,
    "poll": PollPolicy,
    "retry": RetryPolicy,
    "limits": Limits,
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


def _stop_soon(loop: asyncio.AbstractEventLoop, engine: Engine) -> None:
    """End a forgotten session's owner, from whatever thread collects garbage."""
    try:
        loop.call_soon_threadsafe(engine.stop)
    except RuntimeError:  # the loop is closed, and the owner will never run again
        engine.end()
