"""The journal's file: its tables and statements, for the one thread that has it open."""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import operator
import os
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import attrs

from picpik_async._entries import JobState, JournalEntry
from picpik_async._journal_guard import Lock, create_private, mounts, refuse_links, refuse_network
from picpik_async.errors import JournalError, legible

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["JournalFile"]

APPLICATION_ID: Final = int.from_bytes(b"PPKJ", "big")
VERSION: Final = 1
_STRICT: Final = "STRICT" if sqlite3.sqlite_version_info >= (3, 37) else ""
_SCHEMA: Final = (
    f"""
    CREATE TABLE jobs (
        number INTEGER PRIMARY KEY,
        key TEXT NOT NULL UNIQUE,
        digest TEXT NOT NULL,
        request_uuid TEXT NOT NULL,
        action TEXT NOT NULL,
        changed REAL NOT NULL,
        seed INTEGER,
        auto_seed INTEGER NOT NULL,
        state TEXT NOT NULL,
        task_uid TEXT,
        acknowledged REAL,
        files TEXT NOT NULL,
        error TEXT,
        reason TEXT,
        ret_code INTEGER,
        resubmits INTEGER NOT NULL,
        earlier_task_uids TEXT NOT NULL
    ) {_STRICT}
    """,
    "CREATE INDEX jobs_by_task ON jobs (task_uid) WHERE task_uid IS NOT NULL",
    f"PRAGMA application_id = {APPLICATION_ID}",
    f"PRAGMA user_version = {VERSION}",
)
_NAMES: Final = tuple(field.name for field in attrs.fields(JournalEntry))
_STATE: Final = _NAMES.index("state")
_FILES: Final = _NAMES.index("files")
_EARLIER: Final = _NAMES.index("earlier_task_uids")
_values: Final = operator.attrgetter(*_NAMES)
_COLUMNS: Final = ", ".join(_NAMES)
_SELECT: Final = f"SELECT {_COLUMNS} FROM jobs"  # noqa: S608 - of our own names
_UPDATE: Final = ", ".join(f"{name} = excluded.{name}" for name in _NAMES if name != "key")
# STRICT sees to it, but not in a file that somebody else has written, and older versions of SQLite do not know it.
_TEXT: Final = ("key", "digest", "request_uuid", "action", "state", "files", "earlier_task_uids")
_KINDS: Final[dict[str, Any]] = dict.fromkeys(_TEXT, str) | {
    "changed": float,
    "seed": int | None,
    "auto_seed": int,
    "task_uid": str | None,
    "acknowledged": float | None,
    "error": str | None,
    "reason": str | None,
    "ret_code": int | None,
    "resubmits": int,
}
_MOST_ROWS: Final = 50  # of a statement: older versions of SQLite take 999 values
_BUSY_SECONDS: Final = 1.0  # a reader of another program may hold it for a moment


class JournalFile:
    """A journal, open for one thread; all errors of SQLite leave it as they are, unless it says otherwise.

    Args:
        path: the file.
        connect: opens an SQLite database, with the arguments of `sqlite3.connect`.
        read_only: look only: another process may use the file, and nothing is made or changed.

    Raises:
        JournalError: the file cannot be used.
    """

    def __init__(self, path: Path, connect: Callable[..., sqlite3.Connection], *, read_only: bool = False) -> None:
        with contextlib.ExitStack() as stack, _refused(path):
            path = _place(path)
            if not read_only:
                stack.callback(Lock(path).release)
                create_private(path)
            address = _look_address(path) if read_only else str(path)
            self._connection = connect(address, isolation_level=None, timeout=_BUSY_SECONDS, uri=read_only)
            stack.callback(self._connection.close)
            self._check(path, may_be_new=not read_only)
            if not read_only:
                self._set_up(path)
            self._path, self._identity = path, _identity(path)
            self._release = stack.pop_all().close

    def _check(self, path: Path, *, may_be_new: bool) -> None:
        application, version = self._pragma("application_id"), self._pragma("user_version")
        if application == APPLICATION_ID and version > VERSION:
            msg = f"journal {legible(path)} was written by a newer version of picpik_async; update picpik_async"
            raise JournalError(msg, path=str(path))
        (tables,) = self._connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if application != APPLICATION_ID and (tables or application or not may_be_new):
            raise _foreign(path)

    def _set_up(self, path: Path) -> None:
        for beside in (
            "",
            "-wal",
            "-shm",
        ):  # a new file is private, and SQLite gives its mode to the others; a copy is not
            with contextlib.suppress(FileNotFoundError):
                path.with_name(path.name + beside).chmod(0o600)
        if self._pragma("journal_mode = WAL") != "wal":
            msg = f"journal {legible(path)}: SQLite's WAL mode does not work there; give a path on a local disk"
            raise JournalError(msg, path=str(path))
        self._connection.execute("PRAGMA synchronous = FULL")
        self._connection.execute("PRAGMA wal_autocheckpoint = 1000")  # pages: about 4 MB between two checkpoints
        if self._pragma("user_version") != VERSION:
            self._connection.execute("BEGIN IMMEDIATE")
            for statement in _SCHEMA:
                self._connection.execute(statement)
            self._connection.execute("COMMIT")

    def _pragma(self, words: str) -> Any:
        (value,) = self._connection.execute(f"PRAGMA {words}").fetchone()
        return value

    def write(self, entries: list[JournalEntry]) -> None:
        """Write whole rows, all or none, in the place of those with the same keys; when this returns, they are on disk.

        Raises:
            FileNotFoundError: the file was deleted or replaced; what is written would be found by nobody.
        """
        if not entries:
            return
        if _identity(self._path) != self._identity:
            raise FileNotFoundError(errno.ENOENT, "another file is in its place")
        statements = [_upsert(entries[start : start + _MOST_ROWS]) for start in range(0, len(entries), _MOST_ROWS)]
        if len(statements) > 1:  # one is a transaction of its own, and each further one costs changes of threads
            statements = [("BEGIN IMMEDIATE", []), *statements, ("COMMIT", [])]
        try:
            for words, values in statements:
                self._connection.execute(words, values)
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                self._roll_back()
            raise

    def _roll_back(self) -> None:
        """Undo the transaction, if SQLite has not done so by itself."""
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")

    def hashes(self) -> set[int]:
        """Hashes of all keys."""
        return {hash(key) for (key,) in self._connection.execute("SELECT key FROM jobs")}

    def find(self, key: str) -> JournalEntry | None:
        """The job of that key."""
        return next(self._read("WHERE key = ?", key), None)

    def find_task(self, task_uid: str) -> JournalEntry | None:
        """The latest job with that `TaskUID`."""
        return next(self._read("WHERE task_uid = ? ORDER BY number DESC LIMIT 1", task_uid), None)

    def entries(self, states: tuple[JobState, ...]) -> list[JournalEntry]:
        """The jobs in these states, or all, in the order they came."""
        words = [state.value for state in states or JobState]
        return list(self._read(f"WHERE state IN ({', '.join('?' * len(words))}) ORDER BY number", *words))

    def counts(self) -> dict[JobState, int]:
        """How many jobs there are in each state."""
        found = dict(self._connection.execute("SELECT state, count(*) FROM jobs GROUP BY state"))
        return {state: found.get(state.value, 0) for state in JobState}

    def _read(self, words: str, *values: str) -> Iterator[JournalEntry]:
        return map(_entry, self._connection.execute(f"{_SELECT} {words}", values))

    def close(self) -> None:
        """Leave the file to others."""
        self._release()


