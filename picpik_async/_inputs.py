"""What users hand over as a picture, and how each kind becomes bytes at rest.

`loader_for` only looks at the kind of object; the loaders do the reading, in worker threads.
"""

from __future__ import annotations

import asyncio
import errno
import io
import os
import re
import weakref
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias, Union

import anyio
import anyio.to_thread

from picpik_async import _pixels
from picpik_async._blobs import MemoryBlob, PathBlob, in_words
from picpik_async._streams import StreamLoader
from picpik_async.errors import ImageError, InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Awaitable, Callable, Hashable

    from PIL import Image

    from picpik_async._blobs import Blob
    from picpik_async._config import Limits
    from picpik_async._images import ImageSource

__all__ = [
    "ArrayLoader",
    "ImageInput",
    "Loader",
    "MadeOnce",
    "MemoryLoader",
    "PathLoader",
    "PilLoader",
    "Turns",
    "loader_for",
]

_KINDS: Final = "a path, bytes, a binary file, a PIL image, an array (uint8), an object with `async read(n)`, or an async iterable of bytes"
_ADDRESS: Final = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
_BASE64: Final = re.compile(r"(iVBORw0KGgo|/9j/|UklGR|R0lGOD)[A-Za-z0-9+/\s]{200,}=*\s*")
_OS_PROBLEMS: Final = {
    errno.ENOENT: "no such file; check the path and the working directory",
    errno.ENOTDIR: "no such file; a part of the path is not a directory",
    errno.EACCES: "permission denied; make the file readable for this user",
    errno.EPERM: "permission denied; make the file readable for this user",
    errno.ENAMETOOLONG: "is too long for a path; pass the path of a picture, or its bytes",
    errno.ENOSPC: "no space left in the folder for temporary files; see TMPDIR",
    errno.EMFILE: "too many open files; raise the limit (ulimit -n) or submit fewer at once",
}
_MAX_PATH: Final = 4096  # PATH_MAX of Linux


class SupportsArray(Protocol):
    """A NumPy array, or whatever offers its memory like one."""

    @property
    def __array_interface__(self) -> dict[str, Any]:
        """Shape, type and memory."""
        ...


class SupportsRead(Protocol):
    """A binary file, or an upload with `async read(n)`."""

    def read(self, size: int, /) -> bytes | Awaitable[bytes]:
        """The next bytes, none at the end."""
        ...


# What can be handed over as a picture; see `ImageSource.of`.
ImageInput: TypeAlias = Union[
    "ImageSource",
    str,
    "os.PathLike[str]",
    bytes,
    bytearray,
    memoryview,
    "Image.Image",
    SupportsArray,
    SupportsRead,
    "AsyncIterable[bytes]",
]


class Loader(Protocol):
    """Brings a picture to rest, for any number of openers.

    Attributes:
        label: what the user handed over, in short, for messages; never contents.
        key: equal for loaders of the same picture.
    """

    label: str
    key: Hashable

    async def load(self, limiter: anyio.CapacityLimiter, limits: Limits, field: str) -> Blob:
        """The encoded picture."""
        ...

    def load_here(self) -> Blob | None:
        """The same within a worker thread; None if that takes an event loop, or long."""
        ...


class PathLoader:
    """A file, looked at anew each time."""

    def __init__(self, path: str) -> None:
        self.label = _printable(path)
        self._path = path if os.path.isabs(path) else os.path.join(_working_directory(), path)  # noqa: PTH117, PTH118
        # Not `os.path.abspath`: it takes `link/..` for nothing at all, and would give two files one key.
        self.key: Hashable = ("path", str(PurePath(self._path)))

    async def load(self, limiter: anyio.CapacityLimiter, limits: Limits, field: str) -> Blob:  # noqa: ARG002
        """The file as it is now."""
        return await anyio.to_thread.run_sync(self.load_here, limiter=limiter)

    def load_here(self) -> Blob:
        """The file as it is now."""
        return PathBlob.at(self._path)


def _working_directory() -> str:
    # Asked now, should it change before the source is opened; this touches no disk.
    try:
        return os.fsdecode(os.getcwdb())  # noqa: PTH109
    except FileNotFoundError:
        return ""


class Turns:
    """Lets the tasks of one event loop take turns, and those of another loop by themselves.

    A lock in several loops would wake its waiters from the wrong thread.
    """

    def __init__(self) -> None:
        self._locks: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, anyio.Lock] = weakref.WeakKeyDictionary()

    def here(self) -> anyio.Lock:
        """The lock of the running loop."""
        return self._locks.setdefault(asyncio.get_running_loop(), anyio.Lock())


class MadeOnce:
    """A picture that is made in a worker thread, and kept; at worst once by each of several event loops."""

    def __init__(self, label: str, key: Hashable) -> None:
        self.label = label
        self.key = key
        self._blob: Blob | None = None
        self._turns = Turns()

    def load_here(self) -> Blob | None:
        """What was made, if it was."""
        return self._blob

    async def _made(self, make: Callable[[Any], Blob], value: Any, limiter: anyio.CapacityLimiter) -> Blob:
        async with self._turns.here():
            if self._blob is None:
                self._blob = await anyio.to_thread.run_sync(make, value, limiter=limiter)
            return self._blob


