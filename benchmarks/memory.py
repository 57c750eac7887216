"""What memory depends on: the most a process had, against uploads at once, for pictures of 20 MB and of 200 MB."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, Final

from benchmarks import _pictures
from benchmarks._harness import Panel, Plot, Runs, grid, interleave, middle
from benchmarks._measuring import measuring

__all__ = ["run"]

_AT_ONCE: Final = (1, 8, 32, 64)
_SIZES: Final = {"20 MB": 20_000_000, "200 MB": 200_000_000}
_QUICK_SIZES: Final = {"20 kB": 20_000, "200 kB": 200_000}
_SECONDS: Final = 3  # the longer, the more often many uploads are at their worst at the same time
_DIFFERENT: Final = 4  # pictures; the others in flight are the same ones


def run(*, quick: bool = False) -> dict[str, Any]:
    """Measure, print a table, and return the figures."""
    at_once, sizes, seconds = (_AT_ONCE[:1], _QUICK_SIZES, 0) if quick else (_AT_ONCE, _SIZES, _SECONDS)
    figures = {name: _measure(size, at_once, seconds) for name, size in sizes.items()}
    series = {
        name: [(number, middle(runs, str(number), "peak")) for number in at_once] for name, runs in figures.items()
    }
    idle = min(run["idle"] for runs in figures.values() for each in runs.values() for run in each)
    print(f"Peak memory in MB; {idle:.0f} MB of it before the first upload")
    print(
        grid(
            [
                ["at once", *map(str, at_once)],
                *([name, *(f"{y:.0f}" for _, y in line)] for name, line in series.items()),
            ]
        )
    )
    panel = Panel(y="peak memory, MB", series=series | {"(idle)": [(at_once[0], idle), (at_once[-1], idle)]})
    plot = Plot(title="Memory, by uploads at once and the size of the pictures", x="uploads at once", panels=(panel,))
    return {"runs": figures, "idle": idle, "plots": {"memory": plot}}


def _measure(size: int, at_once: tuple[int, ...], seconds: float) -> Runs:
    with tempfile.TemporaryDirectory(prefix="picpik-benchmark-") as name:
        folder = Path(name)
        _pictures.make(folder, count=_DIFFERENT, size=size)
        ways = {str(number): measuring("sdk", folder, at_once=number, seconds=seconds) for number in at_once}
        return interleave(ways, 1)
