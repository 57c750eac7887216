"""What the size of a slice is worth: throughput, memory and stalls of 32 uploads of 20 MB, against `Limits.slice_size`."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, Final

from benchmarks import _pictures
from benchmarks._harness import Panel, Plot, interleave, middle, table
from benchmarks._measuring import COLUMNS, measuring

__all__ = ["run"]

_KIB: Final = (96, 192, 384, 768, 1536)


def run(*, quick: bool = False) -> dict[str, Any]:
    """Measure, print a table, and return the figures."""
    sizes = _KIB[:2] if quick else _KIB
    runs, at_once, size, seconds = (1, 2, 200_000, 0) if quick else (3, 32, 20_000_000, 2)
    with tempfile.TemporaryDirectory(prefix="picpik-benchmark-") as name:
        folder = Path(name)
        _pictures.make(folder, count=at_once, size=size)
        figures = interleave(
            {
                f"{kib} KiB": measuring("sdk", folder, at_once=at_once, seconds=seconds, slice_size=kib * 1024)
                for kib in sizes
            },
            runs,
        )
    title = f"{at_once} uploads of {size / 1e6:g} MB at the same time, by the size of a slice"
    print(f"{title}; median of {runs} runs (least to most)")
    print(table(figures, COLUMNS))

    def line(column: str) -> list[tuple[float | str, float]]:
        return [(kib, middle(figures, f"{kib} KiB", column)) for kib in sizes]

    panels = (
        Panel(y="requests/s", series={"": line("rate")}),
        Panel(y="peak memory, MB", series={"": line("peak")}),
        Panel(y="stall, ms", series={"worst": line("stall"), "p99.9": line("p999")}),
    )
    return {"runs": figures, "plots": {"slices": Plot(title=title, x="slice, KiB", panels=panels, log=True)}}
