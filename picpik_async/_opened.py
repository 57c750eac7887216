"""Pictures that were opened, with what their headers say, and the errors that name them."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Self

import attrs

from picpik_async._inputs import os_problem
from picpik_async.errors import ConfigurationError, ImageError, InvalidRequestError, bare

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from picpik_async._blobs import Blob, Handle

__all__ = ["ImageReader", "OpenImage", "reporting", "require_format"]


@attrs.frozen(kw_only=True)
class OpenImage:
    """A picture at rest, with what its header says; readable any number of times, also at the same time.

    Attributes:
        format: what the first bytes say: `png`, `jpeg`, `webp` or `gif`.
        width: pixels, upright.
        height: pixels, upright.
        orientation: EXIF orientation the picture was handed over with; sides are swapped from 5 on.
        field: name of the parameter.
        source: what was handed over, in short.
        blob: the encoded bytes.
        original: the same, as they were handed over.
    """

    format: str
    width: int
    height: int
    orientation: int = 1
    field: str = "image"
    source: str = ""
    blob: Blob = attrs.field(repr=False)
    original: Blob = attrs.field(default=attrs.Factory(lambda self: self.blob, takes_self=True), repr=False)

    @property
    def size(self) -> int:
        """Length of the encoded picture, in bytes."""
        return self.blob.size

    @property
    def media_type(self) -> str:
        """Such as `image/png`."""
        return f"image/{self.format}"

    def reader(self) -> ImageReader:
        """A new reader; nothing is opened until it is entered."""
        return ImageReader(self)


class ImageReader:
    """Reads one picture from front to back, in a worker thread; each reader has its own position.

    Use it as a context manager: entering opens the file, leaving closes it.

    Raises:
        ImageError: the file is not what it was when the source was opened; from entering, `read` and `verify`.
    """

    def __init__(self, image: OpenImage) -> None:
        self._image = image
        self._position = 0
        self._handle: Handle | None = None

    def __enter__(self) -> Self:
        with self._reporting():
            self._handle = self._image.blob.open()
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()
        self._handle = None

    @property
    def _opened(self) -> Handle:
        if self._handle is None:
            msg = "an ImageReader is used within `with`"
            raise RuntimeError(msg)
        return self._handle

    def _reporting(self) -> contextlib.AbstractContextManager[None]:
        return reporting(self._image.field, self._image.source)

    def read(self, n: int) -> bytes | memoryview:
        """The next `n` bytes, or what is left; of pictures in memory a view."""
        size = min(n, self._image.size - self._position)
        handle = self._opened
        with self._reporting():
            data = handle.read_at(self._position, size)
        self._position += size
        return data

    def verify(self) -> None:
        """Make sure that all that was read belongs to one and the same file."""
        handle = self._opened
        with self._reporting():
            handle.verify()


def require_format(opened: OpenImage, formats: Collection[str], *, field: str, source: str) -> None:
    """Refuse a picture the service does not take.

    Args:
        opened: the picture.
        formats: what is accepted, such as `Dialect.image_formats`.
        field: name of the parameter, for the message.
        source: what was handed over, in short.

    Raises:
        ImageError: the message names the format found and those accepted.
    """
    if opened.format not in formats:
        accepted = ", ".join(sorted(name.upper() for name in formats))
        msg = f"{field}: {source}: is a {opened.format.upper()} picture, accepted are {accepted}; convert it to PNG"
        raise ImageError(msg, field=field, source=source, allowed=accepted)


@contextlib.contextmanager
def reporting(field: str, source: str) -> Iterator[None]:
    """Turn whatever goes wrong with a picture into an error that names it, without frames, which hold pieces of it."""
    try:
        yield
    except InvalidRequestError as exc:
        if exc.field is not None:
            raise bare(exc)  # noqa: B904 - the very same
        kind, problem, cause = type(exc), str(exc), bare(exc).__cause__
    except ConfigurationError:
        raise
    except OSError as exc:
        kind, problem, cause = ImageError, os_problem(exc), bare(exc)
    except Exception as exc:  # noqa: BLE001 - a foreign object may raise anything
        kind, problem, cause = ImageError, f"reading it failed with {type(exc).__name__}", bare(exc)
    else:
        return
    raise _named(kind, field, source, problem) from cause


def _named(kind: type[InvalidRequestError], field: str, source: str, problem: str) -> InvalidRequestError:
    msg = f"{field}: {source}: {problem}"
    error = kind(msg, field=field)
    if isinstance(error, ImageError):
        error.source = source
    return error
