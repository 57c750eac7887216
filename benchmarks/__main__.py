"""Run benchmarks: `python -m benchmarks [name …] [--quick] [--output folder]`."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import inspect
import io
import json
import pkgutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import attrs

import benchmarks
from benchmarks._machine import describe
from benchmarks._plots import draw

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["NAMES"]

NAMES: Final = tuple(
    sorted(module.name for module in pkgutil.iter_modules(benchmarks.__path__) if not module.name.startswith("_"))
)
_QUICK: Final = "tiny sizes, to see that it works; the figures mean nothing"


class _Both(io.TextIOBase):
    """Prints, and keeps what was printed."""

    def __init__(self) -> None:
        self.kept = io.StringIO()
        self._screen = sys.stdout

    def write(self, text: str, /) -> int:
        self._screen.write(text)
        self._screen.flush()
        return self.kept.write(text)


def main() -> None:
    """Run those named, or all."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help=f"what to run: {', '.join(NAMES)}; left out: all")
    parser.add_argument("--quick", action="store_true", help=_QUICK)
    parser.add_argument(
        "--output",
        type=Path,
        metavar="folder",
        help="write there, for each benchmark, what it prints, its figures as JSON, and its plots as PNG",
    )
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(NAMES):
        parser.error(f"no benchmark named {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    for name in arguments.names or NAMES:
        _run(name, quick=arguments.quick, folder=arguments.output)


def _run(name: str, *, quick: bool, folder: Path | None) -> None:
    machine = describe()
    with contextlib.redirect_stdout(_Both()) as both:
        module = importlib.import_module(f"benchmarks.{name}")
        print(f"== {name} ==\n{inspect.getdoc(module)}\n\n{machine}")
        if quick:
            print(_QUICK)
        figures = module.run(quick=quick)
        print()
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.txt").write_text(both.kept.getvalue())
        text = json.dumps({"machine": machine, "quick": quick} | figures, indent=2, default=attrs.asdict)
        (folder / f"{name}.json").write_text(text + "\n")
        plots = figures.get("plots", {})
        if quick:
            plots = {file: attrs.evolve(plot, title=f"{plot.title}\n{_QUICK}") for file, plot in plots.items()}
        _draw(plots, folder)


def _draw(plots: Mapping[str, Any], folder: Path) -> None:
    try:
        for name, plot in plots.items():
            draw(plot, folder / f"{name}.png")
    except ImportError:
        print("no plots: matplotlib is missing; pip install 'picpik-async[bench]'", file=sys.stderr)


if __name__ == "__main__":
    main()
