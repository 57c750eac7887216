"""What a command says: results on stdout, as lines or as one JSON document; everything else on stderr."""

from __future__ import annotations

import json
import os
import shlex
import sys
from typing import TYPE_CHECKING, Any, Final

from rich.console import Console
from rich.text import Text

from picpik_async.errors import (
    AnswerError,
    DownloadError,
    PicpikError,
    ResultExpiredError,
    TaskTimeoutError,
    TransportError,
    legible,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Output", "resume_hint", "wait_command"]

# The task behind these may still give its pictures.
_RESUMABLE: Final = (TaskTimeoutError, DownloadError, TransportError, AnswerError)


class Output:
    """Where a command says what came of it."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        self.console = Console(stderr=True, markup=False, emoji=False, highlight=False)

    def note(self, text: str) -> None:
        """One line on stderr."""
        self.console.print(text, soft_wrap=True)

    def result(self, document: dict[str, Any], lines: Iterable[str | os.PathLike[str]]) -> None:
        """The result on stdout: *document* for scripts, *lines* for people.

        Raises:
            PicpikError: nobody reads it, or the disk is full.
        """
        texts: Iterable[str | os.PathLike[str]] = [json.dumps(document)] if self.as_json else lines
        try:
            # File names need not be text in the locale's encoding.
            sys.stdout.buffer.write(b"".join(os.fsencode(text) + b"\n" for text in texts))
            sys.stdout.buffer.flush()
        except OSError as error:
            # Python would try again at its exit: https://docs.python.org/3/library/signal.html#note-on-sigpipe
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            msg = f"cannot write to standard output: {error.strerror}"
            raise PicpikError(msg) from error

    def error(
        self,
        kind: str,
        text: str,
        *,
        task_uid: str | None = None,
        request_uuid: str | None = None,
        hint: str | None = None,
    ) -> None:
        """One line on stderr, and with `--json` a document on stdout.

        Args:
            kind: name of the exception.
            text: what happened.
            task_uid: the task concerned, if it is known.
            request_uuid: the submit concerned, if there is one.
            hint: how to go on.
        """
        ids = {"task_uid": task_uid, "request_uuid": request_uuid}
        if self.as_json:
            self.result({"error": {"type": kind, "message": text, **ids, "hint": hint}}, ())
        told = [f"{name} {legible(value)}" for name, value in ids.items() if value and legible(value) not in text]
        line = Text.assemble(("error: ", "bold red"), text)
        line.append(f" ({', '.join(told)})" if told else "")
        line.append(f"; {hint}" if hint else "")
        self.console.print(line, soft_wrap=True)


def resume_hint(error: PicpikError) -> str | None:
    """How to get at the pictures after *error*, if they may be had."""
    if error.task_uid is None or isinstance(error, ResultExpiredError) or not isinstance(error, _RESUMABLE):
        return None
    return f"go on with: {wait_command(error.task_uid)}"


def wait_command(task_uid: str) -> str:
    """The command that waits for a task and saves its pictures."""
    return f"picpik task wait {shlex.quote(legible(task_uid))}"
