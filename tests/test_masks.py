"""Masks: known answers, properties, and the checks before anything is paid."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import anyio
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from picpik_async import masks
from picpik_async._config import Dialect, Limits
from picpik_async._images import ImageSource
from picpik_async.errors import ImageError, InvalidRequestError, MaskError

if TYPE_CHECKING:
    from collections.abc import Callable

    from picpik_async._opened import OpenImage

pytestmark = pytest.mark.anyio

WIDTH, HEIGHT = 12, 9
PICTURE = Image.effect_noise((WIDTH, HEIGHT), 90).convert("RGB")

sides = st.integers(1, 30)
greys = st.integers(0, 2**32 - 1).flatmap(
    lambda seed: st.builds(
        lambda w, h: np.random.default_rng(seed).integers(0, 256, (h, w)).astype("uint8"), sides, sides
    )
)


def encoded(image: Image.Image, image_format: str = "PNG", **options: Any) -> bytes:
    """The picture, encoded."""
    file = io.BytesIO()
    image.save(file, image_format, **options)
    return file.getvalue()


def sideways(image_format: str = "JPEG") -> bytes:
    """A picture stored as 12 x 9, which is 9 x 12 upright."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(PICTURE, image_format, exif=exif)


async def pixels(source: ImageSource) -> Any:
    """The pixels of a mask, after a look at its mode."""
    image = await source.pil()
    assert "L" == image.mode
    return np.asarray(image)


async def opened(value: Any, field: str) -> OpenImage:
    """Open a picture with the default limits."""
    return await ImageSource.of(value).open(anyio.CapacityLimiter(1), Limits(), field=field)


async def problem(source: ImageSource) -> str:
    """The message of the `MaskError` that opening gives."""
    with pytest.raises(MaskError) as caught:
        await opened(source, "masked.mask")
    assert "masked.mask" == caught.value.field
    return str(caught.value)


class TestFromBoxes:
    """Boxes are white, the rest is black."""

    async def test_known_answer(self) -> None:
        """Left and top belong to a box, right and bottom do not; boxes may overlap."""
        found = await pixels(masks.from_boxes(PICTURE, (0, 0, 2, 3), (1, 1, 12, 2)))
        expected = np.zeros((HEIGHT, WIDTH))
        expected[0:3, 0:2] = 255
        expected[1:2, 1:12] = 255

        assert np.array_equal(expected, found)

    @settings(max_examples=25, deadline=None)
    @given(st.data(), sides, sides)
    def test_the_white_area_is_that_of_the_box(self, data: st.DataObject, width: int, height: int) -> None:
        """A box of w x h pixels makes w * h white pixels."""
        left, right = sorted(data.draw(st.sets(st.integers(0, width), min_size=2, max_size=2)))
        top, bottom = sorted(data.draw(st.sets(st.integers(0, height), min_size=2, max_size=2)))
        found = anyio.run(pixels, masks.from_boxes(Image.new("L", (width, height)), (left, top, right, bottom)))

        assert (height, width) == found.shape
        assert 255 * (right - left) * (bottom - top) == int(found.sum(dtype=int))
        assert (found[top:bottom, left:right] == 255).all()

    async def test_the_picture_is_upright(self) -> None:
        """Coordinates are those of the picture as one sees it."""
        assert (12, 9) == (await pixels(masks.from_boxes(sideways(), (0, 10, 9, 12)))).shape

    async def test_no_pixel_of_the_picture_is_decoded(self) -> None:
        """The header of the picture is enough."""
        cut_off = encoded(PICTURE)[:120]

        assert (HEIGHT, WIDTH) == (await pixels(masks.from_boxes(cut_off, (0, 0, 1, 1)))).shape

    @pytest.mark.parametrize("box", [(-1, 0, 2, 2), (0, -1, 2, 2), (0, 0, 13, 2), (0, 0, 2, 10)])
    async def test_a_box_out_of_the_picture(self, box: tuple[int, int, int, int]) -> None:
        """A box that reaches out of the picture is refused when the size is known."""
        assert (
            f"masked.mask: masks.from_boxes(PIL image, 12x9): box {box} reaches out of the picture, which has 12x9 pixels"
            == await problem(masks.from_boxes(PICTURE, box))
        )

    @pytest.mark.parametrize(
        "box", [(2, 0, 2, 5), (0, 5, 2, 1), (0, 0, 2), (0.5, 0, 2, 2), [(0, 0, 2, 2), (3, 3, 4, 4)], 5, "0022"]
    )
    async def test_what_is_no_box(self, box: Any) -> None:
        """A box is four whole numbers, in order."""
        with pytest.raises(MaskError, match=r"^boxes: .* is not \(left, top, right, bottom\)") as caught:
            masks.from_boxes(PICTURE, box)

        assert "boxes" == caught.value.field

    async def test_no_box(self) -> None:
        """A mask without boxes would redraw nothing."""
        with pytest.raises(MaskError, match="boxes: none given"):
            masks.from_boxes(PICTURE)

    async def test_numbers_of_numpy(self) -> None:
        """The whole numbers of numpy are whole numbers."""
        assert 4 == np.count_nonzero(await pixels(masks.from_boxes(PICTURE, tuple(np.array([0, 0, 2, 2])))))


