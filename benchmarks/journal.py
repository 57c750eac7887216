"""What the journal costs: submits per second with and without, 32 at once, to a service that thinks for 30 ms.

The pictures are small, so that the share of the journal is as large as it gets.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import _pictures
from benchmarks._machine import describe
from benchmarks._serving import serving

__all__ = ["run"]


def run(*, quick: bool = False) -> dict[str, Any]:
    """Measure, print a table, and return the figures."""
    runs, number, side = (1, 40, 64) if quick else (5, 3000, 180)
    figures: dict[str, list[dict[str, float]]] = {"without": [], "with": []}
    with (
        tempfile.TemporaryDirectory(prefix="picpik-benchmark-") as name,
        serving("benchmarks._slow_service") as endpoint,
    ):
        folder = Path(name)
        _pictures.make(folder, count=1, width=side, height=side)
        size = _pictures.find_pictures(folder)[0].stat().st_size
        for turn in range(runs):
            for way, journal in (("without", []), ("with", [str(folder / f"{turn}.journal")])):
                command = [sys.executable, "-m", "benchmarks._submitter", endpoint, name, str(number), *journal]
                printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout  # noqa: S603
                figures[way].append(json.loads(printed))
    machine = describe()
    print(f"{number} submits of {size / 1e3:.0f} kB, 32 at once, answered after 30 ms; median of {runs} runs")
    print(machine)
    for way, each in figures.items():
        rates = [one["rate"] for one in each]
        cpu = median(one["cpu"] for one in each)
        spread = f"{min(rates):,.0f} to {max(rates):,.0f}"
        print(f"{way:>8} the journal: {median(rates):,.0f} requests/s ({spread}), {cpu:.2f} ms CPU per request")
    ratio = median(one["rate"] for one in figures["with"]) / median(one["rate"] for one in figures["without"])
    print(f"with : without = {ratio:.2f}")
    return {"machine": machine, "runs": figures, "ratio": ratio}
