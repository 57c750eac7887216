"""Pieces of a request to bytes, slice by slice, hashed on the way; everything here blocks and runs in worker threads."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pybase64

from picpik_async._layout import Text, base64_size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from picpik_async._layout import Picture

__all__ = ["encoded"]


def encoded(
    pieces: Iterable[Text | Picture], slice_size: int, update: Callable[[bytes], object] = lambda _signed: None
) -> Iterator[bytes]:
    """The bytes of *pieces*, in slices of about the same length.

    Args:
        pieces: texts and pictures.
        slice_size: bytes of a picture that are read and encoded in one go.
        update: is given all that is signed, in order.
    """
    step = slice_size - slice_size % 3  # whole Base64 groups, so that slices join without padding
    texts = _Texts(4 * step // 3)
    for piece in pieces:
        if isinstance(piece, Text):
            if texts.are_enough(len(piece.json)):
                yield texts.taken()
            texts.add(piece.json)
            update(piece.signed)
            continue
        texts.add(piece.prefix)
        update(piece.prefix)
        with piece.image.reader() as reader:
            for start in range(0, piece.image.size, step):
                if texts.are_enough(base64_size(min(step, piece.image.size - start))):
                    yield texts.taken()
                update(texts.add(pybase64.b64encode(reader.read(step))))
            reader.verify()
    yield texts.taken()


class _Texts:
    """What the next slice is joined of.

    Args:
        longest: bytes of a slice; a short text at its beginning comes on top.
    """

    def __init__(self, longest: int) -> None:
        self._longest = longest
        self._size = 0
        self._texts: list[bytes] = []

    def are_enough(self, more: int) -> bool:
        """Whether to send what there is before *more* bytes are added."""
        return self._size + more > self._longest and 2 * self._size > self._longest

    def add(self, text: bytes) -> bytes:
        """Add *text*, and return it."""
        self._texts.append(text)
        self._size += len(text)
        return text

    def taken(self) -> bytes:
        """All texts as one, and none kept: 32 uploads that wait for their turn would hold 32 slices."""
        data = b"".join(self._texts)
        self._texts.clear()
        self._size = 0
        return data
