"""What the journal costs: submits per second with and without, 32 at once, to a service that thinks for 30 ms.

The pictures are small, so that the share of the journal is as large as it gets.
"""

from __future__ import annotations

import functools
import itertools
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import _pictures
from benchmarks._harness import Plot, bars, interleave, python_figures, ratio, table
from benchmarks._serving import serving

__all__ = ["run"]

_COLUMNS = {"rate": "requests/s", "cpu": "CPU ms/request"}


def run(*, quick: bool = False) -> dict[str, Any]:
    """Measure, print a table, and return the figures."""
    runs, number, size = (1, 40, 20_000) if quick else (3, 1000, 100_000)
    with (
        tempfile.TemporaryDirectory(prefix="picpik-benchmark-") as name,
        serving("benchmarks._slow_service") as endpoint,
    ):
        folder = Path(name)
        _pictures.make(folder, count=1, size=size)
        submit = functools.partial(python_figures, "benchmarks._submitter", endpoint, name, number)
        journals = (folder / f"{turn}.journal" for turn in itertools.count())
        figures = interleave({"without": submit, "with": lambda: submit(next(journals))}, runs)
    title = f"{number} submits of {size / 1e3:.0f} kB, 32 at once, answered after 30 ms, with and without a journal"
    print(f"{title}; median of {runs} runs (least to most)")
    print(table(figures, _COLUMNS))
    kept = ratio(figures, "with", "without", "rate")
    print(f"with : without = {kept:.2f} × the requests/s")
    return {
        "runs": figures,
        "ratio": kept,
        "plots": {"journal": Plot(title=title, x="", panels=bars(figures, _COLUMNS))},
    }
