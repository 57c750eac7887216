"""Pictures: decoding, encoding, masks, filling. Pure functions on BGR arrays of shape (height, width, 3), dtype uint8."""

from __future__ import annotations

from typing import Final, TypeAlias, cast

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["Picture", "Weights", "blend", "decode", "encode", "feather", "mask_of", "resized", "tinted"]

Picture: TypeAlias = NDArray[np.uint8]
Weights: TypeAlias = NDArray[np.float32]  # (height, width), from 0 = keep to 1 = redraw

_WHITE: Final = 128
_TINT: Final = 0.4
_FAST: Final = (cv2.IMWRITE_PNG_COMPRESSION, 1)


def decode(data: bytes) -> Picture | None:
    """The pixels as stored, whatever EXIF says of the orientation; None if *data* is no whole picture."""
    try:
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error:
        return None
    return cast("Picture | None", picture)


def encode(picture: Picture) -> bytes:
    """An RGB PNG, compressed for speed."""
    return cv2.imencode(".png", picture, _FAST)[1].tobytes()


def resized(picture: Picture, width: int, height: int) -> Picture:
    """The picture in another size; the same object if the size is right already."""
    if picture.shape[:2] == (height, width):
        return picture
    shrinks = width * height < picture.shape[0] * picture.shape[1]
    how = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    return cast("Picture", cv2.resize(picture, (width, height), interpolation=how))


def mask_of(picture: Picture) -> NDArray[np.bool_]:
    """Where a black and white picture is white."""
    white: NDArray[np.bool_] = picture.max(axis=2) >= _WHITE
    return white


def feather(mask: NDArray[np.bool_], blur: int) -> Weights:
    """Soften the edge of a mask outwards: 1 inside, falling smoothly to exactly 0 at *blur* pixels from it."""
    if blur == 0 or not mask.any():
        return mask.astype(np.float32)
    distance = cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.exp(-4.5 * (distance / blur) ** 2, dtype=np.float32) * (distance < blur)


def blend(picture: Picture, filling: Picture, weights: Weights) -> Picture:
    """*filling* where *weights* is 1, *picture* where it is 0, a mixture between."""
    share = weights[..., None]
    mixed = picture + (filling.astype(np.float32) - picture) * share
    return np.where(share > 0, np.rint(mixed), picture).astype(np.uint8)


def tinted(picture: Picture, reference: Picture, strength: float) -> Picture:
    """Shift the colours a little towards the mean colour of *reference*."""
    share = _TINT * strength
    mean = np.asarray(cv2.mean(reference)[:3])
    return np.rint(picture * (1 - share) + mean * share).astype(np.uint8)
