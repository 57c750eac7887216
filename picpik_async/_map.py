"""Many requests at once: pulled while there is room, and one outcome for each, whatever becomes of it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
import weakref
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable
from typing import TYPE_CHECKING, Any, Final, Self

import anyio
import attrs

from picpik_async._brake import Brake
from picpik_async._endings import closed_error
from picpik_async._entries import JobState
from picpik_async._folder import prepare_folder
from picpik_async._link import Link
from picpik_async._outcomes import Item, Outcome, Progress, kind_of, without_frames
from picpik_async._ranges import refused
from picpik_async._requests import GetCreditBalance, Job
from picpik_async._slots import RESULT_LIFETIME, Slots
from picpik_async.errors import (
    ApiError,
    ConfigurationError,
    PicpikError,
    ResultExpiredError,
    SubmitPausedError,
    TaskVanishedError,
    legible,
)

if TYPE_CHECKING:
    from pathlib import Path

    from picpik_async._engine import Engine
    from picpik_async._entries import JournalEntry
    from picpik_async._plan import Plan
    from picpik_async._session import PicpikSession

__all__ = ["Outcomes", "Requests"]

_logger = logging.getLogger("picpik_async")

Requests = Iterable[Job | tuple[str, Job]] | AsyncIterable[Job | tuple[str, Job]]

_CLOSE_SECONDS: Final = 2.0
_LATE_AT_ONCE: Final = 4  # questions about tasks that the service has most likely forgotten


class Outcomes:
    """The outcomes of `PicpikSession.map`, as an asynchronous iterator.

    Nothing is pulled before the first step. Whoever leaves the loop early wraps it in `contextlib.aclosing`, or calls
    `aclose`; an iterator that is forgotten does the same, a little later. Cancelling a step, also with a timeout around
    it, ends the iteration.
    """

    def __init__(self, session: PicpikSession, requests: Requests, plan: Plan) -> None:
        if not isinstance(requests, Iterable | AsyncIterable):
            raise refused(field="requests", value=requests, allowed="an iterable or an async iterable of requests")
        self._session = session
        self._requests: Requests = requests
        self._plan = plan
        self._pipeline: _Pipeline | None = None

    @property
    def progress(self) -> Progress:
        """How far it has come."""
        return Progress() if self._pipeline is None else self._pipeline.progress

    @property
    def stopped(self) -> str | None:
        """Why nothing more is submitted: no credits, only refusals, too many unknown outcomes; None while it goes on."""
        return None if self._pipeline is None else self._pipeline.stopped

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Outcome:
        """The next outcome.

        Raises:
            ConfigurationError: wrong event loop, forked process, or the session was closed.
            JournalError: the journal cannot be opened.
            InvalidRequestError: the folder for the pictures cannot be written; nothing was sent.
            Exception: the iterable of requests raised it; all outcomes of what came before are out.
        """
        pipeline = self._pipeline or await self._start()
        try:
            return await pipeline.take()
        except asyncio.CancelledError:
            pipeline.leave()
            raise

    async def aclose(self) -> None:
        """Pull and submit nothing more, and let go of what is paid: it stays in `session.tasks` and in the journal.

        Raises:
            ConfigurationError: called from another event loop.
        """
        self._requests = ()
        if self._pipeline is not None:
            self._pipeline.leave()
            await self._pipeline.ended.wait()

    async def _start(self) -> _Pipeline:
        engine = await self._session._open()
        if self._plan.save_to is not None:
            await Link(self._session).in_thread(prepare_folder, self._plan.save_to)
        if self._pipeline is None:
            requests, self._requests = self._requests, ()
            inputs = aiter(requests) if isinstance(requests, AsyncIterable) else _each(requests)
            self._pipeline = pipeline = _Pipeline(self._session, engine, self._plan)
            engine.launch(lambda: pipeline.run(inputs))
            weakref.finalize(self, _leave_soon, asyncio.get_running_loop(), pipeline).atexit = False
        return self._pipeline


async def _each(requests: Iterable[Any]) -> AsyncIterator[Any]:
    for request in requests:
        yield request


def _leave_soon(loop: asyncio.AbstractEventLoop, pipeline: _Pipeline) -> None:
    """Leave a forgotten iterator's work, from whatever thread collects garbage."""
    with contextlib.suppress(RuntimeError):  # the loop is closed, and nothing runs any more
        loop.call_soon_threadsafe(pipeline.leave)


