"""What is loaded late is loaded by a thread, in a process that has never used it."""

from __future__ import annotations

import subprocess
import sys

import pytest

# Notes which thread looks for the module, and then does *use* on a running loop.
_CODE = """
import asyncio, contextlib, sys, threading

class Watch:
    def find_spec(name, path, target=None):
        if name in {{"anyio._backends._asyncio", "picpik_async._assembly"}}:
            print(threading.current_thread() is not threading.main_thread())

sys.meta_path.insert(0, Watch)

import picpik_async
from picpik_async.testing import FakeTransport

def session():
    keys = picpik_async.Credentials("public", "private")
    return picpik_async.PicpikSession(keys, transport=FakeTransport(lambda body: {{}}))

async def main():
    assert "anyio._backends._asyncio" not in sys.modules
    {use}

asyncio.run(main())
"""
_USES = {
    "session": "async with session(), session(): pass",
    "at once": "both = [session(), session()]; await asyncio.gather(*(one.__aenter__() for one in both));"
    " [await one.aclose() for one in both]",
    "picture": "with contextlib.suppress(picpik_async.errors.ImageError): await picpik_async.ImageSource.of(b'GIF').read()",
    "mask": "with contextlib.suppress(picpik_async.errors.ImageError): await picpik_async.masks.check(b'')",
}


@pytest.mark.parametrize("use", _USES.values(), ids=_USES.keys())
def test_the_loop_never_imports_it(use: str) -> None:
    """Neither the import of the package nor the loop loads it, whatever is used first."""
    command = [sys.executable, "-W", "error", "-c", _CODE.format(use=use)]

    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout  # noqa: S603

    assert {"True"} == set(printed.split())
