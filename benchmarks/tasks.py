"""100,000 tasks awaited at once: memory for each, processor time of asking about all, stalls of the loop.

The SDK asks about 100 tasks with each request, over HTTP on the loopback; all tell that they run, then all have finished. Beside
it are bare asyncio tasks, each waiting for an Event, whose memory every design pays; and asyncio tasks that poll by
themselves (aiohttp, the vendor's signature, one id per request), a tenth as many, since each request takes its time.

Callers come in chunks of 500 for each turn of the loop: how long asyncio takes to make more of them is not what is
measured. Neither is the garbage collector, which walks over all objects of the process, of the callers, too: its longest
pause is a column of its own, and stalls are told with and without it.
"""

from __future__ import annotations

from typing import Any, Final

from benchmarks._harness import Panel, Plot, interleave, middle, python_figures, table
from benchmarks._serving import serving

__all__ = ["run"]

_NUMBER: Final = 100_000
_NUMBERS: Final = (10, 100, 1_000, 10_000)  # the other points of the plot
_COST: Final = {"bytes": "bytes/task", "sweep": "CPU s to ask about 100,000"}
_STALLS: Final = {
    "register": "worst stall as they come, ms",
    "end": "worst as they end, ms",
    "end_p999": "p99.9 as they end, ms",
    "collector": "longest collection, ms",
}
_BARE: Final = "bare asyncio tasks"
_ENDINGS: Final = ("cancel", "timeout", "close")


def run(*, quick: bool = False) -> dict[str, Any]:
    """Measure, print a table, and return the figures."""
    number = 1_000 if quick else _NUMBER
    ways: dict[str, Any] = {
        _BARE: lambda: _measure("bare", number, "cancel"),
        "SDK": lambda: _measure("sdk", number, "finish"),
        "SDK, collector off": lambda: _measure("sdk", number, "finish", collector="off"),
        "polling by themselves": lambda: _measure("each", number // 10, "finish"),
    }
    ways |= {f"SDK, {each}, collector off": _ending(each, number) for each in _ENDINGS if not quick}
    runs = interleave(ways, 1 if quick else 2)
    print(f"{number:,} tasks awaited at once; median (least to most)")
    print(table({way: each for way, each in runs.items() if _COST.keys() <= each[0].keys()}, _COST))
    print(table(runs, _STALLS))
    own = middle(runs, "SDK", "bytes") - middle(runs, _BARE, "bytes")
    print(f"SDK - bare = {own:,.0f} bytes for each task")
    return {"runs": runs, "bytes_of_sdk": own, "plots": {} if quick else {"tasks": _plot(runs)}}


def _ending(ending: str, number: int) -> Any:
    return lambda: _measure("sdk", number, ending, collector="off")


def _measure(way: str, number: int, ending: str, *, collector: str = "on") -> dict[str, float]:
    with serving("benchmarks._task_service") as endpoint:
        return python_figures("benchmarks._crowd", way, endpoint, number, ending, collector)


def _plot(runs: dict[str, list[dict[str, float]]]) -> Plot:
    measured = {number: _measure("sdk", number, "finish") for number in _NUMBERS}
    last = {column: middle(runs, "SDK", column) for column in ("end_p999", "register")}
    series = {
        name: [*((number, figures[column]) for number, figures in measured.items()), (_NUMBER, last[column])]
        for name, column in (("all end (p99.9)", "end_p999"), ("all come", "register"))
    }
    panels = [Panel(y="stall, ms", series=series, log=True)]
    return Plot(title="Tasks awaited at once", x="tasks", panels=panels, log=True)
