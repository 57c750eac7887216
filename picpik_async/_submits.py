"""One paid request: prepared, sent, and judged by how far it got, never by the kind of exception.

The *commit point* is the moment the tail, which holds the signature, is handed over. The verdict on an attempt is one of

- ACK: the `TaskUID` is known, if need be out of a truncated answer, confirmed by a poll;
- NOT_TAKEN: it failed before the commit point, or the service turned it away unprocessed (429, 425): may be sent again;
- REJECTED: the service refused: `ApiError`, `HttpStatusError`;
- UNKNOWN: anything else after the commit point: never sent again, `SubmitOutcomeUnknownError`.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import anyio

from picpik_async import _wire
from picpik_async._endings import closed_error
from picpik_async._records import Line, settled_uid
from picpik_async._retry import HTTP_OK, REFUSED_STATUSES, delay, is_turned_away, may_repeat_submit
from picpik_async._salvage import salvaged_uid
from picpik_async.errors import (
    ApiError,
    HttpStatusError,
    MalformedAnswerError,
    PicpikError,
    RequestTimeoutError,
    SubmitOutcomeUnknownError,
    TransportError,
    bare,
    legible,
)

if TYPE_CHECKING:
    from collections.abc import Hashable

    from picpik_async._body import Body
    from picpik_async._entries import JournalEntry
    from picpik_async._images import ImageSource
    from picpik_async._opened import OpenImage
    from picpik_async._records import Records
    from picpik_async._requests import Job
    from picpik_async._transport import Answer
    from picpik_async._workshop import Workshop

__all__ = ["Confirm", "Submit"]

Confirm = Callable[[str], Awaitable[bool]]

_logger = logging.getLogger("picpik_async")


class Submit:
    """A submit under way.

    Args:
        request: what to send.
        request_uuid: one per logical submit, the same in every attempt.
        records: of the session.
        key: names the job in the journal.
        anew: pay again, whatever the journal says.
        deadline: no attempt starts after this time, on the loop's clock.
        gate: raises `SubmitPausedError` if nothing is to be paid for any more; what is paid is resumed all the same.

    Attributes:
        request_uuid: see above.
        committed: whether the service may have the whole request; from then on it is not resent.
        uid: the `TaskUID`, once it is known.
        ended: set when nothing more happens.
    """

    def __init__(
        self,
        request: Job,
        request_uuid: str,
        records: Records,
        *,
        key: str | None = None,
        anew: bool = False,
        deadline: float | None = None,
        gate: Callable[[], None] = lambda: None,
    ) -> None:
        self.request_uuid = request_uuid
        self.committed = False
        self.uid: str | None = None
        self.ended = anyio.Event()
        self._error: PicpikError | None = None
        self._request = request
        self._records = records
        self._line = Line(records, key, anew=anew)
        self._deadline = deadline
        self._gate = gate
        self._probe = False
        self._spent = 0
        self._salvaged: str | None = None
        self._kind: Hashable = None
        self._aborted = False
        self._scope = anyio.CancelScope()

    @property
    def entry(self) -> JournalEntry | None:
        """The job in the journal, if there is one."""
        return self._line.entry

    def shares_job_with(self, other: Submit) -> bool:
        """Whether the two have one line in the journal, as far as that is known yet."""
        mine, others = self._line, other._line
        return mine.awaited is others or (mine.key is not None and mine.key == others.key)

    def abort(self) -> None:
        """Stop, unless it is too late: what may be paid for is followed to its answer."""
        self._aborted = True  # also if it is too late: what is turned away unpaid is not tried again
        if not self.committed:
            self._scope.cancel()

    async def run(self, shop: Workshop, confirm: Confirm) -> str:
        """Send the request and return its `TaskUID`.

        Args:
            shop: makes and sends the body.
            confirm: asks the service whether it knows a task.

        Raises:
            InvalidRequestError: found locally, nothing was sent.
            JournalError: the journal cannot be read or written; nothing was sent.
            SubmitPausedError: too many outcomes are unknown, or the gate is shut; nothing was paid.
            TransportError: the service certainly did not get the whole request.
            ApiError: `RetCode` is not 0.
            HttpStatusError: the request was refused.
            SubmitOutcomeUnknownError: anything else that went wrong after the commit point.
        """
        start = anyio.current_time()
        try:
            with self._scope:
                self.uid = await self._run(shop, confirm)
                self._records.tasks[self.uid] = None
                if self.committed:
                    self._records.durations.begin(self.uid, self._kind, anyio.current_time())
                self._records.settled(self.request_uuid, self._line.key)
                self._log("submitted", start, task_uid=self.uid)
                return self.uid
        except PicpikError as error:
            self._note(error)
            self._log(type(error).__name__, start, stage=getattr(error, "stage", None))
            raise
        finally:
            if not self.committed:
                self._line.retract()
            self._line.release()
            self.ended.set()
        raise self._aborted_error()

    def _note(self, error: PicpikError) -> None:
        error.request_uuid = error.request_uuid or self.request_uuid
        self._error = error
        if not isinstance(error, SubmitOutcomeUnknownError):
            self._records.settled(self.request_uuid, self._line.key)
        if self.committed and isinstance(error, (ApiError, HttpStatusError)):
            self._line.refused(error)

    def _log(self, what: str, start: float, **fields: str | None) -> None:
        facts = {"action": self._request.action, "request_uuid": self.request_uuid, **fields}
        milliseconds = round((anyio.current_time() - start) * 1000)
        _logger.debug("%s: %s", self._request.action, what, extra=facts | {"milliseconds": milliseconds})

    def cut_off(self) -> PicpikError:
        """The error for a submit that was ended from outside, with its session."""
        if self.committed:
            return self._unknown("the session ended while the answer was awaited")
        return closed_error(request_uuid=self.request_uuid)

    def tell(self, uid: str | None, error: BaseException | None) -> None:
        """Log an outcome that is paid for, or may be, and that no caller waits for any more."""
        ids = {"request_uuid": self.request_uuid, "task_uid": uid}
        if uid is not None:
            _logger.warning("task %s was submitted, and its caller is gone; session.task(uid) finds it", uid, extra=ids)
        elif isinstance(error, SubmitOutcomeUnknownError):
            _logger.warning("nobody waits any more for this: %s", error, extra=ids)

    async def _run(self, shop: Workshop, confirm: Confirm) -> str:
        self._request.check()
        images = await shop.open_images(self._request.images()) if self._line.needs_contents else None
        earlier = await self._line.claim(self._request, self.request_uuid, shop, images)
        if earlier is not None and (uid := settled_uid(earlier, shop.dialect)) is not None:
            return uid
        if self._line.entry is not None:
            self.request_uuid = self._line.entry.request_uuid
        self._check_open(shop)
        if images is None:
            images = await shop.open_images(self._request.images())
        request = self._line.intend(self._request.settled(images, shop.dialect), images)
        self._kind = request.kind
        parameters = _wire.parameters(
            request, dialect=shop.dialect, public_key=shop.credentials.public_key, request_uuid=self.request_uuid
        )
        for attempt in range(shop.retry.submit_attempts - 1):
            try:
                return await self._attempt(shop, parameters, images, confirm)
            except PicpikError as error:
                pause = self._pause(error, attempt, shop)
                if pause is None:
                    raise
            self.committed = False
            self._line.retract()
            await anyio.sleep(pause)
        return await self._attempt(shop, parameters, images, confirm)

    def _check_open(self, shop: Workshop) -> None:
        self._gate()
        shop.breaker.check()

    def _pause(self, error: PicpikError, attempt: int, shop: Workshop) -> float | None:
        """Seconds until the next attempt, or None if there is to be none."""
        codes, longest = shop.dialect.throttle_ret_codes, shop.retry.max_retry_after
        if self._aborted or not may_repeat_submit(error, codes, attempt=attempt, max_retry_after=longest):
            return None
        pause = delay(attempt, error, shop.retry, shop.rng)
        in_time = self._deadline is None or anyio.current_time() + pause <= self._deadline
        if not in_time or not (cost := shop.budget.take(error)):
            return None
        self._spent += cost
        return pause

    async def _attempt(
        self, shop: Workshop, parameters: dict[str, Any], images: dict[ImageSource, OpenImage], confirm: Confirm
    ) -> str:
        try:
            uid = await self._exchange(shop, parameters, images, confirm)
        except PicpikError as error:
            turned_away = is_turned_away(error, shop.dialect.throttle_ret_codes)
            self._count(shop, unknown=None if turned_away else isinstance(error, SubmitOutcomeUnknownError))
            raise bare(error)  # noqa: B904 - the very same
        except BaseException:
            self._count(shop, unknown=True)
            raise
        self._count(shop, unknown=False)
        shop.budget.refund(self._spent)
        self._line.acknowledged(uid)
        return uid

    def _count(self, shop: Workshop, *, unknown: bool | None) -> None:
        if self.committed:
            shop.breaker.record(unknown=unknown, probe=self._probe)

    async def _exchange(
        self, shop: Workshop, parameters: dict[str, Any], images: dict[ImageSource, OpenImage], confirm: Confirm
    ) -> str:
        async with shop.upload_slots:
            body = await shop.job_body(parameters, images, self._request.kin)
            answer = await self._send(shop, body)
        try:
            return await self._judge(answer, confirm)
        except (AttributeError, TypeError) as error:  # no `Answer`, from a transport of somebody's own
            reason = f"the transport gave no Answer: {type(error).__name__}"
            raise self._unknown(reason) from None

    async def _send(self, shop: Workshop, body: Body) -> Answer:
        try:
            return await shop.send(body, before_tail=lambda: self._commit(shop, body))
        except Exception as error:  # noqa: BLE001 - a transport may be somebody's own
            if not self.committed:
                raise _own(error) from None
            stage = getattr(error, "stage", None) or "answer"
            reason = str(error) if isinstance(error, PicpikError) else type(error).__name__
            raise self._unknown(reason, stage=stage) from None

    def timed_out(self, seconds: float | None) -> PicpikError:
        """The error for a caller whose time is up while the submit is under way, or has just failed."""
        if self._error is not None:
            return self._error
        if self.committed:
            reason = f"no answer within the timeout of {seconds:g} s; it is still awaited, see session.tasks"
            return self._unknown(reason, stage="headers")
        if (other := self._line.awaited) is not None:
            return other.still_under_way(seconds)
        msg = f"not submitted within the timeout of {seconds:g} s, nothing was paid; allow more time"
        return RequestTimeoutError(msg, stage="send", request_uuid=self.request_uuid)

    async def _commit(self, shop: Workshop, body: Body) -> None:
        """Runs when all but the tail has left; the mark is set before the tail goes, never after."""
        if self._aborted:
            raise self._aborted_error()
        if self.committed:
            msg = "the transport asked for the tail a second time, and does not get it"
            raise TransportError(msg, stage="send")
        self._check_open(shop)
        await self._line.commit()
        if self._aborted:  # while that was written; between this look and the mark nothing can come
            raise self._aborted_error()
        self._probe = shop.breaker.commit()
        self.committed = True
        body.locked = False

    def _aborted_error(self) -> TransportError:
        msg = "aborted before the request was complete; nothing was paid"
        return TransportError(msg, stage="send", request_uuid=self.request_uuid)

    async def _judge(self, answer: Answer, confirm: Confirm) -> str:
        action, status = self._request.action, answer.status
        if status in REFUSED_STATUSES:
            msg = f"{action}: refused with HTTP {status}"
            raise HttpStatusError(msg, status=status, retry_after=answer.retry_after)
        if not self.committed:
            msg = f"{action}: the service answered HTTP {status} before it had the whole request"
            if status in HTTP_OK:
                raise TransportError(msg, stage="send")
            raise HttpStatusError(msg, status=status, retry_after=answer.retry_after)
        if status not in HTTP_OK:
            reason = f"HTTP {status}"
            raise self._unknown(reason)
        if answer.broken is not None:
            return await self._salvage(answer, f"the answer broke off: {answer.broken}", confirm, stage="body")
        try:
            document = _wire.decode(answer.body, action=action)
        except MalformedAnswerError as error:
            if not answer.body.rstrip().endswith(b"}"):  # cut off where nothing told that more was to come
                return await self._salvage(answer, str(error), confirm)
            raise self._unknown(str(error), task_uid=error.task_uid) from None
        refusal = _wire.refusal(document, action=action, request_uuid=self.request_uuid)
        if refusal is not None:
            raise refusal
        try:
            return _wire.task_uid(document, action=action)
        except MalformedAnswerError as error:
            raise self._unknown(str(error), task_uid=error.task_uid) from None

    async def _salvage(self, answer: Answer, reason: str, confirm: Confirm, *, stage: str = "answer") -> str:
        """The `TaskUID` out of an answer that is not whole, if it can be read and the service knows it."""
        self._salvaged = uid = salvaged_uid(answer.body)
        if uid is not None and await confirm(uid):
            return uid
        raise self._unknown(reason, stage=stage)

    def _unknown(self, reason: str, *, stage: str = "answer", task_uid: str | None = None) -> SubmitOutcomeUnknownError:
        task_uid = task_uid or self._salvaged
        self._records.unknown[self.request_uuid] = reason
        self._line.unknown(reason, task_uid)
        advice = "look at running_tasks() and balance() before you submit it anew"
        if self.entry is not None:
            advice = (
                f"reconcile() looks for its task, resubmit({legible(repr(self.entry.key), limit=200)}, …) pays again"
            )
        msg = f"the submit {self.request_uuid} may have been accepted and charged ({reason}); it is not sent again; {advice}"
        return SubmitOutcomeUnknownError(
            msg, stage=stage, reason=reason, key=self._line.key, request_uuid=self.request_uuid, task_uid=task_uid
        )


def _own(error: Exception) -> PicpikError:
    """An error of ours in the place of one that somebody's own transport raises."""
    if isinstance(error, PicpikError):
        return error
    msg = f"send: the transport raised {type(error).__name__} before the request was complete; nothing was paid"
    return TransportError(msg, stage="send", retries=0)
