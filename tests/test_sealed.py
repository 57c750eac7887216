"""Calls that fail without a trace of their arguments."""

from __future__ import annotations

import inspect
import traceback
from typing import TYPE_CHECKING

import attrs
import pytest

from picpik_async._sealed import sealed, sealed_class
from picpik_async.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Callable


def fail(secret: str) -> None:
    """Raise, with a secret among the locals and in the error behind."""
    try:
        int(secret)
    except ValueError:
        msg = "wrong"
        raise InvalidRequestError(msg) from None


def test_a_failure_shows_no_arguments() -> None:
    """Neither the function's frame is in the traceback, nor anything of the call's own, nor what came before."""
    with pytest.raises(InvalidRequestError, match="wrong") as caught:
        sealed(fail)("canary" + "-key")

    report = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    assert "canary-key" not in "".join(report.format())
    assert None is caught.value.__cause__ is caught.value.__context__


def test_wrong_arguments() -> None:
    """Arguments that a function does not take are its caller's mistake, and not shown either."""
    with pytest.raises(TypeError, match="unexpected keyword") as caught:
        sealed(fail)(key="canary" + "-key")  # type: ignore[call-arg]

    assert "canary-key" not in repr([frame.f_locals for frame, _ in traceback.walk_tb(caught.tb.tb_next)])


def test_success() -> None:
    """What works is left alone, and looks as before."""
    add: Callable[..., int] = sealed(lambda a, *, b: a + b)

    assert 3 == add(1, b=2)
    assert "(a, *, b)" == str(inspect.signature(add))


def test_a_class() -> None:
    """The frames of generated methods are hidden as well; what others would raise is not touched."""

    @sealed_class
    @attrs.frozen
    class Value:
        """Takes text."""

        text: str = attrs.field(converter=fail)

    with pytest.raises(InvalidRequestError) as caught:
        Value("canary" + "-key")

    assert "canary-key" not in repr([frame.f_locals for frame, _ in traceback.walk_tb(caught.tb.tb_next)])
