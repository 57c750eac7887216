"""The thread that owns a journal's file, and shares one sync among all who wait for one."""

from __future__ import annotations

import atexit
import contextlib
import logging
import queue
import sqlite3
import threading
import time
from typing import TYPE_CHECKING, Any, Final

import attrs

from picpik_async.errors import JournalError, legible

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from picpik_async._entries import JournalEntry
    from picpik_async._journal_file import JournalFile

__all__ = ["Order", "Writer", "complain"]

CLOSING_ATTEMPTS: Final = 3
PAUSE_SECONDS: Final = 0.1
EXIT_SECONDS: Final = 5.0

# What SQLite and Python say of one row that does not fit, such as a key with half a surrogate pair. All else concerns
# the whole transaction.
_UNFIT: Final = (
    sqlite3.IntegrityError,
    sqlite3.InterfaceError,
    sqlite3.ProgrammingError,
    sqlite3.DataError,
    AttributeError,
    OverflowError,
    TypeError,
    ValueError,
)

_logger = logging.getLogger("picpik_async")


@attrs.frozen(eq=False)
class Order:
    """What the writer is asked to do; with neither a row nor a question, to sync.

    Attributes:
        entry: a row to write.
        question: something to look up.
        reply: where the answer goes; a row with it is on disk, or certainly not in the journal, once it is done.
        last: end the thread.
    """

    entry: JournalEntry | None = None
    question: Callable[[JournalFile], Any] | None = None
    reply: asyncio.Future[Any] | None = None
    last: bool = False


