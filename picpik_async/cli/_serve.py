"""The emulator as a service of its own."""

from __future__ import annotations

import asyncio
import shlex
from typing import TYPE_CHECKING, Any

import anyio

from picpik_async._config import Credentials, Endpoint
from picpik_async.cli._extras import emulator_class
from picpik_async.cli._output import Output
from picpik_async.cli._run import USAGE
from picpik_async.errors import ConfigurationError

if TYPE_CHECKING:
    from picpik_async.emulator import Emulator

__all__ = ["serve"]


def serve(**options: Any) -> int:
    """Serve an emulator with these *options* until Ctrl-C, and return the exit code."""
    output = Output(as_json=False)
    try:
        asyncio.run(_serve(emulator_class()(**options), output))
    except KeyboardInterrupt:
        output.note("emulator stopped")
    except ConfigurationError as error:
        output.error(type(error).__name__, str(error))
        return USAGE
    return 0


async def _serve(emulator: Emulator, output: Output) -> None:
    async with emulator:
        variables = {
            Endpoint.VARIABLE: emulator.url,
            Credentials.PUBLIC_KEY_VARIABLE: emulator.credentials.public_key,
            Credentials.PRIVATE_KEY_VARIABLE: emulator.credentials.private_key.reveal(),
        }
        output.result(variables, [f"export {name}={shlex.quote(value)}" for name, value in variables.items()])
        output.note("the emulator is listening; Ctrl-C stops it")
        await anyio.sleep_forever()
