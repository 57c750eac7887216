"""How a field of an answer is checked, and what becomes of a value that does not fit. No I/O."""

from __future__ import annotations

import functools
import logging
from typing import TYPE_CHECKING, Any

from cattrs.gen import override

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["all_strings", "exactly", "field", "fits", "strings", "tell_misfit"]

_logger = logging.getLogger("picpik_async")


def exactly(kind: type[Any]) -> Callable[[Any, Any], Any]:
    """A hook that takes a *kind* and nothing that merely could become one; a bool is no int."""

    def hook(value: Any, _type: Any) -> Any:
        if type(value) is not kind:
            raise TypeError(kind.__name__)
        return value

    return hook


def all_strings(items: list[Any]) -> bool:
    """Whether there is nothing but strings."""
    return all(type(item) is str for item in items)


def strings(value: Any, _type: Any) -> tuple[str, ...]:
    """A hook that takes a list of strings."""
    if type(value) is not list or not all_strings(value):
        message = "not a list of strings"
        raise TypeError(message)
    return tuple(value)


def fits(name: str, hook: Callable[[Any, Any], Any]) -> Any:
    """A field of the API's *name* that must fit."""
    return override(rename=name, struct_hook=hook)


def field(name: str, hook: Callable[[Any, Any], Any], *, default: Any = None, decides: bool = False) -> Any:
    """A field that may be null, which is *default*; so is what does not fit, or, if the field *decides*, it spoils the row."""

    def forgiving(value: Any, kind: Any) -> Any:
        try:
            return default if value is None else hook(value, kind)
        except TypeError:
            tell_misfit(name, type(value).__name__, decides=decides)
            if decides:
                raise
            return default

    return fits(name, forgiving)


@functools.cache  # that is, once per process: there are few fields, and few types in JSON
def tell_misfit(name: str, kind: str, *, decides: bool) -> None:
    """Log that a field did not fit."""
    level, outcome = (logging.WARNING, "asking again") if decides else (logging.DEBUG, "ignored")
    _logger.log(level, "an answer's %s is not of the documented type (%s); %s", name, kind, outcome)
