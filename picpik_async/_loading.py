"""Imports that wait until something is done, since many programs import this package and do nothing: 12 % of its import.

They are done by a thread, so that the event loop, which is running by then, turns on. anyio imports what it needs on asyncio
by itself, and on the loop, which stands still for 10 to 20 ms; so that is among them.
"""

from __future__ import annotations

import asyncio
import importlib
import sys
from typing import Any

import anyio

__all__ = ["loaded", "one_thread"]


async def loaded(module: str, last: str) -> Any:
    """What is called *last* in *module*, and is the last that is defined there; at once but for the first time."""
    if not hasattr(sys.modules.get(module), last):  # what is there may be half a module, on which a thread is at work
        from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415 - asyncio loads it late, too

        executor = ThreadPoolExecutor(1, thread_name_prefix="picpik import")
        loading = asyncio.get_running_loop().run_in_executor(executor, importlib.import_module, module)
        executor.shutdown(wait=False)
        await loading
    return getattr(sys.modules[module], last)


async def one_thread() -> anyio.CapacityLimiter:
    """A limiter for work that is nobody else's."""
    await loaded("anyio._backends._asyncio", "backend_class")
    return anyio.CapacityLimiter(1)
