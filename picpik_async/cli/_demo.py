"""The demo: one real photograph, repaired and widened at the same time on an embedded emulator.

The photograph is the portrait of astronaut Eileen Collins, NASA, 1999: a work of the United States government, in the
public domain. `astronaut.jpg` is the copy that ships with scikit-image (512 × 512), saved as JPEG.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import anyio
import anyio.to_thread

from picpik_async import masks
from picpik_async._files import write_atomically
from picpik_async._images import ImageSource
from picpik_async._requests import ModifyMaskedPixels
from picpik_async.cli._jobs import document_of, ended, follow, submit, summary_of
from picpik_async.cli._sheet import Row, contact_sheet
from picpik_async.errors import DownloadError, PicpikError

if TYPE_CHECKING:
    from picpik_async.cli._run import Desk

__all__ = ["show"]

PHOTO: Final = Path(__file__).with_name("astronaut.jpg")
SOURCE: Final = "astronaut Eileen Collins, NASA, 1999, public domain, as shipped by scikit-image"
SEED: Final = 1999
PATCH: Final = (171, 385, 46)  # center and radius of the mission patch on the suit, with some margin
MARGIN: Final = 112


async def show(desk: Desk, out: Path) -> None:
    """Draw both pictures, save them and a contact sheet to *out*, and tell where they are.

    Raises:
        PicpikError: a job failed; the other one was finished and saved.
        DownloadError: the contact sheet cannot be written.
    """
    desk.output.note(f"photograph: {SOURCE}")
    jobs = {
        "remove the mission patch": (without_patch(), out / "without-patch.png"),
        "widen the picture": (widened(), out / "wider.png"),
    }
    rows: dict[str, Row] = {}
    documents: dict[str, dict[str, Any]] = {}
    errors: list[PicpikError] = []

    async def draw(job: str) -> None:
        request, file = jobs[job]
        try:
            rows[job], documents[job] = await _draw(desk, job, request, file)
        except PicpikError as error:
            errors.append(error)

    with desk.progress:
        async with anyio.create_task_group() as group:
            for job in jobs:
                group.start_soon(draw, job)
    if errors:
        raise errors[0]
    sheet = out / "contact-sheet.png"
    await anyio.to_thread.run_sync(_save_sheet, [rows[job] for job in jobs], sheet)
    desk.output.note(
        "the emulator really inpaints, but it cannot read prompts; open the contact sheet to see the result:"
    )
    desk.output.result(
        {"photograph": SOURCE, "jobs": [documents[job] for job in jobs], "contact_sheet": str(sheet)},
        [*(file for _, file in jobs.values()), sheet],
    )


def without_patch() -> ModifyMaskedPixels:
    """The request that replaces the patch by cloth."""
    x, y, radius = PATCH
    angles = [math.tau * step / 64 for step in range(64)]
    circle = [(x + radius * math.cos(angle), y + radius * math.sin(angle)) for angle in angles]
    mask = masks.from_polygons(PHOTO, circle)
    return ModifyMaskedPixels.inpaint(PHOTO, mask, prompts="plain orange cloth", seed=SEED)


def widened() -> ModifyMaskedPixels:
    """The request that continues the picture to the left and right."""
    return ModifyMaskedPixels.outpaint(PHOTO, left=MARGIN, right=MARGIN, prompts="a photo studio", seed=SEED)


async def _draw(desk: Desk, job: str, request: ModifyMaskedPixels, file: Path) -> tuple[Row, dict[str, Any]]:
    with ended(desk.progress, job):
        task = await submit(desk, request, job=job)
        result = await follow(desk, task, job=job, timeout=None)
        picture = result.images[0]
        row = Row(
            title=job,
            before=await ImageSource.of(PHOTO).pil(),
            mask=await request.images()["masked.mask"].pil(),
            after=await picture.pil(),
        )
        files = [await picture.save(file)]
        desk.progress.tell(job, summary_of(result, files), last=True)
    return row, document_of(result, files)


def _save_sheet(rows: list[Row], file: Path) -> None:
    try:
        write_atomically(contact_sheet(rows), file)
    except OSError as error:
        msg = f"cannot write {file}: {error.strerror}"
        raise DownloadError(msg) from error
