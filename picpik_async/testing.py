"""For your own tests: a transport without a network, and a pytest fixture with a whole service on this machine.

Enable the fixture with `pytest_plugins = ["picpik_async.testing"]` in your top-level `conftest.py`.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import orjson
from anyio.from_thread import start_blocking_portal

from picpik_async._transport import Answer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from picpik_async._body import Body
    from picpik_async._transport import BeforeTail
    from picpik_async.emulator import Emulator

__all__ = ["Answer", "FakeTransport", "Reply", "Respond", "picpik_emulator"]

Reply = dict[str, Any] | Answer | Exception
Respond = Callable[[dict[str, Any]], Reply | Awaitable[Reply]]


class FakeTransport:
    """A transport without a network, for `PicpikSession(transport=…)`; your function plays the service.

    Args:
        respond: gets each request as the JSON object that would have been sent, pictures included as text, and gives the
            answer: a JSON object, which goes with HTTP status 200, an `Answer`, or an exception to be raised, such as a
            `TransportError` for an answer that is lost. It may be async.

    Attributes:
        requests: all requests so far.
    """

    def __init__(self, respond: Respond) -> None:
        self.requests: list[dict[str, Any]] = []
        self._respond = respond

    async def send(self, body: Body, *, before_tail: BeforeTail | None = None) -> Answer:
        """See `Transport.send`: the request counts as sent once *before_tail* has returned."""
        async with aclosing(body.head()) as head:
            data = b"".join([piece async for piece in head])
        if before_tail is not None:
            await before_tail()
        request: dict[str, Any] = orjson.loads(data + body.tail())
        self.requests.append(request)
        reply = self._respond(request)
        if inspect.isawaitable(reply):
            reply = await reply
        if isinstance(reply, Exception):
            raise reply
        return reply if isinstance(reply, Answer) else Answer(200, orjson.dumps(reply))


try:
    import pytest
except ImportError:  # FakeTransport does without
    pass
else:

    @pytest.fixture
    def picpik_emulator() -> Iterator[Emulator]:
        """A running emulator, with `url`, `credentials` and `ledger`.

        It has a thread and an event loop of its own, so that the test may be sync or async, with any plugin.
        """
        from picpik_async.emulator import Emulator  # noqa: PLC0415 - needs the extra `emulator`

        with start_blocking_portal() as portal, portal.wrap_async_context_manager(Emulator()) as emulator:
            yield emulator
