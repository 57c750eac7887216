"""32 different pictures of 20 MB, uploaded at the same time: requests per second, peak memory, stall of the event loop.

Compared are the SDK, the usual way (Base64, concatenate, hash, `json=`), and as the floor threads on bare sockets. Every
run is a client process of its own against a server process of its own; the ways take turns. Of each run the server keeps
one request, and its signature and picture are checked.
"""

from __future__ import annotations

import base64
import functools
import json
import tempfile
from pathlib import Path
from statistics import median
from typing import Any, Final

import attrs

from benchmarks import _pictures
from benchmarks._harness import Plot, bars, interleave, python_figures, ratio, table
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
    with tempfile.TemporaryDirectory(prefix="picpik-benchmark-") as name:
        folder = Path(name)
        _pictures.make(folder, count=plan.pictures, width=plan.width, height=plan.height)
        size = median(path.stat().st_size for path in _pictures.find_pictures(folder))
        ways = {
            way: functools.partial(_run_once, way, folder, plan.pictures, rounds) for way, rounds in plan.rounds.items()
        }
        runs = interleave(ways, plan.runs)
    title = f"{plan.pictures} uploads of {size / 1e6:.1f} MB at the same time"
    print(f"{title}; median of {plan.runs} runs (least to most)")
    print(table(runs, _COLUMNS))
    ratios = {f"SDK : {way}": ratio(runs, "sdk", way, "rate") for way in ("usual", "floor")}
    for name, value in ratios.items():
        print(f"{name} = {value:.2f} × the requests/s")
    plot = Plot(title=title, x="", panels=bars(runs, {"rate": "requests/s", "peak": "peak memory, MB"}))
    return {"plan": attrs.asdict(plan), "runs": runs, "ratios": ratios, "plots": {"uploads": plot}}


def _run_once(way: str, folder: Path, pictures: int, rounds: int) -> dict[str, float]:
    for path in _pictures.find_pictures(folder):
        path.read_bytes()  # so that no run waits for the disk
    kept = folder / "kept.json"
    with serving("benchmarks._sink", str(kept), str(pictures * rounds // 2)) as endpoint:
        figures = python_figures("benchmarks._client", way, endpoint, folder, rounds)
    _check(kept.read_bytes(), folder)
    return figures


def _check(body: bytes, folder: Path) -> None:
    """Raise unless the *body* is signed as the vendor wants it, with a picture and the mask of *folder* in it."""
    parameters = json.loads(body)
    claimed = parameters.pop("Signature")
    picture, mask = (base64.b64decode(uri.partition(",")[2]) for uri in parameters["ImageAndMaskList"])
    genuine = any(picture == path.read_bytes() for path in _pictures.find_pictures(folder))
    if claimed != signature(parameters) or not genuine or mask != _pictures.find_mask(folder).read_bytes():
        msg = "the request that was kept is not what should have been sent"
        raise ValueError(msg)
