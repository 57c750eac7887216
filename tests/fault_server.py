"""A server of raw sockets in threads, which does on the wire what the script of a test says, and notes all it was sent."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import struct
import threading
import time
from typing import TYPE_CHECKING, Any, Self

import attrs

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Mapping

SECONDS = 20.0  # no test waits longer for anything
TICK = 0.05  # seconds until a thread that waits for a client looks whether the server stops


@attrs.define(eq=False)
class Exchange:
    """One request as the server sees it, and the means to do something about it.

    Attributes:
        socket: the connection.
        stopped: set when the server shuts down.
        method: such as `POST`.
        target: path and query asked for.
        headers: the request's headers, names in lower case.
        length: the declared size of the body.
        body: what has arrived of it.
        over: no more will arrive: the client has closed, or the script has.
    """

    socket: socket.socket
    stopped: threading.Event
    method: str = ""
    target: str = ""
    headers: Mapping[str, str] = attrs.field(factory=dict)
    length: int = 0
    body: bytearray = attrs.field(factory=bytearray)
    over: bool = False

    @property
    def complete(self) -> bool:
        """Whether the whole request has arrived."""
        return bool(self.target) and len(self.body) == self.length

    @property
    def document(self) -> dict[str, Any]:
        """The whole body, parsed."""
        found: dict[str, Any] = json.loads(self.body)
        return found

    def read(self, size: int | None = None) -> None:
        """Read the body, up to *size* bytes of it in all, as far as the client sends it."""
        wanted = self.length if size is None else min(size, self.length)
        while len(self.body) < wanted and (data := self._receive(wanted - len(self.body))):
            self.body += data

    def drain(self) -> None:
        """Read the body until the client ends the connection or the server stops."""
        self.read()
        while self._receive(1):
            pass

    def hang(self) -> None:
        """Do nothing until the server stops, and read nothing."""
        self.stopped.wait(SECONDS)

    def send(self, data: bytes) -> None:
        """Send raw bytes; a client that is gone is none of our business."""
        self.socket.settimeout(SECONDS)
        with contextlib.suppress(OSError):
            self.socket.sendall(data)
            self.socket.settimeout(TICK)

    def answer(
        self, document: object = None, *, status: int = 200, headers: Mapping[str, object] | None = None
    ) -> None:
        """Send a whole answer: bytes as they are, anything else as JSON."""
        body = document if isinstance(document, bytes) else json.dumps(document).encode()
        self.send(raw_answer(body, status=status, headers=headers))

    def finish(self) -> None:
        """Send FIN, and go on reading what still comes."""
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)
        self.drain()

    def reset(self) -> None:
        """Send RST."""
        self.over = True
        with contextlib.suppress(OSError):
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def receive_head(self) -> bool:
        """Read the request up to its body; False if there is none."""
        data = bytearray()
        while b"\r\n\r\n" not in data:
            byte = self._receive(1)
            if not byte:
                return False
            data += byte
        first, *lines = data.decode("latin-1").split("\r\n")
        self.method, self.target, _ = first.split(" ")
        self.headers = {name.lower(): value for name, value in re.findall(r"([^:\n]+): (.*)", "\n".join(lines))}
        self.length = int(self.headers.get("content-length", 0))
        return True

    def _receive(self, size: int) -> bytes:
        while not (self.over or self.stopped.is_set()):
            try:
                data = self.socket.recv(min(size, 65536))
            except TimeoutError:
                continue
            except OSError:
                data = b""
            self.over = not data
            return data
        return b""


class FaultServer:
    """Runs a script for each request it gets; the last script is for all that follow.

    Attributes:
        requests: all requests, in the order in which they arrived.
        connections: how many were accepted.
    """

    def __init__(self, *scripts: Callable[[Exchange], None], tls: ssl.SSLContext | None = None) -> None:
        self.requests: list[Exchange] = []
        self.connections = 0
        self._scripts = list(scripts)
        self._tls = tls
        self._stopped = threading.Event()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        """The address."""
        return f"{'https' if self._tls else 'http'}://localhost:{self._listener.getsockname()[1]}"

    @property
    def complete(self) -> list[Exchange]:
        """The requests that arrived whole."""
        return [request for request in self.requests if request.complete]

    @property
    def actions(self) -> list[str]:
        """The `Action` of each whole request."""
        return [request.document["Action"] for request in self.complete if request.method == "POST"]

    def settle(self) -> None:
        """Wait until nothing more can arrive of any request."""
        until(lambda: all(request.over for request in self.requests))

    def __enter__(self) -> Self:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self._listener.settimeout(TICK)
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join(SECONDS)
        self._listener.close()

    def _start(self, target: Callable[..., None], *args: Any) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._stopped.is_set():
            with contextlib.suppress(TimeoutError):
                connection, _ = self._listener.accept()
                self.connections += 1
                self._start(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        connection.settimeout(SECONDS)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # what is sent is not lost in a reset after it
        with contextlib.ExitStack() as stack:
            stack.callback(connection.close)
            if self._tls is not None:
                try:
                    connection = self._tls.wrap_socket(connection, server_side=True)
                except OSError:
                    return
                stack.callback(connection.close)
            connection.settimeout(TICK)
            self._converse(connection)

    def _converse(self, connection: socket.socket) -> None:
        over = False
        while not over:
            exchange = Exchange(connection, self._stopped)
            if not exchange.receive_head():
                return
            with self._lock:
                self.requests.append(exchange)
                script = self._scripts.pop(0) if len(self._scripts) > 1 else self._scripts[0]
            script(exchange)
            over = exchange.over or exchange.headers.get("connection") == "close" or not exchange.complete
            exchange.over = True


def raw_answer(body: bytes, *, status: int = 200, headers: Mapping[str, object] | None = None) -> bytes:
    """An HTTP answer; a header that is None is left out."""
    fields = {"Content-Type": "application/json", "Content-Length": len(body)} | dict(headers or {})
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items() if value is not None)
    return f"HTTP/1.1 {status} Whatever\r\n{lines}\r\n".encode() + body


def answering(
    document: object = None, *, status: int = 200, headers: Mapping[str, object] | None = None
) -> Callable[[Exchange], None]:
    """A script: read the whole request and answer it; a callable makes the answer from the request."""

    def script(exchange: Exchange) -> None:
        exchange.read()
        if exchange.complete:
            exchange.answer(document(exchange) if callable(document) else document, status=status, headers=headers)

    return script


def after_reading(*steps: Callable[[Exchange], None] | bytes, size: int | None = None) -> Callable[[Exchange], None]:
    """A script: read *size* bytes of the body, or all, then take *steps*; bytes are sent."""

    def script(exchange: Exchange) -> None:
        exchange.read(size)
        for step in steps:
            if isinstance(step, bytes):
                exchange.send(step)
            else:
                step(exchange)

    return script


def service(
    *,
    submit: Callable[[Exchange], None] | None = None,
    download: Callable[[Exchange], None] | None = None,
    **answers: object,
) -> Callable[[Exchange], None]:
    """A script: a small service.

    Args:
        submit: a script for jobs; left out they are taken as `task-<request_uuid>`.
        download: a script for downloads.
        answers: the answer to each other Action, or a script for it.
    """
    scripts = {name: answer if callable(answer) else answering(answer) for name, answer in answers.items()}

    def script(exchange: Exchange) -> None:
        exchange.read()
        if exchange.method == "GET" and download is not None:
            download(exchange)
        elif exchange.complete:
            scripts.get(exchange.document["Action"], submit or answering(accepted))(exchange)

    return script


def in_turn(*scripts: Callable[[Exchange], None]) -> Callable[[Exchange], None]:
    """A script: one of *scripts* after the other, the last one for all that follow."""
    left = list(scripts)

    def script(exchange: Exchange) -> None:
        turn = left.pop(0) if len(left) > 1 else left[0]
        turn(exchange)

    return script


def details(*images: str, status: str = "Finished", **fields: object) -> Callable[[Exchange], None]:
    """A script: the answer of `ListTasksDetails` for whatever was asked about."""

    def rows(exchange: Exchange) -> dict[str, object]:
        uids = exchange.document["TaskUIDList"]
        return {
            "RetCode": 0,
            "TaskDetailList": [{"TaskUID": uid, "Status": status, "ImgList": images, **fields} for uid in uids],
        }

    return answering(rows)


def accepted(exchange: Exchange) -> dict[str, object]:
    """The answer to a job that was taken."""
    document = exchange.document
    return {"RetCode": 0, "Action": document["Action"], "TaskUID": f"task-{document['request_uuid']}"}


def until(condition: Callable[[], bool]) -> None:
    """Wait, on a thread, until another thread has done its part."""
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end, "another thread did not do its part"
        time.sleep(0.002)
