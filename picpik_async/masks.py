"""Masks: pictures that say which part of another picture is redrawn. White (255) is redrawn, black (0) stays.

```python
from picpik_async import ModifyMaskedPixels, masks

mask = masks.from_boxes("room.jpg", (120, 300, 480, 560))
request = ModifyMaskedPixels.inpaint("room.jpg", mask)
```

The functions take a picture in any form a request takes one, read nothing, and give a source that is made when it is
needed. Coordinates are pixels of the picture as one sees it: EXIF orientation applied, x to the right, y down from the
upper left corner. `check` decodes a mask and says what is wrong with it. Uploads and other streams can be read once
only: hand the same object to the mask and to the request, in one go, and it is.
"""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any, Final

import anyio.to_thread

from picpik_async import _opened
from picpik_async._config import Limits
from picpik_async._images import ImageSource
from picpik_async._loading import one_thread
from picpik_async._ranges import shown
from picpik_async._sealed import sealed
from picpik_async.errors import InvalidRequestError, MaskError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from PIL import Image

    from picpik_async._config import Dialect
    from picpik_async._inputs import ImageInput

__all__ = ["check", "fit", "from_alpha", "from_boxes", "from_polygons", "invert", "outpaint", "preflight", "threshold"]

WHITE: Final = 255
BLACK: Final = 0
_TRANSPARENT: Final = (WHITE,) * 128 + (BLACK,) * 128  # by alpha
_BAND: Final = 1024 * 1024  # pixels converted in one go
_FIRST_SIDEWAYS: Final = 5  # EXIF orientations 5 to 8 swap the sides


@sealed
def from_boxes(image: ImageInput, *boxes: tuple[int, int, int, int]) -> ImageSource:
    """Redraw what lies in one or more boxes.

    Args:
        image: the picture the mask is for; only its size counts.
        boxes: (left, top, right, bottom) each, in pixels; left and top belong to the box, right and bottom are the first
            pixels beyond it, as with Pillow and with slices.

    Raises:
        MaskError: a box is empty or not four whole numbers; when the mask is opened: a box reaches out of the picture.
    """
    whole = [_box(box) for box in _some(boxes, "boxes", "(left, top, right, bottom)")]

    def make(picture: Image.Image) -> Image.Image:
        mask = _black(picture.size)
        for box in whole:
            if box[0] < 0 or box[1] < 0 or box[2] > picture.width or box[3] > picture.height:
                msg = f"box {box} reaches out of the picture, which has {_words(picture.size)} pixels"
                raise MaskError(msg)
            mask.paste(WHITE, box)
        return mask

    return _derived("from_boxes", image, make)


@sealed
def from_polygons(image: ImageInput, *polygons: Iterable[tuple[float, float]]) -> ImageSource:
    """Redraw what lies in one or more polygons, outlines included.

    Args:
        image: the picture the mask is for; only its size counts.
        polygons: three or more (x, y) points each, in pixels.

    Raises:
        MaskError: a polygon is not three or more points; when the mask is opened: one reaches out of the picture.
    """
    outlines = [_polygon(polygon) for polygon in _some(polygons, "polygons", "[(x, y), (x, y), (x, y), ...]")]

    def make(picture: Image.Image) -> Image.Image:
        from PIL import ImageDraw  # noqa: PLC0415

        mask = _black(picture.size)
        draw = ImageDraw.Draw(mask)
        for outline in outlines:
            for x, y in outline:
                if not (0 <= x <= picture.width and 0 <= y <= picture.height):
                    msg = f"point ({x:g}, {y:g}) lies outside the picture, which has {_words(picture.size)} pixels"
                    raise MaskError(msg)
            draw.polygon(outline, fill=WHITE)
        return mask

    return _derived("from_polygons", image, make)