@contextlib.contextmanager
def _refused(path: Path) -> Iterator[None]:
    """Errors on the way to an open journal, in words that say what to do."""
    try:
        yield
    except OSError as error:
        msg = (
            f"journal {legible(path)} cannot be opened ({error.strerror}); give a path in a folder that can be written"
        )
        raise JournalError(msg, path=str(path)) from None
    except sqlite3.OperationalError as error:
        msg = f"journal {legible(path)} cannot be opened ({legible(error)}); make sure that no other program uses it, and that the disk has room"
        raise JournalError(msg, path=str(path)) from None
    except sqlite3.DatabaseError:
        raise _foreign(path) from None


def _place(path: Path) -> Path:
    """Where the file really is: a lock beside one of two names would keep nobody out."""
    if "\0" in str(path) or str(path) == ":memory:":
        msg = f"journal {legible(path)}: this is no name of a file; give the path of a file on a local disk"
        raise JournalError(msg, path=str(path))
    path = path.resolve()
    if path.exists() and not path.is_file():
        msg = (
            f"journal {legible(path)}: a folder, a device or the like is there; give the path of a file on a local disk"
        )
        raise JournalError(msg, path=str(path))
    if not path.parent.is_dir():
        msg = f"journal {legible(path)}: there is no folder {legible(path.parent)}; create it"
        raise JournalError(msg, path=str(path))
    refuse_network(path, mounts())
    refuse_links(path)
    return path


def _look_address(path: Path) -> str:
    """The file for eyes only; without a log beside it nobody has it open, and SQLite need not make one."""
    mode = "mode=ro" if path.with_name(f"{path.name}-wal").exists() else "mode=ro&immutable=1"
    return f"{path.as_uri()}?{mode}"


def _identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino


def _foreign(path: Path) -> JournalError:
    msg = f"journal {legible(path)} is damaged, or not a journal of picpik_async; give another path"
    return JournalError(msg, path=str(path))


def _upsert(entries: list[JournalEntry]) -> tuple[str, list[Any]]:
    return _upsert_words(len(entries)), [value for entry in entries for value in _row(entry)]


@functools.cache
def _upsert_words(rows: int) -> str:
    places = ", ".join([f"({', '.join('?' * len(_NAMES))})"] * rows)
    return f"INSERT INTO jobs ({_COLUMNS}) VALUES {places} ON CONFLICT (key) DO UPDATE SET {_UPDATE}"  # noqa: S608 - of our own names


def _row(entry: JournalEntry) -> list[Any]:
    row = list(_values(entry))
    row[_STATE] = entry.state.value
    row[_FILES] = json.dumps([os.fspath(file) for file in entry.files])
    row[_EARLIER] = json.dumps(entry.earlier_task_uids)
    return row


def _entry(row: tuple[Any, ...]) -> JournalEntry:
    fields = dict(zip(_NAMES, row, strict=True))
    for name, value in fields.items():
        if not isinstance(value, _KINDS[name]):
            msg = f"column {name}"
            raise TypeError(msg)
    fields["state"] = JobState(fields["state"])
    fields["auto_seed"] = bool(fields["auto_seed"])
    fields["files"] = tuple(map(Path, json.loads(fields["files"])))
    fields["earlier_task_uids"] = tuple(map(str, json.loads(fields["earlier_task_uids"])))
    return JournalEntry(**fields)
