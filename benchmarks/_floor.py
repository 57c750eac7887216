"""Uploading with no library at all: threads that read, encode, hash and send; the mark to close in on."""

from __future__ import annotations

import asyncio
import hashlib
import json
import socket
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import pybase64

from benchmarks._signature import PRIVATE_KEY, PUBLIC_KEY

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_THREADS: Final = 8
_SLICE: Final = 768 * 1024  # whole Base64 groups of 3 bytes
_PREFIX: Final = b"data:image/png;base64,"
_START: Final = b'{"Action":"ModifyMaskedPixels","ImageAndMaskList":["'
_END: Final = b'"],"PublicKey":"' + PUBLIC_KEY.encode() + b'","Signature":"%s"}'


async def upload_all(endpoint: str, pictures: list[Path], mask: Path, rounds: int) -> None:
    """Submit every picture, a few at once, *rounds* times."""
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(_THREADS) as threads:
        work = [loop.run_in_executor(threads, _submit, endpoint, picture, mask) for picture in pictures * rounds]
        await asyncio.gather(*work)


def _submit(endpoint: str, picture: Path, mask: Path) -> str:
    parts = urlsplit(endpoint)
    size = len(_START) + sum(_text_size(path) for path in (picture, mask)) + len(b'","') + len(_END % bytes(40))
    digest = hashlib.sha1(b"ActionModifyMaskedPixelsImageAndMaskList", usedforsecurity=False)
    with socket.create_connection((parts.hostname, parts.port)) as connection:
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
