"""The beginning that the bodies of variations have in common: all up to the last picture, read, encoded and hashed once.

Parameters are sorted, and prompts and seeds come after the list of pictures. So the state of the hash after that list is the
same for all variations, and it is copied; the encoded slices are kept as well, as far as memory is allowed for that.
"""

from __future__ import annotations

import asyncio
import hashlib
import weakref
from typing import TYPE_CHECKING, Any

import anyio

from picpik_async._encoding import encoded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Executor
    from hashlib import _Hash

    from picpik_async._layout import Layout

__all__ = ["Stem", "Stems"]


class Stem:
    """The bytes of a body up to its last picture; made in a worker thread.

    Args:
        layout: of one of the bodies.
        slice_size: see `encoded`.
        most: the most bytes to keep; more are encoded again for each body, and only hashed once.

    Attributes:
        digest: the state of the hash behind them; to be copied.
        kept: bytes in memory.
    """

    def __init__(self, layout: Layout, slice_size: int, most: int) -> None:
        self.digest: _Hash = hashlib.sha1(usedforsecurity=False)
        self._pieces = layout.pieces[:-1]
        slices = encoded(self._pieces, slice_size, self.digest.update)
        self._slices = [data for data in slices if layout.size <= most]
        self.kept: int = sum(map(len, self._slices))

    def fits(self, layout: Layout) -> bool:
        """Whether the body begins like this, with the very same pictures."""
        return self._pieces == layout.pieces[:-1]

    def continued(self, layout: Layout, slice_size: int, update: Callable[[bytes], object]) -> Iterator[bytes]:
        """All slices of a body up to the signature; *update* is given what is signed of the rest."""
        yield from self._slices or encoded(self._pieces, slice_size)
        yield from encoded(layout.pieces[-1:], slice_size, update)


class Stems:
    """The stems of a session, each as long as there are requests that share it.

    Args:
        slice_size: see `encoded`.
        executor: the threads that make them.
        most: the most bytes to keep in memory, all together.
    """

    def __init__(self, slice_size: int, executor: Executor, most: int) -> None:
        self._slice_size = slice_size
        self._executor = executor
        self._most = most
        self._places: weakref.WeakKeyDictionary[Any, _Place] = weakref.WeakKeyDictionary()

    async def stem_of(self, kin: object, layout: Layout) -> Stem | None:
        """The stem that requests of one *kin* share; the first one makes it, and the others wait for that.

        Returns:
            None if this one begins in another way, or has no picture.

        Raises:
            ImageError: a picture cannot be read, or has changed since it was opened.
        """
        if not layout.has_pictures:
            return None
        place = self._places.setdefault(kin, _Place())
        async with place.making:
            stem = place.stem = place.stem or await self._made(layout, place)
        return stem if stem.fits(layout) else None

    async def _made(self, layout: Layout, place: _Place) -> Stem:
        left = self._most - sum(other.claim for other in self._places.values())
        place.claim = layout.size if layout.size <= left else 0  # before it is made, since others are made meanwhile
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._executor, Stem, layout, self._slice_size, place.claim)
        except BaseException:
            place.claim = 0
            raise


class _Place:
    """Where a stem is kept, or will be."""

    def __init__(self) -> None:
        self.making = anyio.Lock()
        self.stem: Stem | None = None
        self.claim = 0  # bytes of memory
