"""Tests of files that are whole or absent."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import random
import signal
import stat
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from picpik_async._files import write_atomically


def names(folder: Path) -> list[str]:
    """All files in a folder, hidden ones too."""
    return sorted(path.name for path in folder.iterdir())


def test_leftovers(tmp_path: Path) -> None:
    """What a killed process left half written is removed by the first save of the next, but nothing else is."""
    left, claimed = ".1.png.0123456789abcdef.part", ".1.png.0123456789abcde0.part"
    others = [
        ".part",
        ".1.png.part",
        "1.png.0123456789abcdef.part",
        ".1.png.0123456789abcdeg.part",
        ".1.0123456789abcdef.png",
    ]
    for name in (left, claimed, *others):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / ".d.0123456789abcdef.part").mkdir()
    (tmp_path / ".l.0123456789abcdef.part").symlink_to(tmp_path / "1.png")

    with (tmp_path / claimed).open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        write_atomically(b"data", tmp_path / "2.png")

    kept = [claimed, *others, ".d.0123456789abcdef.part", ".l.0123456789abcdef.part", "2.png"]
    assert sorted(kept) == names(tmp_path)


def test_leftovers_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a file system without locks only what is old is removed."""

    def fail(_file: int, _how: int) -> None:
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr(fcntl, "flock", fail)
    old, recent = ".1.png.0123456789abcdef.part", ".1.png.0123456789abcde0.part"
    (tmp_path / old).write_bytes(b"")
    os.utime(tmp_path / old, (0, 0))
    (tmp_path / recent).write_bytes(b"")

    write_atomically(b"data", tmp_path / "2.png")

    assert [recent, "2.png"] == names(tmp_path)


def test_tidied_away_before_it_is_claimed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that another process takes for a leftover, in the moment in which nobody claims it, is made anew."""
    flock = fcntl.flock
    removed: list[Path] = []

    def late(file: int, how: int) -> None:
        if not removed:
            (left,) = tmp_path.glob(".*.part")
            left.unlink()
            removed.append(left)
        flock(file, how)

    monkeypatch.setattr(fcntl, "flock", late)
    write_atomically(b"data", tmp_path / "1.png")

    assert 1 == len(removed)
    assert ["1.png"] == names(tmp_path)


def test_permissions(tmp_path: Path) -> None:
    """A file that is replaced passes its permissions on; a link has none of its own."""
    target, link = tmp_path / "1.png", tmp_path / "2.png"
    target.write_bytes(b"old")
    link.symlink_to(target)
    for mode in (0o600, 0o640, 0o666, 0o400):
        target.chmod(mode)
        write_atomically(b"data", target)
        assert mode == stat.S_IMODE(target.stat().st_mode)

    write_atomically(b"data", link)
    fresh = tmp_path / "3.png"
    write_atomically(b"data", fresh)
    assert stat.S_IMODE(fresh.stat().st_mode) == stat.S_IMODE(link.stat().st_mode)
    assert not link.is_symlink()


@pytest.mark.parametrize(("number", "raises"), [(errno.EINVAL, False), (errno.EACCES, False), (errno.EIO, True)])
def test_folders_that_cannot_be_flushed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, *, raises: bool
) -> None:
    """The file is there, even if the folder cannot be flushed or not be read; a broken disk is told."""
    fsync = os.fsync

    def fail(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(number, os.strerror(number))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="Input") if raises else contextlib.nullcontext():
        write_atomically(b"data", tmp_path / "1.png")

    assert ["1.png"] == names(tmp_path)


def test_new_folders_are_flushed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every folder in which a name was made is flushed to the disk."""
    fsync, flushed = os.fsync, []

    def note(descriptor: int) -> None:
        flushed.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    write_atomically(b"data", tmp_path / "a" / "b" / "1.png")

    assert {str(tmp_path), str(tmp_path / "a"), str(tmp_path / "a" / "b")} <= set(flushed)


