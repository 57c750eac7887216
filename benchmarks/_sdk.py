"""Uploading with the SDK."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from benchmarks._signature import PRIVATE_KEY, PUBLIC_KEY
from picpik_async import Credentials, ModifyMaskedPixels, PicpikSession

if TYPE_CHECKING:
    from pathlib import Path


async def upload_all(endpoint: str, pictures: list[Path], mask: Path, rounds: int) -> None:
    """Submit every picture, all at once, *rounds* times."""
    async with PicpikSession(Credentials(PUBLIC_KEY, PRIVATE_KEY), endpoint=endpoint) as picpik:
        for _ in range(rounds):
            requests = [ModifyMaskedPixels.inpaint(picture, mask).with_prompts("a sofa") for picture in pictures]
            await asyncio.gather(*[picpik.submit(request) for request in requests])
