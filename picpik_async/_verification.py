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
from picpik_async._scanlines import all_inflate
from picpik_async.errors import ImageError, InvalidImageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from PIL.ImageFile import ImageFile

__all__ = ["HopelessImageError", "Picture", "check_picture", "picture_of"]

_PNG_SIGNATURE_SIZE: Final = 8
_PNG_FRAME_SIZE: Final = 12  # of a chunk: length, kind and checksum, 4 bytes each
_RIFF_FRAME_SIZE: Final = 8
_14_BITS: Final = 0x3FFF
# In compressed pixels FF 00 is a byte and FF D0 to FF D7 only restart; FF FF is padding.
_JPEG_MARKER: Final = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_JPEG_END: Final = b"\xff\xd9"
# Counted wherever it stands, so that no two parsers can count in two ways; encoders write about ten.
_JPEG_SCAN: Final = b"\xff\xda"
_MAX_SCANS: Final = 100


class Picture:
    """The bytes of one whole picture, which no traceback with locals shows."""

    __slots__ = ("data",)

    def __init__(self, data: bytes) -> None:
        self.data = data


class HopelessImageError(InvalidImageError):
    """Another download would bring the same again."""


def check_picture(data: bytes, max_pixels: int, *, at_once: float = math.inf) -> bool:
    """Decode *data* and forget the pixels; raises as `picture_of`.

    Returns:
        False if it has more than *at_once* pixels, and needs memory for all of them; none is decoded then.
    """
    pixels = _pixels_of(data, max_pixels)
    if sniff(data) == "png" and all_inflate(_opened(data), data):
        return True
    if pixels > at_once:
        return False
    _decoded(data)
    return True


def picture_of(data: bytes, *, max_pixels: float = math.inf) -> ImageFile:
    """The one whole PNG, JPEG or WebP picture that *data* is, decoded; runs in a worker thread.

    Raises:
        InvalidImageError: it is none of these, cut short, damaged, or followed by something else.
        HopelessImageError: it has more than *max_pixels* pixels, or is made to take long; none is decoded.
    """
    _pixels_of(data, max_pixels)
    return _decoded(data)


def _pixels_of(data: bytes, max_pixels: float) -> int:
    """How many pixels it has; raises as `picture_of`, but decodes none."""
    if not _is_whole(data):
        msg = f"{len(data)} bytes that are not one whole PNG, JPEG or WebP picture"
        raise InvalidImageError(msg)
    kind = sniff(data)
    if kind == "jpeg" and data.count(_JPEG_SCAN) > _MAX_SCANS:
        msg = f"the picture has more than {_MAX_SCANS} scans, each of which is decoded over all its pixels"
        raise HopelessImageError(msg)
    width, height = _size_of_webp(data) if kind == "webp" else _opened(data).size
    if width * height > max_pixels:
        msg = f"the picture has {width}×{height} pixels, more than Limits.max_result_pixels"
        raise HopelessImageError(msg)
    return width * height


def _opened(data: bytes) -> ImageFile:
    try:
        return decode(io.BytesIO(data), sniff(data))
    except Exception as error:  # noqa: BLE001 - Pillow raises anything on broken pictures
        msg = f"the picture cannot be decoded ({type(error).__name__})"
        raise InvalidImageError(msg) from None


def _decoded(data: bytes) -> ImageFile:
    picture = _opened(data)
    try:
        picture.load()
    except Exception as error:  # noqa: BLE001 - as above
        msg = f"the picture cannot be decoded ({type(error).__name__})"
        raise InvalidImageError(msg) from None
    return picture


def _size_of_webp(data: bytes) -> tuple[int, int]:
    """As the header states, and as it will be decoded; merely opened, a WebP takes memory for all its pixels.

    See https://www.rfc-editor.org/rfc/rfc9649#section-2.
    """
    if data[12:16] == b"VP8X":
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if data[12:16] == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return 1 + (bits & _14_BITS), 1 + (bits >> 14 & _14_BITS)
    return int.from_bytes(data[26:28], "little") & _14_BITS, int.from_bytes(data[28:30], "little") & _14_BITS


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