class TestFromPolygons:
    """Polygons are white, the rest is black."""

    async def test_known_answer(self) -> None:
        """A polygon has its inside and its outline white, without grey edges."""
        triangle = [(0, 0), (4, 0), (0, 4)]
        found = await pixels(masks.from_polygons(PICTURE, triangle, [(10, 7), (11, 7), (11, 8), (10, 8)]))
        expected = np.zeros((HEIGHT, WIDTH))
        for row in range(5):
            expected[row, : 5 - row] = 255
        expected[7:9, 10:12] = 255

        assert np.array_equal(expected, found)

    @settings(max_examples=25, deadline=None)
    @given(st.lists(st.tuples(st.floats(0, WIDTH), st.floats(0, HEIGHT)), min_size=3, max_size=6))
    def test_it_has_two_tones(self, polygon: list[tuple[float, float]]) -> None:
        """Any polygon within the picture gives black and white only."""
        assert {0, 255} >= set(np.unique(anyio.run(pixels, masks.from_polygons(PICTURE, polygon))))

    @pytest.mark.parametrize("point", [(-0.5, 0), (0, 9.5), (12.1, 3), (float("nan"), 1)])
    async def test_a_point_out_of_the_picture(self, point: tuple[float, float]) -> None:
        """A polygon that reaches out of the picture is refused when the size is known."""
        message = await problem(masks.from_polygons(PICTURE, [(1, 1), (2, 2), point]))

        assert "lies outside the picture, which has 12x9 pixels" in message

    @pytest.mark.parametrize("polygon", [[(1, 1), (2, 2)], [1, 1, 2, 2, 3, 3], [(1, 1), (2, 2), (3,)], "abc", 7])
    async def test_what_is_no_polygon(self, polygon: Any) -> None:
        """A polygon is three or more points."""
        with pytest.raises(MaskError, match=r"^polygons: .*zip\(") as caught:
            masks.from_polygons(PICTURE, polygon)

        assert "polygons" == caught.value.field

    async def test_no_polygon(self) -> None:
        """A mask without polygons would redraw nothing."""
        with pytest.raises(MaskError, match="polygons: none given"):
            masks.from_polygons(PICTURE)

    async def test_a_long_polygon_is_shown_in_part(self) -> None:
        """A message does not quote thousands of numbers."""
        with pytest.raises(MaskError) as caught:
            masks.from_polygons(PICTURE, list(range(10000)))  # type: ignore[arg-type]

        assert 400 > len(str(caught.value))


class TestFromAlpha:
    """What is transparent is white."""

    @pytest.mark.parametrize("image_format", ["PNG", "WEBP"])
    async def test_known_answer(self, image_format: str) -> None:
        """Less than half opaque is redrawn."""
        alpha = np.array([[0, 1, 127, 128, 254, 255]], dtype="uint8")
        image = Image.new("RGBA", (6, 1))
        image.putalpha(Image.fromarray(alpha))
        options = {"lossless": True, "exact": True} if image_format == "WEBP" else {}

        found = await pixels(masks.from_alpha(encoded(image, image_format, **options)))
        assert [[255, 255, 255, 0, 0, 0]] == found.tolist()

    async def test_a_transparent_colour(self) -> None:
        """A palette with a transparent colour counts as well."""
        image = Image.fromarray(np.array([[0, 1, 0]], dtype="uint8")).convert("P")

        assert [[255, 0, 255]] == (await pixels(masks.from_alpha(encoded(image, transparency=0)))).tolist()

    async def test_no_alpha(self) -> None:
        """A picture that cannot be transparent is refused."""
        assert "has no alpha channel" in await problem(masks.from_alpha(PICTURE))


