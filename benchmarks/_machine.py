"""What the figures were measured on."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Final

__all__ = ["describe"]

_PACKAGES: Final = ("aiohttp", "anyio", "picpik-async", "pybase64")


def describe() -> str:
    """One line: processor, cores, Python, kernel and packages."""
    packages = ", ".join(f"{name} {version(name)}" for name in _PACKAGES)
    cores = len(os.sched_getaffinity(0))
    return f"{_processor()}, {cores} cores; Linux {platform.release()}; Python {platform.python_version()}; {packages}"


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
