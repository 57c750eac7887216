"""The session: what the user holds."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from types import EllipsisType
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import anyio

from picpik_async._deadlines import check_timeout
from picpik_async._entries import JobState, JournalEntry
from picpik_async._lifecycle import Lifecycle
from picpik_async._link import Link
from picpik_async._map import Outcomes, Requests
from picpik_async._plan import Plan
from picpik_async._ranges import one_text, refused
from picpik_async._recovery import Proposal, adopt, is_doubtful, propose
from picpik_async._requests import GetCreditBalance, Job, ListModels, ListRunningTasks, Query, TerminateTask
from picpik_async._tasks import Task
from picpik_async.errors import InvalidRequestError

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    from picpik_async._outcomes import Progress
    from picpik_async._results import TaskResult
    from picpik_async._submits import Submit
    from picpik_async._types import CreditBalance, Models

__all__ = ["PicpikSession"]

AnswerT = TypeVar("AnswerT")


class PicpikSession(Lifecycle):
    """A connection to PICPIK: submits requests, waits for tasks, fetches pictures.

    Use it as `async with PicpikSession() as picpik:`, or without: it opens on first use and ends with `aclose()` or when
    it is forgotten. It belongs to the event loop of its first use.

    Args:
        credentials: the keys; left out they are read from `PICPIK_PUBLIC_KEY` and `PICPIK_PRIVATE_KEY`.
        endpoint: an `Endpoint` or an address; left out it is `PICPIK_ENDPOINT`, or the international service.
        dialect: settings for what the service does not document.
        poll: how to wait for tasks.
        retry: how to retry reads and downloads, and submits that were certainly not taken.
        limits: bounds on time, memory and concurrency.
        journal: a file, made if need be, that keeps every submit: after a crash a rerun goes on where it was, and pays
            for nothing twice. One process at a time; on a local disk.
        ssl: a TLS context of your own; verification cannot be switched off otherwise.
        proxy: address of an HTTP proxy.
        transport: carries API calls instead of aiohttp; it stays yours to close.

    Raises:
        ConfigurationError: no keys, or an endpoint that cannot be used.
    """

    async def submit(self, request: Job, *, key: str | None = None, request_uuid: str | None = None) -> Task:
        """Send *request*, which costs credits, once; return as soon as its `TaskUID` is known.

        With a journal, a job it knows as paid is not sent again: its task is returned. Attempts that the service has
        certainly not taken are repeated, see `RetryPolicy.submit_attempts`; nothing else is.

        Args:
            request: such as `ModifyMaskedPixels`.
            key: names the job in the journal; left out, it is a digest of the request and its pictures, so that equal
                requests are one job.
            request_uuid: a UUID of your own for the request; the service does not use it to tell duplicates.

        Raises:
            InvalidRequestError: found locally, nothing was sent.
            ConfigurationError: wrong event loop, forked process or closed session; nothing was sent.
            JournalError: the journal cannot be opened, read or written; nothing was sent.
            SubmitPausedError: too many submits had an unknown outcome; nothing was sent.
            TransportError: the service certainly did not get the whole request.
            ApiError: the service refused: `RetCode` is not 0.
            HttpStatusError: the service refused with an HTTP status.
            SubmitOutcomeUnknownError: it may have been accepted and charged.
        """
        engine = await self._open()
        uid = await engine.submit(self._new_submit(request, request_uuid=request_uuid, key=key))
        return Task(uid, Link(self))

    async def run(
        self,
        request: Job,
        *,
        key: str | None = None,
        timeout: float | EllipsisType | None = ...,  # noqa: ASYNC109 - the poller keeps the deadline
        request_uuid: str | None = None,
        on_cancel: Literal["detach", "terminate"] = "detach",
    ) -> TaskResult:
        """Submit *request* and wait for its result.

        Args:
            request: such as `ModifyMaskedPixels`.
            key: see `submit`.
            timeout: seconds for all of it; None waits for ever, left out it is `PollPolicy.timeout`.
            request_uuid: see `submit`.
            on_cancel: what becomes of the remote task if the caller is cancelled: it goes on, and `tasks` has it; or it
                is terminated as soon as its uid is known, which takes up to 4 seconds. A *timeout* is no cancellation. Only
                what this very call has paid for is terminated, unless others of this session have asked for it, too.

        Raises:
            RequestTimeoutError: time was up before the service had the whole request; nothing was paid.
            SubmitOutcomeUnknownError: time was up while the answer was awaited, or as in `submit`.
            PicpikError: the other kinds that `submit` and `Task.wait` name.
        """
        seconds = self._seconds(timeout)
        if on_cancel not in {"detach", "terminate"}:
            raise refused(field="on_cancel", value=on_cancel, allowed="'detach' or 'terminate'")
        engine = await self._open()
        start = anyio.current_time()
        deadline = None if seconds is None else start + seconds
        submit = self._new_submit(request, request_uuid=request_uuid, key=key, deadline=deadline)
        try:
            with anyio.move_on_after(seconds):
                await engine.submit(submit)
            if submit.uid is None:
                raise submit.timed_out(seconds)
            return await Link(self).wait_for(submit.uid, seconds, since=start)
        except asyncio.CancelledError:
            if on_cancel == "terminate":
                await engine.call_off(submit)
            raise

    def map(
        self,
        requests: Requests,
        *,
        concurrency: int | None = None,
        in_flight: int = 1000,
        ordered: bool = False,
        save_to: str | os.PathLike[str] | None = None,
        timeout: float | EllipsisType | None = ...,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> Outcomes:
        """Run many requests; iterate over it asynchronously for one `Outcome` per input, whatever becomes of it.

        Inputs are pulled while there is room, from the event loop. When credits run out, too many outcomes are unknown,
        or the service refuses the first five requests, nothing more is submitted, and what is paid is finished. With a
        journal a rerun goes on where the last one was: what is done is handed out, what is paid is awaited, and what may
        be paid is not sent again; inputs with equal keys are one job. Without one, a key can be given only once.

        Args:
            requests: an iterable or async iterable of requests, or of pairs `(key, request)`, see `submit`. If it raises,
                so does the iteration, after all that came before.
            concurrency: inputs that are prepared and submitted at once; left out, it is `Limits.uploads`.
            in_flight: inputs that are pulled, and whose outcome is not taken yet.
            ordered: in the order of the inputs, rather than as they end.
            save_to: a folder for the pictures, tried before anything is sent; left out, results are handed out unread. Files
                are named after the keys given, or after their tasks, see `TaskResult.save`; another picture of that
                name is not replaced.
            timeout: seconds for each task, as in `Task.wait`.
            on_progress: a plain function, called on the event loop with each change of `Outcomes.progress`.

        Raises:
            InvalidRequestError: an argument is of the wrong kind, or out of range; the inputs are not looked at.
        """
        self._seconds(timeout)
        plan = Plan(
            concurrency=self._limits.uploads if concurrency is None else concurrency,
            in_flight=in_flight,
            ordered=ordered,
            save_to=save_to,
            timeout=timeout,
            on_progress=on_progress,
        )
        return Outcomes(self, requests, plan)

    async def recover(self) -> tuple[JournalEntry, ...]:
        """The jobs in the journal that are open, oldest first.

        `JobState.ACK` are paid, and `task(entry.task_uid)` has their pictures; `JobState.COMMIT` may be paid, and so may
        be `JobState.REJECTED` with a `RetCode` of which `Dialect` does not know better, see `reconcile`;
        `JobState.INTENT` were never sent, and are if you submit them again.

        Raises:
            ConfigurationError: the session has no journal.
            JournalError: it cannot be opened or read.
        """
        journal = await self._open_journal()
        entries = await journal.entries(JobState.REJECTED, *(state for state in JobState if state.open))
        return tuple(entry for entry in entries if entry.state.open or is_doubtful(entry, self._dialect))

    async def reconcile(self, *, adopt: bool = False) -> tuple[Proposal, ...]:
        """Look among the running tasks for those of jobs whose outcome is unknown.

        Absence proves nothing: a quick task may have ended already.

        Args:
            adopt: take over those tasks that can only be the job's own (`Proposal.certain`).

        Raises:
            ConfigurationError: the session has no journal.
            JournalError: it cannot be opened, read or written.
            TransportError: no answer, repeatedly.
            AnswerError: the service refused, or its answer is not legible.
        """
        journal = await self._open_journal()
        engine = await self._open()
        proposals = await engine.hosted(lambda: propose(engine, journal, self._records, self._dialect))
        if adopt:
            for proposal in proposals:
                if proposal.certain:
                    with contextlib.suppress(InvalidRequestError):  # its own answer has arrived meanwhile
                        await self._adopt(proposal.entry.key, proposal.candidates[0].task_uid, expected=proposal.entry)
        return proposals

    async def adopt(self, key: str, task_uid: str) -> Task:
        """Note in the journal that *task_uid* is the task of the job *key*, whose outcome was unknown.

        Raises:
            InvalidRequestError: there is no such job, it has a task, it is being submitted, or the task has another job.
            ConfigurationError: the session has no journal.
            JournalError: it cannot be opened, read or written.
        """
        return await self._adopt(key, task_uid)

    async def _adopt(self, key: str, task_uid: str, *, expected: JournalEntry | None = None) -> Task:
        task, journal = self.task(task_uid), await self._open_journal()
        await adopt(journal, self._records, self._dialect, key, task.uid, expected=expected)
        return task

    async def resubmit(self, key: str, request: Job | None = None, *, accept_double_charge: bool = False) -> Task:
        """Send a job again although it is, or may be, paid for: the only way to pay twice.

        Args:
            key: names the job in the journal.
            request: the same request as before; may be left out for one that this session submitted, with an unknown
                outcome.
            accept_double_charge: must be True.

        Raises:
            InvalidRequestError: there is no such job, *request* is missing or another one, or the charge is not accepted.
            PicpikError: the other kinds that `submit` names.
        """
        if accept_double_charge is not True:
            msg = "resubmit() may pay twice for one job; say so with accept_double_charge=True"
            raise InvalidRequestError(msg, field="accept_double_charge", value=accept_double_charge, allowed="True")
        if await (await self._open_journal()).find(key) is None:
            msg = f"key {key!r} is not in the journal; submit() sends new jobs"
            raise InvalidRequestError(msg, field="key", value=key, allowed="a key that is in the journal")
        again = self._records.doubtful.get(key) if request is None else request
        if again is None:
            msg = "the journal keeps no requests; pass the request of this job, too"
            raise InvalidRequestError(msg, field="request", allowed="the same request as before")
        engine = await self._open()
        return Task(await engine.submit(self._new_submit(again, key=key, anew=True)), Link(self))

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

    def _new_submit(
        self, request: Job, *, request_uuid: str | None = None, key: str | None = None, **options: Any
    ) -> Submit:
        from picpik_async._assembly import Submit  # noqa: PLC0415 - an open session has loaded it

        if not isinstance(request, Job):
            msg = f"{type(request).__name__} is not a job such as ModifyMaskedPixels; queries go to session.call()"
            raise InvalidRequestError(msg, field="request", allowed="a Job")
        name = str(uuid.uuid4()) if request_uuid is None else one_text(request_uuid, "request_uuid")
        if key is not None:
            one_text(key, "key")
            self._require_journal()
        return Submit(request, name, self._records, key=key, **options)

    def _seconds(self, timeout: float | EllipsisType | None) -> float | None:
        seconds = self._poll.timeout if isinstance(timeout, EllipsisType) else timeout
        check_timeout(seconds)
        return seconds