class TestThreshold:
    """What is bright is white."""

    @settings(max_examples=25, deadline=None)
    @given(greys, st.integers(1, 255))
    def test_it_is_a_comparison(self, grey: Any, level: int) -> None:
        """A pixel is white if it is at least as bright as the level."""
        assert np.array_equal((grey >= level) * 255, anyio.run(pixels, masks.threshold(grey, level)))

    @pytest.mark.parametrize("level", [0, 256, -1, "128"])
    async def test_a_level_out_of_range(self, level: Any) -> None:
        """The level is 1 to 255."""
        with pytest.raises(InvalidRequestError, match=r"level: .* 1 to 255") as caught:
            masks.threshold(PICTURE, level)

        assert "level" == caught.value.field

    async def test_a_large_picture(self) -> None:
        """A picture that is converted in several bands comes out whole."""
        grey = np.random.default_rng(7).integers(0, 256, (1500, 1501)).astype("uint8")

        assert np.array_equal((grey >= 128) * 255, await pixels(masks.threshold(grey)))

    async def test_16_bit(self) -> None:
        """Half of 16 bit is half, not beyond white."""
        deep = Image.fromarray(np.array([[0, 300, 32767, 32768, 65535]], dtype="uint16"))

        assert [[0, 0, 0, 255, 255]] == (await pixels(masks.threshold(encoded(deep)))).tolist()

    async def test_a_palette_with_transparency(self) -> None:
        """Colours of a palette count by their brightness, with and without transparency, and Pillow warns of nothing."""
        image = Image.fromarray(np.array([[0, 200, 90]], dtype="uint8")).convert("P")

        cases: list[dict[str, Any]] = [{}, {"transparency": bytes([0, 128, 255])}]

        for options in cases:
            assert [[0, 255, 0]] == (await pixels(masks.threshold(encoded(image, **options)))).tolist()

    async def test_a_jpeg_mask_is_rescued(self) -> None:
        """A JPEG mask becomes one that passes the check."""
        image = Image.new("L", (64, 64))
        ImageDraw.Draw(image).ellipse((10, 10, 50, 50), fill=255)
        await masks.check(masks.threshold(encoded(image, "JPEG")))


@settings(max_examples=25, deadline=None)
@given(greys)
def test_inverting_twice_changes_nothing(grey: Any) -> None:
    """The inverse of the inverse is the mask, and the two add up to white."""
    inverse = anyio.run(pixels, masks.invert(grey))

    assert (grey + inverse == 255).all()
    assert np.array_equal(grey, anyio.run(pixels, masks.invert(masks.invert(grey))))


@settings(max_examples=25, deadline=None)
@given(greys, sides, sides)
def test_fit_gives_the_size_of_the_picture_and_no_new_tone(grey: Any, width: int, height: int) -> None:
    """A fitted mask has the size of the picture and only tones it had before."""
    found = anyio.run(pixels, masks.fit(grey, Image.new("RGB", (width, height))))

    assert (height, width) == found.shape
    assert set(np.unique(grey)) >= set(np.unique(found))


async def test_fit_uses_upright_sizes() -> None:
    """A mask is fitted to the picture as one sees it."""
    assert (12, 9) == (await pixels(masks.fit(Image.new("1", (50, 50)), sideways()))).shape


async def test_a_mask_and_a_picture_from_one_stream() -> None:
    """The same unread stream serves the mask and the picture."""
    upload = io.BytesIO(encoded(PICTURE))
    mask = masks.from_boxes(upload, (0, 0, 3, 3))
    source = ImageSource.of(upload)

    assert (HEIGHT, WIDTH) == (await pixels(mask)).shape
    assert encoded(PICTURE) == await source.read()


