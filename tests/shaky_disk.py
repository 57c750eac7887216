"""An SQLite whose statements are noted, and fail or hang when told."""

from __future__ import annotations

import sqlite3
import threading
from typing import TYPE_CHECKING, Any

from picpik_async._journal_file import _NAMES

if TYPE_CHECKING:
    from collections.abc import Sequence

SECONDS = 10


def rows(values: Sequence[Any]) -> list[Sequence[Any]]:
    """The rows of an INSERT."""
    return [values[start : start + len(_NAMES)] for start in range(0, len(values), len(_NAMES))]


class ShakyDisk:
    """Give `connect` to a journal.

    Attributes:
        log: the first word of each statement, once it has worked; for an INSERT the keys, and COMMIT if it is a
            transaction of its own; and what tests add.
        failing: first words of statements that fail.
        error: what they raise.
        open: whether a COMMIT goes through.
        committing: set when one is tried.
    """

    def __init__(self) -> None:
        self.log: list[str] = []
        self.failing: set[str] = set()
        self.error: Exception = sqlite3.OperationalError("database or disk is full")
        self.open = threading.Event()
        self.open.set()
        self.committing = threading.Event()

    def connect(self, *args: Any, **options: Any) -> sqlite3.Connection:
        """In the place of `sqlite3.connect`."""
        disk = self

        class Connection(sqlite3.Connection):
            def execute(self, sql: str, values: Any = (), /) -> sqlite3.Cursor:
                word = sql.split(maxsplit=1)[0]
                alone = word == "INSERT" and not self.in_transaction
                for step in ("BEGIN", "INSERT", "COMMIT") if alone else (word,):
                    disk.before(step)
                cursor = super().execute(sql, values)
                disk.log += [row[0] for row in rows(values)] if word == "INSERT" else [word]
                disk.log += ["COMMIT"] if alone else []
                return cursor

        return sqlite3.connect(*args, **options, factory=Connection)

    def before(self, word: str) -> None:
        """Fail or hang."""
        if word == "COMMIT":
            self.committing.set()
            assert self.open.wait(SECONDS)
        if word in self.failing:
            raise self.error

    def hang(self) -> None:
        """From now on a COMMIT sets `committing` and hangs until `open` is set."""
        self.committing.clear()
        self.open.clear()

    @property
    def commits(self) -> int:
        """How many transactions were written."""
        return self.log.count("COMMIT")
