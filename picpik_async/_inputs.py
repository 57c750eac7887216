"""What users hand over as a picture, and how each kind becomes bytes at rest.

`loader_for` only looks at the kind of object; the loaders do the reading, in worker threads.
"""

from __future__ import annotations

import errno
import inspect
import io
import os
import re
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

import anyio.to_thread

from picpik_async import _pixels
from picpik_async._blobs import MemoryBlob, PathBlob, Spool
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
    "MemoryLoader",
    "PathLoader",
    "PilLoader",
    "StreamLoader",
    "loader_for",
    "too_large",
]

_CHUNK: Final = 1024 * 1024  # bytes asked of a stream at a time
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
ImageInput: TypeAlias = (
    "ImageSource | str | os.PathLike[str] | bytes | bytearray | memoryview | Image.Image"
    " | SupportsArray | SupportsRead | AsyncIterable[bytes]"
)


class Loader(Protocol):
    """Brings a picture to rest; called by one opener at a time.

    Attributes:
        label: what the user handed over, in short, for messages; never contents.
        key: equal for loaders of the same picture.
        again: whether the picture may be another one next time.
    """

    label: str
    key: Hashable
    again: bool

    async def load(self, limiter: anyio.CapacityLimiter, limits: Limits, field: str) -> Blob:
        """The encoded picture."""
        ...


class PathLoader:
    """A file, looked at anew each time."""

    again = True

    def __init__(self, path: str) -> None:
        self.label = _printable(path)
        self._path = path if os.path.isabs(path) else os.path.join(_working_directory(), path)  # noqa: PTH117, PTH118
        # Not `os.path.abspath`: it takes `link/..` for nothing at all, and would give two files one key.
        self.key: Hashable = ("path", str(PurePath(self._path)))

    async def load(self, limiter: anyio.CapacityLimiter, limits: Limits, field: str) -> Blob:  # noqa: ARG002
        """The file as it is now."""
        return await anyio.to_thread.run_sync(PathBlob.at, self._path, limiter=limiter)


def _working_directory() -> str:
    # Asked now, should it change before the source is opened; this touches no disk.
    try:
        return os.fsdecode(os.getcwdb())  # noqa: PTH109
    except FileNotFoundError:
        return ""


class _Once:
    again = False

    def __init__(self, value: Any, label: str) -> None:
        self.label = label
        self.key: Hashable = ("object", id(value))
        self._value = value


class MemoryLoader(_Once):
    """Bytes, used where they are, or a copy of a buffer that may change."""

    async def load(self, limiter: anyio.CapacityLimiter, limits: Limits, field: str) -> Blob:  # noqa: ARG002
        """The bytes."""
        if isinstance(self._value, bytes):
            return MemoryBlob(self._value)
        return MemoryBlob(await anyio.to_thread.run_sync(bytes, self._value, limiter=limiter))


class PilLoader(_Once):
    """A PIL image, encoded as PNG."""

    async def load(self, limiter: anyio.CapacityLimiter, limits: Limits, field: str) -> Blob:  # noqa: ARG002
        """The PNG."""
        width, height = self._value.size
        check_pixels(width, height, limits)
        return await anyio.to_thread.run_sync(_pixels.png_of_pil, self._value, limiter=limiter)


class ArrayLoader(_Once):
    """An array, encoded as PNG."""

    async def load(self, limiter: anyio.CapacityLimiter, limits: Limits, field: str) -> Blob:  # noqa: ARG002
        """The PNG."""
        height, width = self._value.__array_interface__["shape"][:2]
        check_pixels(width, height, limits)
        return await anyio.to_thread.run_sync(_pixels.png_of_array, self._value, limiter=limiter)


class StreamLoader:
    """Something that can be read once, from where it stands.

    Attributes:
        fresh: whether nothing was read yet.
    """

    again = False

    def __init__(self, value: Any, label: str) -> None:
        self.label = label
        self.key: Hashable = ("stream", id(self))
        self.fresh = True
        self._value = value

    async def load(self, limiter: anyio.CapacityLimiter, limits: Limits, field: str) -> Blob:  # noqa: ARG002
        """The whole stream."""
        if not self.fresh:
            msg = "reading it failed or was cancelled halfway; pass a fresh one"
            raise ImageError(msg)
        self.fresh = False
        next_chunk = self._chunks(limiter)
        spool = Spool()
        while chunk := await next_chunk():
            if spool.size + len(chunk) > limits.max_image_bytes:
                raise too_large(limits)
            await anyio.to_thread.run_sync(spool.write, chunk, limiter=limiter)
        if not spool.size:
            msg = "is empty (0 bytes from where it stands); if it was read or written before, call its seek(0) first"
            raise ImageError(msg)
        return spool

    def _chunks(self, limiter: anyio.CapacityLimiter) -> Callable[[], Any]:
        read = getattr(self._value, "read", None)
        if read is None:
            iterator = aiter(self._value)
            return lambda: _next_of(iterator)
        if inspect.iscoroutinefunction(read):
            return lambda: _checked(read(_CHUNK))
        return lambda: _checked(_read_in_thread(read, limiter))


async def _next_of(iterator: Any) -> bytes:
    async for chunk in iterator:
        if _bytes_only(chunk):  # an empty chunk ends nothing here
            return bytes(chunk)
    return b""


async def _read_in_thread(read: Callable[[int], Any], limiter: anyio.CapacityLimiter) -> Any:
    # Abandoned on cancellation: a pipe may never answer, and the stream is broken then anyway.
    chunk = await anyio.to_thread.run_sync(read, _CHUNK, abandon_on_cancel=True, limiter=limiter)
    return await chunk if inspect.isawaitable(chunk) else chunk


async def _checked(reading: Any) -> Any:
    return _bytes_only(await reading)


def _bytes_only(chunk: Any) -> Any:
    if not isinstance(chunk, (bytes, bytearray, memoryview)):
        msg = f"gives {type(chunk).__name__} instead of bytes; open it in binary mode, such as open(path, 'rb')"
        raise ImageError(msg)
    return chunk


def too_large(limits: Limits) -> ImageError:
    """The error for a picture of too many bytes."""
    return ImageError(
        f"has more than {in_words(limits.max_image_bytes)}; make it smaller, or raise Limits.max_image_bytes"
    )


def check_pixels(width: int, height: int, limits: Limits) -> None:
    """Raise an `ImageError` for a picture of too many pixels, before anything is decoded or encoded."""
    if width * height > limits.max_image_pixels:
        msg = (
            f"has {width}x{height} pixels, more than {limits.max_image_pixels / 1e6:.4g} million;"
            " make it smaller, or raise Limits.max_image_pixels"
        )
        raise ImageError(msg)


def in_words(size: int) -> str:
    """A number of bytes, such as `1.2 MB`."""
    if size < 1000:  # noqa: PLR2004
        return f"{size} bytes"
    return f"{size / 1e3:.3g} kB" if size < 1e6 else f"{size / 1e6:.3g} MB"  # noqa: PLR2004


def os_problem(error: OSError) -> str:
    """What the operating system objected to, in our words."""
    return _OS_PROBLEMS.get(error.errno or 0) or f"cannot be read ({errno.errorcode.get(error.errno or 0, 'OSError')})"


def _printable(text: str) -> str:
    escaped = "".join(char if char.isprintable() else "?" for char in text)
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