class TestOutpaint:
    """A larger canvas and the mask of its margins."""

    @settings(max_examples=25, deadline=None)
    @given(st.tuples(*[st.integers(0, 9)] * 4), st.sampled_from(["L", "RGB", "RGBA"]))
    def test_it_extends_the_edges(self, margins: tuple[int, int, int, int], mode: str) -> None:
        """The canvas is the picture with its edge pixels repeated, the mask is white in the margins alone."""
        assume(any(margins))
        left, right, top, bottom = margins
        picture = PICTURE.convert(mode)
        canvas, mask = masks.outpaint(picture, left=left, right=right, top=top, bottom=bottom)
        array = np.asarray(picture)
        padding = ((top, bottom), (left, right), (0, 0))[: array.ndim]

        assert np.array_equal(np.pad(array, padding, "edge"), np.asarray(anyio.run(canvas.pil)))
        expected = np.pad(np.zeros((HEIGHT, WIDTH)), padding[:2], constant_values=255)
        assert np.array_equal(expected, anyio.run(pixels, mask))

    @pytest.mark.parametrize(
        ("image", "mode"),
        [
            (PICTURE.convert("CMYK"), "RGB"),
            (PICTURE.convert("P"), "RGB"),
            (PICTURE.convert("1"), "L"),
            (PICTURE.convert("LA"), "RGBA"),
            (Image.new("I;16", (3, 3), 40000), "L"),
        ],
    )
    async def test_other_modes_become_plain_ones(self, image: Image.Image, mode: str) -> None:
        """Palettes, CMYK and deep grey become plain pixels."""
        image_format = "JPEG" if image.mode == "CMYK" else "PNG"
        canvas, _ = masks.outpaint(encoded(image, image_format), left=1)

        assert mode == (await canvas.pil()).mode

    @pytest.mark.parametrize(("mode", "kept"), [("RGB", True), ("CMYK", False)])
    async def test_the_colour_profile_is_kept(self, mode: str, kept: bool) -> None:
        """A colour profile stays, unless the colour space changes."""
        canvas, _ = masks.outpaint(encoded(PICTURE.convert(mode), "JPEG", icc_profile=b"a profile"), left=1)

        assert kept == ("icc_profile" in (await canvas.pil()).info)

    @pytest.mark.parametrize("margin", [-1, 0.5, "3", None])
    async def test_a_wrong_margin(self, margin: Any) -> None:
        """A margin is a whole number of pixels, 0 or more."""
        with pytest.raises(InvalidRequestError, match=r"top: .* 0 or more") as caught:
            masks.outpaint(PICTURE, top=margin)

        assert "top" == caught.value.field

    async def test_no_margin(self) -> None:
        """Without a margin there is nothing to paint."""
        with pytest.raises(InvalidRequestError, match="all margins are 0"):
            masks.outpaint(PICTURE)

    async def test_a_gigantic_margin(self) -> None:
        """A canvas beyond the limits is refused before it takes memory."""
        canvas, _ = masks.outpaint(PICTURE, left=10**8)

        with pytest.raises(ImageError, match=r"^masked.image: masks.outpaint\(.*\)\[0\]: has 100000012x9 pixels"):
            await opened(canvas, "masked.image")


def grey_mask(*tones: int) -> Image.Image:
    """A mask of one row."""
    return Image.fromarray(np.array([tones], dtype="uint8"))


class TestCheck:
    """What is wrong with a mask, and which function helps."""

    async def test_a_good_mask(self) -> None:
        """A black and white mask of the right size passes."""
        await masks.check(grey_mask(0, 255), Image.new("RGB", (2, 1)))

    @pytest.mark.parametrize(
        ("mask", "words"),
        [
            (grey_mask(0, 0), "is all black, so nothing would be redrawn; white is redrawn"),
            (grey_mask(255, 255), "masks.invert(mask)"),
            (grey_mask(0, 1), "has 0, 1 instead of just 0 (black) and 255 (white); use masks.threshold(mask, level=1)"),
            (grey_mask(9, 9), "has 9 instead"),
            (
                grey_mask(0, 100, 255),
                "has 3 tones instead of just 0 (black) and 255 (white); use masks.threshold(mask, level=127)",
            ),
            (Image.merge("LA", (grey_mask(0, 0), grey_mask(0, 255))), "masks.from_alpha(mask)"),
        ],
    )
    async def test_a_bad_mask(self, mask: Image.Image, words: str) -> None:
        """The message says what to change."""
        with pytest.raises(MaskError) as caught:
            await masks.check(mask)

        assert str(caught.value).startswith("mask: PIL image, ")
        assert words in str(caught.value)
        assert "mask" == caught.value.field

    async def test_another_size(self) -> None:
        """The size is compared with that of the picture, upright."""
        with pytest.raises(
            MaskError, match=r"mask: .*: has 2x1 pixels, the picture 9x12: use masks.fit\(mask, image\)"
        ):
            await masks.check(grey_mask(0, 255), sideways())

    async def test_an_unreadable_mask(self) -> None:
        """A mask that cannot be read is an ImageError."""
        with pytest.raises(ImageError, match=r"^mask: bytes, 0 bytes: is empty"):
            await masks.check(b"")


