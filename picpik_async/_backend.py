"""What anyio needs on asyncio, imported when something is first done rather than with the package.

anyio imports it by itself, on the event loop, which stands still for 10 to 20 ms. Here a thread does, while the loop turns
on; and who only imports this package, is done 20 ms (8 %) earlier.
"""

from __future__ import annotations

import asyncio
import importlib
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import anyio

__all__ = ["load_backend", "one_thread"]

_NAME: Final = "anyio._backends._asyncio"


async def load_backend() -> None:
    """Be back when anyio can be used without an import; at once but for the first time."""
    if hasattr(sys.modules.get(_NAME), "backend_class"):  # the last name in it; a thread may still be at the others
        return
    executor = ThreadPoolExecutor(1, thread_name_prefix="picpik import")
    loading = asyncio.get_running_loop().run_in_executor(executor, importlib.import_module, _NAME)
    executor.shutdown(wait=False)
    await loading


async def one_thread() -> anyio.CapacityLimiter:
    """A limiter for work that is nobody else's."""
    await load_backend()
    return anyio.CapacityLimiter(1)
