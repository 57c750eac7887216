"""Tests of what counts as one whole picture."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jobs import picture
from PIL import Image

from picpik_async._verification import HopelessImageError, check_picture, picture_of
from picpik_async.errors import InvalidImageError

PNG, JPEG, WEBP = (picture(kind=kind) for kind in ("PNG", "JPEG", "WEBP"))


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    """A picture as a file."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def noise(**options: Any) -> bytes:
    """A JPEG with options of its own."""
    return encoded(picture_of(picture()), "JPEG", **options)


def segment(marker: int, content: bytes) -> bytes:
    """A JPEG segment."""
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def chunk(kind: bytes, content: bytes = b"") -> bytes:
    """A PNG chunk."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(PNG, id="PNG"),
        pytest.param(JPEG, id="JPEG"),
        pytest.param(WEBP, id="WebP"),
        pytest.param(picture(kind="JPEG", mode="L"), id="grey JPEG"),
        pytest.param(picture(kind="JPEG", mode="CMYK"), id="CMYK JPEG"),
        pytest.param(noise(progressive=True), id="progressive"),
        pytest.param(noise(restart_marker_blocks=1), id="restart markers"),
        pytest.param(noise(comment=b"\xff\xd9"), id="end marker in a comment"),
        pytest.param(JPEG[:2] + segment(0xE1, b"Exif\0\0" + JPEG) + JPEG[2:], id="thumbnail"),
        pytest.param(JPEG[:2] + b"\xff\xff" + JPEG[2:-2] + b"\xff\xff" + JPEG[-2:], id="padding"),
        pytest.param(encoded(Image.new("RGB", (64, 64)), "WEBP", lossless=True), id="lossless WebP"),
        pytest.param(PNG[:33] + chunk(b"tEXt", b"Comment\0IEND") + PNG[33:], id="text chunk"),
    ],
)
def test_whole_pictures(data: bytes) -> None:
    """What encoders write is accepted and decoded."""
    check_picture(data, 64 * 64)

    assert (64, 64) == picture_of(data).size


HTML = b"<html>served by a cache</html>"


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="empty"),
        pytest.param(HTML, id="HTML"),
        pytest.param(picture(kind="GIF"), id="GIF"),
        pytest.param(PNG + HTML + PNG[-12:], id="PNG with something behind its end"),
        pytest.param(PNG + PNG, id="two PNGs"),
        pytest.param(PNG[:-12], id="PNG without end"),
        pytest.param(PNG[:-1], id="PNG cut short"),
        pytest.param(PNG[:8], id="PNG signature"),
        pytest.param(PNG[:33] + b"\xff\xff\xff\xff" + PNG[37:], id="PNG with an endless chunk"),
        pytest.param(JPEG + HTML + JPEG[-2:], id="JPEG with something behind its end"),
        pytest.param(JPEG + JPEG, id="two JPEGs"),
        pytest.param(JPEG[:-2], id="JPEG without end"),
        pytest.param(JPEG[:-1], id="JPEG cut short"),
        pytest.param(JPEG[:4], id="JPEG signature"),
        pytest.param(noise(progressive=True) + JPEG[-2:], id="progressive JPEG with another end"),
        pytest.param(WEBP + HTML, id="WebP with something behind its end"),
        pytest.param(WEBP[:-2], id="WebP cut short"),
        pytest.param(b"RIFF\0\0\0\0WEBP", id="WebP signature"),
    ],
)
def test_not_one_whole_picture(data: bytes) -> None:
    """What is cut short, or has anything behind its end, is refused."""
    with pytest.raises(
        InvalidImageError, match=f"^{len(data)} bytes that are not one whole PNG, JPEG or WebP picture$"
    ):
        check_picture(data, 64 * 64)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(PNG[:33] + PNG[-12:], id="PNG without pixels"),
        pytest.param(JPEG[:20] + JPEG[-2:], id="JPEG without pixels"),
        pytest.param(b"RIFF" + struct.pack("<I", 992) + WEBP[8:1000], id="shortened WebP"),
    ],
)
def test_undecodable(data: bytes) -> None:
    """What looks whole and is none does not get past the decoder."""
    with pytest.raises(InvalidImageError, match=r"^the picture cannot be decoded \(\w+\)$"):
        check_picture(data, 64 * 64)


@given(position=st.integers(0, len(PNG) - 1), bits=st.integers(1, 255))
def test_every_changed_byte_of_a_png_is_found(position: int, bits: int) -> None:
    """PNG has checksums."""
    data = bytearray(PNG)
    data[position] ^= bits

    with pytest.raises(InvalidImageError):
        check_picture(bytes(data), 64 * 64)


@given(
    data=st.sampled_from([PNG, JPEG, WEBP]), start=st.integers(0, 10_000), junk=st.binary(max_size=20) | st.just(JPEG)
)
def test_any_damage_is_our_own_error(data: bytes, start: int, junk: bytes) -> None:
    """Whatever is in the bytes, they are a picture or an `InvalidImageError`."""
    damaged = data[:start] + junk + data[start + len(junk) :]
    try:
        check_picture(damaged, 10**6)
    except InvalidImageError as error:
        assert str(error).isprintable()  # noqa: PT017 - most examples end here, and not all


@given(data=st.sampled_from([PNG, JPEG, WEBP]), size=st.integers(0, 10**6))
def test_every_cut_is_found(data: bytes, size: int) -> None:
    """No beginning of a picture is a picture."""
    with pytest.raises(InvalidImageError):
        check_picture(data[: size % len(data)], 64 * 64)


def test_bomb_by_pixels_is_not_decoded() -> None:
    """A small file of many pixels is refused by its header, and needs no second download."""
    blank = encoded(Image.new("1", (3000, 3000)), "PNG")

    with pytest.raises(HopelessImageError, match=r"3000×3000 pixels, more than Limits\.max_result_pixels"):
        check_picture(blank, 8_999_999)
    check_picture(blank, 9_000_000)


def test_many_scans_are_not_decoded() -> None:
    """A progressive JPEG may have a scan for every few bytes, each of which costs as much as a picture; it is not decoded."""
    data = noise(progressive=True)
    start = data.rindex(b"\xff\xda")
    scans = data.count(b"\xff\xda")
    most = data[:start] + data[start:-2] * (101 - scans) + data[-2:]

    check_picture(most, 64 * 64)
    with pytest.raises(HopelessImageError, match="more than 100 scans"):
        check_picture(data[:start] + data[start:-2] * (102 - scans) + data[-2:], 64 * 64)


def test_large_pictures_are_told_apart() -> None:
    """What is too large to be decoded beside others is not decoded, and said to be so."""
    broken = encoded(picture_of(picture(65)), "JPEG")[:-300] + JPEG[-2:]

    assert check_picture(PNG, 64 * 64, at_once=64 * 64)
    assert not check_picture(broken, 65 * 65, at_once=64 * 64)


@pytest.mark.parametrize("options", [{}, {"lossless": True}, {"exif": b"Exif"}, {"save_all": True}], ids=str)
@pytest.mark.parametrize("size", [(300, 7), (7, 300)])
def test_the_size_of_every_kind_of_webp(options: dict[str, Any], size: tuple[int, int]) -> None:
    """WebP has three kinds of headers, whose sizes are read without making room for the pixels."""
    options = options | ({"append_images": [Image.new("RGB", size, "red")]} if "save_all" in options else {})
    data = encoded(Image.new("RGB", size), "WEBP", **options)

    check_picture(data, 2100)
    with pytest.raises(HopelessImageError, match=f"{size[0]}×{size[1]} pixels"):
        check_picture(data, 2099)


def test_the_limit_is_ours_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow's own limit, a setting of the whole process, neither warns nor refuses."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_picture(PNG, 64 * 64)
