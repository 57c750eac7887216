"""Faults on the socket: resets, half answers and silence, on the connection itself."""

from __future__ import annotations

import re
import socket
import struct
from typing import TYPE_CHECKING, Final

import anyio
from aiohttp import web

from picpik_async.emulator._effects import DRAWINGS
from picpik_async.emulator._faults import RETRY_STATUSES, Moment

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from picpik_async.emulator._faults import Fault
    from picpik_async.emulator._plan import Plan

__all__ = ["Arrival", "Mischief", "kind_of"]

_ACTION: Final = re.compile(rb'"Action"\s{0,8}:\s{0,8}"([A-Za-z0-9]{1,64})"')  # in a text it would have backslashes
_LONGEST_MATCH: Final = 128
_GARBAGE: Final = b"\x16\x03\x01 this is not HTTP\r\n\r\n" + bytes(range(256))
_PAGE: Final = "<!doctype html><title>Sign in</title><p>Please sign in to this network."
_ELSEWHERE: Final = "http://192.168.255.254/moved.png"
_ABORTIVE: Final = struct.pack("ii", 1, 0)  # with SO_LINGER: closing sends RST, see socket(7)
_DRIP: Final = 0.2  # seconds between two bytes
_LOOK: Final = 0.05  # seconds between two looks whether a client has left


def kind_of(action: object) -> str:
    """The kind of request an Action is, for faults: `submit` or `poll`."""
    return "submit" if isinstance(action, str) and action in DRAWINGS else "poll"


class Arrival:
    """A body on its way, and the fault that may end it; what kind of request it is shows once its Action is there.

    Args:
        plan: says whether a fault strikes.
        request: the request.
        on: its kind, if that is known already.
    """

    def __init__(self, plan: Plan, request: web.Request, *, on: str | None = None) -> None:
        self._plan = plan
        self._request = request
        self._fault = None if on is None else plan.strike(Moment.ARRIVAL, on)
        self._last: bytes | None = b""  # where the Action may have begun; None once it was found
        self._size = 0

    def note(self, piece: bytes) -> None:
        """Look at a *piece* of the body.

        Raises:
            web.HTTPException: the connection has been reset, so that this goes nowhere.
        """
        self._size += len(piece)
        if self._last is not None:
            seen = self._last + piece
            self._last = seen[-_LONGEST_MATCH:]
            if match := _ACTION.search(seen):
                self._last = None
                self._fault = self._plan.strike(Moment.ARRIVAL, kind_of(match[1].decode()))
        if self._fault is not None and self._size >= (self._fault.after or 0):
            self.end()

    def end(self) -> None:
        """The whole body has been seen, or enough of it.

        Raises:
            web.HTTPException: as in `note`.
        """
        if self._fault is not None:
            _reset(self._request)
            raise web.HTTPBadRequest


class Mischief:
    """Spoils answers as the *plan* of an emulator says."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._leaving = False

    def leave(self) -> None:
        """End what would last for ever."""
        self._leaving = True

    async def serve(
        self, request: web.Request, on: str, work: Callable[[], Awaitable[tuple[web.Response, bool]]]
    ) -> web.StreamResponse:
        """Answer a request, with or without a fault.

        Args:
            request: the request, read to its end.
            on: its kind.
            work: makes the response, and says whether a fault may spoil it: one that refuses a job is none for faults
                that a charge comes before.
        """
        if fault := self._plan.strike(Moment.REQUEST, on):
            return await self._spoil(fault, request, web.Response())
        response, may_be_spoilt = await work()
        if may_be_spoilt and (fault := self._plan.strike(Moment.ANSWER, on)):
            return await self._spoil(fault, request, response)
        return response

    async def _spoil(self, fault: Fault, request: web.Request, response: web.Response) -> web.StreamResponse:
        body = response.body if isinstance(response.body, bytes) else b""
        match fault.name.removeprefix("taken-"):
            case "lose-answer":
                _reset(request)
            case "hang":
                await self._hang(request)
            case "garbage":
                _send(request, _GARBAGE, last=True)
            case "truncate":
                end = len(body) // 2 if fault.after is None else min(fault.after, len(body) - 1)
                _send(request, _head(response, body) + body[:end], last=True)
            case "drip":
                end = fault.after or 0
                await self._drip(request, _head(response, body) + body[:end], body[end:])
            case "html":
                return web.Response(text=_PAGE, content_type="text/html")
            case "wrong-bytes":
                return web.Response(body=_damaged(body), content_type=response.content_type)
            case "redirect":
                return web.Response(status=302, headers={"Location": _ELSEWHERE})
            case status:
                return _refusal(int(status), fault.after)
        return response  # goes nowhere: the connection has ended

    async def _hang(self, request: web.Request) -> None:
        while _is_open(request) and not self._leaving:  # noqa: ASYNC110 (no event tells that a client has left)
            await anyio.sleep(_LOOK)
        _reset(request)

    async def _drip(self, request: web.Request, start: bytes, rest: bytes) -> None:
        _send(request, start)
        for index in range(len(rest)):
            if self._leaving or not _is_open(request):
                break
            _send(request, rest[index : index + 1])
            await anyio.sleep(_DRIP)
        _send(request, b"", last=True)


def _reset(request: web.Request) -> None:
    """Send RST, unless the client has left."""
    if request.transport is not None:
        request.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORTIVE)
        request.transport.abort()


def _is_open(request: web.Request) -> bool:
    return request.transport is not None and not request.transport.is_closing()


def _send(request: web.Request, data: bytes, *, last: bool = False) -> None:
    """Write *data* as it is, and FIN behind it if it is the last."""
    if request.transport is not None and not request.transport.is_closing():
        request.transport.write(data)
        if last:
            request.transport.close()


def _head(response: web.Response, body: bytes) -> bytes:
    return (f"HTTP/1.1 200 OK\r\nContent-Type: {response.content_type}\r\nContent-Length: {len(body)}\r\n\r\n").encode()


def _damaged(body: bytes) -> bytes:
    middle = len(body) // 2
    return body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1 :]


def _refusal(status: int, after: int | None) -> web.Response:
    headers = {"Retry-After": str(1 if after is None else after)} if str(status) in RETRY_STATUSES else {}
    return web.Response(status=status, headers=headers, text="an injected fault")
