"""200 different PNG pictures of 4 MB fetched, written, flushed to the disk, and decoded to see that they are whole.

The SDK saves the results of finished tasks; the usual way is aiohttp, `write_bytes`, `fsync` and Pillow's `load` in a thread,
as many pictures at once as the SDK takes by default, or all at once. Both do the same, but for what the SDK does besides:
it compares all checksums within the PNG, and a file is whole or absent; and for what it leaves out: it inflates all pixels
and looks at the filter of each row, but does not lay them out in memory, which cannot fail any more. Each run is a process
of its own, against one that sends files as fast as the machine can. The stages are measured once more, each alone: fetching
on one thread, the others in as many as the SDK has; `load` is Pillow's, which the SDK has no need of here.
"""

from __future__ import annotations

import filecmp
import functools
import tempfile
from pathlib import Path
from typing import Any, Final

import attrs

from benchmarks import _photos
from benchmarks._harness import Plot, bars, interleave, middle, python_figures, ratio, table
from benchmarks._pictures import find_pictures
from benchmarks._serving import serving

__all__ = ["run"]


@attrs.frozen(kw_only=True)
class Plan:
    """How much is measured.

    Attributes:
        runs: per way.
        pictures: fetched in one run.
        width: pixels.
        height: pixels.
    """

    runs: int
    pictures: int
    width: int
    height: int


_FULL: Final = Plan(runs=3, pictures=200, width=1664, height=1280)
_QUICK: Final = Plan(runs=1, pictures=4, width=200, height=160)
_WAYS: Final = ("sdk", "usual", "usual, unbounded")
_STAGES: Final = ("fetch", "verify", "load", "write", "write and flush")
_COLUMNS: Final = {
    "rate": "pictures/s",
    "cpu": "CPU ms/picture",
    "memory": "memory over idle, MB",
    "stall": "worst stall, ms",
    "p999": "p99.9 stall, ms",
}


def run(*, quick: bool = False) -> dict[str, Any]:
    """Measure, print two tables, and return the figures."""
    plan = _QUICK if quick else _FULL
    with tempfile.TemporaryDirectory(prefix="picpik-benchmark-") as name:
        folder = Path(name)
        _photos.make(folder, count=plan.pictures, width=plan.width, height=plan.height)
        size = sum(path.stat().st_size for path in find_pictures(folder)) / plan.pictures
        with serving("benchmarks._gallery", name) as endpoint:
            ways = {way: functools.partial(_figures, way, endpoint, folder) for way in (*_WAYS, *_STAGES)}
            runs = interleave(ways, plan.runs)
    compared, stages = ({way: runs[way] for way in names} for names in (_WAYS, _STAGES))
    print(
        f"{plan.pictures} PNG pictures of {size / 1e6:.1f} MB, {plan.width} × {plan.height} pixels like those of photographs"
    )
    print(table(compared, _COLUMNS))
    print("the stages, each alone")
    print(table(stages, {"wall": "ms/picture", "cpu": "CPU ms/picture"}))
    faster = ratio(runs, "sdk", "usual", "rate")
    print(f"SDK : usual way = {faster:.2f} × the pictures/s, {ratio(runs, 'sdk', 'usual', 'cpu'):.2f} × the CPU")
    flushing = middle(runs, "write and flush", "wall") - middle(runs, "write", "wall")
    print(f"verification costs {_cost(runs, 'verify')}; writing whole or not at all, and flushing, {flushing:.1f} ms")
    plot = Plot(title="Fetched, written, flushed and verified", x="", panels=bars(compared, _COLUMNS))
    return {"plan": attrs.asdict(plan), "runs": runs, "ratio": faster, "plots": {"downloads": plot}}


def _cost(runs: dict[str, list[dict[str, float]]], stage: str) -> str:
    return f"{middle(runs, stage, 'wall'):.1f} ms a picture ({middle(runs, stage, 'cpu'):.1f} ms of CPU)"


def _figures(way: str, endpoint: str, folder: Path) -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="picpik-benchmark-") as name:
        figures: dict[str, float] = python_figures("benchmarks._downloader", way, endpoint, folder, name)
        saved = sorted(Path(name).iterdir())
        if way in _WAYS and not _are_equal(find_pictures(folder), saved):
            msg = f"{way}: what was saved is not what should have been"
            raise ValueError(msg)
    return figures


def _are_equal(files: list[Path], others: list[Path]) -> bool:
    return len(files) == len(others) and all(
        filecmp.cmp(file, other, shallow=False) for file, other in zip(files, others, strict=True)
    )
