"""The HTTP in front of the service."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any, Final, Self

import anyio.to_thread
import orjson
from aiohttp import web

from picpik_async._config import Credentials
from picpik_async.emulator._admission import parse
from picpik_async.emulator._service import Service, ServiceSettings, cost_by_size
from picpik_async.errors import ConfigurationError

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import AsyncIterable, Callable, Mapping
    from types import TracebackType

    from picpik_async import PicpikSession
    from picpik_async.emulator._tasks import LedgerEntry

__all__ = ["Emulator"]

MAX_BODY: Final = 256 * 1024 * 1024  # bytes; our choice, the service publishes no limit


class Emulator:
    """A local PICPIK: real signatures, ranges, queue, credits and pictures; prompts and models are checked, not read.

    An async context manager that serves from the running event loop until it is left.

    Args:
        public_key: the one `PublicKey` it knows.
        private_key: the key that requests must be signed with.
        host: address to listen on.
        port: port to listen on; 0 takes a free one.
        queue_time: seconds a task stays Queuing at least.
        run_time: seconds a task stays Running at least; it is Finished only once its pictures exist.
        concurrency: tasks that run at once; others stay Queuing.
        credits: credits of the account.
        cost: credits per task, or a function of its parameters; unset, one per started megapixel of each picture.
        error_share: share of tasks, from 0 to 1, that end in Error; the same ones in every run.
        fail: called with the parameters of an accepted request (without images); a text it returns is the error in
            which the task ends.
        retention: seconds after which tasks and results are forgotten.

    Attributes:
        url: the endpoint, once the context is entered.
        credentials: the key pair.
    """

    _runner: web.AppRunner

    def __init__(
        self,
        *,
        public_key: str = "emulator",
        private_key: str = "emulator-private-key",
        host: str = "127.0.0.1",
        port: int = 0,
        queue_time: float = 0.0,
        run_time: float = 0.3,
        concurrency: int = 8,
        credits: int = 300,  # noqa: A002 (the API's word)
        cost: Callable[[Mapping[str, Any]], int] | int = cost_by_size,
        error_share: float = 0.0,
        fail: Callable[[Mapping[str, Any]], str | None] | None = None,
        retention: float = 24 * 3600.0,
    ) -> None:
        self.url: str = ""
        self.credentials: Credentials = Credentials(public_key, private_key)
        self._host = host
        self._port = port
        settings = ServiceSettings(
            queue_time=queue_time,
            run_time=run_time,
            concurrency=concurrency,
            credits=credits,
            cost=cost if callable(cost) else lambda _parameters: cost,
            error_share=error_share,
            fail=fail,
            retention=retention,
        )
        self._service = Service(self.credentials, settings)
        self._limiter = anyio.CapacityLimiter(4)

    @property
    def ledger(self) -> tuple[LedgerEntry, ...]:
        """Every accepted and charged request, in order."""
        return tuple(self._service.ledger)

    @property
    def requests(self) -> Counter[str]:
        """Requests received per Action, refused ones included."""
        return self._service.requests

    def advance(self, seconds: float) -> None:
        """Let *seconds* of emulated time pass at once: tasks move on, results expire.

        May be called from any thread, once the context is entered.
        """
        self._service.advance(seconds)

    def session(self, **options: Any) -> PicpikSession:
        """A session with this emulator's address and keys; *options* are those of `PicpikSession`."""
        from picpik_async import PicpikSession  # noqa: PLC0415 (the client and the emulator do not need each other)

        return PicpikSession(self.credentials, endpoint=self.url, **options)

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_post("/", self._post)
        app.router.add_get(r"/results/{token}/{index:\d{1,3}}.png", self._get_result)
        listener = self._listen()
        self.url = f"http://{self._host}:{listener.getsockname()[1]}"
        self._service.open(self.url)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        await web.SockSite(self._runner, listener).start()
        return self

    def _listen(self) -> socket.socket:
        try:
            return socket.create_server((self._host, self._port))
        except OSError as error:
            msg = (
                f"the emulator cannot listen on {self._host} port {self._port} ({error.strerror}); choose another port"
            )
            raise ConfigurationError(msg) from error

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._runner.cleanup()
        await self._service.aclose()

    async def _post(self, request: web.Request) -> web.Response:
        chunks = await collected(request.content.iter_any())
        try:
            parameters = await anyio.to_thread.run_sync(parse, chunks, limiter=self._limiter)
        except ValueError:
            raise web.HTTPBadRequest(text="the body is not JSON") from None
        answer = await self._service.answer(parameters)
        return web.Response(body=orjson.dumps(answer), content_type="application/json")

    async def _get_result(self, request: web.Request) -> web.Response:
        picture = self._service.result(request.match_info["token"], int(request.match_info["index"]))
        if picture is None:
            raise web.HTTPNotFound(text="there is no such result (any more)")
        return web.Response(body=picture, content_type="image/png")


async def collected(chunks: AsyncIterable[bytes], limit: int = MAX_BODY) -> list[bytes]:
    """A body of at most *limit* bytes, in the pieces it came in: joining them is left to a worker thread.

    Raises:
        web.HTTPRequestEntityTooLarge: it is longer.
    """
    pieces, size = [], 0
    async for chunk in chunks:
        size += len(chunk)
        if size > limit:
            raise web.HTTPRequestEntityTooLarge(max_size=limit, actual_size=size)
        pieces.append(chunk)
    return pieces