class _Pipeline:
    """The work, in the session's owner task; it never refers to its `Outcomes`, so that forgotten ones are collected.

    Three bounds hold, each by itself: on inputs that are being submitted, on those that are in flight, which is from
    the pull until the consumer has the outcome, and on those that are being saved.

    Attributes:
        progress: how far it has come.
        ended: set when nothing is left of it but outcomes.
    """

    def __init__(self, session: PicpikSession, engine: Engine, plan: Plan) -> None:
        self.progress = Progress()
        self.ended = anyio.Event()
        self._session = session
        self._engine = engine
        self._plan = plan
        self._link = Link(session)
        self._loop = asyncio.get_running_loop()
        self._brake = Brake(session._dialect, lambda: engine.ask_once(GetCreditBalance()))
        self._tell = plan.on_progress
        self._room = anyio.Semaphore(plan.in_flight)
        self._submits = anyio.Semaphore(plan.concurrency)
        self._saves = Slots(session._limits.downloads)
        self._late = anyio.Semaphore(_LATE_AT_ONCE)
        self._keys: set[str] = set()
        self._paid: set[str] = set()
        self._scope = anyio.CancelScope()
        self._early: dict[int, Outcome] = {}
        self._turn = 0
        self._ready: deque[Outcome] = deque()
        self._news = anyio.Event()
        self._fault: BaseException | None = None

    @property
    def stopped(self) -> str | None:
        """See `Outcomes.stopped`."""
        return self._brake.reason or None

    async def take(self) -> Outcome:
        """The next outcome; raises as `Outcomes.__anext__`."""
        self._check_loop()
        while not self._ready:
            if self.ended.is_set():
                fault, self._fault = self._fault, None
                raise StopAsyncIteration if fault is None else fault
            await self._news.wait()
        self._room.release()
        return self._ready.popleft()

    def leave(self) -> None:
        """Stop: abort what is not paid for, let go of the rest."""
        self._check_loop()
        self._ready.clear()
        self._scope.cancel()

    def _check_loop(self) -> None:
        if asyncio.get_running_loop() is not self._loop:
            msg = "this map belongs to another event loop; take its outcomes where you took the first one"
            raise ConfigurationError(msg)

    async def run(self, inputs: AsyncIterator[Any]) -> None:
        """Do all the work; ends with it, or with the session."""
        fault: BaseException | None = closed_error()
        try:
            with contextlib.suppress(ConfigurationError):
                fault = await self._engine.hosted(lambda: self._work(inputs))
        finally:
            self._fault = fault
            self.ended.set()
            self._news.set()

    async def _work(self, inputs: AsyncIterator[Any]) -> BaseException | None:
        """Returns what the iterable of requests has raised."""
        with self._scope:
            async with anyio.create_task_group() as items:
                try:
                    return await self._feed(inputs, lambda item, given: items.start_soon(self._follow, item, given))
                finally:
                    await _close(inputs)
        return None

    async def _feed(self, inputs: AsyncIterator[Any], start: Callable[[Item, Any], object]) -> BaseException | None:
        while True:
            await self._room.acquire()
            await self._submits.acquire()
            try:
                given = await anext(inputs)
            except StopAsyncIteration:
                return None
            except Exception as error:  # noqa: BLE001 - the consumer gets it, when all else has ended
                return error
            except asyncio.CancelledError as error:
                task = asyncio.current_task()
                if task is None or task.cancelling():
                    raise
                return error
            item = Item(self.progress.pulled)
            self._count(pulled=1)
            start(item, given)

    async def _follow(self, item: Item, given: Any) -> None:
        """Bring one input to its outcome."""
        error: Exception | None = None
        try:
            try:
                item.unpack(given)
                self._check_key(item)
                entry = await self._submit(item)
            finally:
                self._submits.release()
            await self._finish(item, entry)
        except PicpikError as caught:
            error = without_frames(caught)
        except Exception as caught:  # noqa: BLE001 - the other inputs go on
            error = caught
        self._deliver(item.number, item.outcome(error))

    def _check_key(self, item: Item) -> None:
        """Without a journal equal keys would be two jobs whose pictures have the same names."""
        if item.name is None or self._session._records.journal is not None:
            return
        if item.name in self._keys:
            raise refused(
                field="key", value=item.name, allowed="a key of its own; with a journal, equal keys are one job"
            )
        self._keys.add(item.name)

    async def _submit(self, item: Item) -> JournalEntry | None:
        """Send the request, unless it is paid for; returns what the journal says of it."""
        key = None if self._session._records.journal is None else item.key
        submit = self._session._new_submit(item.request, key=key, gate=self._brake.check)
        try:
            item.task_uid = await self._engine.submit(submit)
        except SubmitPausedError:
            self._brake.paused()
            raise
        except ApiError as error:
            if submit.committed:
                await self._brake.refused(error)
            raise
        finally:
            if submit.entry is not None:
                item.key = submit.entry.key
        if submit.committed:
            self._brake.taken()
            self.progress = attrs.evolve(self.progress, newest=item.task_uid)
        self._count(**{"submitted" if submit.committed else "resumed": 1})
        return submit.entry

    async def _finish(self, item: Item, entry: JournalEntry | None) -> None:
        """Await the task and save its pictures, unless an earlier run has done so."""
        done = entry is not None and entry.state is JobState.DONE
        if entry is not None and done and await self._link.in_thread(_are_there, entry.files):
            item.files = entry.files
            return
        begin = time.time() if entry is None or entry.acknowledged is None else entry.acknowledged
        try:
            await self._collect(item, begin + RESULT_LIFETIME, done=done)
        except (TaskVanishedError, ResultExpiredError):
            if entry is None or not done:
                raise
            raise _gone(entry) from None

    async def _collect(self, item: Item, expires: float, *, done: bool) -> None:
        assert item.task_uid is not None  # noqa: S101 - it was submitted, now or before
        if done and expires < time.time():
            async with self._late:
                await self._link.detail_of(item.task_uid)  # says at once that the task is forgotten
        item.result = await self._link.wait_for(item.task_uid, self._plan.timeout, expires=expires)
        if item.result.cost is not None and item.task_uid not in self._paid:
            self._paid.add(item.task_uid)
            self._brake.paid(item.result.cost)
            self._count(credits=item.result.cost)
        if self._plan.save_to is not None:
            folder = await self._link.in_thread(self._plan.save_to.absolute)
            async with self._saves.held(expires):
                item.files = tuple(await item.result.save(folder, name=item.name))

    def _deliver(self, number: int, outcome: Outcome) -> None:
        self._count(**{kind_of(outcome.error): 1})
        if self._plan.ordered:
            self._early[number] = outcome
            while self._turn in self._early:
                self._ready.append(self._early.pop(self._turn))
                self._turn += 1
        else:
            self._ready.append(outcome)
        self._news.set()
        self._news = anyio.Event()

    def _count(self, **more: int) -> None:
        sums = {name: getattr(self.progress, name) + number for name, number in more.items()}
        self.progress = attrs.evolve(self.progress, **sums)
        if self._tell is not None:
            try:
                self._tell(self.progress)
            except Exception:
                self._tell = None
                _logger.exception("on_progress raised, and is not called again")


def _are_there(files: tuple[Path, ...]) -> bool:
    return bool(files) and all(file.is_file() for file in files)


def _gone(entry: JournalEntry) -> ResultExpiredError:
    where = f"its files are gone from {legible(entry.files[0].parent)}" if entry.files else "no files of it are known"
    msg = f"done earlier; {where}, and the service no longer has the pictures"
    return ResultExpiredError(msg, task_uid=entry.task_uid, request_uuid=entry.request_uuid)


async def _close(inputs: AsyncIterator[Any]) -> None:
    close = getattr(inputs, "aclose", None)
    if close is None:
        return
    with anyio.move_on_after(_CLOSE_SECONDS, shield=True):
        try:
            await close()
        except Exception as error:  # noqa: BLE001 - the iteration is over
            _logger.warning("closing the iterable of requests raised %s", type(error).__name__)
