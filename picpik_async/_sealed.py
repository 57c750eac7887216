"""Calls that fail without a trace of their arguments, which may be keys or pictures.

A traceback with locals would show them, from the frames of attrs' own methods, too: 20 MB of picture as 57 MB of text.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, TypeVar, cast

from picpik_async.errors import PicpikError, bare

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["sealed", "sealed_class"]

FunctionT = TypeVar("FunctionT", bound="Callable[..., Any]")
T = TypeVar("T")


def sealed(function: FunctionT) -> FunctionT:
    """The same function, whose errors come without the frames below the call."""

    @functools.wraps(function)
    def call(*args: Any, **options: Any) -> Any:
        try:
            return function(*args, **options)
        except (PicpikError, TypeError) as error:
            failure = bare(error)
        del args, options
        raise failure

    return cast("FunctionT", call)


def sealed_class(cls: type[T]) -> type[T]:
    """The same class; what its construction raises comes without frames."""
    cls.__init__ = sealed(cls.__init__)  # type: ignore[method-assign]
    return cls
