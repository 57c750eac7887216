"""Everything asked of Pillow: headers, decoding, turning upright, PNG out of pictures and arrays.

Everything here blocks and runs in worker threads, and Pillow is imported there for the first time. Plugins are called
directly: `PIL.Image.open` would warn by its own, process-wide limit and try dozens of formats we do not send.
"""

from __future__ import annotations

import math
import sys
import threading
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from picpik_async._blobs import Spool
from picpik_async.errors import ImageError, MaskError

if TYPE_CHECKING:
    from typing import IO

    from PIL import Image
    from PIL.ImageFile import ImageFile

    from picpik_async._blobs import Blob

__all__ = [
    "Header",
    "decode",
    "encode_png",
    "is_pil_image",
    "png_of_array",
    "png_of_pil",
    "read_header",
    "sniff",
    "turn",
]

SNIFF_SIZE: Final = 64  # bytes; enough for every signature below

_SIGNATURES: Final = (
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"\xff\xd8\xff", "jpeg"),
    (b"GIF87a", "gif"),
    (b"GIF89a", "gif"),
    (b"BM", "bmp"),
    (b"II*\0", "tiff"),
    (b"MM\0*", "tiff"),
    (b"8BPS", "psd"),
    (b"%PDF-", "pdf"),
    (b"\0\0\0\x0cJXL ", "jpeg xl"),
    (b"\xff\x0a", "jpeg xl"),
)
_BRANDS: Final = {b"avif": "avif", b"avis": "avif", b"heic": "heic", b"heix": "heic", b"mif1": "heic", b"msf1": "heic"}
_FIRST_PRINTABLE: Final = ord(" ")
_BASE64_STARTS: Final = (b"iVBORw0KGgo", b"/9j/", b"UklGR", b"R0lGOD")

_ORIENTATION_TAG: Final = 0x0112
_CONVERSIONS: Final = {
    "CMYK": "RGB",
    "YCbCr": "RGB",
    "HSV": "RGB",
    "LAB": "RGB",
    "RGBX": "RGB",
    "RGBa": "RGBA",
    "La": "LA",
    "PA": "RGBA",
}
_PNG_MODES: Final = frozenset({"1", "L", "LA", "I;16", "P", "RGB", "RGBA"})

# A picture from PIL.Image.open reads its file on first use, and must not do so in two threads at once.
_loading: Final = threading.Lock()


class Header(NamedTuple):
    """Size in pixels as stored, and EXIF orientation (1 to 8)."""

    width: int
    height: int
    orientation: int


def sniff(head: bytes) -> str:
    """The format the first bytes tell, such as `png`.

    Raises:
        ImageError: they are no picture's.
    """
    for signature, name in _SIGNATURES:
        if head.startswith(signature):
            return name
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "webp"
    if head[4:8] == b"ftyp" and head[8:12] in _BRANDS:
        return _BRANDS[head[8:12]]
    if head.startswith((b"data:", *_BASE64_STARTS)):
        msg = "is Base64 text, not a picture; decode it first with base64.b64decode and pass the bytes"
    elif all(byte in b"\t\n\r" or byte >= _FIRST_PRINTABLE for byte in head):
        msg = "is text, not a picture; the ending of a file name does not count, the contents do"
    else:
        msg = "is not a picture in a known format; convert it to PNG"
    raise ImageError(msg)


def _plugin(image_format: str) -> type[ImageFile]:
    from PIL import GifImagePlugin, JpegImagePlugin, PngImagePlugin, WebPImagePlugin  # noqa: PLC0415

    plugins: dict[str, type[ImageFile]] = {
        "png": PngImagePlugin.PngImageFile,
        "jpeg": JpegImagePlugin.JpegImageFile,
        "webp": WebPImagePlugin.WebPImageFile,
        "gif": GifImagePlugin.GifImageFile,
    }
    if image_format not in plugins:
        msg = f"is a {image_format.upper()} picture, which cannot be sent; convert it to PNG"
        raise ImageError(msg)
    return plugins[image_format]


def decode(file: IO[bytes], image_format: str) -> ImageFile:
    """Open a picture; its pixels are decoded when they are first asked for.

    Raises:
        ImageError: the header is damaged.
    """
    plugin = _plugin(image_format)
    try:
        return plugin(file)
    except ImageError:
        raise
    except Exception as exc:
        msg = f"starts like a {image_format.upper()}, but its header is damaged or cut off"
        raise ImageError(msg) from exc


