"""The shape of the package: who imports whom, what is pure, what stays out of the import, and how long things are."""

from __future__ import annotations

import ast
import functools
import json
import os
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import picpik_async

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(picpik_async.__file__).parent

# What each module may import of ours at run time; type checkers may see more. A package counts as one module, and
# `__init__` stands for what `from picpik_async import …` gives.
ALLOWED = {
    "errors": "",
    # values and arithmetic
    "_settings": "errors",
    "_sealed": "errors",
    "_config": "_sealed _settings errors",
    "_ranges": "errors",
    "_retry": "errors",
    "_signature": "errors",
    "_loading": "",
    "_tasks": "",
    "_entries": "",
    "_threads": "",
    # pictures on their way in
    "_blobs": "errors",
    "_pixels": "_blobs errors",
    "_streams": "_blobs errors",
    "_inputs": "_blobs _pixels _streams errors",
    "_opened": "_inputs errors",
    "_images": "_blobs _config _inputs _loading _opened _pixels _sealed _streams errors",
    "masks": "_config _images _loading _opened _ranges _sealed errors",
    # requests, and what they look like on the wire
    "_types": "_images _ranges _sealed errors",
    "_requests": "_config _images _opened _ranges _sealed _tasks _types errors masks",
    "_fields": "",
    "_details": "_fields _tasks",
    "_wire": "_details _fields _images _requests _types errors",
    "_salvage": "_wire",
    "_layout": "_images _signature errors",
    "_encoding": "_layout",
    "_stems": "_encoding",
    "_body": "_encoding errors",
    # waiting, which knows neither HTTP nor requests
    "_watched": "",
    "_deadlines": "errors",
    "_durations": "",
    "_asks": "",
    "_updates": "_deadlines errors",
    "_endings": "errors",
    "_schedule": "_asks _durations _watched",
    "_poller": "_deadlines _durations _endings _schedule _tasks _updates errors",
    # out and in
    "_patience": "errors",
    "_outlet": "",
    "_transport": "_config _outlet _patience _retry errors",
    "_scanlines": "",
    "_verification": "_pixels _scanlines errors",
    "_addresses": "_config errors",
    "_slots": "",
    "_files": "",
    "_transfers": "_verification errors",
    "_downloads": "_addresses _config _patience _retry _slots _threads _transfers _transport _verification errors",
    "_results": "_config _files _pixels _ranges _slots _verification errors",
    # what is on disk
    "_journal_guard": "_files errors",
    "_journal_file": "_entries _journal_guard errors",
    "_journal_writer": "_entries _journal_file errors",
    "_journal": "_entries _journal_file _journal_writer errors",
    # what joins them
    "_errands": "_endings",
    "_breaker": "errors",
    "_digest": "_wire errors",
    "_workshop": "_body _layout errors",
    "_records": "_digest _durations _entries _requests errors",
    "_submits": "_endings _records _retry _salvage _wire errors",
    "_engine": "_endings _errands _poller _records _requests _retry _tasks _transport _wire errors",
    "_recovery": "_entries _records _requests errors",
    "_link": "_config _errands _records _requests _results _threads errors",
    "_brake": "errors",
    "_folder": "errors",
    "_outcomes": "_ranges errors",
    "_plan": "_ranges",
    "_map": "_brake _endings _entries _folder _link _outcomes _ranges _requests _slots errors",
    "_assembly": "_downloads _engine _stems _submits _transport _workshop",
    "_lifecycle": "_breaker _config _endings _journal _loading _records _retry _sealed _transport errors",
    "_session": "_assembly _deadlines _entries _lifecycle _link _map _plan _ranges _recovery _requests _tasks errors",
    "__init__": "_config _durations _entries _images _inputs _map _outcomes _recovery _requests _results _session _tasks _types errors masks",
    # what stands on top; the emulator shares no code with what it checks: no wire, body or signature
    "emulator": "__init__ _config errors",
    "testing": "_transport emulator",
    "cli": "_config _entries _files _folder _images _journal _outcomes _ranges _requests _results _session _threads _types"
    " emulator errors masks",
}
PURE = [
    "errors",
    "_entries",
    "_settings",
    "_config",
    "_ranges",
    "_types",
    "_requests",
    "_fields",
    "_details",
    "_wire",
    "_salvage",
    "_signature",
    "_retry",
]
KNOWS_AIOHTTP = {"_transport", "_downloads", "emulator"}
LONGEST_MODULE = 400
LONGEST_FUNCTION = 40

FILES = sorted(ROOT.rglob("*.py"))


def name_of(file: Path) -> str:
    """The module's dotted name within the package."""
    return ".".join(file.relative_to(ROOT).with_suffix("").parts)


def unit_of(name: str) -> str:
    """The module, or the package it is in."""
    return name.partition(".")[0]


@functools.cache
def tree_of(file: Path) -> ast.Module:
    """The parsed module."""
    return ast.parse(file.read_text())


