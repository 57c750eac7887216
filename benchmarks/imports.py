"""What it takes to import the SDK, against the libraries it stands on, and to use it for the first time.

Whatever the import leaves for later is in "first use": every public name, a session that is opened on a running loop, a
request; beside it the libraries doing as much. The package is measured as pip would install it, with its bytecode.
"""

from __future__ import annotations

import compileall
import functools
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import picpik_async
from benchmarks._harness import Plot, bars, interleave, ratio, table

__all__ = ["run"]

_COLUMNS: Final = {"wall": "ms", "cpu": "CPU ms", "stall": "longest ms without the loop"}

_LIBRARIES: Final = "import aiohttp, anyio, attrs, cattrs"

# The longest time for which the loop kept somebody waiting who is due each millisecond, while *open* makes and opens
# something. Without a pause it would fight with imports in other threads for the interpreter.
_STALL: Final = """
import asyncio, time

async def main(open):
    turns = [time.perf_counter()]
    async def turn():
        while True:
            await asyncio.sleep(0.001)
            turns.append(time.perf_counter())
    ticker = asyncio.create_task(turn())
    await asyncio.sleep(0.01)
    async with open():
        await asyncio.sleep(0)
    ticker.cancel()
    print(1e3 * max(late - early for early, late in zip(turns, turns[1:])) - 1)
"""

_LIBRARIES_USED: Final = f"""
{_LIBRARIES}, contextlib, orjson, pybase64
{_STALL}
@contextlib.asynccontextmanager
async def client():
    async with anyio.create_task_group(), aiohttp.ClientSession() as session:
        yield session

asyncio.run(main(client))
"""

_FIRST_USE: Final = f"""
import picpik_async
for name in picpik_async.__all__:
    getattr(picpik_async, name)
{_STALL}
def session():
    picpik_async.ModifyMaskedPixels.inpaint("photo.png", "mask.png", prompts="a cat")
    keys = picpik_async.Credentials("public", "private")
    return picpik_async.PicpikSession(keys, endpoint="http://127.0.0.1:9")

asyncio.run(main(session))
"""

_WAYS: Final = {
    "bare Python": "",
    "the four libraries": _LIBRARIES,
    "picpik_async": "import picpik_async",
    "the libraries in use": _LIBRARIES_USED,
    "picpik_async, first use": _FIRST_USE,
}


def run(*, quick: bool = False) -> dict[str, Any]:
    """Measure, print a table, and return the figures."""
    runs = 1 if quick else 25
    with tempfile.TemporaryDirectory(prefix="picpik-benchmark-") as name:
        _install(Path(name))
        ways = {way: functools.partial(_measure, code, Path(name)) for way, code in _WAYS.items()}
        interleave(ways, 0 if quick else 1)  # for the files to be in memory
        figures = interleave(ways, runs)
    title = "A fresh interpreter that imports, and ends"
    print(f"{title}; median of {runs} runs (least to most)")
    print(table(figures, _COLUMNS))
    imported = ratio(figures, "picpik_async", "the four libraries", "wall")
    used = ratio(figures, "picpik_async, first use", "the libraries in use", "wall")
    print(f"picpik_async : its four libraries = {imported:.2f} × the time; at first use {used:.2f} ×")
    panels = bars(figures, {"wall": "ms"})
    return {
        "runs": figures,
        "ratio": imported,
        "first_use": used,
        "plots": {"imports": Plot(title=title, x="", panels=panels)},
    }


def _install(folder: Path) -> None:
    package = Path(picpik_async.__file__).parent
    copy = shutil.copytree(
        package, folder / package.name, ignore=shutil.ignore_patterns("__pycache__", "cli", "emulator")
    )
    compileall.compile_dir(copy, quiet=1)


def _measure(code: str, folder: Path) -> dict[str, float]:
    # Whatever measures coverage would be imported, too.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    environment["PYTHONPATH"] = str(folder)
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-c", code], cwd=folder, env=environment, stdout=subprocess.PIPE)  # noqa: S603
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    with process:
        printed = process.stdout.read() if process.stdout else b""
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, process.args)
    return {
        "wall": 1e3 * wall,
        "cpu": 1e3 * (usage.ru_utime + usage.ru_stime),
        "stall": float(printed or 0),
    }