def read_header(file: IO[bytes], image_format: str) -> Header:
    """Size and orientation, without decoding a pixel.

    Raises:
        ImageError: the header is damaged.
    """
    image = decode(file, image_format)
    return Header(image.width, image.height, _orientation(image))


def _orientation(image: ImageFile) -> int:
    from PIL import Image  # noqa: PLC0415

    try:
        # Not image.getexif(): that of PNG decodes all pixels, in search of EXIF data behind them.
        value = Image.Image.getexif(image).get(_ORIENTATION_TAG, 1)
    except Exception:  # noqa: BLE001 - unreadable EXIF data say nothing about the orientation
        return 1
    return value if value in range(1, 9) else 1


def turn(image: Image.Image, orientation: int) -> Image.Image:
    """The picture as EXIF orientation 1 to 8 wants it to be seen."""
    from PIL.Image import Transpose  # noqa: PLC0415

    methods = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }
    return image.transpose(methods[orientation]) if orientation in methods else image


def encode_png(image: Image.Image) -> Blob:
    """A picture as PNG, without EXIF data; a mode that PNG lacks becomes RGB or RGBA.

    Raises:
        ImageError: the mode has no plain conversion, such as floating point.
    """
    extra: dict[str, Any] = {}
    if image.mode in _CONVERSIONS:
        image = image.convert(_CONVERSIONS[image.mode])
        extra["icc_profile"] = None  # the profile of the old colour space
    if image.mode not in _PNG_MODES:
        msg = f"has PIL mode {image.mode!r}, which PNG cannot hold; scale it to 0-255 and call .convert('L') first"
        raise ImageError(msg)
    spool = Spool()
    image.save(spool, "PNG", compress_level=1, exif=b"", **extra)  # type: ignore[arg-type]
    return spool


def is_pil_image(value: object) -> bool:
    """Whether `value` is a `PIL.Image.Image`; does not import Pillow, without which there is none."""
    module = sys.modules.get("PIL.Image")
    return module is not None and isinstance(value, module.Image)


def png_of_pil(image: Image.Image) -> Blob:
    """A PIL image as PNG: its pixels as they are, whatever its EXIF data say."""
    with _loading:
        image.load()
    return encode_png(image)


_CHANNELS: Final = {1: "L", 3: "RGB", 4: "RGBA"}
_BAND: Final = 1024 * 1024  # pixels copied in one go
_ARRAY_TYPES: Final = frozenset({"|u1", "|b1"})


def describe_array(value: Any) -> str:
    """Shape and type in words, such as `array 480x640x3 uint8`.

    Raises:
        ImageError: it is no picture.
    """
    interface = value.__array_interface__
    shape, kind = tuple(interface["shape"]), str(interface["typestr"])
    words = f"array {'x'.join(map(str, shape))} {getattr(value, 'dtype', kind)}"
    if kind not in _ARRAY_TYPES:
        msg = f"{words}: only uint8 and bool can be sent; for floats from 0 to 1 pass (array * 255).round().astype('uint8')"
        raise ImageError(msg)
    if not (len(shape) == 2 or (len(shape) == 3 and shape[2] in _CHANNELS)) or not math.prod(shape):  # noqa: PLR2004
        msg = f"{words}: the shape must be height x width, or height x width x 1, 3 (RGB) or 4 (RGBA)"
        raise ImageError(msg)
    return words


def png_of_array(value: Any) -> Blob:
    """An array that `describe_array` accepts, as PNG."""
    return encode_png(_image_of_array(value))


def png_of_mask(value: Any) -> Blob:
    """The same of an array that is a mask.

    Raises:
        MaskError: it has the values 0 and 1, as segmentation gives them, which all are black to the service.
    """
    image = _image_of_array(value)
    if image.mode == "L" and image.getextrema()[1] == 1:
        msg = "has only the values 0 and 1, where white is 255; pass mask.astype(bool), or mask * 255"
        raise MaskError(msg)
    return encode_png(image)


def _image_of_array(value: Any) -> Image.Image:
    from PIL import Image  # noqa: PLC0415

    interface = value.__array_interface__
    height, width, *channels = interface["shape"]
    image = Image.new(_CHANNELS[channels[0] if channels else 1], (width, height))
    # In bands, since numpy and Pillow hold the interpreter lock while they copy, which would stall the event loop.
    step = max(1, _BAND // width)
    for top in range(0, height, step):
        rows = value[top : top + step]
        band = Image.frombytes(image.mode, (width, len(rows)), rows.tobytes())
        if interface["typestr"] == "|b1":
            band = band.point(([0] + [255] * 255) * len(band.getbands()))
        image.paste(band, (0, top))
    return image
