"""Files that are whole or absent; everything here blocks and runs in worker threads."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import itertools
import os
import re
import stat
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["flush_folder", "write_atomically"]

_PARTIAL: Final = re.compile(r"\..{0,50}\.[0-9a-f]{16}\.part", re.DOTALL)
_STALE_SECONDS: Final = 3600.0  # far longer than any write takes
_FOLDERS: Final = 1024  # remembered as tidy
# What a folder answers that cannot be flushed: one that may be written but not read, and some file systems.
_UNFLUSHABLE: Final = frozenset({errno.EACCES, errno.EPERM, errno.EINVAL, errno.ENOTSUP})


def write_atomically(data: bytes, target: Path) -> None:
    """Write *data* beside *target*, flush it to disk, and rename, which replaces a link rather than follow it.

    A file that is replaced passes its permissions on.
    """
    _make_folder(target.parent)
    _tidy(os.path.realpath(target.parent))
    descriptor, partial = _create_beside(target)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            partial.replace(target)  # before it is closed, which ends the claim to it
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    flush_folder(target.parent)


def _make_folder(folder: Path) -> None:
    missing = list(itertools.takewhile(lambda path: not path.exists(), (folder, *folder.parents)))
    folder.mkdir(parents=True, exist_ok=True)
    for path in missing:
        flush_folder(path.parent)


def flush_folder(folder: Path) -> None:
    """Have the names in *folder* on the disk, where that can be asked for."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in _UNFLUSHABLE:
            raise


def _create_beside(target: Path) -> tuple[int, Path]:
    """A new file, claimed by a lock as long as it is open, and its path."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    mode = _mode_of(target)
    while True:
        partial = target.with_name(f".{target.name[:50]}.{os.urandom(8).hex()}.part")
        descriptor = os.open(partial, flags, 0o666 if mode is None else 0o600)
        with contextlib.suppress(OSError):  # a file system without locks, where age decides
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.fstat(descriptor).st_nlink:
            break
        os.close(descriptor)  # tidied away by another process, before it was claimed
    if mode is not None:
        with contextlib.suppress(PermissionError):  # a file system without permissions
            os.fchmod(descriptor, mode)
    return descriptor, partial


def _mode_of(target: Path) -> int | None:
    try:
        mode = os.stat(target, follow_symlinks=False).st_mode  # noqa: PTH116 - pathlib's takes no such option
    except OSError:
        return None
    return stat.S_IMODE(mode) & 0o777 if stat.S_ISREG(mode) else None


@functools.lru_cache(_FOLDERS)
def _tidy(folder: str) -> None:
    """Remove what killed processes left half written; once per folder and process, since it reads the whole folder."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if _PARTIAL.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                with contextlib.suppress(OSError):
                    _remove_orphan(entry.path)


def _remove_orphan(path: str) -> None:
    """Remove the file unless somebody claims it; where nobody can, unless it is fresh."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        with contextlib.suppress(BlockingIOError):
            if _claims(descriptor) or os.fstat(descriptor).st_mtime < time.time() - _STALE_SECONDS:
                os.unlink(path)  # noqa: PTH108 - the folder's entries are text
    finally:
        os.close(descriptor)


def _claims(descriptor: int) -> bool:
    """Whether the file is claimed now, or cannot be.

    Raises:
        BlockingIOError: by somebody else.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:
        return False
    return True
