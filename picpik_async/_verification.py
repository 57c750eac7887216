"""Whether bytes are one whole picture; decoders overlook a missing end, and anything behind it.

Found are: any change of a PNG, whose parts have checksums; bytes missing at the end or added to it, in all formats;
and what the decoder stumbles over. Not found are: a changed byte within the pixels of a JPEG or WebP, which decodes to
other pixels; and a JPEG that lacks a part and still ends as it should.
"""

from __future__ import annotations

import io
import math
import re
import zlib
from typing import TYPE_CHECKING, Final

from picpik_async._pixels import SNIFF_SIZE, decode, sniff
from picpik_async.errors import ImageError, InvalidImageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from PIL.ImageFile import ImageFile

__all__ = ["HopelessImageError", "check_picture", "picture_of"]

_PNG_SIGNATURE_SIZE: Final = 8
_PNG_FRAME_SIZE: Final = 12  # of a chunk: length, kind and checksum, 4 bytes each
_RIFF_FRAME_SIZE: Final = 8
# In compressed pixels FF 00 is a byte and FF D0 to FF D7 only restart; FF FF is padding.
_JPEG_MARKER: Final = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_JPEG_END: Final = b"\xff\xd9"


class HopelessImageError(InvalidImageError):
    """Another download would bring the same again."""


def check_picture(data: bytes, max_pixels: int) -> None:
    """Decode *data* and forget the pixels; raises as `picture_of`."""
    picture_of(data, max_pixels=max_pixels)


def picture_of(data: bytes, *, max_pixels: float = math.inf) -> ImageFile:
    """The one whole PNG, JPEG or WebP picture that *data* is, decoded; runs in a worker thread.

    Raises:
        InvalidImageError: it is none of these, cut short, damaged, or followed by something else.
        HopelessImageError: it has more than *max_pixels* pixels; none is decoded.
    """
    if not _is_whole(data):
        msg = f"{len(data)} bytes that are not one whole PNG, JPEG or WebP picture"
        raise InvalidImageError(msg)
    try:
        picture = decode(io.BytesIO(data), sniff(data))
        if picture.width * picture.height <= max_pixels:
            picture.load()
            return picture
    except Exception as error:  # noqa: BLE001 - Pillow raises anything on broken pictures
        msg = f"the picture cannot be decoded ({type(error).__name__})"
        raise InvalidImageError(msg) from None
    msg = f"the picture has {picture.width}×{picture.height} pixels, more than Limits.max_image_pixels"
    raise HopelessImageError(msg)


def _is_whole(data: bytes) -> bool:
    try:
        end_of = _ENDS.get(sniff(data[:SNIFF_SIZE]))
    except ImageError:
        return False
    return end_of is not None and end_of(data) == len(data)


def _end_of_png(data: bytes) -> int | None:
    """The position behind the chunk `IEND`; https://www.w3.org/TR/png-3/#5Chunk-layout."""
    view, start = memoryview(data), _PNG_SIGNATURE_SIZE
    while start + _PNG_FRAME_SIZE <= len(data):
        end = start + _PNG_FRAME_SIZE + int.from_bytes(data[start : start + 4])
        if zlib.crc32(view[start + 4 : end - 4]) != int.from_bytes(data[end - 4 : end]):
            return None
        if data[start + 4 : start + 8] == b"IEND":
            return end
        start = end
    return None


def _end_of_jpeg(data: bytes) -> int | None:
    """The position behind the first end marker that is not inside a segment, as that of a thumbnail would be."""
    start = len(b"\xff\xd8")
    while found := _JPEG_MARKER.search(data, start):
        start = found.end()
        if found[0] == _JPEG_END:
            return start
        start += int.from_bytes(data[start : start + 2])  # the segment's length, which counts itself
    return None


def _end_of_webp(data: bytes) -> int:
    """The end that the RIFF header states."""
    return _RIFF_FRAME_SIZE + int.from_bytes(data[4:8], "little")


_ENDS: Final[dict[str, Callable[[bytes], int | None]]] = {
    "png": _end_of_png,
    "jpeg": _end_of_jpeg,
    "webp": _end_of_webp,
}
