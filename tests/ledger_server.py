"""A paid service on raw sockets which keeps a ledger of what it was paid for, and fails at random as a seed says.

In a thread it is a `LedgerServer`, in a process of its own a `LedgerProcess`, or from a shell:

    python tests/ledger_server.py charges.txt --seed 7 --faults 0.9

It prints its address, serves until its input ends, and prints what it did.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import json
import os
import random
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self, cast
from zlib import compress, crc32

import attrs
from histories import Charge, read_ledger
from plain import signature

if TYPE_CHECKING:
    from collections.abc import Mapping

SECONDS: Final = 60.0  # nobody waits longer for anything
STALL: Final = 0.4  # seconds for which a stalled reader reads nothing
QUERIES: Final = frozenset({"ListTasksDetails", "ListRunningTasks", "GetCreditBalance", "ListModels", "TerminateTask"})
REFUSALS: Final = frozenset({"413", "429"})  # what is answered so is not charged, even if the rest arrives
EARLY: Final = ("RST", "FIN", "hang", "stall", "garbage", "1xx", "HTML", "headers", "502", "503", "504", "413", "429")
LATE: Final = ("truncated", "dropped", "late 504", "odd echo", "two answers")


@attrs.frozen
class Fault:
    """What goes wrong with one submit.

    Attributes:
        kind: one of `EARLY`, which strikes at any byte of the request, or of `LATE`, which spoils the answer.
        offset: it strikes when so many bytes of the body have been read; not looked at if it is late.
        share: how much of the answer is sent, 0 to 1.
        end: how the connection ends if the answer is not sent whole.
    """

    kind: str
    offset: int = 0
    share: float = 0.0
    end: str = "FIN"

    @classmethod
    def drawn(cls, rng: random.Random, length: int, kinds: tuple[str, ...] = EARLY + LATE) -> Self:
        """A random one for a body of *length* bytes; the last bytes, which decide, are struck often."""
        places = (length, max(0, length - 1), max(0, length - rng.randrange(80)), rng.randrange(length + 1))
        offset = rng.choices(places, (25, 15, 15, 45))[0]
        return cls(rng.choice(kinds), offset, rng.random(), rng.choice(("FIN", "RST", "hang")))


class Ledger:
    """An append-only file with a line for each request that was paid for; many lines share an fsync."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._thread = ThreadPoolExecutor(1)
        self._lines: list[str] = []
        self._written: asyncio.Future[None] | None = None
        self._writing: asyncio.Task[None] | None = None

    def add(self, charge: Charge) -> asyncio.Future[None]:
        """Add a line, now; what is returned ends when it is on disk."""
        loop = asyncio.get_running_loop()
        self._lines.append(f"{charge.request_uuid} {charge.task_uid} {charge.time:.6f}\n")
        self._written = self._written or loop.create_future()
        self._writing = self._writing or loop.create_task(self._write_all())
        return self._written

    @property
    def busy(self) -> bool:
        """Whether lines are on their way to the disk."""
        return self._writing is not None

    async def _write_all(self) -> None:
        loop = asyncio.get_running_loop()
        while self._written is not None:
            lines, written = "".join(self._lines), self._written
            self._lines, self._written = [], None
            await loop.run_in_executor(self._thread, self._write, lines.encode())
            written.set_result(None)
        self._writing = None

    def _write(self, lines: bytes) -> None:
        os.write(self._file, lines)
        os.fsync(self._file)

    async def aclose(self) -> None:
        """Wait for the last lines."""
        if self._writing is not None:
            await self._writing
        self._thread.shutdown()
        os.close(self._file)