@pytest.mark.parametrize("name", ["x", "x" * 255, "\N{GRINNING FACE}" * 63, ".hidden", "a\nb"])
def test_names(tmp_path: Path, name: str) -> None:
    """Whatever the system takes as a name can be written, and its leftovers are known as such."""
    write_atomically(b"data", tmp_path / name)

    assert [name] == names(tmp_path)


@pytest.mark.parametrize("to", ["file", "nowhere", "link"])
def test_planted_links(tmp_path: Path, to: str) -> None:
    """A link at the target is replaced, and what it points to is not touched."""
    outside, folder = tmp_path / "outside", tmp_path / "out"
    outside.mkdir()
    folder.mkdir()
    (outside / "file").write_bytes(b"precious")
    (outside / "link").symlink_to("file")
    (folder / "1.png").symlink_to(outside / to)

    write_atomically(b"data", folder / "1.png")

    assert b"precious" == (outside / "file").read_bytes()
    assert ["file", "link"] == names(outside)
    assert not (folder / "1.png").is_symlink()
    assert b"data" == (folder / "1.png").read_bytes()


def test_a_folder_at_the_target(tmp_path: Path) -> None:
    """A folder at the target stays, and nothing is left beside it."""
    (tmp_path / "1.png").mkdir()

    with pytest.raises(IsADirectoryError):
        write_atomically(b"data", tmp_path / "1.png")
    assert ["1.png"] == names(tmp_path)


def test_a_link_at_the_partial_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even a guessed name beside the target is not written through."""
    precious = tmp_path / "precious"
    precious.write_bytes(b"precious")
    (tmp_path / ".1.png.0000000000000000.part").symlink_to(precious)
    monkeypatch.setattr("os.urandom", bytes)

    with pytest.raises(FileExistsError):
        write_atomically(b"data", tmp_path / "1.png")
    assert b"precious" == precious.read_bytes()


def test_concurrent_writers(tmp_path: Path) -> None:
    """Of many who write one name each is whole at any time, and one is last."""
    target = tmp_path / "1.png"
    contents = [bytes([number]) * 100_000 for number in range(8)]
    write_atomically(contents[0], target)
    over = threading.Event()

    def look() -> set[bytes]:
        seen = set()
        while not over.is_set():
            seen.add(target.read_bytes())
        return seen

    with ThreadPoolExecutor(9) as threads:
        looking = threads.submit(look)
        list(threads.map(write_atomically, contents * 3, [target] * 24))
        over.set()

    assert looking.result() <= set(contents)
    assert ["1.png"] == names(tmp_path)


WRITER = """
import sys
from pathlib import Path
from picpik_async._files import write_atomically
folder = Path(sys.argv[1])
print(flush=True)
for number in range(10**6):
    write_atomically(bytes([number % 256]) * 1_000_000, folder / f"{number % 20}.png")
"""


def kill_at_random(folder: Path, rounds: int) -> int:
    """Kill a process that saves, again and again; the files it left half written."""
    for _ in range(rounds):
        with subprocess.Popen([sys.executable, "-c", WRITER, str(folder)], stdout=subprocess.PIPE) as process:  # noqa: S603
            assert process.stdout
            process.stdout.readline()
            time.sleep(random.uniform(0.001, 0.05))  # the moment is what is random here
            process.send_signal(signal.SIGKILL)
        for path in folder.glob("[0-9]*"):
            data = path.read_bytes()
            assert 1_000_000 == len(data)
            assert 1 == len(set(data))
    return len(list(folder.glob(".*.part")))


def check_kills(folder: Path, rounds: int) -> None:
    """No round leaves half a file under a final name, and the rest is removed later."""
    kill_at_random(folder, rounds)

    write_atomically(b"data", folder / "1.png")

    assert [] == list(folder.glob(".*"))


def test_killed(tmp_path: Path) -> None:
    """A process killed while it saves leaves whole files only, and leftovers that go away."""
    check_kills(tmp_path, 3)


@pytest.mark.long
def test_killed_often(tmp_path: Path) -> None:
    """The same, a hundred times."""
    check_kills(tmp_path, 100)
