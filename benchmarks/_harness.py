"""What every benchmark is made of: ways that take turns, each in processes of its own; medians, ratios, tables.

A benchmark is a module of this folder without a leading underscore; it is found by its name. It has

    def run(*, quick: bool = False) -> dict[str, Any]:

which measures, prints a title and a table, and returns its figures for JSON. A `"plots"` among them maps the names of files
to `Plot`s. `python -m benchmarks` prints what machine it is, and keeps it with the figures. For example:

    def run(*, quick: bool = False) -> dict[str, Any]:
        ways = {way: functools.partial(python_figures, "benchmarks._my_client", way) for way in ("sdk", "usual")}
        runs = interleave(ways, 1 if quick else 3)
        print("Ten of them; median (least to most)")
        print(table(runs, {"rate": "requests/s", "cpu": "CPU ms/request"}))
        faster = ratio(runs, "sdk", "usual", "rate")
        print(f"SDK : usual way = {faster:.1f} × the requests/s")
        plot = Plot(title="Ten of them", x="", panels=bars(runs, {"rate": "requests/s"}))
        return {"runs": runs, "ratio": faster, "plots": {"my": plot}}
"""

from __future__ import annotations

import json
import subprocess
import sys
from statistics import median
from typing import TYPE_CHECKING, Any

from benchmarks._plots import Panel, Plot, bars
from benchmarks._table import grid, table

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["Panel", "Plot", "Runs", "bars", "grid", "interleave", "middle", "python_figures", "ratio", "table"]

Runs = dict[str, list[dict[str, float]]]
"""What each way measured, run by run."""


def interleave(ways: Mapping[str, Callable[[], Mapping[str, float]]], runs: int) -> Runs:
    """Let every way measure *runs* times, in turns (A B A B …), so that a noisy minute meets them all."""
    figures: Runs = {way: [] for way in ways}
    for _ in range(runs):
        for way, measure in ways.items():
            figures[way].append(dict(measure()))
    return figures


def python_figures(module: str, *arguments: object) -> dict[str, Any]:
    """Run *module* in a process of its own; gives the JSON object it prints last."""
    command = [sys.executable, "-m", module, *map(str, arguments)]
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout  # noqa: S603
    figures: dict[str, Any] = json.loads(printed.splitlines()[-1])
    return figures


def middle(runs: Mapping[str, Sequence[Mapping[str, float]]], way: str, column: str) -> float:
    """The median of a way."""
    return median(run[column] for run in runs[way])


def ratio(runs: Mapping[str, Sequence[Mapping[str, float]]], way: str, other: str, column: str) -> float:
    """How many times as much a *way* has as the *other*: the median over the turns, whose runs are close in time."""
    return median(run[column] / beside[column] for run, beside in zip(runs[way], runs[other], strict=True))
