"""Pictures on their way in: whatever the user has becomes an `ImageSource`, which can be opened again and again."""

from __future__ import annotations

import contextlib
import functools
import weakref
from typing import TYPE_CHECKING, Final, Self

import anyio
import anyio.to_thread
import attrs

from picpik_async import _pixels
from picpik_async._blobs import as_file, too_large
from picpik_async._config import Limits
from picpik_async._inputs import MadeOnce, Turns, check_pixels, loader_for, os_problem
from picpik_async._loading import one_thread
from picpik_async._sealed import sealed
from picpik_async._streams import StreamLoader
from picpik_async.errors import ConfigurationError, ImageError, InvalidRequestError, bare

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Hashable, Iterator

    from PIL import Image

    from picpik_async._blobs import Blob, Handle
    from picpik_async._inputs import ImageInput, Loader

__all__ = ["ImageReader", "ImageSource", "OpenImage", "require_format"]

# Sources of streams nobody has read yet. A picture and the mask made from it are one upload: both must share the
# source, since the stream can be read once only.
_streams: weakref.WeakValueDictionary[int, ImageSource] = weakref.WeakValueDictionary()

_FIRST_SIDEWAYS: Final = 5  # EXIF orientations 5 to 8 swap the sides


class ImageSource:
    """A picture, read when it is needed: sized, and the same every time, even if it came from an upload.

    Make one with `ImageSource.of`, though every place that takes a picture does it for you. Nothing is read before the
    source is opened, so do not change an array or close a file in between. Sources are equal only to themselves.

    Paths are looked at anew on each opening. Streams are read once, from where they stand, and kept: up to 1 MiB in
    memory, beyond that in an unnamed temporary file, which vanishes with the source. A stream is broken if reading it
    fails, or if all who are waiting for it are cancelled; other pictures may be opened again, also by several event loops
    at a time. PIL images and arrays become PNG,
    pixel by pixel; EXIF orientation counts for encoded pictures only.
    """

    def __init__(self, loader: Loader) -> None:
        self._loader = loader
        self._turns = Turns()
        self._upright: tuple[Blob, Blob] | None = None

    @property
    def label(self) -> str:
        """What was handed over, in short; never contents."""
        return self._loader.label

    @property
    def key(self) -> Hashable:
        """Equal for the same object and for an equal path; equal keys are sent once."""
        return self._loader.key

    def __repr__(self) -> str:
        return f"<ImageSource {self.label}>"

    @classmethod
    @sealed
    def of(cls, value: ImageInput, *, field: str = "image") -> ImageSource:
        """The source of a picture.

        Args:
            value: a path, bytes, a binary file, a PIL image, an array (uint8 or bool; height x width, or height x width x
                1, 3 or 4), an object with `async read(n)` such as an upload, an async iterable of bytes, or a source.
            field: name of the parameter, for messages.

        Raises:
            InvalidRequestError: something else was passed; the message says what to pass instead.
        """
        if isinstance(value, ImageSource):
            return value
        shared = _streams.get(id(value))
        if shared is not None and shared._is_unread:  # noqa: SLF001 - our own class
            return shared
        source = cls(loader_for(value, field))
        if source._is_unread:
            _streams[id(value)] = source
        return source

    @classmethod
    def derived(
        cls,
        name: str,
        parents: tuple[ImageSource, ...],
        make: Callable[..., Image.Image],
        *,
        size: Callable[..., tuple[int, int]] | None = None,
    ) -> ImageSource:
        """A picture to be made from others, when it is opened; sent as PNG.

        Args:
            name: what it is, for messages.
            parents: the pictures it is made from.
            make: gets the parents as PIL images, upright and not yet decoded, and gives the picture; runs in a worker
                thread. An `InvalidRequestError` it raises gets the field added.
            size: gets the sizes of the parents, (width, height) each, and gives that of the picture, to be held against
                the limits before `make` is called; not needed if it is no larger than a parent.
        """
        return cls(_DerivedLoader(name, parents, make, size))

    @property
    def _is_unread(self) -> bool:
        return isinstance(self._loader, StreamLoader) and self._loader.fresh

    async def open(
        self, limiter: anyio.CapacityLimiter, limits: Limits, *, upright: bool = True, field: str = "image"
    ) -> OpenImage:
        """Bring the picture to rest, and read its header; no pixel is decoded unless the picture has to be turned.

        Args:
            limiter: bounds the worker threads.
            limits: the largest picture, in bytes and in pixels.
            upright: turn a picture with EXIF orientation other than 1, and make it PNG by that.
            field: name of the parameter, for messages.

        Raises:
            ImageError: it cannot be read, is no picture, is damaged or too large.
            ConfigurationError: it is a stream, and another event loop is reading it.
        """
        with _reporting(field, self.label):
            blob = await self._loader.load(limiter, limits, field)
            inspect = functools.partial(self._inspect, blob, limits, upright=upright, field=field)
            async with self._turns.here():  # so that it is turned once
                return await anyio.to_thread.run_sync(inspect, limiter=limiter)

    def _inspect(self, blob: Blob, limits: Limits, *, upright: bool, field: str) -> OpenImage:
        image_format, header = _read_header(blob, limits)
        original = blob
        if upright and header.orientation != 1:
            blob = self._turned(blob, image_format, header.orientation)
            image_format = "png"
            _check_size(blob, limits)
        sides = (header.width, header.height)
        width, height = sides if header.orientation < _FIRST_SIDEWAYS else sides[::-1]
        return OpenImage(
            format=image_format,
            width=width,
            height=height,
            orientation=header.orientation,
            field=field,
            source=self.label,
            blob=blob,
            original=original,
        )

    def _turned(self, blob: Blob, image_format: str, orientation: int) -> Blob:
        kept = self._upright
        if kept is None or kept[0] != blob:
            with _decoding(blob, image_format) as image:
                kept = self._upright = blob, _pixels.encode_png(_pixels.turn(image, orientation))
        return kept[1]

    async def measure(self, limiter: anyio.CapacityLimiter, limits: Limits, *, field: str = "image") -> int:
        """Length of the picture as it was handed over, in bytes; of a file, nothing is read for it.

        Raises:
            ImageError: as for `open`.
        """
        with _reporting(field, self.label):
            return (await self._loader.load(limiter, limits, field)).size

    async def read(self) -> bytes:
        """The encoded picture, as it was handed over.

        Raises:
            ImageError: as for `open`.
        """
        limiter = await one_thread()
        opened = await self.open(limiter, Limits(), upright=False)
        return await anyio.to_thread.run_sync(_read_all, opened, limiter=limiter)

    async def pil(self) -> Image.Image:
        """The decoded picture, upright.

        Raises:
            ImageError: as for `open`, or the pixels are damaged.
        """
        limiter = await one_thread()
        opened = await self.open(limiter, Limits())
        with _reporting(opened.field, opened.source):
            return await anyio.to_thread.run_sync(_decode, opened, limiter=limiter)


