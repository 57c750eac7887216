"""A service whose tasks are all finished, and whose pictures come as fast as the machine can send them.

A process of its own: `python -m benchmarks._gallery folder` prints its port, and serves until its input ends. The task of
`picture-000.png` is called `picture-000`.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
from pathlib import Path
from typing import Final

__all__: list[str] = []

_HEAD: Final = b"HTTP/1.1 200 OK\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n"


class Gallery:
    """Accepts connections, a thread for each.

    Args:
        folder: what is served.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port: int = self._listener.getsockname()[1]

    def serve(self) -> None:
        """Accept for ever."""
        while True:
            connection, _ = self._listener.accept()
            threading.Thread(target=self._converse, args=(connection,), daemon=True).start()

    def _converse(self, connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with connection, connection.makefile("rb") as file:
            while head := b"".join(iter(file.readline, b"\r\n")):
                if head.startswith(b"GET"):
                    self._send_picture(connection, head.split()[1].decode())
                else:
                    fields = dict(line.lower().split(b": ", 1) for line in head.splitlines()[1:])
                    self._send_details(connection, file.read(int(fields[b"content-length"])))

    def _send_picture(self, connection: socket.socket, path: str) -> None:
        descriptor = os.open(self._folder / path[1:], os.O_RDONLY)
        try:
            size = os.fstat(descriptor).st_size
            connection.sendall(_HEAD % (b"image/png", size))
            sent = 0
            while sent < size:  # from the page cache, uncopied
                sent += os.sendfile(connection.fileno(), descriptor, sent, size - sent)
        finally:
            os.close(descriptor)

    def _send_details(self, connection: socket.socket, body: bytes) -> None:
        where = f"http://127.0.0.1:{self.port}"
        rows = [
            {"TaskUID": uid, "Status": "Finished", "ImgList": [f"{where}/{uid}.png"], "ErrorCode": 0}
            for uid in json.loads(body)["TaskUIDList"]
        ]
        answer = json.dumps({"RetCode": 0, "Action": "ListTasksDetailsResponse", "TaskDetailList": rows}).encode()
        connection.sendall(_HEAD % (b"application/json", len(answer)) + answer)


def main(folder: str) -> None:
    """Serve until the input ends."""
    gallery = Gallery(Path(folder))
    threading.Thread(target=gallery.serve, daemon=True).start()
    print(json.dumps({"port": gallery.port}), flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main(*sys.argv[1:])
