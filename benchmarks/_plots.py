"""Plots, described as data, so that they are among the figures, too; matplotlib is needed only to draw them."""

from __future__ import annotations

import itertools
from statistics import median
from typing import TYPE_CHECKING, Any

import attrs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

__all__ = ["Panel", "Plot", "bars", "draw"]

_WIDTH, _HEIGHT = 7.0, 2.5  # inches; the height is that of a panel
_SINGLE_HEIGHT = 4.2
_SHORT = 24  # letters of a label that fit beside a panel
_FEW = 4  # lines whose legend has room among them
_MOST_TICKS = 8
_BROKEN = ("--", ":", "-.")


@attrs.frozen(kw_only=True)
class Panel:
    """A pair of axes.

    Attributes:
        y: what is measured, with its unit.
        series: a line of points (x, y) for each name; bars if x is text. A broken line if the name begins with `(`:
            a target or a bound.
        log: the y axis is logarithmic.
    """

    y: str
    series: Mapping[str, Sequence[tuple[float | str, float]]]
    log: bool = False


@attrs.frozen(kw_only=True)
class Plot:
    """Panels, one above the other.

    Attributes:
        title: what it shows.
        x: what the panels have in common, with its unit.
        panels: from the top.
        log: the x axis is logarithmic.
    """

    title: str
    x: str
    panels: Sequence[Panel]
    log: bool = False


def bars(runs: Mapping[str, Sequence[Mapping[str, float]]], columns: Mapping[str, str]) -> tuple[Panel, ...]:
    """A panel for each of the *columns*, a bar for each way, medians all; for `Plot.panels`."""
    return tuple(
        Panel(y=heading, series={"": [(way, median(run[column] for run in each)) for way, each in runs.items()]})
        for column, heading in columns.items()
    )


def draw(plot: Plot, path: Path) -> None:
    """Draw to a PNG file.

    Raises:
        ImportError: matplotlib is not installed.
    """
    from matplotlib.figure import Figure  # noqa: PLC0415 - few want plots, and it takes a while

    count = len(plot.panels)
    figure = Figure(figsize=(_WIDTH, _SINGLE_HEIGHT if count == 1 else _HEIGHT * count), layout="constrained")
    figure.suptitle(plot.title)
    rows = figure.subplots(count, 1, sharex=True, squeeze=False)[:, 0]
    for axes, panel in zip(rows, plot.panels, strict=True):
        _draw_panel(axes, panel)
    for axes, panel, above in zip(rows[1:], plot.panels[1:], plot.panels, strict=False):
        if [*panel.series] == [*above.series] and len(panel.series) > 1:
            axes.get_legend().remove()  # it says the same
    if plot.log:
        _scale(rows[-1], sorted({x for panel in plot.panels for points in panel.series.values() for x, _ in points}))
    rows[-1].set_xlabel(plot.x)
    figure.savefig(path, dpi=120)


def _scale(axes: Any, xs: Sequence[Any]) -> None:
    axes.set_xscale("log")
    if len(xs) <= _MOST_TICKS:
        axes.set_xticks(xs, [f"{x:,.10g}" for x in xs])
        axes.minorticks_off()
    else:
        axes.xaxis.set_major_formatter(_plain)


def _plain(number: float, _position: int | None = None) -> str:
    """3 rather than 3 × 10⁰."""
    return f"{number:,.10g}"


def _between() -> Any:
    from matplotlib.ticker import LogLocator  # noqa: PLC0415 - as above

    return LogLocator(subs=(2, 5))


def _draw_panel(axes: Any, panel: Panel) -> None:
    styles = itertools.cycle(_BROKEN)
    for name, points in panel.series.items():
        xs, ys = zip(*points, strict=True)
        names = [x.replace(", ", ",\n") if isinstance(x, str) else x for x in xs]
        if name.startswith("("):
            axes.plot(names, ys, next(styles), color="black", label=name[1:-1])
        elif isinstance(xs[0], str):
            axes.bar_label(axes.bar(names, ys, label=name), fmt="{:,.4g}")
            axes.margins(y=0.15)
        else:
            axes.plot(xs, ys, "o-", label=name)
    axes.set_ylabel(panel.y, fontsize="medium" if len(panel.y) <= _SHORT else "small")
    axes.set_axisbelow(True)
    axes.grid(visible=True, alpha=0.3)
    if any(panel.series):
        beside: dict[str, Any] = {"loc": "center left", "bbox_to_anchor": (1.0, 0.5)}
        axes.legend(fontsize="small", **(beside if len(panel.series) > _FEW else {}))
    if panel.log:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(_plain)
        if len(axes.yaxis.get_majorticklocs()) <= _MOST_TICKS / 2:
            axes.yaxis.set_minor_locator(_between())
            axes.yaxis.set_minor_formatter(_plain)
    else:
        axes.set_ylim(bottom=0)
