"""One picture of 20 MB with 64 prompts: as variations, and as requests that know nothing of each other.

What the first one takes is not counted. Processor time in user mode is for reading, encoding, hashing and all else the SDK
does; that of the kernel is mostly for copying the bytes into the connection, which no way is spared: the third way sends as
many ready bytes, and does nothing else.
"""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import _pictures
from benchmarks._harness import interleave, python_figures, ratio, table
from benchmarks._serving import serving

__all__ = ["run"]

_COLUMNS = {
    "cpu": "CPU ms/request",
    "user": "user ms/request",
    "kernel": "kernel ms/request",
    "rate": "requests/s",
    "peak": "peak MB",
}


def run(*, quick: bool = False) -> dict[str, Any]:
    """Measure, print a table, and return the figures."""
    runs, number, size = (1, 4, 100_000) if quick else (5, 64, 20_000_000)
    with tempfile.TemporaryDirectory(prefix="picpik-benchmark-") as name:
        folder = Path(name)
        _pictures.make(folder, count=1, size=size)
        with serving("benchmarks._sink", str(folder / "kept.json"), "-1") as endpoint:
            ways = {
                way: functools.partial(python_figures, "benchmarks._varying", way, endpoint, folder, number)
                for way in ("separate", "variations", "sending")
            }
            figures = interleave(ways, runs)
    print(f"{number} prompts for one picture of {size / 1e6:g} MB; median of {runs} runs (least to most)")
    print(table(figures, _COLUMNS))
    less = {column: ratio(figures, "separate", "variations", column) for column in ("cpu", "user", "kernel")}
    print(
        f"separate : variations = {less['cpu']:.1f} × the CPU per request: {less['user']:.1f} × in user mode,"
        f" {less['kernel']:.1f} × in the kernel"
    )
    return {"runs": figures, "ratios": less}
