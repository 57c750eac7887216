"""Files that are whole or absent; everything here blocks and runs in worker threads."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import secrets
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["write_atomically"]

_PARTIAL: Final = re.compile(r"\..{0,50}\.[0-9a-f]{16}\.part", re.DOTALL)
_STALE_SECONDS: Final = 3600.0  # far longer than any write takes
_FOLDERS: Final = 1024  # remembered as tidy


def write_atomically(data: bytes, target: Path) -> None:
    """Write *data* beside *target*, flush it to disk, and rename, which replaces a link rather than follow it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    _tidy(os.path.realpath(target.parent))
    partial = target.with_name(f".{target.name[:50]}.{secrets.token_hex(8)}.part")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(target)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@functools.lru_cache(_FOLDERS)
def _tidy(folder: str) -> None:
    """Remove what killed processes left half written; once per folder and process, since it reads the whole folder."""
    stale = time.time() - _STALE_SECONDS
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if _PARTIAL.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                with contextlib.suppress(OSError):
                    if entry.stat(follow_symlinks=False).st_mtime < stale:
                        os.unlink(entry.path)  # noqa: PTH108 - an entry knows its path as text
