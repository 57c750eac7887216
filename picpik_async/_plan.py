"""How to go about a map of many requests."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from picpik_async._ranges import refused

if TYPE_CHECKING:
    import os
    from collections.abc import Callable
    from types import EllipsisType

    from picpik_async._outcomes import Progress

__all__ = ["Plan"]


def _at_least_one(_plan: Plan, attribute: attrs.Attribute[int], value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise refused(attribute.name, value, "a whole number, at least 1")


def _to_folder(path: str | os.PathLike[str] | None) -> Path | None:
    try:
        return None if path is None else Path(path)
    except TypeError:
        raise refused(field="save_to", value=path, allowed="the path of a folder") from None


def _callable(_plan: Plan, attribute: attrs.Attribute[Any], value: object) -> None:
    if value is not None and not callable(value):
        raise refused(attribute.name, value, "a function")
    if inspect.iscoroutinefunction(value) or inspect.iscoroutinefunction(getattr(value, "__call__", None)):  # noqa: B004
        raise refused(attribute.name, value, "a plain function, for nobody would await it")


def _bool(_plan: Plan, attribute: attrs.Attribute[bool], value: object) -> None:
    if not isinstance(value, bool):
        raise refused(attribute.name, value, "True or False")


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Plan:
    """How to go about it; see `PicpikSession.map`."""

    concurrency: int = attrs.field(validator=_at_least_one)
    in_flight: int = attrs.field(validator=_at_least_one)
    ordered: bool = attrs.field(validator=_bool)
    save_to: Path | None = attrs.field(converter=_to_folder)
    timeout: float | EllipsisType | None
    on_progress: Callable[[Progress], None] | None = attrs.field(validator=_callable)
