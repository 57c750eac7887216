"""Run benchmarks: `python -m benchmarks [journal uploads ...] [--quick] [--json folder]`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from benchmarks import journal, uploads

BENCHMARKS = {"journal": journal.run, "uploads": uploads.run}


def main() -> None:
    """Run those named, or all."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help=f"what to run: {', '.join(BENCHMARKS)}; left out: all")
    parser.add_argument(
        "--quick", action="store_true", help="tiny sizes, to see that it works; the figures mean nothing"
    )
    parser.add_argument("--json", type=Path, metavar="folder", help="write the figures there, one file per benchmark")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(BENCHMARKS):
        parser.error(f"no benchmark named {', '.join(sorted(unknown))}; there are {', '.join(BENCHMARKS)}")
    for name in arguments.names or BENCHMARKS:
        figures = BENCHMARKS[name](quick=arguments.quick)
        if arguments.json:
            arguments.json.mkdir(parents=True, exist_ok=True)
            (arguments.json / f"{name}.json").write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
