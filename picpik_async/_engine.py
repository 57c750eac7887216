"""The engine of a session: one owner task on the running loop, and in it the poller, the submits and the clients."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import uuid
from typing import TYPE_CHECKING, Any, Final, TypeVar

import anyio

from picpik_async import _wire
from picpik_async._endings import closed_error
from picpik_async._errands import Errand
from picpik_async._poller import Poller
from picpik_async._records import note_failure
from picpik_async._requests import ListTasksDetails, Query, TerminateTask
from picpik_async._retry import HTTP_OK, delay, may_have_worked, may_repeat_read
from picpik_async._tasks import TaskStatus
from picpik_async._transport import AiohttpTransport
from picpik_async.errors import (
    ApiError,
    ConfigurationError,
    HttpStatusError,
    JournalError,
    PicpikError,
    RequestTimeoutError,
    TaskTerminatedError,
    bare,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Sequence

    from picpik_async._config import PollPolicy
    from picpik_async._downloads import Downloads
    from picpik_async._records import Records
    from picpik_async._submits import Submit
    from picpik_async._tasks import TaskDetail
    from picpik_async._workshop import Workshop

__all__ = ["Engine"]

_logger = logging.getLogger("picpik_async")

AnswerT = TypeVar("AnswerT")
T = TypeVar("T")
_DRAIN_SECONDS: Final = 4.0  # of the 5 that closing may take; the rest is for the journal and the connections
_LAST_ACT_SECONDS: Final = 4.0
_CONFIRM_PAUSES: Final = (0.0, 0.5, 1.0, 2.0, 4.0)  # seconds


class Engine:
    """What runs: one owner task enters the task group and the HTTP clients, and leaves them in the same task.

    It never refers to the session, so that a forgotten session is collected, which ends the owner.

    Attributes:
        budget: bounds the retries of the session.
        owner: the task.
        over: nothing can be started any more.
    """

    def __init__(self, workshop: Workshop, downloads: Downloads, policy: PollPolicy, records: Records) -> None:
        self.downloads = downloads
        self.poller = Poller(self._fetch, policy, workshop.dialect, durations=records.durations)
        self._workshop = workshop
        self._policy = policy
        self._journal = records.journal
        self.budget = workshop.budget
        self._submits: set[Submit] = set()
        self._shared: set[str] = set()  # tasks that a submit was given, and has not paid for
        self._last_acts: set[Errand[None]] = set()
        self._guests: set[anyio.CancelScope] = set()
        self._turn = asyncio.Lock()
        self._drained = asyncio.Event()
        self._stop = asyncio.Event()
        self._ready = asyncio.Event()
        self.over = False
        self.owner = asyncio.get_running_loop().create_task(self._own(), name="picpik session")
        self.owner.add_done_callback(self._ended)  # also if it is cancelled before its first step

    async def ready(self) -> None:
        """Wait until the owner has opened everything.

        Raises:
            ConfigurationError: it is closed, or could not be opened.
        """
        await self._ready.wait()
        if self.owner.done() and not self.owner.cancelled() and (error := self.owner.exception()) is not None:
            if isinstance(error, JournalError):
                raise error
            msg = f"the session could not be opened, or broke down: {type(error).__name__}; see the cause"
            raise ConfigurationError(msg) from error
        if self.over:
            raise closed_error()

    def stop(self) -> None:
        """Ask the owner to end; from its own loop."""
        self._stop.set()

    async def _own(self) -> None:
        try:
            async with contextlib.AsyncExitStack() as stack:
                if self._journal is not None:
                    await stack.enter_async_context(self._journal)  # entered first, so that it outlives what it records
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
            self.end()

    def _ended(self, owner: asyncio.Task[None]) -> None:
        self.end()
        if not owner.cancelled() and isinstance(error := owner.exception(), JournalError):
            # Whoever waits to use the session is told; asyncio would complain if they were all cancelled.
            _logger.debug("the session could not be opened: %s", error)

    def end(self) -> None:
        """Let nothing start any more, and let go of whoever waits for the start; safe to call again."""
        self._end()
        self._ready.set()
        self._workshop.encoders.shutdown(wait=False)
        self._workshop.maker.shutdown(wait=False)

    def _end(self) -> None:
        self.over = True
        for guest in self._guests:
            guest.cancel()

    async def _drain(self) -> None:
        """Abort what is not paid for, and wait a little for the answers of what may be."""
        for submit in self._submits:
            submit.abort()
        with anyio.move_on_after(_DRAIN_SECONDS):
            await self._finish()
            await asyncio.sleep(0)  # who was cancelled in the same breath has not come to its last act yet
            await self._finish()

    async def _finish(self) -> None:
        while self._submits or self._last_acts:
            self._drained.clear()
            await self._drained.wait()

    async def submit(self, submit: Submit) -> str:
        """Run *submit*; cancelling the caller aborts it before its commit point, and only detaches after it."""
        self._submits.add(submit)
        try:
            errand = Errand(lambda: self._submit(submit), cut_off=submit.cut_off, unattended=submit.tell)
            return await self.detached(errand)
        except asyncio.CancelledError:
            submit.abort()
            raise

    async def _submit(self, submit: Submit) -> str:
        try:
            uid = await submit.run(self._workshop, self._knows)
            if not submit.committed:
                self._shared.add(uid)
            return uid
        finally:
            self._submits.discard(submit)
            self._drained.set()

    async def _knows(self, task_uid: str) -> bool:
        """Whether the service knows a task, which a new one may take a moment for."""
        for pause in _CONFIRM_PAUSES:
            await anyio.sleep(pause)
            with contextlib.suppress(PicpikError):
                rows = await self._fetch((task_uid,))
                if any(row.task_uid == task_uid for row in rows):
                    return True
        return False

    async def call_off(self, submit: Submit) -> None:
        """Terminate the task of *submit*, as soon as its uid is known; waits for that, but not for long.

        The work is the owner's, so that a second cancellation of the caller does not stop it. A task that others have
        asked for, or that *submit* has not paid for, goes on.
        """
        errand = Errand(lambda: self._call_off(submit), cut_off=lambda: self._too_late(submit))

        async def run() -> None:
            try:
                await errand.run()
            finally:
                self._last_acts.discard(errand)
                self._drained.set()

        try:
            self._group.start_soon(run)
        except RuntimeError:  # the task group is over
            self._too_late(submit)
            return
        self._last_acts.add(errand)
        with anyio.move_on_after(_LAST_ACT_SECONDS, shield=True), contextlib.suppress(PicpikError):
            await errand.outcome()

    async def _call_off(self, submit: Submit) -> None:
        await submit.ended.wait()
        if submit.uid is None or not self._is_own(submit, submit.uid):
            return
        try:
            with anyio.fail_after(_LAST_ACT_SECONDS):
                await self.terminate(submit.uid)
        except (PicpikError, TimeoutError) as error:
            self._complain(submit, type(error).__name__)

    def _too_late(self, submit: Submit) -> PicpikError:
        if submit.uid is not None and self._is_own(submit, submit.uid):
            self._complain(submit, "the session ended")
        return closed_error()

    def _complain(self, submit: Submit, reason: str) -> None:
        ids = {"task_uid": submit.uid, "request_uuid": submit.request_uuid}
        _logger.warning("task %s could not be terminated: %s", submit.uid, reason, extra=ids)

    def _is_own(self, submit: Submit, uid: str) -> bool:
        """Whether nobody but *submit*, which has paid for it, has asked for the task in this session."""
        if uid in self._shared or self.poller.watches(uid):
            return False
        return not any(other.shares_job_with(submit) for other in self._submits if other is not submit)

    async def terminate(self, task_uid: str) -> None:
        """Stop a remote task; see `Task.terminate`."""
        lost: list[PicpikError] = []
        try:
            await self.ask(TerminateTask(task_uid=task_uid), on_retry=lost.append)
        except ApiError:
            if not any(map(may_have_worked, lost)):
                raise
            # Refused after a try whose answer was lost: that try has most likely ended the task.
        self.poller.terminated(task_uid)
        if self._journal is not None:
            await self._note_termination(task_uid)

    async def _note_termination(self, task_uid: str) -> None:
        """Note the end in the journal, since another session would not know what an unknown status word means here."""
        with contextlib.suppress(PicpikError):
            rows = {row.task_uid: row for row in await self._fetch((task_uid,))}
            row = rows.get(task_uid)
            if row is None or (row.status is TaskStatus.UNKNOWN and not row.finished):
                await note_failure(self._journal, TaskTerminatedError("terminated on request", task_uid=task_uid))

    def launch(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Start *work*, which must not raise, in the owner's task group."""
        self._group.start_soon(work)

    async def detached(self, errand: Errand[T]) -> T:
        """Run *errand* in the owner's task group, where cancelling the caller does not reach it."""
        self._group.start_soon(errand.run)
        return await errand.outcome()

    async def hosted(self, work: Callable[[], Awaitable[T]]) -> T:
        """Run *work* in the caller's task, but no longer than the owner lives."""
        with anyio.CancelScope() as guest:
            self._guests.add(guest)
            try:
                return await work()
            finally:
                self._guests.discard(guest)
        raise closed_error()

    async def ask(
        self, query: Query[AnswerT], *, on_retry: Callable[[PicpikError], None] = lambda _error: None
    ) -> AnswerT:
        """Send *query* until it is answered, as often as the policy, the budget and the caller's cancel scopes allow.

        Args:
            query: what to ask.
            on_retry: is told of each failure after which it is asked again.
        """
        policy, codes = self._workshop.retry, self._workshop.dialect.throttle_ret_codes
        attempt = taken = 0
        while True:
            try:
                answer = await self.ask_once(query)
            except PicpikError as error:
                pause = delay(attempt, error, policy, self._workshop.rng)
                is_last = (
                    attempt + 1 >= policy.attempts or anyio.current_time() + pause > anyio.current_effective_deadline()
                )
                wish = policy.max_retry_after
                if is_last or not may_repeat_read(error, codes, attempt=attempt, max_retry_after=wish):
                    raise
                attempt += 1
                if not (cost := self.budget.take(error)):
                    raise
                taken += cost
                on_retry(error)
            else:
                self.budget.refund(taken)
                return answer
            await anyio.sleep(pause)

    async def ask_once(self, query: Query[AnswerT]) -> AnswerT:
        """Send *query* once."""
        request_uuid = str(uuid.uuid4())
        try:
            return await self._exchange(query, request_uuid)
        except PicpikError as error:
            error.request_uuid = request_uuid
            raise bare(error)  # noqa: B904 - the very same
        except asyncio.CancelledError as error:
            raise bare(error)  # noqa: B904 - as above

    async def _exchange(self, query: Query[AnswerT], request_uuid: str) -> AnswerT:
        shop, start = self._workshop, anyio.current_time()
        parameters = _wire.parameters(
            query, dialect=shop.dialect, public_key=shop.credentials.public_key, request_uuid=request_uuid
        )
        answer = await shop.send(shop.query_body(parameters))
        if answer.status not in HTTP_OK:
            wish = f"; the service asks to wait {answer.retry_after:g} s" if answer.retry_after else ""
            msg = f"{query.action}: HTTP {answer.status}{wish}"
            raise HttpStatusError(msg, status=answer.status, retry_after=answer.retry_after)
        async with self._turn:  # fifty lists of a hundred rows that arrive together would stall the loop for 50 ms
            await asyncio.sleep(0)
            structured = self._read(query, answer.body, request_uuid)
        facts = {"action": query.action, "request_uuid": request_uuid}
        milliseconds = round((anyio.current_time() - start) * 1000)
        _logger.debug("%s: answered", query.action, extra=facts | {"milliseconds": milliseconds})
        return structured

    def _read(self, query: Query[AnswerT], body: bytes, request_uuid: str) -> AnswerT:
        document = _wire.decode(body, action=query.action)
        refusal = _wire.refusal(document, action=query.action, request_uuid=request_uuid)
        if refusal is not None:
            raise refusal
        return _wire.structure_answer(query, document, self._workshop.dialect)

    async def _fetch(self, task_uids: Sequence[str]) -> Sequence[TaskDetail]:
        with anyio.move_on_after(self._policy.request_timeout):
            return await self.ask_once(ListTasksDetails(task_uid_list=task_uids))
        msg = f"status request: no answer within {self._policy.request_timeout:g} s (PollPolicy.request_timeout)"
        raise RequestTimeoutError(msg, stage="headers")
