"""The engine of a session: one owner task on the running loop, and in it the poller, the submits and the clients."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import uuid
from typing import TYPE_CHECKING, Final, TypeVar

import anyio

from picpik_async import _wire
from picpik_async._poller import Poller
from picpik_async._requests import ListTasksDetails, Query
from picpik_async._retry import delay, may_repeat_read
from picpik_async._transport import AiohttpTransport
from picpik_async.errors import ConfigurationError, HttpStatusError, PicpikError, SubmitOutcomeUnknownError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from picpik_async._config import PollPolicy, RetryPolicy
    from picpik_async._downloads import Downloads
    from picpik_async._submits import Submit, Workshop
    from picpik_async._tasks import TaskDetail

__all__ = ["Engine", "closed_error"]

_logger = logging.getLogger("picpik_async")

AnswerT = TypeVar("AnswerT")
T = TypeVar("T")
_DRAIN_SECONDS: Final = 4.5
_HTTP_OK: Final = range(200, 300)


class Engine:
    """What runs: one owner task enters the task group and the HTTP clients, and leaves them in the same task.

    It never refers to the session, so that a forgotten session is collected, which ends the owner.

    Attributes:
        owner: the task.
        over: nothing can be started any more.
    """

    def __init__(
        self, workshop: Workshop, downloads: Downloads, policy: PollPolicy, retry: RetryPolicy, known: dict[str, None]
    ) -> None:
        self.downloads = downloads
        self.limiter = workshop.limiter
        self.poller = Poller(self._fetch, policy, workshop.dialect)
        self._workshop = workshop
        self._retry = retry
        self._rng = random.Random()  # noqa: S311 - jitter
        self._upload_slots = anyio.Semaphore(workshop.limits.uploads)
        self._submits: set[Submit] = set()
        self._guests: set[anyio.CancelScope] = set()
        self._drained = asyncio.Event()
        self._stop = asyncio.Event()
        self._ready = asyncio.Event()
        self._known = known
        self.over = False
        self.owner = asyncio.get_running_loop().create_task(self._own(), name="picpik session")

    async def ready(self) -> None:
        """Wait until the owner has opened everything."""
        await self._ready.wait()

    def stop(self) -> None:
        """Ask the owner to end; from its own loop."""
        self._stop.set()

    async def _own(self) -> None:
        try:
            async with contextlib.AsyncExitStack() as stack:
                transport = self._workshop.transport
                if isinstance(transport, AiohttpTransport):
                    await stack.enter_async_context(transport)
                await stack.enter_async_context(self.downloads)
                self._group = await stack.enter_async_context(anyio.create_task_group())
                self._group.start_soon(self.poller.run)
                self._ready.set()
                try:
                    await self._stop.wait()
                finally:
                    self._end()
                await self._drain()
                self._group.cancel_scope.cancel()
        finally:
            self._end()
            self._ready.set()

    def _end(self) -> None:
        self.over = True
        for guest in self._guests:
            guest.cancel()

    async def _drain(self) -> None:
        """Abort what is not paid for, and wait a little for the answers of what may be."""
        for submit in self._submits:
            submit.abort()
        with anyio.move_on_after(_DRAIN_SECONDS):
            while self._submits:
                self._drained.clear()
                await self._drained.wait()

    async def submit(self, submit: Submit) -> str:
        """Run *submit*; cancelling the caller aborts it before its commit point, and only detaches after it."""
        self._submits.add(submit)
        try:
            return await self.detached(lambda: self._submit(submit))
        except asyncio.CancelledError:
            submit.abort()
            raise

    async def _submit(self, submit: Submit) -> str:
        try:
            async with self._upload_slots:
                uid = await submit.run(self._workshop)
            self._known[uid] = None
            return uid
        finally:
            self._submits.discard(submit)
            self._drained.set()

    async def detached(self, work: Callable[[], Awaitable[T]]) -> T:
        """Run *work* in the owner's task group, where cancelling the caller does not reach it."""
        outcome: asyncio.Future[T] = asyncio.get_running_loop().create_future()

        async def run() -> None:
            try:
                result = await work()
            except Exception as error:  # noqa: BLE001 - handed to the caller
                if not outcome.done():
                    outcome.set_exception(error)
                elif isinstance(error, SubmitOutcomeUnknownError):
                    _logger.warning(
                        "nobody waits any more for this: %s",
                        error,
                        extra={"request_uuid": error.request_uuid, "stage": error.stage},
                    )
            else:
                if not outcome.done():
                    outcome.set_result(result)
            finally:
                if not outcome.done():
                    outcome.set_exception(closed_error())

        self._group.start_soon(run)
        return await outcome

    async def hosted(self, work: Callable[[], Awaitable[T]]) -> T:
        """Run *work* in the caller's task, but no longer than the owner lives."""
        with anyio.CancelScope() as guest:
            self._guests.add(guest)
            try:
                return await work()
            finally:
                self._guests.discard(guest)
        raise closed_error()

    async def ask(self, query: Query[AnswerT]) -> AnswerT:
        """Send *query* until it is answered, as often as the policy says."""
        for attempt in range(self._retry.attempts - 1):
            try:
                return await self.ask_once(query)
            except PicpikError as error:
                if not may_repeat_read(error, self._workshop.dialect.throttle_ret_codes):
                    raise
                pause = delay(attempt, self._retry, self._rng, retry_after=getattr(error, "retry_after", None))
            await anyio.sleep(pause)
        return await self.ask_once(query)

    async def ask_once(self, query: Query[AnswerT]) -> AnswerT:
        """Send *query* once."""
        shop, request_uuid = self._workshop, str(uuid.uuid4())
        parameters = _wire.parameters(
            query, dialect=shop.dialect, public_key=shop.credentials.public_key, request_uuid=request_uuid
        )
        try:
            answer = await shop.transport.send(shop.body(parameters, {}))
            if answer.status not in _HTTP_OK:
                msg = f"{query.action}: HTTP {answer.status}"
                raise HttpStatusError(msg, status=answer.status, retry_after=answer.retry_after)
            document = _wire.decode(answer.body, action=query.action)
            refusal = _wire.refusal(document, action=query.action, request_uuid=request_uuid)
            if refusal is not None:
                raise refusal
            return _wire.structure_answer(query, document, shop.dialect)
        except PicpikError as error:
            error.request_uuid = request_uuid
            raise

    async def _fetch(self, task_uids: Sequence[str]) -> Sequence[TaskDetail]:
        return await self.ask_once(ListTasksDetails(task_uid_list=task_uids))


def closed_error() -> ConfigurationError:
    """The error for everything that a closed session is asked to do."""
    msg = "the session is closed; make a new PicpikSession, and session.task(uid) goes on with a task"
    return ConfigurationError(msg)
