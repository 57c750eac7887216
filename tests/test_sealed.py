"""Calls that fail without a trace of their arguments."""

from __future__ import annotations

import inspect
import os
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


class Upload:
    """An object of the user's, with a mistake deep inside."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def __fspath__(self) -> str:
        return self._deeply()

    def _deeply(self) -> str:
        raise self._error


@pytest.mark.parametrize("error", [TypeError("mine"), KeyError("mine")])
def test_mistakes_of_the_users_own_objects(error: Exception) -> None:
    """What an object raises that was passed is told by its type, with the user's own frames behind it, and only those."""

    def deeper(value: Upload, secret: str) -> str:
        del secret
        return os.path.join(value, "x")  # noqa: PTH118 - goes through the standard library

    inner = sealed(deeper)
    with pytest.raises(InvalidRequestError, match=f"^{type(error).__name__} was raised by an object") as caught:
        sealed(inner)(Upload(error), "canary" + "-key")

    assert error is caught.value.__cause__
    names = [frame.f_code.co_name for frame, _ in traceback.walk_tb(error.__traceback__)]
    assert ["__fspath__", "_deeply"] == names[-2:]
    assert not any("/_sealed.py" in frame.f_code.co_filename for frame, _ in traceback.walk_tb(error.__traceback__))


def test_mistakes_of_our_own_are_not_blamed_on_the_user() -> None:
    """What nobody but this package, or a library, has raised is what it is."""
    with pytest.raises(UnicodeDecodeError):
        sealed(bytes.decode)(b"\xff")
    with pytest.raises(TypeError) as caught:
        sealed(os.path.join)(5, "x")  # type: ignore[call-overload]
    assert None is caught.value.__cause__
