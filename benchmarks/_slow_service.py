"""A service that thinks for 30 ms about each request, in a process of its own: prints its port, serves until its input ends."""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
from typing import Final

_SECONDS: Final = 0.03
_ANSWER: Final = b'{"RetCode":0,"Action":"ModifyMaskedPixels","Message":"","TaskUID":"task-%d"}'
_numbers = itertools.count()


async def _converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length: "))[16:]
            await reader.readexactly(int(length))
            await asyncio.sleep(_SECONDS)
            answer = _ANSWER % next(_numbers)
            fields = b"Content-Type: application/json\r\nContent-Length: %d" % len(answer)
            writer.write(b"HTTP/1.1 200 OK\r\n" + fields + b"\r\n\r\n" + answer)
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


async def main() -> None:
    """Serve until the input ends."""
    server = await asyncio.start_server(_converse, "127.0.0.1", 0, backlog=256, limit=4 * 1024 * 1024)
    print(json.dumps({"port": server.sockets[0].getsockname()[1]}), flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main())
