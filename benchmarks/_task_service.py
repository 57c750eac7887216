"""A service that tells of any task whatever word it was last told, in a process of its own.

It prints its port, answers `ListTasksDetails` as the documentation shows it, and serves until its input ends. `POST /tell/word`
changes the word of all tasks; every path under `/tell` answers how many requests and ids there were so far.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Final

import orjson

_ROW: Final = (
    b'{"TaskUID":"%s","Action":"ModifyMaskedPixels","Status":"%s","ImgList":[%s],"Seed":%d,"TxtList":[],'
    b'"ConsumeApiPoint":12,"ErrorCode":0,"ErrorMassage":""}'
)
_ANSWER: Final = (
    b'{"RetCode":0,"Action":"ListTasksDetails","Message":"","request_uuid":"5ae03609-451b-44d7-a351-c72904df881b",'
    b'"TaskDetailList":[%s]}'
)
_PICTURES: Final = b",".join(
    b'"https://results.picpik.ai/2026/%%s/%d.png?Expires=1790000000&Signature=%s"' % (number, b"q" * 64)
    for number in range(2)
)


class Service:
    """What it tells of tasks, and how often it was asked."""

    def __init__(self) -> None:
        self._word = b"Running"
        self._requests = self._ids = 0

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length: "))[16:]
                body = await reader.readexactly(int(length))
                path = head.split(b" ", 2)[1]
                answer = self._tell(path) if path.startswith(b"/tell") else self._details(body)
                fields = b"Content-Type: application/json\r\nContent-Length: %d" % len(answer)
                writer.write(b"HTTP/1.1 200 OK\r\n" + fields + b"\r\n\r\n" + answer)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    def _tell(self, path: bytes) -> bytes:
        self._word = path[len(b"/tell/") :] or self._word
        return orjson.dumps({"requests": self._requests, "ids": self._ids})

    def _details(self, body: bytes) -> bytes:
        uids = orjson.loads(body)["TaskUIDList"]
        self._requests += 1
        self._ids += len(uids)
        return _ANSWER % b",".join([self._row(uid.encode()) for uid in uids])

    def _row(self, uid: bytes) -> bytes:
        pictures = _PICTURES % (uid, uid) if self._word == b"Finished" else b""
        return _ROW % (uid, self._word, pictures, hash(uid) % 2**31)


async def main() -> None:
    """Serve until the input ends."""
    server = await asyncio.start_server(Service().converse, "127.0.0.1", 0, backlog=2048, limit=4 * 1024 * 1024)
    print(json.dumps({"port": server.sockets[0].getsockname()[1]}), flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main())
