"""The benchmarks run; what they measure is nothing a test could hold on to."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

_ROOT = Path(__file__).parents[1]


def _benchmark(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks", *arguments]
    return subprocess.run(command, cwd=_ROOT, check=False, capture_output=True, text=True)  # noqa: S603


def _quick(name: str, folder: Path) -> dict[str, Any]:
    """The figures of a benchmark in tiny."""
    done = _benchmark(name, "--quick", "--output", str(folder))
    assert 0 == done.returncode, done.stderr
    figures: dict[str, Any] = json.loads((folder / f"{name}.json").read_text())
    assert figures["machine"] in done.stdout
    assert (folder / f"{name}.txt").read_text() == done.stdout
    if find_spec("matplotlib"):  # extra bench
        assert {f"{plot}.png" for plot in figures.get("plots", ())} == {path.name for path in folder.glob("*.png")}
    return figures


def test_uploads_run_and_report(tmp_path: Path) -> None:
    """The upload benchmark compares the SDK with the usual way and the floor, and writes its figures."""
    figures = _quick("uploads", tmp_path)

    (runs,) = figures["runs"].values()
    assert {"floor", "SDK", "usual way", "SDK, journal", "SDK, uvloop", "SDK, TLS", "floor, TLS"} == set(runs)


def test_the_journal_runs_and_reports(tmp_path: Path) -> None:
    """The journal's benchmark has figures with and without it."""
    figures = _quick("journal", tmp_path)

    assert {"with", "without"} == set(figures["runs"])


def test_variations_run_and_report(tmp_path: Path) -> None:
    """The benchmark of variations has them, separate requests, and the mere sending."""
    figures = _quick("variations", tmp_path)

    assert {"separate", "variations", "sending"} == set(figures["runs"])


def test_downloads_run_and_report(tmp_path: Path) -> None:
    """The benchmark of downloads has the SDK, the usual way, and the stages apart."""
    figures = _quick("downloads", tmp_path)

    stages = {"fetch", "verify", "load", "write", "write and flush"}
    assert {"sdk", "usual", "usual, unbounded"} | stages == set(figures["runs"])


def test_imports_run_and_report(tmp_path: Path) -> None:
    """The import's benchmark has the libraries and the SDK, imported and in use."""
    figures = _quick("imports", tmp_path)

    assert 5 == len(figures["runs"])
    assert {"ratio", "first_use"} <= set(figures)


def test_polling_runs_and_reports(tmp_path: Path) -> None:
    """The polling benchmark has a pattern of another SDK, and the poller with nothing learned and after others."""
    figures = _quick("polling", tmp_path)

    assert 3 == len(figures["ways"])
    assert figures["ratio"] > 1


def test_waiting_runs_and_reports(tmp_path: Path) -> None:
    """The benchmark of learned waiting has the plain policy beside it; in virtual time there is no noise."""
    figures = _quick("waiting", tmp_path)

    assert ["narrow"] == [result["mix"] for result in figures["results"]]
    assert figures["worst"] < 1


@pytest.mark.parametrize("name", ["slices", "memory", "growth"])
def test_what_uploads_depend_on_runs_and_reports(name: str, tmp_path: Path) -> None:
    """The benchmarks of slices, memory and growth have figures and plots."""
    figures = _quick(name, tmp_path)

    assert figures["plots"]


def test_the_parts_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The micro-benchmarks run, without pytest-xdist, too; quickly, nothing is measured."""
    monkeypatch.setenv("PYTEST_ADDOPTS", "-p no:xdist")

    figures = _quick("micro", tmp_path)

    assert {} == figures["figures"]


def test_unknown_names_are_refused() -> None:
    """A benchmark that does not exist is a usage error that names those that do."""
    done = _benchmark("uplaods")

    assert 2 == done.returncode
    assert "journal" in done.stderr
    assert "uploads" in done.stderr


def test_tasks_run_and_report(tmp_path: Path) -> None:
    """The benchmark of waiting tasks has bare ones, those of the SDK, and those that poll by themselves."""
    figures = _quick("tasks", tmp_path)

    assert {"bare asyncio tasks", "SDK", "SDK, collector off", "polling by themselves"} == set(figures["runs"])