def nodes_at_run_time(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those only type checkers see."""
    yield node
    if isinstance(node, ast.If) and "TYPE_CHECKING" == ast.unparse(node.test):
        return
    for child in ast.iter_child_nodes(node):
        yield from nodes_at_run_time(child)


def imports(nodes: Iterator[ast.AST]) -> Iterator[str]:
    """Dotted names of everything that is imported."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert 0 == node.level, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def our_imports(file: Path) -> set[str]:
    """Modules of ours that a module imports at run time, by their names within the package."""
    found = set()
    for name in imports(nodes_at_run_time(tree_of(file))):
        package, _, rest = name.partition(".")
        if package == "picpik_async":
            found.add(module_named(rest))
    return found - {name_of(file)}


def module_named(dotted: str) -> str:
    """The module that a dotted name is, or is in."""
    parts = dotted.split(".")
    for length in range(len(parts), 0, -1):
        path = ROOT.joinpath(*parts[:length])
        if path.with_suffix(".py").is_file():
            return ".".join(parts[:length])
        if path.is_dir():
            return ".".join([*parts[:length], "__init__"])
    return "__init__"


def test_the_table_lists_every_module() -> None:
    """A new module needs a row, that is, a thought about where it belongs."""
    assert sorted({unit_of(name_of(file)) for file in FILES}) == sorted(ALLOWED)


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_modules_import_only_what_the_table_allows(file: Path) -> None:
    """Imports point one way, down the picture in the package's docstring."""
    unit = unit_of(name_of(file))

    assert {unit_of(name) for name in our_imports(file)} - {unit} <= set(ALLOWED[unit].split())


def test_the_table_has_no_cycle() -> None:
    """What is allowed points one way, too."""
    list(TopologicalSorter({unit: allowed.split() for unit, allowed in ALLOWED.items()}).static_order())


def test_no_module_imports_itself_in_a_circle() -> None:
    """Also within the packages, and also inside functions."""
    list(TopologicalSorter({name_of(file): our_imports(file) for file in FILES}).static_order())


@pytest.mark.parametrize("file", [file for file in FILES if unit_of(name_of(file)) in PURE], ids=name_of)
def test_pure_modules_have_no_async(file: Path) -> None:
    """What decides is plain functions over values, to be read and tested without a loop."""
    coloured = (ast.AsyncFunctionDef, ast.Await, ast.AsyncFor, ast.AsyncWith)

    assert [] == [ast.unparse(node) for node in ast.walk(tree_of(file)) if isinstance(node, coloured)]
    assert {"asyncio", "anyio", "trio"}.isdisjoint(name.partition(".")[0] for name in imports(ast.walk(tree_of(file))))


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_aiohttp_stays_at_the_edge(file: Path) -> None:
    """Two modules and the emulator name it; everything else takes and gives bytes."""
    packages = {name.partition(".")[0] for name in imports(ast.walk(tree_of(file)))}

    assert "aiohttp" not in packages or unit_of(name_of(file)) in KNOWS_AIOHTTP
    assert "yarl" not in packages or unit_of(name_of(file)) == "_downloads"


def test_the_import_is_light() -> None:
    """Neither the command line, nor the emulator, nor anything that decodes pictures is loaded before it is needed.

    Nor is what anyio loads by itself, see `_loading`, and what is large to import and looked up once.
    """
    code = "import sys, json, picpik_async; print(json.dumps(sorted(sys.modules)))"
    command = [sys.executable, "-W", "error", "-c", code]
    alone = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}  # it imports, too
    result = subprocess.run(command, env=alone, check=True, capture_output=True, text=True)  # noqa: S603
    loaded = set(json.loads(result.stdout))

    heavy = ["PIL", "numpy", "cv2", "cyclopts", "rich", "IPython", "picpik_async.cli", "picpik_async.emulator"]
    heavy += [
        "anyio._backends._asyncio",
        "importlib.metadata",
        "sqlite3",
        "picpik_async._journal",
        "picpik_async._assembly",
    ]
    assert [] == [name for name in [*heavy, "picpik_async.testing"] if name in loaded]
    # What every session needs is loaded, so that the import compares with that of the libraries it stands on.
    assert {"aiohttp", "anyio", "attrs", "cattrs"} <= loaded


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_modules_are_short(file: Path) -> None:
    """One noun per module, and less than 400 lines about it."""
    assert len(file.read_text().splitlines()) < LONGEST_MODULE


def length_of(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function without its decorators and its docstring."""
    first = function.body[0]
    docstring = (first.end_lineno or 0) - first.lineno + 1 if ast.get_docstring(function) else 0
    return (function.end_lineno or 0) - function.lineno + 1 - docstring


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_functions_are_short(file: Path) -> None:
    """Each can be read at a glance: at most 40 lines besides its docstring."""
    functions = [node for node in ast.walk(tree_of(file)) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]

    assert {} == {node.name: length_of(node) for node in functions if length_of(node) > LONGEST_FUNCTION}
