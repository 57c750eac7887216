"""The parts on their own, by pytest-benchmark: encode, sign, wire and poller."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from benchmarks._harness import grid

__all__ = ["run"]

_TESTS: Final = Path(__file__).with_name("_micro.py")


def run(*, quick: bool = False) -> dict[str, Any]:
    """Measure, print a table, and return the figures; quickly, everything runs once and nothing is measured."""
    if find_spec("pytest_benchmark") is None:
        print("not measured: pytest-benchmark is missing; pip install 'picpik-async[bench]'")
        return {"figures": {}}
    with tempfile.TemporaryDirectory(prefix="picpik-benchmark-") as name:
        file = Path(name) / "micro.json"
        _pytest("--benchmark-disable" if quick else f"--benchmark-json={file}")
        if quick:
            return {"figures": {}}
        found = json.loads(file.read_text())["benchmarks"]
    figures = {each["fullname"].partition("::test_")[2]: each["stats"] for each in found}
    heading = ["ms", "median", "least", "most", "rounds"]
    rows = [
        [name, *(f"{stats[key] * 1e3:,.3f}" for key in ("median", "min", "max")), f"{stats['rounds']:,}"]
        for name, stats in figures.items()
    ]
    print(grid([heading, *rows]))
    return {"figures": figures}


def _pytest(option: str) -> None:
    # Without the options of the tests, of which "-n" needs a package that is not among those for benchmarks.
    command = [sys.executable, "-m", "pytest", "-q", "-o", "addopts=", "-p", "no:cacheprovider", option, str(_TESTS)]
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)  # noqa: S603
    if done.returncode:
        raise RuntimeError(done.stdout)
