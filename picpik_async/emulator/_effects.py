"""What each Action draws. A new Action is one function here, under `@draws`.

Nothing here can read: prompts and models are checked and then have no influence on the picture.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias

import attrs

from picpik_async.emulator import _pictures as pictures
from picpik_async.emulator._filling import fill
from picpik_async.emulator._pictures import Picture
from picpik_async.emulator._validation import GENERATION, MASK, MODEL, Check, record, sequence, text

__all__ = ["DRAWINGS", "Drawing", "Effect", "draw", "draws", "modify_masked_pixels"]

Effect: TypeAlias = Callable[[Mapping[str, Any], Sequence[Picture], int], list[Picture]]


@attrs.frozen(kw_only=True)
class Drawing:
    """An Action that makes pictures.

    Attributes:
        check: what its parameters must look like.
        image_fields: the fields that hold an image or a list of images as Base64, in the order of their numbering.
        effect: parameters, decoded images and first seed in, pictures out.
    """

    check: Check
    image_fields: tuple[str, ...]
    effect: Effect


DRAWINGS: Final[dict[str, Drawing]] = {}


def draws(action: str, *, check: Check, image_fields: tuple[str, ...]) -> Callable[[Effect], Effect]:
    """Register an effect as what *action* draws."""

    def register(effect: Effect) -> Effect:
        DRAWINGS[action] = Drawing(check=check, image_fields=image_fields, effect=effect)
        return effect

    return register


def draw(action: str, parameters: Mapping[str, Any], files: Sequence[bytes], seed: int) -> tuple[bytes, ...]:
    """The PNG files that *action* gives for *files*, all of them decodable."""
    images = [picture for file in files if (picture := pictures.decode(file)) is not None]
    return tuple(pictures.encode(picture) for picture in DRAWINGS[action].effect(parameters, images, seed))


@draws(
    "ModifyMaskedPixels",
    check=record(
        {"MainModel": MODEL, "Masked": MASK, "ImageAndMaskList": sequence(text)},
        GENERATION,
    ),
    image_fields=("ImageAndMaskList",),
)
def modify_masked_pixels(parameters: Mapping[str, Any], images: Sequence[Picture], seed: int) -> list[Picture]:
    """Redraw the masked pixels from their surroundings; what lies outside the blurred mask stays as it is.

    See https://picpik.ai/api-docs/api-reference/ModifyMaskedPixels. Prompts and models have no influence: the filling
    comes from the picture itself, and only the seed varies it.
    """
    masked = parameters["Masked"]
    width, height = parameters.get("Width", 1024), parameters.get("Height", 1024)
    picture = pictures.resized(images[masked["ImageIndex"]], width, height)
    mask = pictures.mask_of(pictures.resized(images[masked["MaskIndex"]], width, height))
    weights = pictures.feather(mask ^ masked.get("InvertMask", False), masked.get("MaskBlur", 12))
    results = []
    for batch_seed in range(seed, seed + parameters.get("BatchSize", 1)):
        filling = fill(picture, weights > 0, batch_seed)
        if reference := parameters.get("Image2Image"):
            strength = reference.get("ReferStrength", 0.5)
            filling = pictures.tinted(filling, images[reference["ImageIndex"]], strength)
        results.append(pictures.blend(picture, filling, weights))
    return results
