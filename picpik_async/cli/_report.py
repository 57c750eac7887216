"""What has become of many jobs: failures are told as they come, everything else at the end."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from picpik_async._outcomes import kind_of
from picpik_async.errors import (
    ApiError,
    PicpikError,
    ResultExpiredError,
    SubmitPausedError,
    TaskFailedError,
    TaskTerminatedError,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from pathlib import Path

    from picpik_async.cli._output import Output

__all__ = ["DONE", "FAILED", "NOT_SENT", "UNKNOWN", "Report"]

DONE: Final = "done"
FAILED: Final = "failed"
UNKNOWN: Final = "unknown"
NOT_SENT: Final = "not_sent"
_SPENT: Final = (TaskFailedError, TaskTerminatedError, ResultExpiredError)  # paid for, and over
_STATUS: Final = {"done": DONE, "failed": FAILED, "unknown": UNKNOWN, "paused": NOT_SENT}


class Report:
    """Collects what is to be printed in the end, and no more than that.

    Attributes:
        counts: number of jobs by status.
        ret_codes: number of jobs by the `RetCode` they were refused with, and are not sent again.
        spent: number of jobs that are paid for and gave nothing, and are not sent again.

    Args:
        output: where everything is told.
        not_charged: `RetCode`s after which a job is sent again.
    """

    def __init__(self, output: Output, *, not_charged: Collection[int] = ()) -> None:
        self.counts: Counter[str] = Counter({DONE: 0, FAILED: 0, UNKNOWN: 0, NOT_SENT: 0})
        self.ret_codes: Counter[int] = Counter()
        self.spent = 0
        self._not_charged = not_charged
        self._output = output
        self._jobs: list[dict[str, Any]] = []
        self._files: list[Path] = []

    @property
    def sent_again(self) -> int:
        """How many jobs the same command goes on with."""
        return self.counts[NOT_SENT] + self.counts[FAILED] - self.ret_codes.total() - self.spent

    def end(self, label: str, error: Exception | None, **facts: Any) -> None:
        """Note how a job has ended, and tell it if it has not ended well; *facts* are those of `add`."""
        told = None if error is None else {"type": type(error).__name__, "message": _text_of(error)}
        if isinstance(error, SubmitPausedError):
            if not self.counts[NOT_SENT]:  # the same holds for all that follow
                self._output.note(f"stopped: {error}")
        elif told is not None:
            self._output.note(f"{label}: {told['type']}: {told['message']}")
        if isinstance(error, ApiError) and error.ret_code not in self._not_charged:
            self.ret_codes[error.ret_code] += 1
        self.spent += isinstance(error, _SPENT)
        self.add(_STATUS[kind_of(error)], error=told, **facts)

    def add(
        self,
        status: str,
        *,
        key: str | None,
        task_uid: str | None = None,
        files: Sequence[Path] = (),
        error: dict[str, str] | None = None,
        **more: Any,
    ) -> None:
        """Note a job, without a word; *more* is for its row in the document."""
        self.counts[status] += 1
        if self._output.as_json:
            row = {"key": key, "status": status, "task_uid": task_uid, "files": list(map(str, files)), "error": error}
            self._jobs.append(row | more)
        else:
            self._files.extend(files)

    def publish(self, **more: int) -> None:
        """Print the files or, with `--json`, everything; *more* is for the summary.

        Raises:
            PicpikError: nobody reads it, or the disk is full.
        """
        self._output.result({"summary": {**self.counts, **more}, "jobs": self._jobs}, self._files)


def _text_of(error: Exception) -> str:
    # A foreign error may quote anything.
    return str(error) if isinstance(error, PicpikError) else "an error that is none of picpik_async's own"
