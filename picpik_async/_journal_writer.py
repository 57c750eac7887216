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
    """

    def __init__(
        self, open_file: Callable[[], JournalFile], path: str, loop: asyncio.AbstractEventLoop, *, share_seconds: float
    ) -> None:
        self._open_file = open_file
        self._path = path
        self._loop = loop
        self._share_seconds = share_seconds
        self._orders: queue.SimpleQueue[Order] = queue.SimpleQueue()
        # A daemon, since the interpreter would wait for ever for another kind if the journal was never left; `_finish`
        # sees to it that everything is written all the same.
        self._thread = threading.Thread(target=self._run, name="picpik journal", daemon=True)
        self._pending: list[Order] = []  # in the open transaction
        self._since: float | None = None  # when it was opened
        self._kept: dict[str, JournalEntry] = {}  # rows of failed transactions that nobody waits for
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
        """Ask for something."""
        self._orders.put(order)

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
            for order in self._take():
                last = last or order.last
                self._obey(order)
            if last or self._due():
                self._sync()
            self._deliver()

    def _take(self) -> list[Order]:
        """All orders there are; waits for one, but not longer than the rows at hand may wait for a sync."""
        patience = None if self._since is None else max(self._since + self._share_seconds - time.monotonic(), 0)
        orders = []
        with contextlib.suppress(queue.Empty):
            orders.append(self._orders.get(timeout=patience))
            while True:
                orders.append(self._orders.get_nowait())
        return orders

    def _due(self) -> bool:
        overdue = self._since is not None and time.monotonic() >= self._since + self._share_seconds
        return overdue or any(order.reply is not None for order in self._pending)

    def _obey(self, order: Order) -> None:
        if order.question is None:
            self._pending.append(order)
        try:
            if self._kept and not self._file.writing:
                for entry in list(self._kept.values()):
                    self._put(Order(entry=entry))
            self._put(order)
        except Exception as error:  # noqa: BLE001 - a thread that died would let all who wait do so for ever
            self._give_back(error)
            if order.question is not None:
                self._answer(order.reply, self._failed("cannot be read", error))
        else:
            if order.question is not None:
                self._look_up(order.reply, order.question)

    def _put(self, order: Order) -> None:
        if order.entry is None:
            return
        if not self._file.writing:
            self._file.begin()
            self._since = time.monotonic()
        try:
            self._file.put(order.entry)
        except _UNFIT as error:
            self._pending = [other for other in self._pending if other is not order]
            if self._kept.get(order.entry.key) is order.entry:
                del self._kept[order.entry.key]
            self._refuse(order, self._failed("cannot hold this row", error))

    def _look_up(self, reply: asyncio.Future[Any] | None, question: Callable[[JournalFile], Any]) -> None:
        try:
            self._answer(reply, question(self._file))
        except Exception as error:  # noqa: BLE001 - as above
            self._answer(reply, self._failed("cannot be read", error))
            if self._since is not None and not self._file.writing:  # SQLite has rolled back what was to be written
                self._give_back(error)

    def _sync(self) -> None:
        try:
            if self._since is not None:
                self._file.commit()
        except Exception as error:  # noqa: BLE001 - as above
            self._give_back(error)
        else:
            pending, self._pending, self._since = self._pending, [], None
            self._kept.clear()
            for order in pending:
                self._answer(order.reply, None)

    def _give_back(self, error: Exception) -> None:
        """After a transaction failed: tell those who wait, and keep what nobody waits for."""
        with contextlib.suppress(sqlite3.Error):
            self._file.roll_back()
        pending, self._pending, self._since = self._pending, [], None
        for order in pending:
            self._refuse(order, self._failed("cannot be written", error))
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
                self._obey(Order())
                self._sync()
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