def from_alpha(image: ImageInput) -> ImageSource:
    """Redraw what is transparent, that is, less than half opaque.

    Args:
        image: a picture with an alpha channel or a transparent colour, such as a PNG with an erased area.

    Raises:
        MaskError: when the mask is opened: nothing in the picture can be transparent.
    """

    def make(picture: Image.Image) -> Image.Image:
        if not picture.has_transparency_data:
            msg = "has no alpha channel; erase the area in a PNG, or use masks.threshold for a black and white picture"
            raise MaskError(msg)
        return _in_bands(picture, lambda band: band.convert("RGBA").getchannel("A").point(_TRANSPARENT))

    return _derived("from_alpha", image, make)


def threshold(image: ImageInput, level: int = 128) -> ImageSource:
    """Make a picture black and white: what is as bright as `level`, or brighter, is redrawn.

    Args:
        image: a mask with grey edges, or any picture; colours count by their brightness.
        level: 1 to 255.

    Raises:
        InvalidRequestError: `level` is out of range.
    """
    whole = _index(level)
    if whole is None or not 1 <= whole <= WHITE:
        msg = f"level: {shown(level)} is not a whole number from 1 to 255"
        raise InvalidRequestError(msg, field="level", value=level, allowed="1 to 255")
    table = [BLACK] * whole + [WHITE] * (256 - whole)
    return _derived("threshold", image, lambda picture: _in_bands(picture, lambda band: _grey(band).point(table)))


def invert(mask: ImageInput) -> ImageSource:
    """Swap white and black: redraw what stayed, keep what was redrawn."""
    table = range(255, -1, -1)
    return _derived(
        "invert", mask, lambda picture: _in_bands(picture, lambda band: _grey(band).point(table)), field="mask"
    )


def fit(mask: ImageInput, image: ImageInput) -> ImageSource:
    """Stretch a mask to the size of a picture; no new grey tones come up.

    Args:
        mask: the mask.
        image: the picture; only its size counts.
    """
    source, target = ImageSource.of(mask, field="mask"), ImageSource.of(image)

    def make(picture: Image.Image, model: Image.Image) -> Image.Image:
        from PIL.Image import Resampling  # noqa: PLC0415

        return _in_bands(picture, _grey).resize(model.size, Resampling.NEAREST)

    return ImageSource.derived(f"masks.fit({source.label}, {target.label})", (source, target), make)


@sealed
def outpaint(
    image: ImageInput, *, left: int = 0, right: int = 0, top: int = 0, bottom: int = 0
) -> tuple[ImageSource, ImageSource]:
    """Prepare a picture for being continued beyond its edges.

    Args:
        image: the picture.
        left: pixels to add at the left.
        right: pixels to add at the right.
        top: pixels to add above.
        bottom: pixels to add below.

    Returns:
        A larger picture, its margins filled with the colours of the nearest edge, and the mask that redraws the margins.

    Raises:
        InvalidRequestError: a margin is negative or not a whole number, or all are 0.
    """
    margins = {"left": left, "right": right, "top": top, "bottom": bottom}
    for name, margin in margins.items():
        if _index(margin) is None or margin < 0:
            msg = f"{name}: {margin!r} is not a number of pixels, 0 or more"
            raise InvalidRequestError(msg, field=name, value=margin, allowed="0 or more")
    if not any(margins.values()):
        msg = "left, right, top, bottom: all margins are 0; give at least one of them, in pixels"
        raise InvalidRequestError(msg, field="left", value=0, allowed="at least one margin above 0")
    source = ImageSource.of(image)

    def size(sides: tuple[int, int]) -> tuple[int, int]:
        return sides[0] + left + right, sides[1] + top + bottom

    def make_canvas(picture: Image.Image) -> Image.Image:
        return _canvas(picture, size(picture.size), left, top)

    def make_mask(picture: Image.Image) -> Image.Image:
        mask = _black(size(picture.size))
        mask.paste(WHITE, (0, 0, *mask.size))
        mask.paste(BLACK, (left, top, left + picture.width, top + picture.height))
        return mask

    return (
        ImageSource.derived(f"masks.outpaint({source.label})[0]", (source,), make_canvas, size=size),
        ImageSource.derived(f"masks.outpaint({source.label})[1]", (source,), make_mask, size=size),
    )


