"""The documented ranges of request parameters, as attrs fields that refuse what the service would refuse."""

from __future__ import annotations

import math
import operator
import warnings
from typing import TYPE_CHECKING, Any, Final

import attrs

from picpik_async.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["flag", "integer", "number", "one_text", "text", "to_texts"]

_STEP_TOLERANCE: Final = 1e-9


def _refuse(field: str, value: object, allowed: str) -> InvalidRequestError:
    msg = f"{field} is {value!r}, but must be {allowed}"
    return InvalidRequestError(msg, field=field, value=value, allowed=allowed)


def _check_range(field: str, value: float, low: float, high: float, *, older: bool) -> None:
    if low <= value <= high:
        return
    allowed = f"from {low} to {high}"
    if not older:
        raise _refuse(field, value, allowed)
    # An older page of the vendor documents this range, the current one is silent: the service decides.
    warnings.warn(f"{field} is {value!r}; an older page of the service says {allowed}", UserWarning, stacklevel=2)


def _field(convert: Callable[[Any, str], Any], default: Any = None, **metadata: Any) -> Any:
    def converter(value: Any, _instance: object, attribute: attrs.Attribute[Any]) -> Any:
        return None if value is None else convert(value, attribute.name)

    return attrs.field(
        default=default, converter=attrs.Converter(converter, takes_self=True, takes_field=True), metadata=metadata
    )


def integer(low: int, high: int, *, step: int = 1, older: bool = False) -> Any:
    """An optional whole number from *low* to *high*; *older* ranges only warn."""

    def convert(value: Any, field: str) -> int:
        if isinstance(value, bool):
            raise _refuse(field, value, f"a whole number from {low} to {high}")
        try:
            whole = operator.index(value)
        except TypeError:
            raise _refuse(field, value, f"a whole number from {low} to {high}") from None
        _check_range(field, whole, low, high, older=older)
        if whole % step:
            raise _refuse(field, whole, f"a multiple of {step}")
        return whole

    return _field(convert, range=(low, high))


def number(low: float, high: float, *, step: float | None = None, older: bool = False) -> Any:
    """An optional number from *low* to *high* in documented *step*s; never rounded, off-step values are refused."""

    def convert(value: Any, field: str) -> float:
        if isinstance(value, (bool, str, bytes)):
            raise _refuse(field, value, f"a number from {low} to {high}")
        try:
            real = float(value)
        except (TypeError, ValueError):
            raise _refuse(field, value, f"a number from {low} to {high}") from None
        if not math.isfinite(real):
            raise _refuse(field, value, f"a number from {low} to {high}")
        _check_range(field, real, low, high, older=older)
        if step is not None and abs(real / step - round(real / step)) * step > _STEP_TOLERANCE:
            raise _refuse(field, real, f"a multiple of {step}")
        return real

    return _field(convert, range=(low, high))


def flag() -> Any:
    """An optional bool."""

    def convert(value: Any, field: str) -> bool:
        if not isinstance(value, bool):
            raise _refuse(field, value, "True or False")
        return value

    return _field(convert)


def text(*, required: bool = False) -> Any:
    """A string that is not empty; optional unless *required*."""
    return _field(one_text, attrs.NOTHING if required else None)


def one_text(value: Any, field: str) -> str:
    """A string that is not empty."""
    if not isinstance(value, str) or not value:
        raise _refuse(field, value, "a string that is not empty")
    return value


def to_texts(values: str | Iterable[str], field: str) -> tuple[str, ...]:
    """Strings as a tuple; a single string is a list of one."""
    texts = (values,) if isinstance(values, str) else tuple(values)
    for value in texts:
        if not isinstance(value, str):
            raise _refuse(field, value, "a string, or a list of strings")
    return texts
