"""One paid request: prepared, sent once, and judged by how far it got, never by the kind of exception."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import anyio
import attrs

from picpik_async import _wire
from picpik_async._body import Body, lay_out
from picpik_async._images import ImageSource, OpenImage
from picpik_async._retry import REFUSED_STATUSES
from picpik_async.errors import (
    HttpStatusError,
    MalformedAnswerError,
    PicpikError,
    RequestTimeoutError,
    SubmitOutcomeUnknownError,
    TransportError,
)

if TYPE_CHECKING:
    from collections.abc import Hashable

    from picpik_async._config import Credentials, Dialect, Limits
    from picpik_async._requests import Job
    from picpik_async._transport import Answer, Transport

__all__ = ["Submit", "Workshop", "open_images"]

_HTTP_OK: Final = range(200, 300)


@attrs.frozen(kw_only=True)
class Workshop:
    """What every request of a session is made with.

    Attributes:
        credentials: signs.
        dialect: the settings for what is undocumented.
        limits: bounds.
        limiter: bounds the worker threads.
        transport: sends.
    """

    credentials: Credentials
    dialect: Dialect
    limits: Limits
    limiter: anyio.CapacityLimiter
    transport: Transport

    def body(self, parameters: dict[str, Any], images: dict[ImageSource, OpenImage]) -> Body:
        """A new body for one attempt to send *parameters*."""
        layout = lay_out(parameters, images, data_uri=self.dialect.data_uri)
        return Body(layout, self.credentials.private_key, slice_size=self.limits.slice_size, limiter=self.limiter)


class Submit:
    """A submit under way. The *commit point* is the moment the tail is handed over.

    Attributes:
        request_uuid: one per logical submit.
        committed: whether the service may have the whole request; from then on nothing is ever resent.
    """

    def __init__(self, request: Job, request_uuid: str) -> None:
        self.request_uuid = request_uuid
        self.committed = False
        self._request = request
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
        try:
            with self._scope:
                return await self._run(shop)
        except PicpikError as error:
            error.request_uuid = self.request_uuid
            raise
        except anyio.get_cancelled_exc_class():
            if self.committed:
                reason = "the session ended while the answer was awaited"
                raise self._unknown(reason) from None
            raise
        raise self._aborted_error()

    async def _run(self, shop: Workshop) -> str:
        self._request.check()
        images = await open_images(self._request.images(), shop)
        request = self._request.settled(images, shop.dialect)
        parameters = _wire.parameters(
            request, dialect=shop.dialect, public_key=shop.credentials.public_key, request_uuid=self.request_uuid
        )
        try:
            answer = await shop.transport.send(shop.body(parameters, images), before_tail=self._commit)
        except Exception as error:
            if not self.committed:
                raise
            stage = getattr(error, "stage", None) or "answer"
            reason = str(error) if isinstance(error, PicpikError) else type(error).__name__
            raise self._unknown(reason, stage=stage) from None
        return self._judge(answer)

    def timed_out(self, seconds: float | None) -> PicpikError:
        """The error for a caller whose time is up while the submit is under way."""
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
        if status not in _HTTP_OK:
            reason = f"HTTP {status}"
            raise self._unknown(reason)
        try:
            document = _wire.decode(answer.body, action=action)
            refusal = _wire.refusal(document, action=action, request_uuid=self.request_uuid)
            if refusal is not None:
                raise refusal
            return _wire.task_uid(document, action=action)
        except MalformedAnswerError as error:
            raise self._unknown(str(error)) from None

    def _unknown(self, reason: str, *, stage: str = "answer") -> SubmitOutcomeUnknownError:
        msg = (
            f"the submit {self.request_uuid} may have been accepted and charged ({reason}); it is not sent again."
            " Look at running_tasks() and balance() before you submit it anew"
        )
        return SubmitOutcomeUnknownError(msg, stage=stage, reason=reason, request_uuid=self.request_uuid)


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
    for source in sources.values():
        if isinstance(found := opened[source.key], PicpikError):
            raise found
    return {source: found for source in sources.values() if isinstance(found := opened[source.key], OpenImage)}
