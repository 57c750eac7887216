"""Uploading with no library at all: threads that read, encode, hash and send; the mark to close in on."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import socket
import ssl
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import pybase64

from benchmarks._pictures import find_mask
from benchmarks._signature import PRIVATE_KEY, PUBLIC_KEY

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from benchmarks._work import Work
    from benchmarks._workers import UploadAll

_THREADS: Final = 8
_SLICE: Final = 768 * 1024  # whole Base64 groups of 3 bytes
_PREFIX: Final = b"data:image/png;base64,"
_START: Final = b'{"Action":"ModifyMaskedPixels","ImageAndMaskList":["'
_END: Final = b'"],"PublicKey":"' + PUBLIC_KEY.encode() + b'","Signature":"%s"}'


@contextlib.asynccontextmanager
async def uploading(work: Work) -> AsyncIterator[UploadAll]:
    """Threads that upload without a turn of the loop."""
    mask = find_mask(Path(work.folder))
    context = ssl.create_default_context(cafile=work.certificate) if work.certificate else None

    def submit_all(pictures: Iterator[Path], lock: threading.Lock) -> None:
        with _connect(work.endpoint, context) as connection:
            while True:
                with lock:
                    picture = next(pictures, None)
                if picture is None:
                    return
                _submit(connection, picture, mask)

    async def upload_all(pictures: Iterator[Path]) -> None:
        lock = threading.Lock()
        loop = asyncio.get_running_loop()
        await asyncio.gather(*(loop.run_in_executor(executor, submit_all, pictures, lock) for _ in range(_THREADS)))

    with ThreadPoolExecutor(_THREADS) as executor:
        yield upload_all


def _connect(endpoint: str, context: ssl.SSLContext | None) -> socket.socket:
    parts = urlsplit(endpoint)
    connection = socket.create_connection((parts.hostname, parts.port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return context.wrap_socket(connection, server_hostname=parts.hostname) if context else connection


def _submit(connection: socket.socket, picture: Path, mask: Path) -> str:
    size = len(_START) + sum(_text_size(path) for path in (picture, mask)) + len(b'","') + len(_END % bytes(40))
    digest = hashlib.sha1(b"ActionModifyMaskedPixelsImageAndMaskList", usedforsecurity=False)
    connection.sendall(b"POST / HTTP/1.1\r\nHost: sink\r\nContent-Length: %d\r\n\r\n%s" % (size, _START))
    for text in _texts(picture):
        digest.update(text)
        connection.sendall(text)
    connection.sendall(b'","')
    for text in _texts(mask):
        digest.update(text)
        connection.sendall(text)
    digest.update(f"PublicKey{PUBLIC_KEY}{PRIVATE_KEY}".encode())
    connection.sendall(_END % digest.hexdigest().encode())
    answer = connection.recv(4096)
    return str(json.loads(answer.partition(b"\r\n\r\n")[2])["TaskUID"])


def _texts(path: Path) -> Iterator[bytes]:
    yield _PREFIX
    with path.open("rb", buffering=0) as file:
        while data := file.read(_SLICE):
            yield pybase64.b64encode(data)


def _text_size(path: Path) -> int:
    return len(_PREFIX) + 4 * -(-path.stat().st_size // 3)