async def check(mask: ImageInput, image: ImageInput | None = None) -> None:
    """Decode a mask and make sure that it will do: black and white, neither empty nor full, and as large as the picture.

    Args:
        mask: the mask.
        image: the picture, if the sizes are to be compared.

    Raises:
        MaskError: what is wrong, and which function of this module helps.
        ImageError: the mask or the picture cannot be read.
    """
    source, other = ImageSource.of(mask, field="mask"), None if image is None else ImageSource.of(image)
    del mask, image  # so that no traceback shows them
    limiter = await one_thread()
    opened = await source.open(limiter, Limits(), field="mask")
    if other is not None:
        _require_same_size(await other.open(limiter, Limits()), opened)
    if problem := await anyio.to_thread.run_sync(_problem, await source.pil(), limiter=limiter):
        msg = f"mask: {source.label}: {problem}"
        raise MaskError(msg, field="mask")


def preflight(image: _opened.OpenImage, mask: _opened.OpenImage, *, dialect: Dialect) -> None:
    """Compare the headers of a picture and its mask, before anything is sent or paid.

    Args:
        image: the picture, opened.
        mask: the mask, opened.
        dialect: which formats are accepted.

    Raises:
        ImageError: the format of one is not accepted.
        MaskError: the mask is a JPEG, or the sizes differ.
    """
    _opened.require_format(image, dialect.image_formats, field=image.field, source=image.source)
    if mask.format == "jpeg" and "jpeg" not in dialect.mask_formats:
        msg = (
            f"{mask.field}: {mask.source}: is a JPEG, which blurs the hard edge of a mask and cannot hold exact black and"
            " white; save the mask as PNG, or use masks.threshold(mask)"
        )
        raise MaskError(msg, field=mask.field)
    _opened.require_format(mask, dialect.mask_formats, field=mask.field, source=mask.source)
    _require_same_size(image, mask)


def _require_same_size(image: _opened.OpenImage, mask: _opened.OpenImage) -> None:
    sides, mask_sides = (image.width, image.height), (mask.width, mask.height)
    if sides == mask_sides:
        return
    if sides != mask_sides[::-1]:
        remedy = "use masks.fit(mask, image)"
    elif image.orientation < _FIRST_SIDEWAYS <= mask.orientation:
        remedy = "its EXIF orientation, which is applied, turns it on its side; save it without EXIF data"
    elif mask.orientation < _FIRST_SIDEWAYS <= image.orientation:
        remedy = (
            "the picture is stored sideways and turned upright by its EXIF orientation, and the mask fits the picture as"
            " stored; make the mask for the upright picture, or turn it likewise"
        )
    else:
        remedy = "one of them lies on its side; turn it by 90 degrees"
    msg = f"{mask.field}: {mask.source}: has {_words(mask_sides)} pixels, the picture {_words(sides)}: {remedy}"
    raise MaskError(msg, field=mask.field, value=mask_sides, allowed=f"{_words(sides)} pixels")


def _problem(mask: Image.Image) -> str | None:
    tones = [tone for tone, count in enumerate(_grey(mask).histogram()) if count]
    if tones == [BLACK, WHITE]:
        return None
    if len(tones) == 1 and mask.has_transparency_data:
        return "its colours are all the same, but it has an alpha channel; use masks.from_alpha(mask)"
    if tones == [BLACK]:
        return "is all black, so nothing would be redrawn; white is redrawn"
    if tones == [WHITE]:
        return (
            "is all white, so everything would be redrawn; if it should be the other way round, use masks.invert(mask)"
        )
    found = ", ".join(map(str, tones)) if len(tones) <= 2 else f"{len(tones)} tones"  # noqa: PLR2004
    return f"has {found} instead of just 0 (black) and 255 (white); use masks.threshold(mask, level={max(tones[-1] // 2, 1)})"


def _derived(name: str, image: ImageInput, make: Callable[..., Image.Image], *, field: str = "image") -> ImageSource:
    source = ImageSource.of(image, field=field)
    return ImageSource.derived(f"masks.{name}({source.label})", (source,), make)


