"""Tests of who may use a journal's file, and where it may be."""

from __future__ import annotations

import os
import sqlite3
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from picpik_async import JournalEntry, _journal_guard
from picpik_async._journal import Journal
from picpik_async._journal_file import APPLICATION_ID, VERSION
from picpik_async._journal_guard import NETWORK_FILE_SYSTEMS, Lock, kind_of_file_system, mounts, refuse_network
from picpik_async.errors import JournalError

if TYPE_CHECKING:
    from collections.abc import Callable

MOUNTS = r"""22 1 254:0 / / rw,relatime - ext4 /dev/vda rw
23 22 0:21 / /proc rw,nosuid shared:5 - proc proc rw
24 22 0:40 / /home rw shared:1 master:2 - nfs4 server:/home rw
25 24 8:1 / /home/me/with\040space rw - xfs /dev/sdb1 rw
26 22 0:41 / /mnt rw - tmpfs tmpfs rw
27 22 0:42 /share /mnt rw - cifs //server/share rw
28 22 8:2 / /odd\134name rw - btrfs /dev/sdc rw
"""


@pytest.mark.parametrize(
    ("folder", "kind"),
    [
        ("/", "ext4"),
        ("/homeless", "ext4"),
        ("/proc/self", "proc"),
        ("/home", "nfs4"),
        ("/home/me", "nfs4"),
        ("/home/me/with space/deep", "xfs"),
        ("/mnt/x", "cifs"),
        ("/odd\\name", "btrfs"),
    ],
)
def test_the_file_system_of_a_folder(folder: str, kind: str) -> None:
    """The longest mount point above it counts, and of two at one place the later."""
    assert kind == kind_of_file_system(Path(folder), MOUNTS)


def test_no_mount() -> None:
    """Nothing is known of a folder under no mount."""
    assert kind_of_file_system(Path("/x"), "") is None


@pytest.mark.parametrize("kind", sorted(NETWORK_FILE_SYSTEMS))
def test_network_file_systems(kind: str) -> None:
    """All are refused by name, in words that say what to do."""
    with pytest.raises(JournalError, match=rf"network file system \({kind}\).*local disk") as caught:
        refuse_network(Path("/net/journal.db"), f"1 0 0:1 / /net rw - {kind} server rw\n")

    assert "/net/journal.db" == caught.value.path


def test_local_file_systems() -> None:
    """They are fine."""
    refuse_network(Path("/home/me/with space/journal.db"), MOUNTS)


def test_not_on_linux(tmp_path: Path) -> None:
    """Without /proc no journal is opened, and the message does not blame its folder."""
    with pytest.raises(JournalError, match=r"on Linux only, with /proc: .*\(No such file or directory\)") as caught:
        mounts(tmp_path / "mountinfo")

    assert caught.value.path is None


def test_a_lock_is_one(tmp_path: Path) -> None:
    """A second one in the same process is refused; released, it is free."""
    path = tmp_path / "journal.db"
    lock = Lock(path)
    with pytest.raises(JournalError, match="another session of this process"):
        Lock(path)
    lock.release()
    lock.release()
    Lock(path).release()


@pytest.mark.parametrize(("written", "who"), [(b"", "another process"), (b"x", "another process"), (b"7", "process 7")])
def test_who_has_it(tmp_path: Path, written: bytes, who: str) -> None:
    """The message names the process, if it is known."""
    lock = Lock(tmp_path / "journal.db")
    (tmp_path / "journal.db.lock").write_bytes(written)
    with pytest.raises(JournalError, match=f"in use by {who};"):
        Lock(tmp_path / "journal.db")
    lock.release()


def test_a_forked_child_lets_go(tmp_path: Path) -> None:
    """It closes its copies, for they would keep the lock beyond the end of its parent."""
    locks = [Lock(tmp_path / name) for name in "ab"]
    _journal_guard._let_go()

    assert [None, None] == [lock._file for lock in locks]
    Lock(tmp_path / "a").release()


def test_a_lock_is_not_handed_on(tmp_path: Path) -> None:
    """Programs that are started do not get it."""
    lock = Lock(tmp_path / "journal.db")
    assert lock._file is not None
    assert not os.get_inheritable(lock._file)
    lock.release()


def test_a_lock_that_is_a_link(tmp_path: Path) -> None:
    """It is not followed."""
    (tmp_path / "journal.db.lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic"):
        Lock(tmp_path / "journal.db")


async def refused(path: Path, **options: Any) -> str:
    """What is said of a file that is not opened."""
    with pytest.raises(JournalError) as caught:
        async with Journal(path, **options):
            raise AssertionError
    assert caught.value.path is not None
    return str(caught.value)


@pytest.mark.anyio
async def test_two_names_are_one_file(tmp_path: Path) -> None:
    """A link to the journal in use is refused as well."""
    (tmp_path / "link.db").symlink_to(tmp_path / "journal.db")
    async with Journal(tmp_path / "journal.db"):
        assert "in use" in await refused(tmp_path / "link.db")
        assert "in use" in await refused(tmp_path / "journal.db")
    async with Journal(tmp_path / "link.db") as journal:
        await journal.flush()


@pytest.mark.anyio
async def test_hard_links(tmp_path: Path) -> None:
    """A file of two names is refused by either, also while it is in use, and taken when the other is gone."""
    path, other = tmp_path / "journal.db", tmp_path / "other.db"
    async with Journal(path):
        other.hardlink_to(path)
        assert "hard link" in await refused(other)
    assert "hard link" in await refused(path)
    other.unlink()
    async with Journal(path):
        pass


