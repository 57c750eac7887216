"""Pictures on their way in: whatever the user has becomes an `ImageSource`, which can be opened again and again."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import weakref
from typing import TYPE_CHECKING, Final

import anyio
import anyio.to_thread
import attrs

from picpik_async import _pixels
from picpik_async._blobs import as_file, too_large
from picpik_async._config import Limits
from picpik_async._inputs import MadeOnce, Turns, check_pixels, loader_for
from picpik_async._loading import one_thread
from picpik_async._opened import OpenImage, reporting
from picpik_async._sealed import sealed
from picpik_async._streams import StreamLoader
from picpik_async.errors import ImageError, InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator

    from PIL import Image

    from picpik_async._blobs import Blob
    from picpik_async._inputs import ImageInput, Loader
    from picpik_async._opened import ImageReader

__all__ = ["ImageSource"]

# Sources of streams nobody has read yet. A picture and the mask made from it are one upload: both must share the
# source, since the stream can be read once only.
_streams: weakref.WeakValueDictionary[int, ImageSource] = weakref.WeakValueDictionary()

_FIRST_SIDEWAYS: Final = 5  # EXIF orientations 5 to 8 swap the sides
_STEP: Final = 1024 * 1024  # bytes hashed in one go


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
        self._fingerprint: tuple[Blob, str] | None = None

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
        with reporting(field, self.label):
            blob = await self._loader.load(limiter, limits, field)
            inspect = functools.partial(self._inspect, blob, limits, upright=upright, field=field)
            async with self._turns.here():  # so that it is turned once
                return await anyio.to_thread.run_sync(inspect, limiter=limiter)

    def open_here(self, limits: Limits, *, upright: bool = True, field: str = "image") -> OpenImage | None:
        """As `open`, within a worker thread; None if that takes an event loop, or long."""
        with reporting(field, self.label):
            blob = self._loader.load_here()
            if blob is None:
                return None
            image_format, header = _read_header(blob, limits)
            if upright and header.orientation != 1:
                return None
            return self._opened(blob, blob, image_format, header, field)

    def _inspect(self, blob: Blob, limits: Limits, *, upright: bool, field: str) -> OpenImage:
        image_format, header = _read_header(blob, limits)
        original = blob
        if upright and header.orientation != 1:
            blob = self._turned(blob, image_format, header.orientation)
            image_format = "png"
            _check_size(blob, limits)
        return self._opened(blob, original, image_format, header, field)

    def _opened(self, blob: Blob, original: Blob, image_format: str, header: _pixels.Header, field: str) -> OpenImage:
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

    def fingerprint(self, opened: OpenImage) -> str:
        """SHA-256 of the picture as it was handed over; blocks, and reads it once as long as it stays the same.

        Raises:
            ImageError: it cannot be read, or has changed since it was *opened*.
        """
        with attrs.evolve(opened, blob=opened.original).reader() as reader:
            if self._fingerprint is None or self._fingerprint[0] != opened.original:
                self._fingerprint = opened.original, _sha256_of(reader)
            reader.verify()
            return self._fingerprint[1]

    async def measure(self, limiter: anyio.CapacityLimiter, limits: Limits, *, field: str = "image") -> int:
        """Length of the picture as it was handed over, in bytes; of a file, nothing is read for it.

        Raises:
            ImageError: as for `open`.
        """
        with reporting(field, self.label):
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
        with reporting(opened.field, opened.source):
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


def _sha256_of(reader: ImageReader) -> str:
    digest = hashlib.sha256()
    while data := reader.read(_STEP):
        digest.update(data)
    return digest.hexdigest()