def _black(size: tuple[int, int]) -> Image.Image:
    from PIL import Image  # noqa: PLC0415

    return Image.new("L", size, BLACK)


def _in_bands(picture: Image.Image, convert: Callable[[Image.Image], Image.Image]) -> Image.Image:
    # Pillow holds the interpreter lock during a call: a large picture in one go would stall the event loop.
    mask = _black(picture.size)
    step = max(1, _BAND // picture.width)
    for top in range(0, picture.height, step):
        band = picture.crop((0, top, picture.width, min(top + step, picture.height)))
        mask.paste(convert(band), (0, top))
    return mask


def _grey(picture: Image.Image) -> Image.Image:
    if picture.mode == "P" and picture.has_transparency_data:  # convert("L") would warn
        picture = picture.convert("RGBA")
    if picture.mode.startswith("I;16"):  # convert() would take every brightness from 255 on for white
        picture = picture.point(lambda value: value * (1 / 256))
    return picture.convert("L")


def _plain(picture: Image.Image) -> Image.Image:
    from PIL import Image  # noqa: PLC0415

    if picture.has_transparency_data:
        return picture.convert("RGBA")
    if picture.mode.startswith("I;16"):
        return _grey(picture)
    return picture.convert("L" if Image.getmodebase(picture.mode) == "L" else "RGB")


def _canvas(picture: Image.Image, size: tuple[int, int], left: int, top: int) -> Image.Image:
    from PIL import Image  # noqa: PLC0415

    plain = _plain(picture)
    canvas = Image.new(plain.mode, size)
    canvas.paste(plain, (left, top))
    right, bottom = left + plain.width, top + plain.height
    for x, width, edge in ((0, left, left), (right, size[0] - right, right - 1)):
        if width:
            canvas.paste(canvas.crop((edge, top, edge + 1, bottom)).resize((width, plain.height)), (x, top))
    for y, height, edge in ((0, top, top), (bottom, size[1] - bottom, bottom - 1)):
        if height:
            canvas.paste(canvas.crop((0, edge, size[0], edge + 1)).resize((size[0], height)), (0, y))
    if picture.mode != "CMYK" and "icc_profile" in picture.info:
        canvas.info["icc_profile"] = picture.info["icc_profile"]
    return canvas


def _words(sides: tuple[int, int]) -> str:
    return f"{sides[0]}x{sides[1]}"


def _index(value: Any) -> int | None:
    try:
        return operator.index(value)
    except TypeError:
        return None


def _some(values: tuple[Any, ...], field: str, form: str) -> tuple[Any, ...]:
    if not values:
        msg = f"{field}: none given; pass them one by one, each as {form}"
        raise MaskError(msg, field=field, allowed=form)
    return values


def _box(value: Any) -> tuple[int, int, int, int]:
    numbers = [_index(number) for number in value] if _is_series(value) else []
    match numbers:
        case [int(left), int(top), int(right), int(bottom)] if left < right and top < bottom:
            return left, top, right, bottom
    msg = (
        f"boxes: {shown(value)} is not (left, top, right, bottom) in whole pixels with left < right and top < bottom;"
        " pass several boxes one by one"
    )
    raise MaskError(msg, field="boxes", value=value)


def _polygon(value: Any) -> list[tuple[float, float]]:
    points = [_point(point) for point in value] if _is_series(value) else []
    if len(points) < 3 or None in points:  # noqa: PLR2004
        msg = (
            f"polygons: {shown(value)} is not three or more (x, y) points; pass several polygons one by one, and a flat list"
            " of numbers as zip(numbers[::2], numbers[1::2])"
        )
        raise MaskError(msg, field="polygons", value=value)
    return [point for point in points if point is not None]


def _point(value: Any) -> tuple[float, float] | None:
    try:
        x, y = map(float, value if _is_series(value) else ())
    except (TypeError, ValueError):
        return None
    return x, y


def _is_series(value: Any) -> bool:
    return hasattr(value, "__iter__") and not isinstance(value, (str, bytes))
