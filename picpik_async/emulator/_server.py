"""The HTTP in front of the service."""

from __future__ import annotations

import socket
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Final, Self

import anyio._backends._asyncio  # anyio would import it on the event loop
import anyio.to_thread
import orjson
from aiohttp import web

from picpik_async._config import Credentials
from picpik_async.emulator._admission import parse
from picpik_async.emulator._ledger import LedgerFile
from picpik_async.emulator._mischief import Arrival, Mischief, kind_of
from picpik_async.emulator._plan import Plan
from picpik_async.emulator._service import Service, ServiceSettings, cost_by_size
from picpik_async.errors import ConfigurationError

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import AsyncIterable, Callable, Iterable, Mapping
    from os import PathLike
    from types import TracebackType

    from picpik_async import PicpikSession
    from picpik_async.emulator._faults import Fault
    from picpik_async.emulator._tasks import LedgerEntry

__all__ = ["Emulator"]

MAX_BODY: Final = 256 * 1024 * 1024  # bytes; our choice, the service publishes no limit
_SMALL: Final = 64 * 1024  # bytes that are parsed faster (0.1 ms) than they are handed to another thread


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
        faults: what goes wrong, as `Fault` or as text, such as `lose-answer:0.05`; where several could strike at the
            same moment, the first does.
        seed: decides which requests the faults strike; the same ones in every run.
        ledger_file: a file for one line of JSON per charge (`request_uuid`, `TaskUID`, `time`, `cost`), on the disk
            before the submit is answered; continued if it exists.

    Raises:
        ConfigurationError: there is no such fault.

    Attributes:
        url: the endpoint, once the context is entered.
        credentials: the key pair.
    """

    _stack: AsyncExitStack

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
        faults: Iterable[Fault | str] | Fault | str = (),
        seed: int = 0,
        ledger_file: str | PathLike[str] | None = None,
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
        self._plan = Plan(faults, seed=seed)
        self._mischief = Mischief(self._plan)
        self._ledger_file = None if ledger_file is None else LedgerFile(ledger_file)
        self._service = Service(self.credentials, settings, plan=self._plan, ledger_file=self._ledger_file)
        self._limiter = anyio.CapacityLimiter(4)

    @property
    def ledger(self) -> tuple[LedgerEntry, ...]:
        """Every accepted and charged request, in order, those included whose answer was lost."""
        return tuple(self._service.ledger)

    @property
    def requests(self) -> Counter[str]:
        """Requests received per Action, refused ones included."""
        return self._service.requests

    @property
    def injected(self) -> Counter[str]:
        """How often each fault has struck, by its name; with the kind of request where that is not the usual one."""
        return self._plan.injected

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
        async with AsyncExitStack() as stack:
            if self._ledger_file is not None:
                await self._ledger_file.open()
                stack.push_async_callback(self._ledger_file.aclose)
            listener = self._listen()
            host = f"[{self._host}]" if ":" in self._host else self._host
            self.url = f"http://{host}:{listener.getsockname()[1]}"
            self._service.open(self.url)
            stack.push_async_callback(self._service.aclose)
            runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            stack.callback(self._mischief.leave)
            await web.SockSite(runner, listener).start()
            self._stack = stack.pop_all()
        return self

    def _listen(self) -> socket.socket:
        try:
            family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
            return socket.create_server((self._host, self._port), family=family)
        except OSError as error:
            msg = (
                f"the emulator cannot listen on {self._host} port {self._port} ({error.strerror}); choose another port"
            )
            raise ConfigurationError(msg) from error

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def _post(self, request: web.Request) -> web.StreamResponse:
        arrival = Arrival(self._plan, request)
        chunks = await collected(request.content.iter_any(), arrival.note)
        arrival.end()
        try:
            parameters = await self._parsed(chunks)
        except ValueError:
            raise web.HTTPBadRequest(text="the body is not JSON") from None
        on = kind_of(parameters.get("Action") if isinstance(parameters, dict) else None)

        async def answer() -> tuple[web.Response, bool]:
            document = await self._service.answer(parameters)
            response = web.Response(body=orjson.dumps(document), content_type="application/json")
            return response, on == "poll" or "TaskUID" in document

        return await self._mischief.serve(request, on, answer)

    async def _parsed(self, chunks: list[bytes]) -> Any:
        if sum(map(len, chunks)) <= _SMALL:
            return parse(chunks)
        return await anyio.to_thread.run_sync(parse, chunks, limiter=self._limiter)

    async def _get_result(self, request: web.Request) -> web.StreamResponse:
        Arrival(self._plan, request, on="download").end()

        async def picture() -> tuple[web.Response, bool]:
            found = self._service.result(request.match_info["token"], int(request.match_info["index"]))
            if found is None:
                raise web.HTTPNotFound(text="there is no such result (any more)")
            return web.Response(body=found, content_type="image/png"), True

        return await self._mischief.serve(request, "download", picture)


async def collected(
    chunks: AsyncIterable[bytes], note: Callable[[bytes], None], *, limit: int = MAX_BODY
) -> list[bytes]:
    """A body of at most *limit* bytes, in the pieces it came in: joining them is left to a worker thread.

    Args:
        chunks: the pieces.
        note: told each of them at once.
        limit: bytes.

    Raises:
        web.HTTPRequestEntityTooLarge: it is longer.
    """
    pieces, size = [], 0
    async for chunk in chunks:
        size += len(chunk)
        if size > limit:
            raise web.HTTPRequestEntityTooLarge(max_size=limit, actual_size=size)
        note(chunk)
        pieces.append(chunk)
    return pieces