class Writer:
    """A thread with a queue of orders, carried out in turn.

    Args:
        open_file: opens the journal, in the thread.
        path: the journal's file, for messages.
        loop: where the replies go.
        share_seconds: how long a row nobody waits for may wait for one that somebody waits for, rather than delay it by
            a sync of its own.
        gather_seconds: how long after a sync the next one waits for others, while several wait at the same time.
    """

    def __init__(
        self,
        open_file: Callable[[], JournalFile],
        path: str,
        loop: asyncio.AbstractEventLoop,
        *,
        share_seconds: float,
        gather_seconds: float,
    ) -> None:
        self._open_file = open_file
        self._path = path
        self._loop = loop
        self._share_seconds = share_seconds
        self._gather_seconds = gather_seconds
        self._orders: list[Order] = []
        self._bell: queue.SimpleQueue[bool] = queue.SimpleQueue()  # whether somebody waits
        self._rung = False  # for somebody who waits, and the thread has not looked yet
        self._idle = False  # the thread sleeps until the bell rings
        # A daemon, since the interpreter would wait for ever for another kind if the journal was never left; `_finish`
        # sees to it that everything is written all the same.
        self._thread = threading.Thread(target=self._run, name="picpik journal", daemon=True)
        self._kept: dict[str, JournalEntry] = {}  # rows that could not be written and nobody waits for
        self._crowded = False  # several waited for the last sync
        self._synced = 0.0  # when that was
        self._replies: list[tuple[asyncio.Future[Any], Any]] = []

    def start(self) -> asyncio.Future[None]:
        """Start the thread; the future is done when the file is open, or tells why it cannot be."""
        self._opened: asyncio.Future[None] = self._loop.create_future()
        self._thread.start()
        return self._opened

    @property
    def alive(self) -> bool:
        """Whether the thread is still at work."""
        return self._thread.is_alive()

    def put(self, order: Order) -> None:
        """Ask for something; wakes the thread only if somebody waits, or if it does not look by itself soon."""
        urgent = order.reply is not None or order.last
        self._orders.append(order)
        if (urgent or self._idle) and not self._rung:
            self._rung, self._idle = urgent, False
            self._bell.put(urgent)

    def _finish(self) -> None:
        self.put(Order(last=True))
        self._thread.join(EXIT_SECONDS)

    def _run(self) -> None:
        atexit.register(self._finish)
        try:
            self._file = self._open_file()
        except Exception as error:  # noqa: BLE001 - whatever it is, somebody waits
            failure = error if isinstance(error, JournalError) else self._failed("cannot be opened", error)
            self._answer(self._opened, failure)
            self._deliver()
        else:
            self._answer(self._opened, None)
            self._deliver()
            self._work()
            self._close()
        atexit.unregister(self._finish)

    def _work(self) -> None:
        last = False
        while not last:
            self._wait()
            orders = self._take()
            last = any(order.last for order in orders)
            self._obey(orders)
            self._deliver()

    def _wait(self) -> None:
        """Until somebody waits for an order, or those there are have waited long enough for that."""
        urgent = False
        while not urgent:
            sleep = self._idle and not self._orders  # what came before the mark rang no bell
            try:
                urgent = self._bell.get(timeout=None if sleep else self._share_seconds)
            except queue.Empty:
                if self._orders:
                    return
                self._idle = True
        self._gather()

    def _gather(self) -> None:
        """Let others come who can share the sync, if several wait now or did the last time: never for one at a time."""
        waiting = [order for order in self._orders if order.reply is not None]
        several = len(waiting) > 1 or (self._crowded and waiting)
        pause = self._synced + self._gather_seconds - time.monotonic()
        if several and pause > 0 and all(order.question is None for order in waiting):
            time.sleep(pause)

    def _take(self) -> list[Order]:
        """All orders there are."""
        self._rung = False  # before they are taken, so that none is overlooked
        orders = self._orders[:]
        del self._orders[: len(orders)]  # others may have come
        return orders

    def _obey(self, orders: list[Order]) -> None:
        kept = [Order(entry=entry) for entry in self._kept.values()]
        error = self._write([*kept, *(order for order in orders if order.question is None)])
        for order in orders:
            if order.question is not None:
                self._answer(order.reply, self._look_up(order.question, error))

    def _look_up(self, question: Callable[[JournalFile], Any], error: Exception | None) -> Any:
        """The answer, or why there is none: what is known but cannot be written would be missing in it."""
        try:
            return question(self._file) if error is None else self._failed("cannot be read", error)
        except Exception as unread:  # noqa: BLE001 - a thread that died would let all who wait do so for ever
            return self._failed("cannot be read", unread)

    def _write(self, orders: list[Order]) -> Exception | None:
        """Write the rows at once, of each job the last; returns what stood in the way of all."""
        rows = {order.entry.key: order.entry for order in orders if order.entry is not None}
        try:
            self._file.write(list(rows.values()))
        except _UNFIT as error:
            if len(orders) > 1:  # the others fit
                return next(filter(None, [self._write([order]) for order in orders]), None)
            self._refuse(orders[0], self._failed("cannot hold this row", error))
        except Exception as error:  # noqa: BLE001 - as above
            self._give_back(orders, error)
            return error
        else:
            if rows:
                self._crowded, self._synced = sum(order.reply is not None for order in orders) > 1, time.monotonic()
            for order in orders:
                self._answer(order.reply, None)
        for order in orders:
            if order.entry is not None and self._kept.get(order.entry.key) is order.entry:
                del self._kept[order.entry.key]
        return None

    def _give_back(self, orders: list[Order], error: Exception) -> None:
        """After rows could not be written: tell those who wait, and keep what nobody waits for."""
        failure = self._failed("cannot be written", error)
        for order in orders:
            if order.entry is None or self._kept.get(order.entry.key) is not order.entry:  # or that was told before
                self._refuse(order, failure)
            if order.reply is None and order.entry is not None:
                self._kept[order.entry.key] = order.entry

    def _refuse(self, order: Order, failure: JournalError) -> None:
        self._answer(order.reply, failure)
        if order.reply is None and order.entry is not None:
            complain(str(failure), order.entry)

    def _failed(self, what: str, error: Exception) -> JournalError:
        words = (
            error.strerror
            if isinstance(error, OSError)
            else error
            if isinstance(error, sqlite3.Error)
            else "unforeseen"
        )
        msg = f"journal {legible(self._path)} {what} ({type(error).__name__}: {legible(words, limit=200)})"
        return JournalError(msg, path=self._path)

    def _answer(self, reply: asyncio.Future[Any] | None, answer: Any) -> None:
        if reply is not None:
            self._replies.append((reply, answer))

    def _deliver(self) -> None:
        replies, self._replies = self._replies, []
        if replies:
            with contextlib.suppress(RuntimeError):  # the loop is closed, and nobody waits
                self._loop.call_soon_threadsafe(_set, replies)

    def _close(self) -> None:
        """Try once more what could not be written, say what is lost, and leave the file."""
        for _ in range(CLOSING_ATTEMPTS):
            if self._kept:
                time.sleep(PAUSE_SECONDS)
                self._obey([])
        for entry in self._kept.values():
            complain(f"journal {legible(self._path)} is closed", entry)
        with contextlib.suppress(sqlite3.Error, OSError):
            self._file.close()


def complain(what: str, entry: JournalEntry) -> None:
    """Say loudly what the journal does not hold; no `TaskUID` is a secret."""
    task_uid = legible(entry.task_uid) if entry.task_uid else "not known"
    _logger.error(
        "%s; not on disk: job %s is %s, TaskUID %s",
        what,
        legible(repr(entry.key)),
        entry.state.value,
        task_uid,
        extra={"key": entry.key, "task_uid": entry.task_uid, "request_uuid": entry.request_uuid},
    )


def _set(replies: list[tuple[asyncio.Future[Any], Any]]) -> None:
    for reply, answer in replies:
        if reply.done():
            continue
        if isinstance(answer, Exception):
            reply.set_exception(answer)
        else:
            reply.set_result(answer)
