"""One paid request: prepared, sent once, and judged by how far it got, never by the kind of exception."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import anyio
import attrs

from picpik_async import _wire
from picpik_async._body import Body, lay_out
from picpik_async._endings import closed_error
from picpik_async._images import ImageSource, OpenImage
from picpik_async._retry import HTTP_OK, REFUSED_STATUSES
from picpik_async.errors import (
    HttpStatusError,
    ImageError,
    MalformedAnswerError,
    PicpikError,
    RequestTimeoutError,
    SubmitOutcomeUnknownError,
    TransportError,
)

if TYPE_CHECKING:
    from collections.abc import Hashable
    from concurrent.futures import ThreadPoolExecutor

    from picpik_async._config import Credentials, Dialect, Limits
    from picpik_async._requests import Job
    from picpik_async._transport import Answer, BeforeTail, Transport

__all__ = ["Records", "Submit", "Workshop", "open_images"]

_logger = logging.getLogger("picpik_async")


@attrs.frozen(kw_only=True)
class Workshop:
    """What every request of a session is made with.

    Attributes:
        credentials: signs.
        dialect: the settings for what is undocumented.
        limits: bounds.
        limiter: bounds the worker threads that open pictures.
        encoders: the worker threads that encode and hash.
        upload_slots: bounds how many requests are sent at once.
        transport: sends.
    """

    credentials: Credentials
    dialect: Dialect
    limits: Limits
    limiter: anyio.CapacityLimiter
    encoders: ThreadPoolExecutor
    upload_slots: anyio.Semaphore
    transport: Transport

    async def send(self, body: Body, *, before_tail: BeforeTail | None = None) -> Answer:
        """`Transport.send`, where a cancellation that nobody asked for is a failure like any other.

        Raises:
            PicpikError: as in `Transport.send`.
        """
        try:
            return await self.transport.send(body, before_tail=before_tail)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
        msg = "send: the exchange was cancelled from within"
        raise TransportError(msg, stage="send")

    def body(self, parameters: dict[str, Any], images: dict[ImageSource, OpenImage]) -> Body:
        """A new body for one attempt to send *parameters*."""
        layout = lay_out(parameters, images, data_uri=self.dialect.data_uri)
        return Body(layout, self.credentials.private_key, slice_size=self.limits.slice_size, executor=self.encoders)


@attrs.frozen
class Records:
    """What became of the submits of a session, those included whose caller was cancelled.

    Attributes:
        tasks: `TaskUID`s, in the order they became known.
        unknown: reasons by `request_uuid`, of submits that may have been accepted and charged.
    """

    tasks: dict[str, None] = attrs.field(factory=dict)
    unknown: dict[str, str] = attrs.field(factory=dict)


class Submit:
    """A submit under way. The *commit point* is the moment the tail is handed over.

    Attributes:
        request_uuid: one per logical submit.
        committed: whether the service may have the whole request; from then on nothing is ever resent.
        uid: the `TaskUID`, once it is known.
    """

    def __init__(self, request: Job, request_uuid: str, records: Records) -> None:
        self.request_uuid = request_uuid
        self.committed = False
        self.uid: str | None = None
        self._error: PicpikError | None = None
        self._request = request
        self._records = records
        self._aborted = False
        self._scope = anyio.CancelScope()

    def abort(self) -> None:
        """Stop, unless it is too late: what may be paid for is followed to its answer."""
        if not self.committed:
            self._aborted = True
            self._scope.cancel()

    async def run(self, shop: Workshop) -> str:
        """Send the request and return its `TaskUID`.

        Raises:
            InvalidRequestError: found locally, nothing was sent.
            TransportError: the service certainly did not get the whole request.
            ApiError: `RetCode` is not 0.
            HttpStatusError: the request was refused.
            SubmitOutcomeUnknownError: anything else that went wrong after the commit point.
        """
        start = anyio.current_time()
        try:
            with self._scope:
                self.uid = await self._run(shop)
                self._records.tasks[self.uid] = None
                self._records.unknown.pop(self.request_uuid, None)
                self._log("submitted", start, task_uid=self.uid)
                return self.uid
        except PicpikError as error:
            error.request_uuid = self.request_uuid
            self._error = error
            if not isinstance(error, SubmitOutcomeUnknownError):
                self._records.unknown.pop(self.request_uuid, None)
            self._log(type(error).__name__, start, stage=getattr(error, "stage", None))
            raise
        raise self._aborted_error()

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

    async def _run(self, shop: Workshop) -> str:
        self._request.check()
        images = await open_images(self._request.images(), shop)
        request = self._request.settled(images, shop.dialect)
        parameters = _wire.parameters(
            request, dialect=shop.dialect, public_key=shop.credentials.public_key, request_uuid=self.request_uuid
        )
        body = await asyncio.get_running_loop().run_in_executor(shop.encoders, shop.body, parameters, images)
        try:
            async with shop.upload_slots:
                answer = await shop.send(body, before_tail=self._commit)
        except Exception as error:
            if not self.committed:
                raise
            stage = getattr(error, "stage", None) or "answer"
            reason = str(error) if isinstance(error, PicpikError) else type(error).__name__
            raise self._unknown(reason, stage=stage) from None
        try:
            return self._judge(answer)
        except (AttributeError, TypeError) as error:  # no `Answer`, from a transport of somebody's own
            reason = f"the transport gave no Answer: {type(error).__name__}"
            raise self._unknown(reason) from None

    def timed_out(self, seconds: float | None) -> PicpikError:
        """The error for a caller whose time is up while the submit is under way, or has just failed."""
        if self._error is not None:
            return self._error
        if self.committed:
            reason = f"no answer within the timeout of {seconds:g} s; it is still awaited, see session.tasks"
            return self._unknown(reason, stage="headers")
        msg = f"not submitted within the timeout of {seconds:g} s, nothing was paid; allow more time"
        return RequestTimeoutError(msg, stage="send", request_uuid=self.request_uuid)

    async def _commit(self) -> None:
        """Runs when all but the tail has left; the mark is set before the tail goes, never after."""
        if self._aborted:
            raise self._aborted_error()
        self.committed = True

    def _aborted_error(self) -> TransportError:
        msg = "aborted before the request was complete; nothing was paid"
        return TransportError(msg, stage="send", request_uuid=self.request_uuid)

    def _judge(self, answer: Answer) -> str:
        action, status = self._request.action, answer.status
        if status in REFUSED_STATUSES:
            msg = f"{action}: refused with HTTP {status}"
            raise HttpStatusError(msg, status=status, retry_after=answer.retry_after)
        if not self.committed:
            msg = f"{action}: the service answered HTTP {status} before it had the whole request"
            raise TransportError(msg, stage="send")
        if status not in HTTP_OK:
            reason = f"HTTP {status}"
            raise self._unknown(reason)
        try:
            document = _wire.decode(answer.body, action=action)
            refusal = _wire.refusal(document, action=action, request_uuid=self.request_uuid)
            if refusal is not None:
                raise refusal
            return _wire.task_uid(document, action=action)
        except MalformedAnswerError as error:
            raise self._unknown(str(error), task_uid=error.task_uid) from None

    def _unknown(self, reason: str, *, stage: str = "answer", task_uid: str | None = None) -> SubmitOutcomeUnknownError:
        self._records.unknown[self.request_uuid] = reason
        msg = (
            f"the submit {self.request_uuid} may have been accepted and charged ({reason}); it is not sent again."
            " Look at running_tasks() and balance() before you submit it anew"
        )
        return SubmitOutcomeUnknownError(
            msg, stage=stage, reason=reason, request_uuid=self.request_uuid, task_uid=task_uid
        )


async def open_images(sources: dict[str, ImageSource], shop: Workshop) -> dict[ImageSource, OpenImage]:
    """Open all images of a request concurrently, equal ones once.

    Args:
        sources: images by the dotted name of their parameter, for messages.
        shop: limits and dialect.

    Raises:
        ImageError: one of them cannot be used; the first in order of the parameters.
    """
    opened: dict[Hashable, OpenImage | PicpikError] = {}

    async def run(field: str, source: ImageSource) -> None:
        try:
            opened[source.key] = await source.open(
                shop.limiter, shop.limits, upright=not shop.dialect.server_applies_exif, field=field
            )
        except PicpikError as error:
            opened[source.key] = error

    distinct = {source.key: (field, source) for field, source in reversed(sources.items())}
    async with anyio.create_task_group() as group:
        for field, source in distinct.values():
            group.start_soon(run, field, source)
    for field, source in sources.items():
        found = opened.get(source.key)
        if found is None:  # somebody cancelled its task, and not this one
            msg = f"{field}: {source.label}: opening it was cancelled; nothing was submitted"
            raise ImageError(msg, field=field, source=source.label)
        if isinstance(found, PicpikError):
            raise found
    return {source: found for source in sources.values() if isinstance(found := opened[source.key], OpenImage)}
