"""Uploads in flight: as many at once as there are workers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

__all__ = ["UploadAll", "uploads_of"]

UploadAll = Callable[[Iterator[Path]], Awaitable[None]]


def uploads_of(submit: Callable[[Path], Awaitable[object]], at_once: int) -> UploadAll:
    """A function that submits all of an iterator, *at_once* at a time."""

    async def upload_all(pictures: Iterator[Path]) -> None:
        async def work() -> None:
            for picture in pictures:
                await submit(picture)

        await asyncio.gather(*(work() for _ in range(at_once)))

    return upload_all