class TestPreflight:
    """Headers are compared before anything is sent."""

    async def preflight(self, image: Any, mask: Any, **dialect: Any) -> None:
        """Open both and compare."""
        masks.preflight(
            await opened(image, "masked.image"), await opened(mask, "masked.mask"), dialect=Dialect(**dialect)
        )

    @pytest.mark.parametrize("image_format", ["PNG", "WEBP"])
    async def test_a_good_pair(self, image_format: str) -> None:
        """Equal sizes and accepted formats pass."""
        await self.preflight(encoded(PICTURE, "JPEG"), encoded(PICTURE, image_format))

    async def test_a_phone_photo_with_its_mask(self) -> None:
        """A picture stored sideways fits a mask made for the picture as one sees it."""
        await self.preflight(sideways(), Image.new("L", (9, 12)))

    async def test_a_jpeg_mask(self) -> None:
        """A JPEG mask is refused with the reason, unless the dialect has it."""
        await self.preflight(PICTURE, encoded(PICTURE, "JPEG"), mask_formats=frozenset({"jpeg"}))

        with pytest.raises(MaskError, match=r"^masked.mask: bytes, .*: is a JPEG, which blurs") as caught:
            await self.preflight(PICTURE, encoded(PICTURE, "JPEG"))
        assert "masked.mask" == caught.value.field

    @pytest.mark.parametrize("field", ["masked.image", "masked.mask"])
    async def test_another_format(self, field: str) -> None:
        """A GIF is refused, whichever of the two it is."""
        pair = [encoded(PICTURE, "GIF"), PICTURE]
        with pytest.raises(ImageError, match=f"^{field}: .*: is a GIF picture"):
            await self.preflight(*(pair if field == "masked.image" else reversed(pair)))

    async def test_another_size(self) -> None:
        """The message has both sizes and the way out."""
        with pytest.raises(MaskError) as caught:
            await self.preflight(PICTURE, Image.new("L", (10, 9)))

        assert "masked.mask: PIL image, 10x9: has 10x9 pixels, the picture 12x9: use masks.fit(mask, image)" == str(
            caught.value
        )
        assert ("masked.mask", (10, 9), "12x9 pixels") == (
            caught.value.field,
            caught.value.value,
            caught.value.allowed,
        )

    @pytest.mark.parametrize(
        ("image", "mask", "words"),
        [
            (sideways, lambda: PICTURE, "the mask fits the picture as stored"),
            (lambda: PICTURE, lambda: sideways("PNG"), "its EXIF orientation, which is applied, turns it"),
            (lambda: PICTURE, lambda: Image.new("L", (9, 12)), "turn it by 90 degrees"),
        ],
    )
    async def test_swapped_sides(self, image: Callable[[], Any], mask: Callable[[], Any], words: str) -> None:
        """If the sides are swapped the message says why, and offers no stretching."""
        with pytest.raises(MaskError) as caught:
            await self.preflight(image(), mask())

        assert words in str(caught.value)
        assert "fit(" not in str(caught.value)


async def test_all_names_are_documented() -> None:
    """Every public function has a docstring and is in __all__."""
    public = {
        name
        for name, value in vars(masks).items()
        if callable(value) and getattr(value, "__module__", "") == masks.__name__
    }

    assert set(masks.__all__) == {name for name in public if not name.startswith("_")}
    assert all(getattr(masks, name).__doc__ for name in masks.__all__)