class _DerivedLoader(MadeOnce):
    def __init__(
        self,
        name: str,
        parents: tuple[ImageSource, ...],
        make: Callable[..., Image.Image],
        size: Callable[..., tuple[int, int]] | None,
    ) -> None:
        super().__init__(name, ("derived", id(self)))
        self._parents = parents
        self._make = make
        self._size = size

    async def load(self, limiter: anyio.CapacityLimiter, limits: Limits, field: str) -> Blob:
        if self._blob is not None:
            return self._blob
        opened = [await parent.open(limiter, limits, field=field) for parent in self._parents]
        if self._size is not None:
            check_pixels(*self._size(*[(parent.width, parent.height) for parent in opened]), limits)
        return await self._made(self._derive, opened, limiter)

    def _derive(self, opened: list[OpenImage]) -> Blob:
        with contextlib.ExitStack() as stack:
            images = [stack.enter_context(_decoding(parent.blob, parent.format)) for parent in opened]
            return _pixels.encode_png(self._make(*images))


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
        return _reporting(self._image.field, self._image.source)

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
def _reporting(field: str, source: str) -> Iterator[None]:
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


@contextlib.contextmanager
def _decoding(blob: Blob, image_format: str) -> Iterator[Image.Image]:
    """The picture as PIL image, decoded where it is used first; what Pillow raises there becomes an `ImageError`."""
    with as_file(blob) as file:
        image = _pixels.decode(file, image_format)
        try:
            yield image
        except InvalidRequestError:
            raise
        except Exception as exc:
            msg = "its pixels cannot be decoded; the file is damaged or cut off"
            raise ImageError(msg) from exc


def _read_header(blob: Blob, limits: Limits) -> tuple[str, _pixels.Header]:
    _check_size(blob, limits)
    with as_file(blob) as file:
        image_format = _pixels.sniff(file.read(_pixels.SNIFF_SIZE))
        file.seek(0)
        header = _pixels.read_header(file, image_format)
    check_pixels(header.width, header.height, limits)
    return image_format, header


def _check_size(blob: Blob, limits: Limits) -> None:
    if not blob.size:
        msg = "is empty (0 bytes)"
        raise ImageError(msg)
    if blob.size > limits.max_image_bytes:
        raise too_large(limits.max_image_bytes)


def _read_all(opened: OpenImage) -> bytes:
    with opened.reader() as reader:
        return bytes(reader.read(opened.size))


def _decode(opened: OpenImage) -> Image.Image:
    with _decoding(opened.blob, opened.format) as image:
        return image.copy()
