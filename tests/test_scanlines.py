"""Tests of PNG pixels that are decoded and not kept; Pillow is the judge."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zlib
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jobs import picture
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

from picpik_async._pixels import decode, sniff
from picpik_async._scanlines import all_inflate

if TYPE_CHECKING:
    from collections.abc import Sequence

SIDE = 5
ROW = bytes([0, *range(3 * SIDE)])
FILTERS = range(5)
GREY, WHITE = Image.new("L", (9, 9)), Image.new("L", (9, 9), "white")
CHANNELS = {0: 1, 2: 3, 4: 2, 6: 4}


def chunk(kind: bytes, content: bytes = b"") -> bytes:
    """A PNG chunk, its checksum as it should be."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(
    stream: bytes,
    *,
    side: int = SIDE,
    color: int = 2,
    pieces: Sequence[int] = (),
    behind: bytes = b"",
    interlaced: bool = False,
) -> bytes:
    """A picture whose pixels are *stream*, in chunks of the sizes *pieces* and one of the rest."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, color, 0, 0, interlaced))
    parts = []
    for size in pieces:
        parts.append(chunk(b"IDAT", stream[:size]))
        stream = stream[size:]
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(parts) + chunk(b"IDAT", stream) + behind + chunk(b"IEND")


def inflates(data: bytes) -> bool:
    """Whether it is found decodable."""
    return all_inflate(decode(io.BytesIO(data), sniff(data)), data)


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """A picture as a file."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize("color", CHANNELS)
@pytest.mark.parametrize("pieces", [(), (0,), (1, 0, 3)], ids=str)
def test_plain(color: int, pieces: Sequence[int]) -> None:
    """Grey or in colours, with alpha or without, in one chunk or many: pictures as they are usually written."""
    rows = bytes([4, *bytes(SIDE * CHANNELS[color])]) * SIDE

    assert inflates(png(zlib.compress(rows), color=color, pieces=pieces))


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_as_pillow_writes_them(mode: str) -> None:
    """Photographs of many rows."""
    assert inflates(picture(700, mode=mode))


@pytest.mark.parametrize(
    "stream",
    [
        pytest.param(zlib.compress(ROW * SIDE)[:-1], id="checksum cut short"),
        pytest.param(zlib.compress(ROW * SIDE)[:-4] + b"\0\0\0\0", id="another checksum"),
        pytest.param(zlib.compress(ROW * SIDE) + b"\0", id="more behind it"),
        pytest.param(zlib.compress(ROW * (SIDE - 1)), id="a row less"),
        pytest.param(zlib.compress(ROW * (SIDE + 1)), id="a row more"),
        pytest.param(zlib.compress(ROW * SIDE + b"\0"), id="a byte more"),
        pytest.param(zlib.compress(ROW * (SIDE - 1) + b"\5" + ROW[1:]), id="unknown filter"),
        pytest.param(b"", id="empty"),
        pytest.param(b"\0" * 99, id="not compressed"),
    ],
)
def test_damaged(stream: bytes) -> None:
    """What is wrong with the pixels is left to Pillow."""
    assert not inflates(png(stream))


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(encoded(Image.new("1", (9, 9))), id="one bit"),
        pytest.param(encoded(Image.new("P", (9, 9))), id="palette"),
        pytest.param(encoded(Image.new("I;16", (9, 9))), id="16 bits"),
        pytest.param(encoded(GREY, save_all=True, append_images=[WHITE]), id="moving"),
        pytest.param(encoded(GREY, save_all=True, append_images=[WHITE], default_image=True), id="still and moving"),
        pytest.param(png(zlib.compress(ROW * SIDE), interlaced=True), id="interlaced"),
        pytest.param(png(zlib.compress(ROW * SIDE), behind=chunk(b"tEXt", b"a\0b")), id="text behind the pixels"),
        pytest.param(picture(kind="JPEG"), id="JPEG"),
    ],
)
def test_rarer_kinds(data: bytes) -> None:
    """What is not plain is left to Pillow."""
    assert not inflates(data)


@given(
    rows=st.lists(st.integers(0, 5).map(lambda kind: bytes([kind]) + ROW[1:]), min_size=SIDE - 1, max_size=SIDE + 1),
    level=st.integers(0, 9),
    change=st.tuples(st.integers(0, 200), st.integers(0, 255)) | st.none(),
    pieces=st.lists(st.integers(0, 50), max_size=3),
)
def test_pillow_agrees(rows: list[bytes], level: int, change: tuple[int, int] | None, pieces: list[int]) -> None:
    """Whatever is found decodable, Pillow decodes."""
    stream = bytearray(zlib.compress(b"".join(rows), level))
    if change is not None:
        stream[change[0] % len(stream)] ^= change[1]
    data = png(bytes(stream), pieces=pieces)

    if inflates(data):
        PngImageFile(io.BytesIO(data)).load()
    else:
        assert change or len(rows) != SIDE or any(row[0] not in FILTERS for row in rows)


@pytest.mark.parametrize("rows", [2000, 20_000])
def test_memory(rows: int) -> None:
    """Neither a picture of many pixels nor more than it should have is ever in memory."""
    data = png(zlib.compress(bytes([0, *bytes(2000 * 3)]) * rows), side=2000)
    tracemalloc.start()
    found = inflates(data)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert (rows == 2000) is found
    assert most < 2_000_000