@attrs.define(kw_only=True, eq=False)
class Service:
    """What the service knows and does, apart from its sockets.

    Attributes:
        ledger: what was paid for.
        seed: of all that is random.
        faults: how many submits fail, 0 to 1.
        kinds: in which ways.
        read_faults: how many queries and downloads fail, 0 to 1.
        delay: seconds until a submit is answered.
        task_seconds: how long a task runs.
        url: its own address.
        counts: faults that struck, by kind; whole requests: `charged`, `refused`, `bad` ones; `submits` begun.
    """

    ledger: Ledger
    seed: int = 0
    faults: float = 0.0
    kinds: tuple[str, ...] = EARLY + LATE
    read_faults: float = 0.0
    delay: float = 0.0
    task_seconds: float = 0.02
    url: str = ""
    counts: Counter[str] = attrs.field(factory=Counter)
    _reads: random.Random = attrs.field(factory=lambda: random.Random(1))
    _tasks: dict[str, tuple[float, dict[str, Any]]] = attrs.field(factory=dict)

    def next_fault(self, length: int) -> Fault | None:
        """What goes wrong with the next submit, whose body has *length* bytes."""
        rng = random.Random(f"{self.seed} {self.counts['submits']}")
        self.counts["submits"] += 1
        return Fault.drawn(rng, length, self.kinds) if rng.random() < self.faults else None

    def next_read_fault(self) -> str | None:
        """What goes wrong with the next query or download."""
        if self._reads.random() >= self.read_faults:
            return None
        self.counts["read faults"] += 1
        return self._reads.choice(("RST", "truncated", "503", "dropped"))

    def check(self, body: bytes) -> dict[str, Any] | None:
        """The request in *body*, or None if it is not whole, signed and JSON."""
        try:
            document: dict[str, Any] = json.loads(body)
            if document.pop("Signature") == signature(document):
                return document
        except (ValueError, KeyError):
            pass
        self.counts["bad"] += 1
        return None

    def charge(self, request: Mapping[str, Any]) -> tuple[str, asyncio.Future[None]]:
        """Take a job: its `TaskUID`, and when that is on disk."""
        self.counts["charged"] += 1
        uid = f"task-{self.counts['charged']}-{os.urandom(4).hex()}"
        now = time.time()
        self._tasks[uid] = now, {name: request[name] for name in ("Action", "Seed") if name in request}
        return uid, self.ledger.add(Charge(request["request_uuid"], uid, now))

    def answer(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """The answer to a query."""
        fields: dict[str, Any] = {}
        match request["Action"]:
            case "ListTasksDetails":
                known = [uid for uid in request["TaskUIDList"] if uid in self._tasks]
                fields["TaskDetailList"] = [self._detail(uid) for uid in known]
            case "ListRunningTasks":
                fields["TaskUIDList"] = [uid for uid in self._tasks if self._detail(uid)["Status"] == "Running"]
            case "GetCreditBalance":
                fields |= {"TotalCredits": 10**6, "UsedCredits": self.counts["charged"]}
            case "ListModels":
                fields |= {"MainModels": [], "SubModels": []}
        return {"RetCode": 0, "Action": request["Action"], "request_uuid": request["request_uuid"], **fields}

    def _detail(self, uid: str) -> dict[str, Any]:
        start, facts = self._tasks[uid]
        detail = {"TaskUID": uid, "Status": "Running", **facts}
        if time.time() < start + self.task_seconds:
            return detail
        return detail | {"Status": "Finished", "ImgList": [f"{self.url}/result/{uid}.png"], "ConsumeApiPoint": 1}


class _Connection(asyncio.Protocol):
    """One connection: reads requests up to the byte where the fault of each strikes, then does what it says."""

    def __init__(self, service: Service, connections: set[_Connection]) -> None:
        self._service = service
        self._connections = connections
        self._data = bytearray()
        self._tasks: set[asyncio.Task[None]] = set()
        self._next_request()

    def _next_request(self) -> None:
        self._length = -1  # no head yet
        self._target = ""
        self._submit = False
        self._fault: Fault | None = None
        self._struck = False
        self._deaf = False  # nothing more is charged, whatever arrives
        self._mute = False  # nothing more is answered

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start."""
        self.transport = cast("asyncio.Transport", transport)
        self._connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the interface
        """End; what had arrived was dealt with before."""
        self._connections.discard(self)
        self._mute = True

    def eof_received(self) -> bool:
        """A client never half-closes: this one is gone."""
        return False

    def data_received(self, data: bytes) -> None:
        """Go on as far as possible."""
        self._data += data
        if self._length < 0 and not self._read_head():
            return
        have = len(self._data)
        fault = self._fault
        if fault is not None and fault.kind in EARLY and not self._struck and have >= fault.offset:
            self._strike(fault, whole=fault.offset >= self._length)
        if have >= self._length and not self._deaf:
            self._deaf = True
            self._take(bytes(self._data[: self._length]))

    def _read_head(self) -> bool:
        head, found, rest = bytes(self._data).partition(b"\r\n\r\n")
        if not found:
            return False
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        self._target = first.split(" ")[1] if first.startswith("GET ") else ""
        self._length = int(headers.get("content-length", 0))
        self._data = bytearray(rest)
        # The client under test sends each submit on a connection of its own, and queries on kept ones.
        self._submit = not self._target and headers.get("connection", "").lower() == "close"
        if self._submit:
            self._fault = self._service.next_fault(self._length)
        return True

    def _take(self, body: bytes) -> None:
        if self._target:
            uid = self._target.removeprefix("/result/").removesuffix(".png")
            self._answer_read(raw_answer(result_picture(uid), kind="image/png"))
            return
        request = self._service.check(body)
        if request is None:
            self.transport.write(raw_answer({"RetCode": 171, "Message": "not signed"}, status=400))
        elif request["Action"] in QUERIES:
            self._answer_read(raw_answer(self._service.answer(request)))
        else:
            uid, written = self._service.charge(request)
            task = asyncio.get_running_loop().create_task(self._answer(request, uid, written))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _answer_read(self, answer: bytes) -> None:
        self._data.clear()
        self._next_request()
        match self._service.next_read_fault():
            case "RST":
                self._end("RST")
            case "truncated":
                self.transport.write(answer[: -len(answer) // 3])
                self.transport.close()
            case "503":
                self.transport.write(_ANSWERS["503"])
            case "dropped":
                self.transport.close()
            case _:
                self.transport.write(answer)

    async def _answer(self, request: Mapping[str, Any], uid: str, written: asyncio.Future[None]) -> None:
        await written
        if self._service.delay:
            await asyncio.sleep(self._service.delay)
        if self._mute:
            return
        echo = {"Action": request["Action"], "request_uuid": request["request_uuid"]}
        answer = raw_answer({"RetCode": 0, **echo, "TaskUID": uid})
        if self._fault is None or self._fault.kind in EARLY:
            self.transport.write(answer)
            return
        self._service.counts[self._fault.kind] += 1
        odd = raw_answer({"RetCode": 0, "Action": "Else", "request_uuid": "else", "TaskUID": uid})
        head = answer.index(b"\r\n\r\n") + 4
        cut = random.Random(uid).choice((head, 0)) + int(self._fault.share * (len(answer) - head))
        texts = {"truncated": answer[:cut], "dropped": b"", "late 504": _ANSWERS["504"], "odd echo": odd}
        self.transport.write(texts.get(self._fault.kind, answer + answer))
        if self._fault.kind in {"truncated", "dropped"}:
            self._end(self._fault.end)

    def _strike(self, fault: Fault, *, whole: bool) -> None:
        """Let *fault* happen; a request that is *whole* by then is paid for, unless it is refused."""
        self._struck = True
        self._service.counts[fault.kind] += 1
        if fault.kind in REFUSALS:
            self._deaf = True
            self._service.counts["refused"] += 1
        elif whole:
            self._deaf = True
            self._take(bytes(self._data[: self._length]))
        if fault.kind == "1xx":
            self.transport.write(b"HTTP/1.1 102 Processing\r\n\r\n" * 200)
            return
        self._mute = True
        if fault.kind in _ANSWERS:
            self.transport.write(_ANSWERS[fault.kind])
        else:
            self._end(fault.kind)

    def _end(self, how: str) -> None:
        """End the connection, or do not."""
        if how == "RST":
            raw: socket.socket = self.transport.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._deaf = True
            self.transport.abort()
        elif how == "stall":
            self.transport.pause_reading()
            asyncio.get_running_loop().call_later(STALL, self._resume)
        elif how in {"FIN", "garbage"}:
            if how == "garbage":
                self.transport.write(random.Random(len(self._data)).randbytes(200))
            if self.transport.can_write_eof():
                self.transport.write_eof()
            else:  # TLS knows no half-closed connection, but TCP below it does
                connection = self.transport.get_extra_info("socket")
                with contextlib.suppress(AttributeError, OSError):  # the client is gone, and the socket with it
                    connection.shutdown(socket.SHUT_WR)

    def _resume(self) -> None:
        if not self.transport.is_closing():
            self.transport.resume_reading()


def raw_answer(document: object, *, status: int = 200, kind: str = "application/json", extra: str = "") -> bytes:
    """A whole answer; bytes as they are, anything else as JSON."""
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    head = f"HTTP/1.1 {status} Whatever\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n{extra}\r\n"
    return head.encode() + body


_ANSWERS: Final[Mapping[str, bytes]] = {
    "HTML": raw_answer(b"<html>Please log in</html>", kind="text/html"),
    "headers": b"HTTP/1.1 200 OK\r\n" + b"".join(b"X-%d: y\r\n" % number for number in range(100_000)),
    "413": raw_answer(b"too large", status=413, kind="text/plain"),
    "429": raw_answer(b"slow down", status=429, kind="text/plain", extra="Retry-After: 0\r\n"),
} | {str(status): raw_answer(b"bad gateway", status=status, kind="text/plain") for status in (502, 503, 504)}


def result_picture(uid: str) -> bytes:
    """The PNG that a task makes: one pixel, with the task's name in it."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", crc32(name + data))

    header = struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)
    text = chunk(b"tEXt", b"uid\0" + uid.encode("latin-1"))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + text + chunk(b"IDAT", compress(b"\0\0")) + chunk(b"IEND", b"")
    )


