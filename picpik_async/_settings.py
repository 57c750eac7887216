"""What the fields of settings may hold, as attrs converters and validators that raise `ConfigurationError`."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, Final

import attrs

from picpik_async.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "above",
    "at_least",
    "count",
    "formats",
    "of_kind",
    "optional_at_least",
    "result_hosts",
    "set_of",
    "status_words",
    "to_codes",
    "to_hosts",
    "to_words",
]

_HUGE: Final = 10**12  # far above any setting that makes sense, and within what clocks and sizes can hold


def above(low: float) -> Callable[[object, attrs.Attribute[Any], Any], None]:
    return _bound(lambda value: value > low, f"more than {low}")


def at_least(low: float) -> Callable[[object, attrs.Attribute[Any], Any], None]:
    return _bound(lambda value: value >= low, f"at least {low}")


def count(low: int) -> Callable[[object, attrs.Attribute[Any], Any], None]:
    return _bound(lambda value: isinstance(value, Integral) and int(value) >= low, f"a whole number, at least {low}")


def _to_set(values: Any) -> Any:
    if not isinstance(values, Iterable) or isinstance(values, (str, bytes)):
        return values
    try:
        return frozenset(values)
    except TypeError:
        return values


def to_words(values: Iterable[str]) -> frozenset[str]:
    words: frozenset[str] = _to_set(values)
    return words


def to_codes(values: Iterable[int]) -> frozenset[int]:
    codes: frozenset[int] = _to_set(values)
    return codes


def set_of(
    kind: type, allowed: str, choices: frozenset[Any] | None = None
) -> Callable[[object, attrs.Attribute[Any], Any], None]:
    def check(settings: object, field: attrs.Attribute[Any], value: Any) -> None:
        fits = isinstance(value, frozenset) and all(type(item) is kind for item in value)
        if not fits or (choices is not None and not value <= choices):
            msg = f"{type(settings).__name__}.{field.name} is {value!r}, but must be {allowed}"
            raise ConfigurationError(msg)

    return check


status_words: Final = set_of(str, "a set of status words")
_HOST: Final = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*|[0-9a-f:.]*:[0-9a-f:.]*", re.ASCII)


def to_hosts(values: Iterable[str]) -> frozenset[str]:
    """Host names as they are compared: without a final dot, brackets or capitals."""
    hosts: Any = _to_set(values)
    return frozenset(map(_to_host, hosts)) if isinstance(hosts, frozenset) else hosts


def _to_host(host: Any) -> Any:
    if not isinstance(host, str):
        return host
    inner = host[1:-1] if host.startswith("[") and host.endswith("]") and ":" in host else host.removesuffix(".")
    return inner.lower()


def result_hosts(settings: object, field: attrs.Attribute[Any], value: Any) -> None:
    """A validator: whether all are hosts, as `to_hosts` gives them."""
    allowed = "a set of plain host names, such as 'cdn.example.com', without scheme, port, path or wildcard"
    set_of(str, allowed)(settings, field, value)
    for host in value:
        if not _HOST.fullmatch(host) or (":" in host and not _is_ip(host)):
            msg = f"{type(settings).__name__}.{field.name} contains {host!r}, but must be {allowed}"
            raise ConfigurationError(msg)


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


formats: Final = set_of(str, "a set of 'png', 'jpeg' and 'webp'", frozenset({"png", "jpeg", "webp"}))


def of_kind(wanted: type, allowed: str) -> Callable[[object, attrs.Attribute[Any], Any], None]:
    def check(settings: object, field: attrs.Attribute[Any], value: Any) -> None:
        if not isinstance(value, wanted):
            msg = f"{type(settings).__name__}.{field.name} is {value!r}, but must be {allowed}"
            raise ConfigurationError(msg)

    return check


def optional_at_least(low: float) -> Callable[[object, attrs.Attribute[Any], Any], None]:
    return attrs.validators.optional(at_least(low))


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _bound(fits: Callable[[Any], bool], allowed: str) -> Callable[[object, attrs.Attribute[Any], Any], None]:
    def check(settings: object, field: attrs.Attribute[Any], value: Any) -> None:
        if not (_is_number(value) and -_HUGE < value < _HUGE and fits(value)):
            msg = f"{type(settings).__name__}.{field.name} is {value!r}, but must be {allowed}"
            raise ConfigurationError(msg)

    return check
