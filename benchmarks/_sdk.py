"""Uploading with the SDK."""

from __future__ import annotations

import contextlib
import itertools
import ssl
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks._pictures import find_mask
from benchmarks._signature import PRIVATE_KEY, PUBLIC_KEY
from benchmarks._workers import uploads_of
from picpik_async import Credentials, Limits, ModifyMaskedPixels, PicpikSession

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from benchmarks._work import Work
    from benchmarks._workers import UploadAll

_NO_LIMIT = 2**31


@contextlib.asynccontextmanager
async def uploading(work: Work) -> AsyncIterator[UploadAll]:
    """A session, open."""
    mask = find_mask(Path(work.folder))
    limits = Limits(
        uploads=work.at_once,
        slice_size=work.slice_size or Limits().slice_size,
        max_image_bytes=_NO_LIMIT,
        max_image_pixels=_NO_LIMIT,
    )
    context = ssl.create_default_context(cafile=work.certificate) if work.certificate else None
    numbers = itertools.count()
    with contextlib.ExitStack() as stack:
        journal = None
        if work.journal:
            journal = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=work.journal))) / "journal"
        async with PicpikSession(
            Credentials(PUBLIC_KEY, PRIVATE_KEY), endpoint=work.endpoint, limits=limits, ssl=context, journal=journal
        ) as picpik:

            async def submit(picture: Path) -> None:
                request = ModifyMaskedPixels.inpaint(picture, mask).with_prompts("a sofa").with_size(1024, 1024)
                await picpik.submit(request, key=f"job-{next(numbers)}" if journal else None)

            yield uploads_of(submit, work.at_once)
