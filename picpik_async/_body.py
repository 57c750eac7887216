"""Ordered parameters and images to a signed JSON body, in one pass.

The signature is a SHA-1 over all parameters in sorted order, Base64 text included, and the order of JSON keys is free. So
the body is written in that same sorted order: each slice of an image is encoded, hashed and sent, and `"Signature"` goes
last. The length is known beforehand and the memory constant. The last bytes, the *tail*, hold the signature; until they
are handed to the transport the service cannot have a complete request. A body is built anew for each attempt.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from typing import TYPE_CHECKING, Final, Protocol, Self

from picpik_async._encoding import encoded
from picpik_async.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator
    from concurrent.futures import Executor

    from picpik_async._config import Secret
    from picpik_async._layout import Layout
    from picpik_async._stems import Stem

__all__ = ["Body", "Outlet"]

_TAIL_START: Final = b',"Signature":"'
_TAIL_END: Final = b'"}'
_TAIL_SIZE: Final = len(_TAIL_START) + 40 + len(_TAIL_END)
_TURN_SECONDS: Final = 0.1
# What threads send themselves goes in larger slices, since each means four fights for the interpreter: 1.2 × the rate. What
# passes the event loop does not, as it would take half as much memory again, and stall the loop for 70 ms instead of 45.
_THREADS_SLICES: Final = 2


class Outlet(Protocol):
    """A way for slices to leave from the worker thread that made them, without a detour over the event loop."""

    @property
    def is_clear(self) -> bool:
        """Whether all that was sent before has left; asked on the event loop."""
        ...

    def offer(self, data: bytes) -> bytes:
        """Send of *data* what leaves at once, and return the rest; called in worker threads."""
        ...


class Body:
    """A signed JSON body that is made while it is sent, for one attempt.

    Send what `head()` yields, then `tail()`; together they are `size` bytes.

    Args:
        layout: what to send.
        private_key: signs it.
        slice_size: bytes of a picture that are encoded in one go.
        executor: the threads for that.
        locked: see below.
        stem: the beginning of it, made for another body.

    Attributes:
        size: bytes of the whole.
        locked: there is no tail yet; what must come before it has not come.
    """

    def __init__(
        self,
        layout: Layout,
        private_key: Secret,
        *,
        slice_size: int,
        executor: Executor,
        locked: bool = False,
        stem: Stem | None = None,
    ) -> None:
        self.size: int = layout.size + _TAIL_SIZE
        self.locked = locked
        self._layout = layout
        self._stem = stem
        self._private_key = private_key
        self._step = slice_size
        self._executor = executor
        self._digest = hashlib.sha1(usedforsecurity=False)
        self._unmade = layout.size
        self._made: list[bytes] = []

    def __repr__(self) -> str:
        return f"<Body of {self.size} bytes>"

    def made_if_small(self) -> Self:
        """This body, its head made beforehand if it is one slice; in a worker thread."""
        if self.size <= self._step:
            self._made.append(next(self._slices(self._step)))
        return self

    async def head(self, outlet: Outlet | None = None) -> AsyncGenerator[bytes, None]:
        """All bytes up to the tail, in slices made in worker threads; a request without pictures is one, made here.

        Args:
            outlet: what leaves through it is not yielded; it is offered nothing while a yielded slice has not left.
        """
        slices = self._slices(self._step if outlet is None else _THREADS_SLICES * self._step)
        if not self._layout.has_pictures:
            self._made.append(next(slices))
        if self._made:
            yield self._made.pop()
            return
        while self._unmade:
            way_out = outlet if outlet is not None and outlet.is_clear else None
            # An executor goes on to the next slice without a turn of the loop in between, unlike anyio's threads: half
            # again as many 20 MB pictures per second. Its own size bounds the threads, whoever is cancelled.
            yield await asyncio.get_running_loop().run_in_executor(self._executor, self._advance, slices, way_out)

    def _advance(self, slices: Iterator[bytes], outlet: Outlet | None) -> bytes:
        """Make slices as long as they leave through the *outlet*; returns what does not.

        One upload goes on as long as the connection takes it: with turns of 8 slices the server had 32 connections to
        look after rather than 4, and each picture took 38 ms of processor time rather than 28.
        """
        end = time.monotonic() + _TURN_SECONDS
        while self._unmade:
            data = next(slices)
            self._unmade -= len(data)
            if outlet is None:
                return data
            if (rest := outlet.offer(data)) or time.monotonic() > end:
                return rest
        return b""

    def tail(self) -> bytes:
        """The last bytes, which make the body valid; call it once, after `head()` is exhausted.

        Raises:
            ConfigurationError: the transport has not awaited `before_tail`, or not heeded what it raised.
        """
        if self.locked:
            msg = "the transport must await before_tail() before it asks for the tail, and let through what it raises"
            raise ConfigurationError(msg)
        self._digest.update(self._private_key.reveal().encode())
        return _TAIL_START + self._digest.hexdigest().encode() + _TAIL_END

    def _slices(self, size: int) -> Iterator[bytes]:
        if self._stem is None:
            return encoded(self._layout.pieces, size, self._digest.update)
        self._digest = self._stem.digest.copy()
        return self._stem.continued(self._layout, size, self._digest.update)
