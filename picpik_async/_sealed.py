"""Calls that fail without a trace of their arguments, which may be keys or pictures.

A traceback with locals would show them, from the frames of attrs' own methods, too: 20 MB of picture as 57 MB of text.
"""

from __future__ import annotations

import functools
import os
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

import attrs

from picpik_async.errors import InvalidRequestError, PicpikError, bare

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["sealed", "sealed_class"]

FunctionT = TypeVar("FunctionT", bound="Callable[..., Any]")
T = TypeVar("T")

# Where the code is that is not the user's: this package, other packages, the standard library, what is generated.
_OTHERS: Final = (
    *(
        str(Path(file).parents[level]) + os.sep
        for file, level in ((__file__, 0), (attrs.__file__, 1), (os.__file__, 0))
    ),
    "<attrs generated",
    "<frozen ",
)


def sealed(function: FunctionT) -> FunctionT:
    """The same function, whose errors come without the frames below the call, but for those of the user's own code.

    What the user's code raises, such as the methods of an object that is passed, becomes an `InvalidRequestError`.
    """

    @functools.wraps(function)
    def call(*args: Any, **options: Any) -> Any:
        failure: Exception
        try:
            return function(*args, **options)
        except PicpikError as error:
            failure = _stripped(error)
        except Exception as error:
            if _users_frames(error.__traceback__) is not None:
                failure = _of_the_user(error)
            elif isinstance(error, TypeError):
                failure = bare(error)
            else:
                raise
        del args, options
        raise failure

    return cast("FunctionT", call)


def _users_frames(trace: TracebackType | None) -> TracebackType | None:
    """The traceback without any frame but those of the user's code."""
    if trace is None:
        return None
    rest = _users_frames(trace.tb_next)
    if trace.tb_frame.f_code.co_filename.startswith(_OTHERS):
        return rest
    return TracebackType(rest, trace.tb_frame, trace.tb_lasti, trace.tb_lineno)


def _stripped(error: PicpikError) -> PicpikError:
    cause = error.__cause__
    frames = None if cause is None else _users_frames(cause.__traceback__)
    bare(error)
    if cause is not None:
        cause.__traceback__ = frames
    return error


def _of_the_user(error: Exception) -> InvalidRequestError:
    frames = _users_frames(error.__traceback__)
    msg = f"{type(error).__name__} was raised by an object that was passed; see the cause"
    failure = InvalidRequestError(msg)
    failure.__cause__ = bare(error).with_traceback(frames)
    return failure


def sealed_class(cls: type[T]) -> type[T]:
    """The same class; what its construction raises comes without frames."""
    cls.__init__ = sealed(cls.__init__)  # type: ignore[method-assign]
    return cls
