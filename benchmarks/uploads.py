"""Many uploads at the same time: requests per second, processor time, memory, and stalls of the event loop.

Pictures of 20 MB and 2 MB, 32 at once, and of 100 kB, 64 at once; all are different. Compared are the SDK, the usual way
(Base64, concatenate, hash, `json=`), and as the floor threads on bare sockets; the SDK also with a journal, over TLS and on
uvloop. Every run is a client process of its own against a server process of its own; the ways take turns. Of each run the
server keeps one request, and its signature and picture are checked.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import attrs

from benchmarks import _pictures
from benchmarks._harness import Panel, Plot, Runs, bars, interleave, ratio, table
from benchmarks._measuring import COLUMNS, measuring

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["run"]


@attrs.frozen(kw_only=True)
class Plan:
    """How much is measured.

    Attributes:
        name: of the figures.
        size: bytes of a picture.
        at_once: uploads in flight, of as many different pictures.
        seconds: that new uploads are begun.
        runs: per way.
    """

    name: str
    size: int
    at_once: int
    seconds: float
    runs: int


_FULL: Final = (
    Plan(name="20 MB", size=20_000_000, at_once=32, seconds=2, runs=3),
    Plan(name="2 MB", size=2_000_000, at_once=32, seconds=2, runs=3),
    Plan(name="100 kB", size=100_000, at_once=64, seconds=2, runs=3),
    Plan(name="20 MB, alone", size=20_000_000, at_once=1, seconds=2, runs=3),
)
_QUICK: Final = (Plan(name="100 kB", size=100_000, at_once=4, seconds=0, runs=1),)
_WAYS: Final[Mapping[str, Mapping[str, Any]]] = {
    "floor": {"way": "floor"},
    "SDK": {"way": "sdk"},
    "usual way": {"way": "usual"},
    "SDK, journal": {"way": "sdk", "journal": True},
    "SDK, uvloop": {"way": "sdk", "uvloop": True},
    "SDK, TLS": {"way": "sdk", "tls": True},
    "floor, TLS": {"way": "floor", "tls": True},
}
_TARGETS: Final[Mapping[str, Mapping[str, float]]] = {  # of the SDK
    "20 MB": {"floor": 0.75, "usual way": 12},
    "2 MB": {"usual way": 5},
    "100 kB": {"usual way": 1.2},
}
_ALONE: Final = ("SDK", "usual way")


def run(*, quick: bool = False) -> dict[str, Any]:
    """Measure, print tables, and return the figures."""
    each = {plan.name: _measure(plan) for plan in (_QUICK if quick else _FULL)}
    plot = Plot(title="Uploads at the same time; the lines are targets of the SDK", x="", panels=_panels(each))
    return {"runs": each, "ratios": {name: _ratios(runs) for name, runs in each.items()}, "plots": {"uploads": plot}}


def _measure(plan: Plan) -> Runs:
    names = _WAYS if plan.at_once > 1 else _ALONE
    with tempfile.TemporaryDirectory(prefix="picpik-benchmark-") as name:
        folder = Path(name)
        _pictures.make(folder, count=plan.at_once, size=plan.size)
        runs = interleave(
            {
                name: measuring(folder=folder, at_once=plan.at_once, seconds=plan.seconds, **_WAYS[name])
                for name in names
            },
            plan.runs,
        )
    print(f"Pictures of {plan.name}, {plan.at_once} at once; median of {plan.runs} runs (least to most)")
    print(table(runs, COLUMNS))
    for pair, (rate, cpu) in _ratios(runs).items():
        print(f"{pair}: {rate:.2f} × the requests/s, {cpu:.2f} × the CPU per request")
    print()
    return runs


def _panels(each: Mapping[str, Runs]) -> list[Panel]:
    """The requests per second for each size, and the memory for the first, which is the largest."""
    several = [(name, runs) for name, runs in each.items() if len(runs) > len(_ALONE)]
    panels = [
        _with_targets(panel, _TARGETS[name])
        for name, runs in several
        for panel in bars(runs, {"rate": f"{name}: requests/s"})
    ]
    name, runs = several[0]
    return [*panels, *bars(runs, {"peak": f"{name}: peak memory, MB"})]


def _with_targets(panel: Panel, targets: Mapping[str, float]) -> Panel:
    """The panel, with lines at some times the height of the bars of other ways."""
    points = panel.series[""]
    heights = dict(points)
    lines = {
        f"({times:g} × {way})": [(each, times * heights[way]) for each, _ in points] for way, times in targets.items()
    }
    return attrs.evolve(panel, series={**panel.series, **lines})


def _ratios(runs: Runs) -> dict[str, tuple[float, float]]:
    """Requests per second and processor time per request, against what each way is to be compared with."""
    pairs: list[tuple[str, str]] = [("SDK", other) for other in ("floor", "usual way") if other in runs]
    pairs += [(way, "SDK") for way in runs if way.startswith("SDK, ")]
    pairs += [("SDK, TLS", "floor, TLS")] if "floor, TLS" in runs else []
    return {
        f"{way} : {other}": (ratio(runs, way, other, "rate"), ratio(runs, way, other, "cpu")) for way, other in pairs
    }