def result_hash(uid: str) -> str:
    """SHA-256 of the picture of a task, in hex."""
    return hashlib.sha256(result_picture(uid)).hexdigest()


class LedgerServer:
    """The service, in a thread of this process.

    Args:
        path: the ledger's file.
        certificate: a file with key and certificates, for TLS.
        options: see `Service`.

    Attributes:
        url: its address.
        service: what it does.
    """

    def __init__(self, path: Path, *, certificate: Path | None = None, **options: Any) -> None:
        self._path = path
        self._options = options
        self._tls = None
        if certificate is not None:
            self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._tls.load_cert_chain(certificate)
        self._connections: set[_Connection] = set()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(SECONDS)
        self.url = self.service.url
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(SECONDS)

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        ledger = Ledger(self._path)
        self.service = Service(ledger=ledger, **self._options)
        server = await self._loop.create_server(
            lambda: _Connection(self.service, self._connections), "127.0.0.1", 0, ssl=self._tls, backlog=1024
        )
        scheme = "http" if self._tls is None else "https"
        self.service.url = f"{scheme}://localhost:{server.sockets[0].getsockname()[1]}"
        self._ready.set()
        await self._stop.wait()
        server.close()
        for connection in list(self._connections):
            connection.transport.abort()
        await ledger.aclose()

    def settle(self) -> None:
        """Wait until all clients are gone, and so nothing more can be charged, and the ledger is written."""
        end = time.monotonic() + SECONDS
        while self._connections or self.service.ledger.busy:
            assert time.monotonic() < end, "a client keeps its connection"
            time.sleep(0.005)

    @property
    def counts(self) -> Counter[str]:
        """See `Service`."""
        return self.service.counts

    def charges(self) -> list[Charge]:
        """The ledger."""
        return read_ledger(self._path)


