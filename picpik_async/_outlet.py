"""Sending from worker threads on a connection that belongs to the event loop.

Whoever has made a slice of a body sends it at once, while it is in the processor's cache, instead of handing it over to
the event loop, which would be busy with copying: twice as many 20 MB pictures per second. Four rules make that safe:

- Only plain connections: with TLS the bytes have to go through the event loop's cipher.
- Only what leaves at once; the rest goes to the event loop, and nothing is offered until that has left. For the event loop
  to say so, it has to write at once: uvloop keeps what is below its limit until the end of a turn, and does not count it.
- A descriptor of our own, since that of the connection may be closed, and its number be another connection's, at any time.
- A lock, so that nothing leaves after `close`.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    import asyncio

__all__ = ["SocketOutlet"]


class SocketOutlet:
    """The way out through the socket of *connection*; see `_body.Outlet`."""

    def __init__(self, connection: asyncio.Transport) -> None:
        self._sent = 0
        connection.set_write_buffer_limits(high=0)
        self._connection = connection
        self._socket: socket.socket | None = None
        self._lock = threading.Lock()
        self._closed = False

    @classmethod
    def of(cls, connection: asyncio.Transport) -> Self | None:
        """The outlet of a plain connection; None if it is another kind."""
        is_plain = connection.get_extra_info("sslcontext") is None and connection.get_extra_info("socket") is not None
        return cls(connection) if is_plain else None

    @property
    def is_clear(self) -> bool:
        """Whether all that the event loop had to send has left."""
        if self._socket is None and not self._closed:
            with contextlib.suppress(OSError):  # there are too many descriptors; the event loop can send without
                self._socket = socket.socket(fileno=os.dup(self._connection.get_extra_info("socket").fileno()))
                self._socket.setblocking(False)  # noqa: FBT003 - its only parameter has no name
        return not self._connection.get_write_buffer_size()

    def offer(self, data: bytes) -> bytes:
        """Send of *data* what leaves at once, and return the rest; an error is left to whoever sends that."""
        with self._lock:
            if self._socket is None:
                return data
            try:
                count = self._socket.send(data)
            except OSError:
                return data
            self._sent += count
        return data[count:]

    def take_sent(self) -> int:
        """How many bytes have left since this was asked last."""
        sent, self._sent = self._sent, 0
        return sent

    def close(self) -> None:
        """Let nothing leave any more."""
        with self._lock:
            self._closed = True
            if self._socket is not None:
                self._socket.close()
                self._socket = None
