"""Pictures to upload: noise, so that every one is different and none is smaller than its pixels; all valid PNG."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["find_mask", "find_pictures", "make"]


def make(folder: Path, *, count: int, width: int, height: int) -> None:
    """Fill *folder* with *count* pictures of 3 bytes a pixel, and one mask of their size."""
    for number in range(count):
        noise = random.Random(number).randbytes(width * height * 3)
        Image.frombytes("RGB", (width, height), noise).save(folder / f"picture-{number:03}.png", compress_level=0)
    mask = Image.new("L", (width, height))
    ImageDraw.Draw(mask).rectangle((width // 4, height // 4, width // 2, height // 2), fill=255)
    mask.save(folder / "mask.png")


def find_pictures(folder: Path) -> list[Path]:
    """The pictures in *folder*."""
    return sorted(folder.glob("picture-*.png"))


def find_mask(folder: Path) -> Path:
    """The mask for all of them."""
    return folder / "mask.png"
