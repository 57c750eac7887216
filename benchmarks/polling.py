"""Ten thousand tasks in flight, each 20 to 60 s: how many status requests it takes to notice their ends, and how soon.

Virtual time, so that nothing but the policy counts: the poller of the SDK asks a simulated service that answers after 50 ms;
the other ways are polling patterns of other SDKs, reproduced, since these cannot be pointed at it. The tasks are the same
for all ways. "After others" is a session that has seen 200 such tasks before, about 50 at once.
"""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from benchmarks._harness import Panel, Plot, grid, python_figures
from benchmarks._patterns import PATTERNS

__all__ = ["run"]

_REFERENCE: Final = "replicate: 0.5 s"
_TARGET: Final = 80  # times fewer requests
_EQUAL: Final = "every 0.5 s, ≤ 200/s"
_BY_AGE: Final[dict[str, dict[str, float]]] = {
    "defaults, ≤ 20/s": {},
    "by age, ≤ 200/s": {"max_requests_per_second": 200},
}
_STEADY: Final[dict[str, dict[str, float]]] = {
    "every 2 s, ≤ 50/s": {"tick": 1, "age_share": 1, "max_interval": 2, "jitter": 0, "max_requests_per_second": 50},
    "every 1 s, ≤ 100/s": {"tick": 1, "age_share": 0, "max_requests_per_second": 100},
    _EQUAL: {"tick": 0.5, "age_share": 0, "max_requests_per_second": 200},
    "every 0.2 s, ≤ 500/s": {"tick": 0.2, "age_share": 0, "max_requests_per_second": 500},
}
_COLUMNS: Final = {
    "requests": ("requests", ",.0f"),
    "peak": ("most in a second", ",.0f"),
    "ids": ("ids/request", ".0f"),
    "median": ("median delay, s", ".2f"),
    "p95": ("95th percentile, s", ".2f"),
    "fewer": ("fewer than replicate, ×", ".1f"),
}


def run(*, quick: bool = False) -> dict[str, Any]:
    """Measure, print a table, and return the figures."""
    load: dict[str, Any] = {"mix": "even", "tasks": 200 if quick else 10_000, "load": "within 10"}
    policies = {_EQUAL: _STEADY[_EQUAL]} if quick else _BY_AGE | _STEADY
    options = {"learns": False, "earlier": 0, "policies": [*policies.values()]}
    patterns = [_REFERENCE] if quick else [*PATTERNS]
    specs = {name: ("_patterns", load | {"pattern": name}) for name in patterns}
    specs["SDK"] = ("_virtual", load | options)
    specs["SDK, after others"] = ("_virtual", load | options | {"learns": True, "earlier": 200})
    with ThreadPoolExecutor(2) as pool:  # in virtual time they do not disturb each other
        groups = dict(zip(specs, pool.map(_figures, specs.values()), strict=True))
    peers = {f"{name} (pattern)": groups.pop(name)[0] for name in patterns}
    mine = {
        f"{name}: {policy}": figures
        for name, each in groups.items()
        for policy, figures in zip(policies, each, strict=True)
    }
    reference = peers[f"{_REFERENCE} (pattern)"]
    ways = {
        way: figures | {"fewer": reference["requests"] / figures["requests"]} for way, figures in (peers | mine).items()
    }
    print(f"{load['tasks']:,} tasks of 20 to 60 s that begin within 10 s; delay from finish to notice; virtual time")
    print(_table(ways))
    best = ways[f"SDK: {_EQUAL}"]
    print(f"SDK, {_EQUAL}: {best['fewer']:.0f} × fewer requests than {_REFERENCE} for each task,")
    print(f"at a median delay of {best['median']:.2f} s against {reference['median']:.2f} s")
    headings = {"median": "median", "p95": "95th percentile of"}
    panels = [_panel(heading, ways, column, reference) for column, heading in headings.items()]
    title = f"{load['tasks']:,} tasks in flight: requests against delay"
    plot = Plot(title=title, x="status requests", panels=panels, log=True)
    return {"ways": ways, "ratio": best["fewer"], "plots": {"polling": plot}}


def _figures(module_and_spec: tuple[str, dict[str, Any]]) -> list[dict[str, float]]:
    module, spec = module_and_spec
    figures: list[dict[str, float]] = python_figures(f"benchmarks.{module}", json.dumps(spec))["figures"]
    return figures


def _table(ways: dict[str, dict[str, float]]) -> str:
    rows = [
        [way, *(format(figures[column], form) for column, (_, form) in _COLUMNS.items())]
        for way, figures in ways.items()
    ]
    return grid([["", *(heading for heading, _ in _COLUMNS.values())], *rows])


def _panel(heading: str, ways: dict[str, dict[str, float]], column: str, reference: dict[str, float]) -> Panel:
    series: dict[str, list[tuple[float | str, float]]] = {}
    for way, figures in ways.items():
        name, _, policy = way.rpartition(": ")
        line = f"{name}, {'steadily' if policy in _STEADY else 'by age'}" if name.startswith("SDK") else way
        series.setdefault(line, []).append((figures["requests"], figures[column]))
    every = ways.values()
    most, delay = reference["requests"] / _TARGET, reference[column]
    leftmost, lowest = (min(each[name] for each in every) / 1.3 for name in ("requests", column))
    corner: list[tuple[float | str, float]] = [(leftmost, delay), (most, delay), (most, lowest)]
    series[f"({_TARGET} × fewer than replicate, no later)"] = corner
    return Panel(y=f"{heading} delay, s", series=series, log=True)
