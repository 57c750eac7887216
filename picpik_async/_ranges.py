"""The documented ranges of request parameters, as attrs fields that refuse what the service would refuse."""

from __future__ import annotations

import math
import operator
import warnings
from collections.abc import Iterable
from numbers import Real
from typing import TYPE_CHECKING, Any, Final

import attrs

from picpik_async.errors import InvalidRequestError, legible

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["flag", "integer", "number", "one_text", "refused", "shown", "text", "to_texts"]

_STEP_TOLERANCE: Final = 1e-9


def refused(field: str, value: object, allowed: str) -> InvalidRequestError:
    """The error for a *value* that *field* cannot have; *allowed* says in words what it can."""
    msg = f"{field} is {shown(value)}, but must be {allowed}"
    return InvalidRequestError(msg, field=field, value=value, allowed=allowed)


def shown(value: object) -> str:
    """*value* in short, for a message."""
    try:
        return legible(repr(value), limit=80)
    except Exception:  # noqa: BLE001 - a foreign repr may raise anything, and that of a huge int does
        return f"a value of type {type(value).__name__}"


def _check_range(field: str, value: float, low: float, high: float, *, older: bool) -> None:
    if low <= value <= high:
        return
    allowed = f"from {low} to {high}"
    if not older:
        raise refused(field, value, allowed)
    # An older page of the vendor documents this range, the current one is silent: the service decides.
    msg = f"{field} is {shown(value)}; an older page of the service says {allowed}"
    warnings.warn(msg, UserWarning, stacklevel=5)  # whoever called the attrs class


def _field(convert: Callable[[Any, str], Any], *, within: str = "", **metadata: Any) -> Any:
    def converter(value: Any, attribute: attrs.Attribute[Any]) -> Any:
        if value is None:
            return None
        return convert(value, f"{within}.{attribute.name}" if within else attribute.name)

    return attrs.field(default=None, converter=attrs.Converter(converter, takes_field=True), metadata=metadata)


def integer(low: int, high: int, *, step: int = 1, older: bool = False, within: str = "") -> Any:
    """An optional whole number from *low* to *high*; *older* ranges only warn."""

    def convert(value: Any, field: str) -> int:
        whole = _to_int(value)
        if whole is None:
            raise refused(field, value, f"a whole number from {low} to {high}")
        _check_range(field, whole, low, high, older=older)
        if whole % step:
            raise refused(field, whole, f"a multiple of {step}")
        return whole

    return _field(convert, within=within, range=(low, high))


def _to_int(value: Any) -> int | None:
    if isinstance(value, bool):
        return None
    try:
        return operator.index(value)
    except TypeError:
        return None


def number(low: float, high: float, *, step: float | None = None, older: bool = False, within: str = "") -> Any:
    """An optional number from *low* to *high* in documented *step*s; never rounded, off-step values are refused."""

    def convert(value: Any, field: str) -> float:
        real = _to_float(value)
        if not math.isfinite(real):
            raise refused(field, value, f"a number from {low} to {high}")
        _check_range(field, real, low, high, older=older)
        if step is not None and abs(real / step - round(real / step)) * step > _STEP_TOLERANCE:
            raise refused(field, real, f"a multiple of {step}")
        return real

    return _field(convert, within=within, range=(low, high))


def _to_float(value: Any) -> float:
    """*value* as a float; what is no number, or too large a one, becomes NaN."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.nan


def flag(*, within: str = "") -> Any:
    """An optional bool."""

    def convert(value: Any, field: str) -> bool:
        if not isinstance(value, bool):
            raise refused(field, value, "True or False")
        return value

    return _field(convert, within=within)


def text() -> Any:
    """An optional string that is not empty."""
    return _field(one_text)


def one_text(value: Any, field: str) -> str:
    """A string that is not empty."""
    if not isinstance(value, str) or not value:
        raise refused(field, value, "a string that is not empty")
    return value


def to_texts(values: str | Iterable[str], field: str) -> tuple[str, ...]:
    """Strings as a tuple; a single string is a list of one."""
    if not isinstance(values, Iterable):
        raise refused(field, values, "a string, or a list of strings")
    texts = (values,) if isinstance(values, str) else tuple(values)
    for value in texts:
        if not isinstance(value, str):
            raise refused(field, value, "a string, or a list of strings")
    return texts
