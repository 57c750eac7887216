"""Encoded pictures at rest: in memory, in an unnamed temporary file, or at a path; sized, and readable again and again.

Everything here blocks and runs in worker threads. Errors come without field and source; `_images` adds both.
"""

from __future__ import annotations

import io
import os
import stat
import tempfile
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from picpik_async.errors import ImageError

if TYPE_CHECKING:
    from typing import BinaryIO

    from _typeshed import WriteableBuffer

__all__ = ["Blob", "Handle", "MemoryBlob", "PathBlob", "Spool", "as_file", "in_words", "too_large"]

SPOOL_MEMORY: Final = 1024 * 1024  # bytes kept in memory before a temporary file takes over


class Handle(Protocol):
    """An open blob: reads at any offset, so that several readers share nothing but the bytes."""

    def read_at(self, offset: int, size: int) -> bytes | memoryview:
        """Exactly `size` bytes; the caller stays inside the blob."""
        ...

    def verify(self) -> None:
        """Raise an `ImageError` if the bytes are no longer those of the blob."""
        ...

    def close(self) -> None:
        """Let go of what was opened."""
        ...


class Blob(Protocol):
    """Bytes of a known size."""

    @property
    def size(self) -> int:
        """How many bytes."""
        ...

    def open(self) -> Handle:
        """A new handle, to be closed."""
        ...


class MemoryBlob:
    """Bytes in memory; slices of it are views, not copies."""

    def __init__(self, data: bytes | memoryview) -> None:
        self._data = data  # not a view of it, which could not be copied along with a request
        self.size = memoryview(data).nbytes

    def open(self) -> Handle:
        """This object itself: memory needs no handle."""
        return self

    def read_at(self, offset: int, size: int) -> memoryview:
        """A view of the bytes."""
        return memoryview(self._data)[offset : offset + size]

    def verify(self) -> None:
        """Memory we hold does not change."""

    def close(self) -> None:
        """Nothing was opened."""


class Spool:
    """Collects bytes, in memory at first, then in an unnamed temporary file that vanishes with this object."""

    def __init__(self) -> None:
        self.size = 0
        self._memory = bytearray()
        self._file: BinaryIO | None = None

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Append `data`; not any more once somebody reads."""
        self.size += len(data)
        if self._file is None and self.size > SPOOL_MEMORY:
            self._move_to_disk()
        if self._file is None:
            self._memory += data
        else:
            self._file.write(data)
            self._file.flush()
        return len(data)

    def _move_to_disk(self) -> None:
        self._file = tempfile.TemporaryFile(prefix="picpik-")  # noqa: SIM115 - lives as long as this object
        weakref.finalize(self, self._file.close)
        self._file.write(self._memory)
        self._memory = bytearray()

    def open(self) -> Handle:
        """This object itself: reading at an offset needs no handle of its own."""
        return self

    def read_at(self, offset: int, size: int) -> bytes | memoryview:
        """A view of memory, or bytes of the temporary file."""
        if self._file is None:
            return memoryview(self._memory)[offset : offset + size]
        return os.pread(self._file.fileno(), size, offset)

    def verify(self) -> None:
        """Nobody else can write here."""

    def close(self) -> None:
        """The temporary file stays for other readers."""


class FileStamp(NamedTuple):
    """What changes when a file is written to or replaced."""

    device: int
    inode: int
    size: int
    mtime_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> FileStamp:
        """The stamp out of a `stat`."""
        return cls(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


class PathBlob(NamedTuple):
    """A file as it was at one moment; a later change is an error, not a mixture of two pictures."""

    path: str
    stamp: FileStamp

    @classmethod
    def at(cls, path: str) -> PathBlob:
        """The file as it is now.

        Raises:
            ImageError: there is something else than a file.
            OSError: there is nothing, or it must not be looked at.
        """
        status = Path(path).stat()
        if stat.S_ISDIR(status.st_mode):
            msg = "is a directory; give the path of one picture"
            raise ImageError(msg)
        if not stat.S_ISREG(status.st_mode):
            msg = "is not a regular file; read it yourself and pass the bytes"
            raise ImageError(msg)
        return cls(path, FileStamp.of(status))

    @property
    def size(self) -> int:
        """The size of the file, in bytes."""
        return self.stamp.size

    def open(self) -> Handle:
        """Open the file again, if it is still the same."""
        handle = _FileHandle(self.path, self.stamp)
        try:
            handle.verify()
        except ImageError:
            handle.close()
            raise
        return handle


class _FileHandle:
    def __init__(self, path: str, stamp: FileStamp) -> None:
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115, PTH123 - closed by `close`
        self._stamp = stamp

    def read_at(self, offset: int, size: int) -> bytes:
        data = os.pread(self._file.fileno(), size, offset)
        if len(data) != size:
            raise _changed()
        return data

    def verify(self) -> None:
        if FileStamp.of(os.fstat(self._file.fileno())) != self._stamp:
            raise _changed()

    def close(self) -> None:
        self._file.close()


def _changed() -> ImageError:
    return ImageError("the file changed while it was used, so nothing was submitted; try again when it is complete")


def as_file(blob: Blob) -> io.BufferedReader:
    """A blob as a seekable file of its own, for Pillow; to be closed."""
    return io.BufferedReader(_BlobFile(blob.open(), blob.size))


class _BlobFile(io.RawIOBase):
    def __init__(self, handle: Handle, size: int) -> None:
        self._handle = handle
        self._size = size
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        target = memoryview(buffer)
        count = max(0, min(target.nbytes, self._size - self._position))
        target[:count] = self._handle.read_at(self._position, count)
        self._position += count
        return count

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        self._position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        return self._position

    def close(self) -> None:
        self._handle.close()
        super().close()


def too_large(most: int) -> ImageError:
    """The error for a picture of more than *most* bytes."""
    return ImageError(f"has more than {in_words(most)}; make it smaller, or raise Limits.max_image_bytes")


def in_words(size: int) -> str:
    """A number of bytes, such as `1.2 MB`."""
    if size < 1000:  # noqa: PLR2004
        return f"{size} bytes"
    return f"{size / 1e3:.3g} kB" if size < 1e6 else f"{size / 1e6:.3g} MB"  # noqa: PLR2004
