"""Tables for people."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = ["grid", "table"]

_PRECISE = 100  # from here on decimals are noise


def table(runs: Mapping[str, Sequence[Mapping[str, float]]], columns: Mapping[str, str]) -> str:
    """A row for each way: medians, and the least and the most of several runs.

    Args:
        runs: what `interleave` gives.
        columns: which figures to show, and their headings with the unit.
    """
    rows = [[way, *(_cell([run[column] for run in each]) for column in columns)] for way, each in runs.items()]
    return grid([["", *columns.values()], *rows])


def grid(rows: Iterable[Sequence[str]]) -> str:
    """Cells in columns, flush right, but for the first."""
    cells = list(rows)
    first, *widths = (max(map(len, column)) for column in zip(*cells, strict=True))
    return "\n".join(
        "  ".join([name.ljust(first), *(cell.rjust(width) for cell, width in zip(rest, widths, strict=True))])
        for name, *rest in cells
    )


def _cell(values: Sequence[float]) -> str:
    spread = f" ({_number(min(values))} to {_number(max(values))})" if len(values) > 1 else ""
    return _number(median(values)) + spread


def _number(value: float) -> str:
    if abs(value) >= _PRECISE:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 1 else f"{value:.2g}"
