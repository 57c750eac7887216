"""Every exception of this package; one root, split by whose fault it is and by whether an answer arrived.

```text
PicpikError
├── InvalidRequestError (ValueError)      found locally, before anything is sent
│   ├── ImageError                        unreadable, unknown format, too large
│   └── MaskError                         wrong size, empty, not black and white, …
├── ConfigurationError                    no keys, insecure endpoint, wrong event loop, closed session, …
├── TransportError                        no usable answer
│   └── RequestTimeoutError (TimeoutError)
├── AnswerError                           an answer arrived
│   ├── MalformedAnswerError              not JSON, wrong shape, too large (reads only, never a submit)
│   ├── HttpStatusError                   HTTP status 3xx, 4xx or 5xx
│   └── ApiError                          RetCode ≠ 0
├── SubmitOutcomeUnknownError             may have been accepted and charged; never retried silently
├── SubmitPausedError                     too many unknown outcomes in a row, or no credits left
├── JournalError                          the journal cannot be used or written; nothing was sent
├── TaskError                             the remote task did not give pictures
│   ├── TaskFailedError
│   ├── TaskTerminatedError
│   ├── TaskTimeoutError (TimeoutError)
│   └── TaskVanishedError
└── DownloadError                         the pictures exist, but did not arrive whole
    ├── ResultExpiredError
    ├── UnsafeUrlError
    └── InvalidImageError
```
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from picpik_async._tasks import TaskDetail

__all__ = [
    "AnswerError",
    "ApiError",
    "ConfigurationError",
    "DownloadError",
    "HttpStatusError",
    "ImageError",
    "InvalidImageError",
    "InvalidRequestError",
    "JournalError",
    "MalformedAnswerError",
    "MaskError",
    "PicpikError",
    "RequestTimeoutError",
    "ResultExpiredError",
    "SubmitOutcomeUnknownError",
    "SubmitPausedError",
    "TaskError",
    "TaskFailedError",
    "TaskTerminatedError",
    "TaskTimeoutError",
    "TaskVanishedError",
    "TransportError",
    "UnsafeUrlError",
]


ErrorT = TypeVar("ErrorT", bound=BaseException)

_LEGIBLE_LIMIT = 500


def legible(text: object, *, limit: int = _LEGIBLE_LIMIT) -> str:
    """Foreign text made safe for messages, logs and terminals: escaped, on one line, at most *limit* characters."""
    cut = str(text)[: limit + 1]
    escaped = cut
    if not cut.isprintable():
        escaped = "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in cut)
    return escaped if len(escaped) <= limit else escaped[: limit - 1] + "…"


def bare(error: ErrorT) -> ErrorT:
    """*error* without frames, whose locals hold bodies and signed addresses, and without foreign errors, which quote them.

    A stated cause stays, without its frames. So does an error of the same class behind it, since anyio tells its own
    cancellations by those.
    """
    context = error.__context__
    error.__context__ = bare(context) if isinstance(context, type(error)) else None
    if error.__cause__ is not None:
        bare(error.__cause__)
    return error.with_traceback(None)


class PicpikError(Exception):
    """The root of all errors of this package.

    Attributes:
        request_uuid: the `request_uuid` of the submit concerned, if there is one.
        task_uid: the `TaskUID` of the task concerned, if it is known.
    """

    request_uuid: str | None
    task_uid: str | None

    def __init__(self, message: str = "", *, request_uuid: str | None = None, task_uid: str | None = None) -> None:
        super().__init__(message)
        self.request_uuid = request_uuid
        self.task_uid = task_uid


class InvalidRequestError(PicpikError, ValueError):
    """The request is wrong; found locally, before anything is sent.

    Attributes:
        field: dotted name of the parameter, such as `masked.mask_blur`.
        value: the offending value, or None where it is missing; of bytes only how many there are.
        allowed: the allowed range or kind, in words.
    """

    def __init__(
        self, message: str = "", *, field: str | None = None, value: Any = None, allowed: str | None = None, **ids: Any
    ) -> None:
        super().__init__(message, **ids)
        self.field = field
        is_picture = isinstance(value, (bytes, bytearray))
        self.value: Any = f"({len(value)} bytes)" if is_picture else value
        self.allowed = allowed


class ImageError(InvalidRequestError):
    """An image cannot be read, has an unknown format or is too large.

    Attributes:
        source: what the user handed over, in short: a path, or the kind of object.
    """

    def __init__(self, message: str = "", *, source: str | None = None, **data: Any) -> None:
        super().__init__(message, **data)
        self.source = source


class MaskError(InvalidRequestError):
    """A mask has the wrong size or format, is empty or full, or is not black and white."""


class ConfigurationError(PicpikError):
    """The session cannot be used like this: no keys, insecure endpoint, wrong event loop, closed, forked."""


class TransportError(PicpikError):
    """No usable answer. Raised by a submit only if the server certainly did not get the whole request.

    Attributes:
        stage: how far the exchange got: `connect`, `send`, `headers` or `body`.
        retries: how often another try may help: 0 if the cause stays until somebody removes it, such as a certificate that
            is not trusted, 1 if the name of the host is not known, None for no bound.
    """

    def __init__(self, message: str = "", *, stage: str | None = None, retries: int | None = None, **ids: Any) -> None:
        super().__init__(message, **ids)
        self.stage = stage
        self.retries = retries

    @property
    def retryable(self) -> bool:
        """Whether another try may help at all."""
        return self.retries != 0


class RequestTimeoutError(TransportError, TimeoutError):
    """One HTTP exchange took longer than the `Limits` allow; the message names the limit."""


class AnswerError(PicpikError):
    """An answer arrived, and it is not the one hoped for."""


class MalformedAnswerError(AnswerError):
    """The answer to a read is not JSON, has the wrong shape or is too large."""


class HttpStatusError(AnswerError):
    """The answer has an HTTP status outside 2xx.

    Attributes:
        status: the HTTP status.
        retry_after: seconds the server asks to wait, if it does.
    """

    def __init__(self, message: str = "", *, status: int = 0, retry_after: float | None = None, **ids: Any) -> None:
        super().__init__(message, **ids)
        self.status = status
        self.retry_after = retry_after


class ApiError(AnswerError):
    """The service refused: `RetCode` is not 0.

    Attributes:
        ret_code: the `RetCode`; no list of them is published.
        action: the Action that was refused.
        message: the service's own words, escaped and cut.
    """

    def __init__(
        self, text: str = "", *, ret_code: int = 0, action: str | None = None, message: str = "", **ids: Any
    ) -> None:
        super().__init__(text, **ids)
        self.ret_code = ret_code
        self.action = action
        self.message = message


class SubmitOutcomeUnknownError(PicpikError):
    """The submit may have been accepted and charged; it is never retried silently.

    Attributes:
        stage: how far the exchange got: `headers`, `body` or `answer`.
        reason: what went wrong, free of secrets and of server text.
        key: names the job in the journal, if there is one.
    """

    def __init__(
        self,
        message: str = "",
        *,
        stage: str | None = None,
        reason: str | None = None,
        key: str | None = None,
        **ids: Any,
    ) -> None:
        super().__init__(message, **ids)
        self.stage = stage
        self.reason = reason
        self.key = key


class SubmitPausedError(PicpikError):
    """Nothing was sent: too many submits had an unknown outcome, or credits ran out; polls and downloads go on."""


class JournalError(PicpikError):
    """The journal cannot be used, or not be written; nothing was sent.

    Attributes:
        path: the journal's file.
    """

    def __init__(self, message: str = "", *, path: str | None = None, **ids: Any) -> None:
        super().__init__(message, **ids)
        self.path = path


class TaskError(PicpikError):
    """A task ended, or was given up, without pictures.

    Attributes:
        detail: the last `TaskDetail` seen, if any.
    """

    def __init__(self, message: str = "", *, detail: TaskDetail | None = None, **ids: Any) -> None:
        super().__init__(message, **ids)
        self.detail = detail


class TaskFailedError(TaskError):
    """The service reports an error for the task."""


class TaskTerminatedError(TaskError):
    """The task was terminated."""


class TaskTimeoutError(TaskError, TimeoutError):
    """The whole wait took longer than its `timeout`; the task itself may still be running."""


class TaskVanishedError(TaskError):
    """The service does not know the task (any more)."""


class DownloadError(PicpikError):
    """A result could not be fetched or written.

    Attributes:
        url: the address without its query, which may hold a signature.
    """

    def __init__(self, message: str = "", *, url: str | None = None, **ids: Any) -> None:
        super().__init__(message, **ids)
        self.url = url


class ResultExpiredError(DownloadError):
    """The result is gone; the service keeps pictures for 24 hours."""


class UnsafeUrlError(DownloadError):
    """The result's address is not one this client will visit."""


class InvalidImageError(DownloadError):
    """What arrived is not a whole, decodable picture of an accepted size."""
