"""The benchmarks run; what they measure is nothing a test could hold on to."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

_ROOT = Path(__file__).parents[1]


def test_uploads_run_and_report(tmp_path: Path) -> None:
    """The upload benchmark, in tiny, compares the SDK with the usual way and the floor, and writes its figures."""
    command = [sys.executable, "-m", "benchmarks", "uploads", "--quick", "--json", str(tmp_path)]

    printed = subprocess.run(command, cwd=_ROOT, check=True, capture_output=True, text=True).stdout  # noqa: S603

    figures = json.loads((tmp_path / "uploads.json").read_text())
    assert {"sdk", "usual", "floor"} == set(figures["runs"])
    assert figures["machine"] in printed


def test_the_journal_runs_and_reports(tmp_path: Path) -> None:
    """The journal's benchmark, in tiny, has figures with and without it."""
    command = [sys.executable, "-m", "benchmarks", "journal", "--quick", "--json", str(tmp_path)]

    printed = subprocess.run(command, cwd=_ROOT, check=True, capture_output=True, text=True).stdout  # noqa: S603

    figures = json.loads((tmp_path / "journal.json").read_text())
    assert {"with", "without"} == set(figures["runs"])
    assert figures["machine"] in printed


def test_unknown_names_are_refused() -> None:
    """A benchmark that does not exist is a usage error that names those that do."""
    command = [sys.executable, "-m", "benchmarks", "uplaods"]

    done = subprocess.run(command, cwd=_ROOT, check=False, capture_output=True, text=True)  # noqa: S603

    assert 2 == done.returncode
    assert "there are journal, uploads" in done.stderr
