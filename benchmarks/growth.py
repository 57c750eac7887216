"""How cost grows: with uploads at once, with the size of a picture, with tasks that wait. Linear or better is the aim.

For each there is a curve of time and of processor time, beside a line that grows in proportion. What is judged is the cost
of a unit (an upload, a byte, a task) at the far end of the curve, against its cost where fixed costs are no longer most of it.
"""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import attrs

from benchmarks import _pictures
from benchmarks._harness import Panel, Plot, Runs, grid, interleave, middle, python_figures
from benchmarks._measuring import measuring

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["run"]

_AT_ONCE: Final = (1, 2, 4, 8, 16, 32, 64)
_SIZES: Final = (1_000, 10_000, 100_000, 1_000_000, 10_000_000, 200_000_000)
_TASKS: Final = (10, 100, 1_000, 10_000, 100_000)
_DIFFERENT: Final = 4  # pictures; the others in flight are the same ones


@attrs.frozen(kw_only=True)
class Curve:
    """Cost against a number of units.

    Attributes:
        title: what grows.
        x: the unit.
        costs: what is counted, with its unit, and the cost of all for each number of units.
        base: the number of units from which fixed costs are no longer most of it.
    """

    title: str
    x: str
    costs: Mapping[str, Mapping[int, float]]
    base: int

    def growth(self) -> dict[str, float]:
        """For each cost, that of a unit at the far end : at the base; 1 is linear, less is better."""
        return {name: (y[max(y)] / max(y)) / (y[self.base] / self.base) for name, y in self.costs.items()}

    def plot(self) -> Plot:
        """All costs, log-log, each beside a line that grows in proportion from the base."""
        panels = []
        for name, y in self.costs.items():
            linear = [(x, y[self.base] * x / self.base) for x in y if x >= self.base]
            panels.append(Panel(y=name, series={"measured": list(y.items()), "(linear)": linear}, log=True))
        return Plot(title=self.title, x=self.x, panels=panels, log=True)


def run(*, quick: bool = False) -> dict[str, Any]:
    """Measure, print a table for each curve, and return the figures."""
    curves = {"uploads": _uploads(quick=quick), "sizes": _sizes(quick=quick), "tasks": _tasks(quick=quick)}
    for curve in curves.values():
        _show(curve)
    return {
        "curves": curves,
        "growth": {name: curve.growth() for name, curve in curves.items()},
        "plots": {f"growth-{name}": curve.plot() for name, curve in curves.items()},
    }


def _show(curve: Curve) -> None:
    units = list(next(iter(curve.costs.values())))
    rows = [[name, *(f"{y[x]:,.3g}" for x in units)] for name, y in curve.costs.items()]
    print(curve.title)
    print(grid([[curve.x, *(f"{x:,}" for x in units)], *rows]))
    for name, growth in curve.growth().items():
        print(f"{name}: a unit costs {growth:.2f} × as much at {units[-1]:,} as at {curve.base:,}")
    print()


def _uploads(*, quick: bool) -> Curve:
    at_once = _AT_ONCE[:2] if quick else _AT_ONCE
    runs = _measure(20_000 if quick else 2_000_000, at_once, quick=quick)
    costs = {
        "ms until all are done": {each: each / middle(runs, str(each), "rate") * 1e3 for each in at_once},
        "CPU ms of all": {each: each * middle(runs, str(each), "cpu") for each in at_once},
    }
    return Curve(title="Uploads of 2 MB at the same time", x="uploads at once", costs=costs, base=1)


def _sizes(*, quick: bool) -> Curve:
    sizes = _SIZES[:2] if quick else _SIZES
    runs = {size: _measure(size, (4,), quick=quick) for size in sizes}
    costs = {
        "ms between uploads": {size: 1e3 / middle(runs[size], "4", "rate") for size in sizes},
        "CPU ms of an upload": {size: middle(runs[size], "4", "cpu") for size in sizes},
    }
    return Curve(title="The size of a picture, 4 uploads at the same time", x="bytes", costs=costs, base=sizes[-2])


def _tasks(*, quick: bool) -> Curve:
    numbers = _TASKS[:2] if quick else _TASKS
    ways = {str(each): functools.partial(python_figures, "benchmarks._sweep", each) for each in numbers}
    runs = interleave(ways, 1 if quick else 2)
    costs = {
        "CPU ms until all have ended": {each: middle(runs, str(each), "cpu") for each in numbers},
        "CPU ms, garbage collector apart": {each: middle(runs, str(each), "rest") for each in numbers},
        "MB while all wait": {each: middle(runs, str(each), "memory") for each in numbers},
    }
    return Curve(
        title="Tasks that wait, a coroutine for each", x="tasks", costs=costs, base=numbers[(len(numbers) - 1) // 2]
    )


def _measure(size: int, at_once: Sequence[int], *, quick: bool) -> Runs:
    with tempfile.TemporaryDirectory(prefix="picpik-benchmark-") as name:
        folder = Path(name)
        _pictures.make(folder, count=_DIFFERENT, size=size)
        seconds = 0 if quick else 1
        ways = {str(each): measuring("sdk", folder, at_once=each, seconds=seconds) for each in at_once}
        return interleave(ways, 1 if quick else 2)