class LedgerProcess:
    """The service in a process of its own, which outlives a client that is killed; arguments as for `LedgerServer`.

    Attributes:
        url: its address.
        counts: see `Service`; after `settle`.
    """

    def __init__(self, path: Path, *, certificate: Path | None = None, **options: Any) -> None:
        self._path = path
        self._options = {"certificate": certificate, **options}
        self.counts: Counter[str] = Counter()

    def __enter__(self) -> Self:
        options = [
            f"--{name.replace('_', '-')}={','.join(value) if isinstance(value, tuple) else value}"
            for name, value in self._options.items()
            if value is not None
        ]
        command = [sys.executable, __file__, str(self._path), *options]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # noqa: S603
        assert self._process.stdout is not None
        self.url: str = json.loads(self._process.stdout.readline())["url"]
        return self

    def settle(self) -> None:
        """Wait until all clients are gone, and so nothing more can be charged; ends the service."""
        answer, _ = self._process.communicate(timeout=SECONDS)
        self.counts = Counter(json.loads(answer))

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(ValueError):  # settled
            self._process.communicate(timeout=SECONDS)

    def charges(self) -> list[Charge]:
        """The ledger."""
        return read_ledger(self._path)


def main() -> None:
    """Serve until the input ends."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ledger", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--faults", type=float, default=0.0, help="how many submits fail, 0 to 1")
    parser.add_argument("--kinds", type=lambda text: tuple(text.split(",")), default=EARLY + LATE)
    parser.add_argument("--read-faults", type=float, default=0.0, help="how many queries and downloads fail, 0 to 1")
    parser.add_argument("--delay", type=float, default=0.0, help="seconds until a submit is answered")
    parser.add_argument("--task-seconds", type=float, default=0.02)
    parser.add_argument("--certificate", type=Path, help="a file with key and certificates")
    options = vars(parser.parse_args())
    with LedgerServer(options.pop("ledger"), **options) as server:
        print(json.dumps({"url": server.url}), flush=True)  # noqa: T201 - that is its interface
        sys.stdin.read()
        server.settle()
        print(json.dumps(server.counts), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
