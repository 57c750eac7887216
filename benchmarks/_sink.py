"""A server that takes uploads as fast as the machine can, and keeps one of them, so that nobody can cheat.

A process of its own: `python -m benchmarks._sink file number` prints its port, and writes the body of the request with
this number to the file when its input ends.
"""

from __future__ import annotations

import itertools
import json
import mmap
import socket
import sys
import threading
from pathlib import Path
from typing import Final

_NOWHERE: Final = mmap.mmap(-1, 64 * 1024 * 1024)  # never written to, so it takes no memory
_ANSWER: Final = b'{"RetCode":0,"Action":"ModifyMaskedPixels","Message":"","TaskUID":"task-%d"}'


class Sink:
    """Accepts connections, a thread for each.

    Args:
        keep: number of the request that is kept, from 0 on.
    """

    def __init__(self, keep: int) -> None:
        self.kept = b""
        self._keep = keep
        self._numbers = itertools.count()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port: int = self._listener.getsockname()[1]

    def serve(self) -> None:
        """Accept for ever."""
        while True:
            connection, _ = self._listener.accept()
            threading.Thread(target=self._converse, args=(connection,), daemon=True).start()

    def _converse(self, connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with connection:
            while (length := _read_head(connection)) is not None:
                number = next(self._numbers)
                if number == self._keep:
                    self.kept = _read(connection, length)
                else:
                    _discard(connection, length)
                answer = _ANSWER % number
                head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(answer)
                connection.sendall(head + answer)


def _read_head(connection: socket.socket) -> int | None:
    """Read up to the end of the headers and no further; the length of the body, or None at the end of the connection."""
    head = b""
    while b"\r\n\r\n" not in head:
        peeked = connection.recv(4096, socket.MSG_PEEK)
        if not peeked:
            return None
        end = (head + peeked).find(b"\r\n\r\n")
        take = len(peeked) if end < 0 else end + 4 - len(head)
        head += connection.recv(take)
    fields = dict(line.lower().split(b": ", 1) for line in head.strip().split(b"\r\n")[1:])
    return int(fields[b"content-length"])


def _read(connection: socket.socket, length: int) -> bytes:
    body = bytearray(length)
    view = memoryview(body)
    while view:
        view = view[_received(connection.recv_into(view)) :]
    return bytes(body)


def _discard(connection: socket.socket, length: int) -> None:
    # The kernel drops the bytes uncopied: the work of the service is not what is measured.
    while length:
        length -= _received(connection.recv_into(_NOWHERE, min(length, len(_NOWHERE)), socket.MSG_TRUNC))


def _received(count: int) -> int:
    if not count:
        msg = "the connection ended before the request"
        raise ConnectionError(msg)
    return count


def main(file: str, number: str) -> None:
    """Serve until the input ends."""
    sink = Sink(int(number))
    threading.Thread(target=sink.serve, daemon=True).start()
    print(json.dumps({"port": sink.port}), flush=True)
    sys.stdin.read()
    Path(file).write_bytes(sink.kept)


if __name__ == "__main__":
    main(*sys.argv[1:])
