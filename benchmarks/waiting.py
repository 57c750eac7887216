"""Learned waiting against the plain policy: how many status requests they take for the same delay from finish to notice.

Virtual time and a simulated service that answers after 50 ms. Mixes of durations, and loads: one task after another, some at
once, and so many that lists are full. The plain policy is the default one, but that it may send 200 requests/s. The one that
learns has the largest `age_share`, that is the fewest requests, at which neither the median nor the 95th percentile of the
delay is above those of the plain policy, but for 2 %, since chance makes as much. It begins without knowing anything. With some
tasks at once lists have room, and one request each tick tells of all of them: nothing can be saved.
"""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from benchmarks._harness import Panel, Plot, grid, python_figures
from benchmarks._mixes import MIXES

__all__ = ["run"]

_LOADS: Final = {"alone": 600, "50 at once": 800, "2000 at once": 5000}
_PLAIN: Final = 0.05  # the default `age_share`
_WORST: Final = 1.1  # times the requests of the plain policy
_TOLERANCE: Final = 1.02
_SHARES: Final = (0.05, 0.0475, 0.045, 0.0425, 0.04, 0.035, 0.03, 0.02, 0.01, 0.0)


def run(*, quick: bool = False) -> dict[str, Any]:
    """Measure, print a table, and return the figures."""
    loads = {"alone": 30} if quick else _LOADS
    mixes = ["narrow"] if quick else [*MIXES]
    cases = [(mix, load, tasks) for load, tasks in loads.items() for mix in mixes]
    with ThreadPoolExecutor(3) as pool:  # in virtual time they do not disturb each other
        results = list(pool.map(lambda case: _compare(*case), cases))
    print("Status requests (plain, learned) at equal delay (median and 95th percentile, s); virtual time")
    print(
        grid(
            [
                ["", "", "plain", "median", "95 %", "learned", "median", "95 %", "its age_share", "learned : plain"],
                *map(_row, results),
            ]
        )
    )
    for mix in mixes:
        print(f"{mix}: {MIXES[mix]}")
    worst = max(results, key=lambda result: result["ratio"])
    print(f"most requests against the plain policy: {worst['ratio']:.2f} × ({worst['mix']}, {worst['load']})")
    series: dict[str, list[tuple[float | str, float]]]
    series = {load: [(each["mix"], each["ratio"]) for each in results if each["load"] == load] for load in loads}
    panels = [
        Panel(y=f"{load}: share", series={"": points, "(at most)": [(mix, _WORST) for mix in mixes]})
        for load, points in series.items()
    ]
    plot = Plot(title="Status requests with learned durations : without", x="", panels=panels)
    return {"results": results, "worst": worst["ratio"], "plots": {"waiting": plot}}


def _compare(mix: str, load: str, tasks: int) -> dict[str, Any]:
    spec = {"mix": mix, "load": load, "tasks": tasks, "earlier": 0}
    plain = _figures(spec | {"learns": False}, _PLAIN)
    trials = (_figures(spec | {"learns": True}, share) for share in _SHARES)
    learned = next(each for each in trials if each["age_share"] == _SHARES[-1] or _is_as_early(each, plain))
    ratio = learned["requests"] / plain["requests"]
    return {"mix": mix, "load": load, "plain": plain, "learned": learned, "ratio": ratio}


def _is_as_early(learned: dict[str, float], plain: dict[str, float]) -> bool:
    return all(learned[column] <= _TOLERANCE * plain[column] for column in ("median", "p95"))


def _figures(spec: dict[str, Any], share: float) -> dict[str, float]:
    policy = {"age_share": share, "max_requests_per_second": 200}
    figures: dict[str, float]
    (figures,) = python_figures("benchmarks._virtual", json.dumps(spec | {"policies": [policy]}))["figures"]
    return figures | {"age_share": share}


def _row(result: dict[str, Any]) -> list[str]:
    figures = [
        format(result[way][column], form)
        for way in ("plain", "learned")
        for column, form in (("requests", ",.0f"), ("median", ".2f"), ("p95", ".2f"))
    ]
    return [result["mix"], result["load"], *figures, f"{result['learned']['age_share']:g}", f"{result['ratio']:.2f}"]
