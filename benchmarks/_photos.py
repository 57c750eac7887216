"""PNG pictures like photographs: smooth colours under film grain, which inflate and filter as those do."""

from __future__ import annotations

import functools
import os
import random
from concurrent.futures import ProcessPoolExecutor
from typing import TYPE_CHECKING, Final

from PIL import Image, ImageChops

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["make"]

_GRAIN: Final = 6  # standard deviation, of 255; with it a pixel takes about two bytes of a PNG
_PATCH: Final = 64  # pixels of a side of what has one colour, before it is smoothed


def make(folder: Path, *, count: int, width: int, height: int) -> None:
    """Fill *folder* with *count* different pictures."""
    with ProcessPoolExecutor(os.cpu_count()) as processes:
        list(processes.map(functools.partial(_make_one, folder, width, height), range(count)))


def _make_one(folder: Path, width: int, height: int, number: int) -> None:
    rng = random.Random(number)
    grain = _grain(width, height)
    bands = []
    for _ in range(3):
        colours = Image.frombytes("L", (_PATCH, _PATCH), rng.randbytes(_PATCH * _PATCH))
        smooth = colours.crop((0, 0, 2 + width // _PATCH, 2 + height // _PATCH)).resize(
            (width, height), Image.Resampling.BICUBIC
        )
        shifted = ImageChops.offset(grain, rng.randrange(width), rng.randrange(height))
        bands.append(ImageChops.add(smooth, shifted, offset=-128))
    Image.merge("RGB", bands).save(folder / f"picture-{number:03}.png")


@functools.cache
def _grain(width: int, height: int) -> Image.Image:
    return Image.effect_noise((width, height), _GRAIN)
