"""A server that takes uploads as fast as the machine can, and keeps one of them, so that nobody can cheat.

Processes of their own: `python -m benchmarks._sink file number [certificate]` prints its port, and writes the body of a
request with this number, as each process counts them, to the file, which is new. With a certificate it speaks TLS.
"""

from __future__ import annotations

import itertools
import json
import mmap
import os
import socket
import ssl
import sys
import threading
from pathlib import Path
from typing import BinaryIO, Final

_NOWHERE: Final = mmap.mmap(-1, 64 * 1024 * 1024)  # never written to, so it takes no memory
_PROCESSES: Final = 4  # one decrypts 16 requests of 20 MB a second, four 52; the client would wait for the sink
_PART: Final = 256 * 1024
_ANSWER: Final = b'{"RetCode":0,"Action":"ModifyMaskedPixels","Message":"","TaskUID":"task-%d-%d"}'


class Sink:
    """Accepts connections, a thread for each.

    Args:
        file: for the request that is kept.
        keep: its number, from 0 on.
        certificate: a file with a key and its certificates; TLS.
    """

    def __init__(self, file: Path, keep: int, certificate: str | None) -> None:
        self._file = file
        self._keep = keep
        self._numbers = itertools.count()
        self._context: ssl.SSLContext | None = None
        if certificate:
            self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            self._context.load_cert_chain(certificate)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port: int = self._listener.getsockname()[1]

    def serve(self) -> None:
        """Accept for ever."""
        while True:
            connection, _ = self._listener.accept()
            threading.Thread(target=self._converse, args=(connection,), daemon=True).start()

    def _converse(self, connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        stream: _Plain | _Encrypted = _Plain(connection)
        if self._context:
            connection = self._context.wrap_socket(connection, server_side=True)
            stream = _Encrypted(connection)
        with connection:
            while head := stream.read_head():
                length, number = _length(head), next(self._numbers)
                if number == self._keep and (file := self._claim()):
                    with file:
                        file.write(stream.read(length))
                else:
                    stream.discard(length)
                answer = _ANSWER % (os.getpid(), number)
                head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(answer)
                connection.sendall(head + answer)

    def _claim(self) -> BinaryIO | None:
        """The file, unless another process has it."""
        try:
            return self._file.open("xb")
        except FileExistsError:
            return None


class _Plain:
    """Requests as they come from the kernel."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def read_head(self) -> bytes:
        """Up to the end of the headers and no further; nothing at the end of the connection."""
        head = b""
        while b"\r\n\r\n" not in head:
            peeked = self._connection.recv(4096, socket.MSG_PEEK)
            if not peeked:
                return b""
            end = (head + peeked).find(b"\r\n\r\n")
            take = len(peeked) if end < 0 else end + 4 - len(head)
            head += self._connection.recv(take)
        return head

    def read(self, length: int) -> bytes:
        body = bytearray(length)
        view = memoryview(body)
        while view:
            view = view[_received(self._connection.recv_into(view)) :]
        return bytes(body)

    def discard(self, length: int) -> None:
        # The kernel drops the bytes uncopied: the work of the service is not what is measured.
        while length:
            length -= _received(self._connection.recv_into(_NOWHERE, min(length, len(_NOWHERE)), socket.MSG_TRUNC))


class _Encrypted:
    """Requests that have to be decrypted first."""

    def __init__(self, connection: socket.socket) -> None:
        self._file = connection.makefile("rb", buffering=16 * 1024)

    def read_head(self) -> bytes:
        """Up to the end of the headers; nothing at the end of the connection."""
        lines = []
        while (line := self._file.readline()) not in {b"", b"\r\n"}:
            lines.append(line)
        return b"".join(lines)

    def read(self, length: int) -> bytes:
        body: bytes = self._file.read(length)
        return body

    def discard(self, length: int) -> None:
        while length:
            length -= _received(len(self._file.read(min(length, _PART))))


def _length(head: bytes) -> int:
    fields = dict(line.lower().split(b": ", 1) for line in head.strip().split(b"\r\n")[1:])
    return int(fields[b"content-length"])


def _received(count: int) -> int:
    if not count:
        msg = "the connection ended before the request"
        raise ConnectionError(msg)
    return count


def main(file: str, number: str, certificate: str | None = None) -> None:
    """Serve until the input ends."""
    sink = Sink(Path(file), int(number) // _PROCESSES, certificate)
    is_first = all(os.fork() for _ in range(_PROCESSES - 1))  # of those that share the listener
    threading.Thread(target=sink.serve, daemon=True).start()
    if is_first:
        print(json.dumps({"port": sink.port}), flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main(*sys.argv[1:])
