"""The contact sheet: before | mask | after, a row for each job."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Final

import attrs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL import Image, ImageDraw

__all__ = ["Row", "contact_sheet"]

GAP: Final = 32
CAPTION: Final = 44  # height of a line of text
TEXT_SIZE: Final = 28
PAPER: Final = (236, 236, 232)
INK: Final = (40, 40, 40)
HEADINGS: Final = ("before", "mask: white is redrawn", "after")


@attrs.frozen(kw_only=True, eq=False)
class Row:
    """One job's pictures.

    Attributes:
        title: what was done.
        before: the picture.
        mask: its mask.
        after: the result.
    """

    title: str
    before: Image.Image
    mask: Image.Image
    after: Image.Image

    @property
    def pictures(self) -> tuple[Image.Image, Image.Image, Image.Image]:
        """From left to right."""
        return self.before, self.mask, self.after

    @property
    def height(self) -> int:
        """Pixels of the tallest picture."""
        return max(picture.height for picture in self.pictures)


def contact_sheet(rows: Sequence[Row]) -> bytes:
    """Put all *rows* on one sheet, as PNG; blocking, so call it in a worker thread."""
    from PIL import Image, ImageDraw  # noqa: PLC0415 - a command that draws nothing starts without Pillow

    cell = max(picture.width for row in rows for picture in row.pictures)
    height = GAP + sum(2 * CAPTION + row.height + GAP for row in rows)
    sheet = Image.new("RGB", (GAP + 3 * (cell + GAP), height), PAPER)
    draw = ImageDraw.Draw(sheet)
    top = GAP
    for row in rows:
        _place(sheet, draw, row, top=top, cell=cell)
        top += 2 * CAPTION + row.height + GAP
    file = io.BytesIO()
    sheet.save(file, "PNG")
    return file.getvalue()


def _place(sheet: Image.Image, draw: ImageDraw.ImageDraw, row: Row, *, top: int, cell: int) -> None:
    draw.text((GAP, top), row.title, fill=INK, font_size=TEXT_SIZE + 6)
    for column, (heading, picture) in enumerate(zip(HEADINGS, row.pictures, strict=True)):
        x = GAP + column * (cell + GAP) + (cell - picture.width) // 2
        y = top + 2 * CAPTION
        draw.text((x, top + CAPTION), heading, fill=INK, font_size=TEXT_SIZE)
        draw.rectangle((x - 1, y - 1, x + picture.width, y + picture.height), outline=INK)
        sheet.paste(picture.convert("RGB"), (x, y))
