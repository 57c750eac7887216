"""Pictures to upload: noise, so that every one is different and none is smaller than its pixels; all valid PNG."""

from __future__ import annotations

import math
import random
import struct
import zlib
from typing import TYPE_CHECKING, Final

from PIL import Image, ImageDraw

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["find_mask", "find_pictures", "make"]

_COLORS: Final = 3


def make(folder: Path, *, count: int, size: int) -> None:
    """Fill *folder* with *count* pictures of about *size* bytes, and one mask of as many pixels."""
    side = max(1, round(math.sqrt(size / _COLORS)))
    for number in range(count):
        (folder / f"picture-{number:03}.png").write_bytes(_noise(number, side))
    mask = Image.new("L", (side, side))
    ImageDraw.Draw(mask).rectangle((side // 4, side // 4, side // 2, side // 2), fill=255)
    mask.save(folder / "mask.png")


def find_pictures(folder: Path) -> list[Path]:
    """The pictures in *folder*."""
    return sorted(folder.glob("picture-*.png"))


def find_mask(folder: Path) -> Path:
    """The mask for all of them."""
    return folder / "mask.png"


def _noise(seed: int, side: int) -> bytes:
    """A PNG of noise, put together by hand: Pillow takes twice as long to find that noise cannot be compressed."""
    row = 1 + _COLORS * side
    pixels = bytearray(random.Random(seed).randbytes(side * row))
    pixels[::row] = bytes(side)  # each row begins with its filter: none
    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunks = (b"IHDR" + head, b"IDAT" + zlib.compress(pixels, 0), b"IEND")
    framed = (
        b"%b%b%b" % (struct.pack(">I", len(each) - 4), each, struct.pack(">I", zlib.crc32(each))) for each in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(framed)
