"""Tests of what the emulator does to pictures."""

from __future__ import annotations

import io

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from picpik_async.emulator._filling import fill
from picpik_async.emulator._pictures import blend, decode, encode, feather, mask_of, resized, tinted

Pixels = NDArray[np.uint8]


def scene(height: int = 120, width: int = 160) -> Pixels:
    """A picture with shapes and texture."""
    y, x = np.mgrid[0:height, 0:width]
    layers = [x * 255 / width, y * 255 / height, 128 + 100 * np.sin(x / 7) * np.cos(y / 11)]
    return np.stack(layers, axis=2).astype(np.uint8)


def disc(height: int = 120, width: int = 160) -> NDArray[np.bool_]:
    """A hole in the middle."""
    y, x = np.mgrid[0:height, 0:width]
    hole: NDArray[np.bool_] = (y - height // 2) ** 2 + (x - width // 2) ** 2 < 20**2
    return hole


def test_a_png_survives_the_round_trip() -> None:
    """Encoding loses nothing, and the file is an RGB PNG."""
    picture = scene()
    file = encode(picture)

    decoded = decode(file)
    assert decoded is not None
    assert (decoded == picture).all()
    assert ("PNG", "RGB") == ((image := Image.open(io.BytesIO(file))).format, image.mode)


@pytest.mark.parametrize("file", [b"", b"hello", encode(scene())[:-20]])
def test_broken_files_are_no_pictures(file: bytes) -> None:
    """Nothing, nonsense and a truncated file decode to None."""
    assert decode(file) is None


def test_the_exif_orientation_is_ignored() -> None:
    """Pixels come as stored."""
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    Image.new("RGB", (30, 20)).save(buffer, "JPEG", exif=exif)

    picture = decode(buffer.getvalue())
    assert picture is not None
    assert (20, 30, 3) == picture.shape


def test_resizing_leaves_the_right_size_alone() -> None:
    """Only another size makes another picture, smaller or larger."""
    picture = scene()

    assert resized(picture, 160, 120) is picture
    assert (60, 80, 3) == resized(picture, 80, 60).shape
    assert (240, 320, 3) == resized(picture, 320, 240).shape


def test_a_feathered_mask_ends_where_it_should() -> None:
    """Full strength inside, nothing from *blur* pixels outside on, falling between."""
    mask = np.zeros((40, 100), bool)
    mask[:, :50] = True
    weights = feather(mask, 10)

    assert (weights[:, :50] == 1).all()
    assert (weights[:, 59:] == 0).all()
    assert (np.diff(weights[0, 49:60]) < 0).all()


def test_a_mask_without_blur_or_without_white_stays_hard() -> None:
    """No blur means 0 or 1; an empty mask stays empty."""
    mask = disc()

    assert (feather(mask, 0) == mask).all()
    assert not feather(np.zeros_like(mask), 12).any()
    assert (mask_of(np.where(mask[..., None], 200, 100).repeat(3, axis=2).astype(np.uint8)) == mask).all()


def test_blending_keeps_what_is_outside() -> None:
    """Weight 0 keeps, weight 1 replaces, between is between."""
    weights = np.array([[0, 0.5, 1]], np.float32)
    mixed = blend(np.full((1, 3, 3), 10, np.uint8), np.full((1, 3, 3), 20, np.uint8), weights)

    assert [10, 15, 20] == mixed[0, :, 0].tolist()


def test_a_tint_moves_colours_towards_the_reference() -> None:
    """The stronger the reference, the nearer; strength 0 changes nothing."""
    picture, red = scene(), np.full((4, 4, 3), (0, 0, 255), np.uint8)
    reds = [tinted(picture, red, strength)[..., 2].mean() for strength in (0, 0.5, 1)]

    assert reds == sorted(reds)
    assert reds[0] < reds[2]
    assert (tinted(picture, red, 0) == picture).all()


def holes() -> dict[str, NDArray[np.bool_]]:
    """Holes of all kinds."""
    empty = np.zeros((120, 160), bool)
    margins, corner, frame, checkers, sliver = (empty.copy() for _ in range(5))
    margins[:, :40] = margins[:, -30:] = True
    corner[:50] = corner[:, :50] = True
    frame[:] = True
    frame[60, 80] = False
    checkers[::2, ::2] = True
    sliver[:, :157] = True
    return {
        "disc": disc(),
        "margins": margins,
        "margins and disc": margins | disc(),
        "corner": corner,
        "all": ~empty,
        "all but one": frame,
        "checkers": checkers,
        "sliver": sliver,
        "one pixel": np.pad(np.ones((1, 1), bool), ((60, 59), (80, 79))),
    }


@pytest.mark.parametrize("kind", holes())
def test_a_seed_decides_the_filling(kind: str) -> None:
    """The same seed fills alike, another one differently, and always with something new."""
    picture, hole = scene(), holes()[kind]
    fillings = [fill(picture, hole, seed)[hole] for seed in (1, 1, 2)]

    assert (fillings[0] == fillings[1]).all()
    assert (fillings[0] != fillings[2]).any() or kind == "one pixel"
    assert (fillings[0] != picture[hole]).any()


@pytest.mark.parametrize("size", [(64, 64), (64, 2560), (2, 130), (2, 3)])
def test_pictures_of_any_size_are_filled(size: tuple[int, int]) -> None:
    """Thumbnails and long pictures are filled too."""
    picture = scene(*size)
    hole = np.zeros(size, bool)
    hole[: size[0] // 2, : size[1] // 2] = True

    assert picture.shape == fill(picture, hole, 1).shape


def test_nothing_missing_changes_nothing() -> None:
    """Without a hole the picture comes back as it was."""
    picture = scene()

    assert (fill(picture, np.zeros((120, 160), bool), 1) == picture).all()


def test_a_hole_is_filled_with_its_surroundings() -> None:
    """A bright object in a dark, striped picture leaves no bright pixel behind, and stripes go on."""
    _, x = np.mgrid[0:120, 0:160]
    stripes = np.where((x // 8) % 2, 40, 90).astype(np.uint8)[..., None].repeat(3, axis=2)
    marked = stripes.copy()
    marked[disc()] = 255
    grown = cv2.dilate(disc().astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    filled = fill(marked, grown, 1)

    assert filled.max() <= 95
    assert np.abs(filled[grown].astype(int) - stripes[grown]).mean() < 15


def test_a_margin_continues_the_picture() -> None:
    """An outpainted margin meets the picture without a step."""
    hole = np.zeros((120, 160), bool)
    hole[:, :40] = True
    filled = fill(scene(), hole, 1).astype(int)

    assert np.abs(filled[:, 39] - filled[:, 40]).mean() < 12
