"""What the package exports: sorted, complete, documented, typed."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
from importlib.resources import files
from pathlib import Path
from typing import Any, Union, get_origin

import pytest

import picpik_async
from picpik_async import errors, masks

PACKAGE = Path(picpik_async.__file__).parent
EXPORTED = [(name, getattr(picpik_async, name)) for name in picpik_async.__all__]
CLASSES = [value for _, value in EXPORTED if inspect.isclass(value)]
MODULES = [
    info.name
    for info in pkgutil.walk_packages([str(PACKAGE)], "picpik_async.")
    if not info.name.startswith("picpik_async.cli")
]


def test_all_is_what_the_package_imports() -> None:
    """Everything the package imports from its modules is exported, and nothing else; the list is sorted."""
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    imported = [alias.name for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names]

    assert sorted(imported) == picpik_async.__all__


@pytest.mark.parametrize("name", ["picpik_async", *MODULES])
def test_every_all_is_sorted_and_true(name: str) -> None:
    """A module's `__all__` names what is there, once and in order."""
    module = importlib.import_module(name)
    exported = list(getattr(module, "__all__", []))

    assert sorted(set(exported)) == exported
    assert [] == [wanted for wanted in exported if not hasattr(module, wanted)]


@pytest.mark.parametrize(("name", "value"), EXPORTED)
def test_everything_public_is_documented(name: str, value: Any) -> None:
    """Every exported name has a docstring of its own, but for the alias of a type, which can have none."""
    assert inspect.getdoc(value) or get_origin(value) is Union, name


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_public_methods_are_documented(cls: Any) -> None:
    """Every public method has a docstring, and every public coroutine says what it raises."""
    for name, value in vars(cls).items():
        if name.startswith("_") or not inspect.isfunction(value):
            continue
        assert value.__doc__, f"{cls.__name__}.{name}"
        if inspect.iscoroutinefunction(value):
            assert "aises" in value.__doc__, f"{cls.__name__}.{name} does not say what it raises"


@pytest.mark.parametrize("name", masks.__all__)
def test_the_functions_of_masks_are_documented(name: str) -> None:
    """They are public, too."""
    assert getattr(masks, name).__doc__


def test_errors_are_reached_through_the_package() -> None:
    """`picpik_async.errors` is the place for `except` clauses, and the root is at hand without it."""
    assert errors.PicpikError is picpik_async.PicpikError


def test_the_package_is_typed() -> None:
    """The marker for type checkers is there."""
    assert files(picpik_async).joinpath("py.typed").is_file()


def test_the_package_says_how_data_flows() -> None:
    """Its docstring is the picture a newcomer starts from."""
    for module in (
        "_images",
        "_requests",
        "_wire",
        "_signature",
        "_body",
        "_transport",
        "_poller",
        "_results",
        "_session",
    ):
        assert module in str(picpik_async.__doc__)
