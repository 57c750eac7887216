"""A server in a process of its own, which prints its port and serves until its input ends."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["serving"]


@contextlib.contextmanager
def serving(module: str, *arguments: str, scheme: str = "http") -> Iterator[str]:
    """Run *module*; gives its address."""
    command = [sys.executable, "-m", module, *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:  # noqa: S603
        assert process.stdout is not None  # noqa: S101 - it is a pipe
        try:
            yield f"{scheme}://127.0.0.1:{json.loads(process.stdout.readline())['port']}"
        finally:
            process.communicate()
