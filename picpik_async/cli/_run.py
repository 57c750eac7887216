"""One command on one session: opens it, runs the command, and turns what goes wrong into a line and an exit code."""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import TYPE_CHECKING, Any, Final

import attrs

from picpik_async._config import Credentials, Dialect
from picpik_async._session import PicpikSession
from picpik_async.cli._extras import emulator_class
from picpik_async.cli._output import Output, resume_hint, wait_command
from picpik_async.cli._progress import progress_on
from picpik_async.errors import ConfigurationError, InvalidRequestError, PicpikError, legible

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Collection
    from pathlib import Path

    from picpik_async.cli._progress import ProgressReport
    from picpik_async.emulator import Emulator

__all__ = ["FAILURE", "USAGE", "Desk", "attend", "run"]

FAILURE: Final = 1
USAGE: Final = 2
INTERRUPTED: Final = 130


@attrs.frozen(kw_only=True)
class Desk:
    """What a command works with.

    Attributes:
        picpik: the session.
        output: where results and notes go.
        progress: where states go.
        known: ids of the tasks that go on if the command is interrupted.
    """

    picpik: PicpikSession
    output: Output
    progress: ProgressReport
    known: set[str]


def run(
    command: Callable[[Desk], Awaitable[int | None]],
    *,
    as_json: bool,
    emulator: bool,
    journal: Path | None = None,
    not_charged: tuple[int, ...] = (),
) -> int:
    """Run *command* on a session and return the exit code.

    Args:
        command: does the work, and may return an exit code.
        as_json: results and errors are JSON documents.
        emulator: talk to an emulator that lives as long as the command.
        journal: the journal of the session.
        not_charged: `RetCode`s after which a job was certainly not charged.
    """
    output = Output(as_json=as_json)
    known: set[str] = set()

    def work() -> int | None:
        options: Any = {"journal": journal, "dialect": Dialect(rejected_ret_codes=not_charged)}
        place = _embedded(emulator_class()(), options) if emulator else _remote(known, options)
        return asyncio.run(_work(command, place, output, known))

    return attend(work, output, known=known, emulator=emulator, resumes=journal is not None and not emulator)


def attend(
    work: Callable[[], int | None],
    output: Output,
    *,
    known: Collection[str] = (),
    emulator: bool = False,
    resumes: bool = False,
) -> int:
    """Do *work* and return the exit code; what goes wrong is told.

    Args:
        work: may return an exit code.
        output: where it is told.
        known: ids of the tasks that go on if the work is interrupted.
        emulator: the service ends with the command.
        resumes: the same command goes on where it was interrupted.
    """
    try:
        return work() or 0
    except KeyboardInterrupt:
        _tell_interrupt(output, next(iter(known), None), resumes=resumes)
        return INTERRUPTED
    except (ConfigurationError, InvalidRequestError) as error:
        _tell(error, output, _keys_hint(error, emulator=emulator))
        return USAGE
    except PicpikError as error:
        _tell(error, output, None if emulator else resume_hint(error))
        return FAILURE


async def _work(
    command: Callable[[Desk], Awaitable[int | None]],
    place: contextlib.AbstractAsyncContextManager[PicpikSession],
    output: Output,
    known: set[str],
) -> int | None:
    async with place as picpik:
        return await command(Desk(picpik=picpik, output=output, progress=progress_on(output.console), known=known))


@contextlib.asynccontextmanager
async def _remote(known: set[str], options: dict[str, Any]) -> AsyncIterator[PicpikSession]:
    picpik = PicpikSession(**options)
    try:
        async with picpik:
            yield picpik
    finally:  # the answer to an interrupted submit may have come while the session closed
        known.update(task.uid for task in picpik.tasks)


@contextlib.asynccontextmanager
async def _embedded(emulator: Emulator, options: dict[str, Any]) -> AsyncIterator[PicpikSession]:
    async with emulator, emulator.session(**options) as picpik:
        yield picpik


def _tell(error: PicpikError, output: Output, hint: str | None) -> None:
    output.error(type(error).__name__, str(error), task_uid=error.task_uid, request_uuid=error.request_uuid, hint=hint)


def _tell_interrupt(output: Output, task_uid: str | None, *, resumes: bool) -> None:
    if resumes:
        text = "interrupted; what is paid goes on, and the journal keeps it"
        output.error(KeyboardInterrupt.__name__, text, hint="run the same command again to go on")
    elif task_uid is None:
        output.error(KeyboardInterrupt.__name__, "interrupted")
    else:
        text = f"interrupted; task {legible(task_uid)} goes on"
        output.error(KeyboardInterrupt.__name__, text, task_uid=task_uid, hint=f"resume with: {wait_command(task_uid)}")


def _keys_hint(error: PicpikError, *, emulator: bool) -> str | None:
    keys = (Credentials.PUBLIC_KEY_VARIABLE, Credentials.PRIVATE_KEY_VARIABLE)
    if isinstance(error, ConfigurationError) and not emulator and not all(map(os.environ.get, keys)):
        return "on the command line, add --emulator"
    return None