class _Held(MadeOnce):
    def __init__(self, value: Any, label: str) -> None:
        super().__init__(label, ("object", id(value)))
        self._value = value


class MemoryLoader(_Held):
    """Bytes, used where they are, or a copy of a buffer that may change."""

    def __init__(self, value: Any, label: str) -> None:
        super().__init__(value, label)
        if isinstance(value, bytes):
            self._blob = MemoryBlob(
                value
            )  # now: made by several threads at once, equal pictures would be different ones

    async def load(self, limiter: anyio.CapacityLimiter, limits: Limits, field: str) -> Blob:  # noqa: ARG002
        """The bytes."""
        return await self._made(_blob_of_copy, self._value, limiter)


def _blob_of_copy(value: bytes | bytearray | memoryview) -> Blob:
    return MemoryBlob(bytes(value))  # bytes are not copied


class PilLoader(_Held):
    """A PIL image, encoded as PNG."""

    async def load(self, limiter: anyio.CapacityLimiter, limits: Limits, field: str) -> Blob:  # noqa: ARG002
        """The PNG."""
        width, height = self._value.size
        check_pixels(width, height, limits)
        return await self._made(_pixels.png_of_pil, self._value, limiter)


class ArrayLoader(_Held):
    """An array, encoded as PNG."""

    async def load(self, limiter: anyio.CapacityLimiter, limits: Limits, field: str) -> Blob:
        """The PNG."""
        height, width = self._value.__array_interface__["shape"][:2]
        check_pixels(width, height, limits)
        make = _pixels.png_of_mask if field.endswith("mask") else _pixels.png_of_array
        return await self._made(make, self._value, limiter)


def check_pixels(width: int, height: int, limits: Limits) -> None:
    """Raise an `ImageError` for a picture of too many pixels, before anything is decoded or encoded."""
    if width * height > limits.max_image_pixels:
        msg = (
            f"has {width}x{height} pixels, more than {limits.max_image_pixels / 1e6:.4g} million;"
            " make it smaller, or raise Limits.max_image_pixels"
        )
        raise ImageError(msg)


def os_problem(error: OSError) -> str:
    """What the operating system objected to, in our words."""
    return _OS_PROBLEMS.get(error.errno or 0) or f"cannot be read ({errno.errorcode.get(error.errno or 0, 'OSError')})"


def _printable(text: str) -> str:
    escaped = text if text.isprintable() else "".join(char if char.isprintable() else "?" for char in text)
    return escaped if len(escaped) <= 200 else f"…{escaped[-199:]}"  # noqa: PLR2004


def loader_for(value: object, field: str) -> Loader:
    """The loader for this kind of object; nothing is read.

    Raises:
        InvalidRequestError: this kind is not supported; the message names `field` and what to pass instead.
    """
    if isinstance(value, (str, os.PathLike)):
        return PathLoader(_path(os.fsdecode(value), field))
    if isinstance(value, (bytes, bytearray, memoryview)):
        size = value.nbytes if isinstance(value, memoryview) else len(value)
        return MemoryLoader(value, f"{type(value).__name__}, {in_words(size)}")
    if _pixels.is_pil_image(value):
        return PilLoader(value, f"PIL image, {value.width}x{value.height}")  # type: ignore[attr-defined]
    if hasattr(value, "__array_interface__"):
        try:
            return ArrayLoader(value, _pixels.describe_array(value))
        except ImageError as exc:
            msg = f"{field}: {exc}"
            raise ImageError(msg, field=field, source="array") from None
    kind = type(value).__name__
    if isinstance(value, io.TextIOBase):
        raise _refused(field, kind, "is open in text mode; open it in binary mode: open(path, 'rb')")
    if callable(getattr(value, "read", None)) or hasattr(value, "__aiter__"):
        return StreamLoader(value, kind)
    raise _refused(field, kind, f"is not a picture; pass {_KINDS}")


def _path(text: str, field: str) -> str:
    if not text:
        problem = "is an empty path; pass the path of a picture"
    elif text[:5].lower() == "data:":
        problem = "is a data URI; pass the bytes: base64.b64decode(uri.partition(',')[2])"
    elif _ADDRESS.match(text):
        problem = "is an address, and nothing is downloaded for you; fetch it first and pass the bytes"
    elif _BASE64.fullmatch(text):
        problem = "is Base64 text; pass the bytes: base64.b64decode(text)"
    elif len(text) > _MAX_PATH or "\0" in text:
        problem = "is no path; pass the path of a picture, or its bytes"
    else:
        return text
    raise _refused(field, "str", problem)


def _refused(field: str, kind: str, problem: str) -> InvalidRequestError:
    return InvalidRequestError(f"{field}: {kind} {problem}", field=field, allowed=_KINDS)
