"""32 different pictures of 20 MB, uploaded at the same time: requests per second, peak memory, stall of the event loop.

Compared are the SDK, the usual way (Base64, concatenate, hash, `json=`), and as the floor threads on bare sockets. Every
run is a client process of its own against a server process of its own; the ways take turns. Of each run the server keeps
one request, and its signature and picture are checked.
"""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any, Final

import attrs

from benchmarks import _pictures
from benchmarks._client import Figures
from benchmarks._machine import describe
from benchmarks._serving import serving
from benchmarks._signature import signature

__all__ = ["run"]


@attrs.frozen(kw_only=True)
class Plan:
    """How much is measured.

    Attributes:
        runs: per way.
        rounds: how often each way uploads all pictures in one run.
        pictures: uploaded at the same time.
        width: pixels.
        height: pixels.
    """

    runs: int
    rounds: dict[str, int]
    pictures: int
    width: int
    height: int


_FULL: Final = Plan(runs=3, rounds={"sdk": 5, "usual": 1, "floor": 5}, pictures=32, width=2560, height=2605)
_QUICK: Final = Plan(runs=1, rounds={"sdk": 1, "usual": 1, "floor": 1}, pictures=3, width=512, height=400)
_COLUMNS: Final = {
    "rate": "requests/s",
    "stall": "worst stall, ms",
    "peak": "peak memory, MB",
    "idle": "idle memory, MB",
    "cpu": "CPU ms/request",
}


def run(*, quick: bool = False) -> dict[str, Any]:
    """Measure, print a table, and return the figures."""
    plan = _QUICK if quick else _FULL
    runs: dict[str, list[Figures]] = {way: [] for way in plan.rounds}
    with tempfile.TemporaryDirectory(prefix="picpik-benchmark-") as name:
        folder = Path(name)
        _pictures.make(folder, count=plan.pictures, width=plan.width, height=plan.height)
        size = median(path.stat().st_size for path in _pictures.find_pictures(folder))
        for _ in range(plan.runs):
            for way, rounds in plan.rounds.items():
                runs[way].append(_run_once(way, folder, plan.pictures, rounds))
    machine = describe()
    print(
        f"{plan.pictures} uploads of {size / 1e6:.1f} MB at the same time; median of {plan.runs} runs (least to most)"
    )
    print(machine)
    print(_table(runs))
    ratio = _median(runs["sdk"], "rate") / _median(runs["usual"], "rate")
    print(f"SDK : usual way = {ratio:.1f} × the requests/s")
    print(f"SDK : floor = {_median(runs['sdk'], 'rate') / _median(runs['floor'], 'rate'):.2f}")
    return {
        "machine": machine,
        "plan": attrs.asdict(plan),
        "runs": {way: [attrs.asdict(figures) for figures in each] for way, each in runs.items()},
        "ratio": ratio,
    }


def _run_once(way: str, folder: Path, pictures: int, rounds: int) -> Figures:
    for path in _pictures.find_pictures(folder):
        path.read_bytes()  # so that no run waits for the disk
    kept = folder / "kept.json"
    with serving("benchmarks._sink", str(kept), str(pictures * rounds // 2)) as endpoint:
        printed = _python("benchmarks._client", way, endpoint, str(folder), str(rounds))
    _check(kept.read_bytes(), folder)
    return Figures(**json.loads(printed))


def _python(*arguments: str) -> str:
    return subprocess.run([sys.executable, "-m", *arguments], check=True, stdout=subprocess.PIPE, text=True).stdout  # noqa: S603


def _check(body: bytes, folder: Path) -> None:
    """Raise unless the *body* is signed as the vendor wants it, with a picture and the mask of *folder* in it."""
    parameters = json.loads(body)
    claimed = parameters.pop("Signature")
    picture, mask = (base64.b64decode(uri.partition(",")[2]) for uri in parameters["ImageAndMaskList"])
    genuine = any(picture == path.read_bytes() for path in _pictures.find_pictures(folder))
    if claimed != signature(parameters) or not genuine or mask != _pictures.find_mask(folder).read_bytes():
        msg = "the request that was kept is not what should have been sent"
        raise ValueError(msg)


def _median(runs: list[Figures], column: str) -> float:
    return median(_values(runs, column))


def _values(runs: list[Figures], column: str) -> list[float]:
    return [getattr(figures, column) for figures in runs]


def _table(runs: dict[str, list[Figures]]) -> str:
    rows = [["", *_COLUMNS.values()]]
    rows += [[way, *(_cell(each, column) for column in _COLUMNS)] for way, each in runs.items()]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)


def _cell(runs: list[Figures], column: str) -> str:
    values = _values(runs, column)
    return f"{median(values):,.1f} ({min(values):,.1f} to {max(values):,.1f})"