@pytest.mark.anyio
async def test_places(tmp_path: Path) -> None:
    """Where no journal can be, the message says so."""
    assert "there is no folder" in await refused(tmp_path / "none" / "journal.db")
    assert "a folder, a device or the like is there" in await refused(tmp_path)
    assert "cannot be opened" in await refused(Path("/proc/journal.db"))


@pytest.mark.anyio
async def test_no_files(tmp_path: Path) -> None:
    """What is no regular file is refused before anything is made or changed, and so is what is no name."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe, 0o644)
    mode = pipe.stat().st_mode

    assert "a folder, a device or the like is there" in await refused(pipe)
    assert {"pipe"} == set(modes(tmp_path))
    assert mode == pipe.stat().st_mode
    assert "no name of a file" in await refused(tmp_path / "a\0b")
    assert "no name of a file" in await refused(Path(":memory:"))
    assert "File name too long" in await refused(tmp_path / ("x" * 300))


def nothing(_: Path) -> None:
    """Leave the place empty."""


def words(path: Path) -> None:
    """A file of another kind."""
    path.write_bytes(b"no database" * 1000)


def database(*statements: str) -> Callable[[Path], None]:
    """A database made with these statements."""

    def make(path: Path) -> None:
        connection = sqlite3.connect(path)
        for statement in statements:
            connection.execute(statement)
        connection.commit()
        connection.close()

    return make


def empty(path: Path) -> None:
    """A file as a crash leaves it right after it was made, readable by all."""
    path.touch(0o644)


@pytest.mark.parametrize("make", [words, database("CREATE TABLE t (a)"), database("PRAGMA application_id = 7")])
@pytest.mark.anyio
async def test_files_of_others(tmp_path: Path, make: Callable[[Path], None]) -> None:
    """They are refused, and not changed by a byte."""
    path = tmp_path / "other.db"
    make(path)
    before = path.read_bytes()

    assert "not a journal" in await refused(path)
    assert before == path.read_bytes()


@pytest.mark.parametrize("make", [empty, words, database("CREATE TABLE t (a)"), nothing])
@pytest.mark.anyio
async def test_looking_at_files_of_others(tmp_path: Path, make: Callable[[Path], None]) -> None:
    """Whoever only looks neither makes nor changes a file, and an empty one is no journal yet."""
    path = tmp_path / "other.db"
    make(path)
    before = contents(tmp_path), modes(tmp_path)

    assert "other.db" in await refused(path, read_only=True)
    assert before == (contents(tmp_path), modes(tmp_path))


@pytest.mark.anyio
async def test_looking_at_a_journal(tmp_path: Path) -> None:
    """A journal can be looked at while it is in use, and afterwards; that leaves no trace, and nothing can be written."""
    path, row = tmp_path / "a?b#.db", JournalEntry(key="k", digest="d", request_uuid="u", action="A")
    async with Journal(path) as journal:
        await journal.commit(row)
        async with Journal(path, read_only=True) as other:
            assert [row] == await other.entries()
            with pytest.raises(JournalError, match="readonly"):
                await other.commit(row)
    before = contents(tmp_path)
    path.chmod(0o400)
    async with Journal(path, read_only=True) as other:
        assert [row] == await other.entries()

    assert before == contents(tmp_path)
    assert 0o400 == stat.S_IMODE(path.stat().st_mode)


@pytest.mark.anyio
async def test_a_newer_journal(tmp_path: Path) -> None:
    """What a later version wrote is not touched."""
    path = tmp_path / "journal.db"
    database(f"PRAGMA application_id = {APPLICATION_ID}", f"PRAGMA user_version = {VERSION + 1}")(path)

    assert "newer version" in await refused(path)


def modes(folder: Path) -> dict[str, int]:
    """Who may read what."""
    return {file.name: stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()}


def contents(folder: Path) -> dict[str, bytes]:
    """What is in all files."""
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.mark.parametrize("make", [nothing, empty, database("PRAGMA journal_mode = WAL")])
@pytest.mark.anyio
async def test_private(tmp_path: Path, make: Callable[[Path], None]) -> None:
    """A new journal and all files beside it are their owner's alone, also where a crash has left an empty one."""
    make(tmp_path / "journal.db")
    async with Journal(tmp_path / "journal.db") as journal:
        await journal.flush()
        files = modes(tmp_path)

    assert dict.fromkeys(("journal.db", "journal.db-wal", "journal.db-shm", "journal.db.lock"), 0o600) == files


def no_room(*_: Any, **__: Any) -> sqlite3.Connection:
    """As SQLite says it."""
    msg = "database or disk is full"
    raise sqlite3.OperationalError(msg)


def no_wal(*_: Any, **options: Any) -> Any:
    """A database that has no file, and so no WAL."""
    return sqlite3.connect(":memory:", **options)


def broken(*_: Any, **__: Any) -> sqlite3.Connection:
    """An error nobody has thought of."""
    raise RuntimeError


@pytest.mark.parametrize(
    ("connect", "message"), [(no_room, "disk is full"), (no_wal, "WAL mode does not work"), (broken, "RuntimeError")]
)
@pytest.mark.anyio
async def test_what_may_fail(tmp_path: Path, connect: Any, message: str) -> None:
    """An error on the way leaves the file free for the next try."""
    assert message in await refused(tmp_path / "journal.db", connect=connect)
    async with Journal(tmp_path / "journal.db") as journal:
        await journal.flush()
